#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks `kvsim trace` on request traces from end to end: output, exit statuses, standard input and
# output. What the numbers must be is worked out in the comments.
# shellcheck disable=SC3045 # ulimit -v: dash and bash both know it
folder=trace_requests_test.files
mkdir -p "$folder" && cd "$folder" || exit 1
number=0

# report NAME STATUS: one TAP line.
report()
{
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then echo "ok $number - $1"; else echo "not ok $number - $1"; fi
}

# expect_status NAME STATUS COMMAND...: its words go to the file `words`.
expect_status()
{
    name=$1 wanted=$2
    shift 2
    "$@" >out 2>words
    got=$?
    [ $got -eq "$wanted" ] || { echo "# $name: exit status $got, expected $wanted"; sed 's/^/# /' words; }
    report "$name" $((got != wanted))
}

# contains NAME TEXT FILE
contains()
{
    grep -qF -- "$2" "$3" || { echo "# '$2' is not in:"; sed 's/^/# /' "$3"; false; }
    report "$1" $?
}

# Two requests that share the first of two blocks: 512 of 1000 + 900 tokens are hits.
cat >two.jsonl <<'END'
{"timestamp": 0, "input_length": 1000, "output_length": 10, "hash_ids": [1, 2]}
{"timestamp": 2000, "input_length": 900, "output_length": 0, "hash_ids": [1, 3]}
END

expect_status 'info of a file' 0 "$KVSIM" trace info --json --lru-blocks 2 two.jsonl
contains 'info counts requests' '"requests":2,' out
contains 'info has lengths' '"prompt_tokens":{"total":1900,"mean":950,"min":900,"p50":900,' out
contains 'info has the ideal hits' '"ideal_prefix_hit_tokens":512,' out
contains 'info has LRU hits' '"lru_blocks":2,"lru_hit_tokens":512,' out
[ "$(wc -l <out)" -eq 1 ]
report 'JSON is one line' $?
"$KVSIM" trace info --json --lru-blocks 2 two.jsonl two.jsonl >out
[ "$(wc -l <out)" -eq 2 ]
report 'one object per file' $?
"$KVSIM" trace info --json -l unlimited -f mooncake - <two.jsonl >out
contains 'standard input is read' '"lru_hit_tokens":512,' out
expect_status 'standard input needs a format' 2 "$KVSIM" trace info - </dev/null
contains 'and says so' 'name it' words
expect_status 'verify' 0 "$KVSIM" trace verify two.jsonl
contains 'verify says what it read' 'sound, 2 requests' out

echo '{"timestamp": 1000, "input_length": -1, "output_length": 0}' >>two.jsonl
expect_status 'a malformed row is wrong input' 2 "$KVSIM" trace verify two.jsonl
contains 'and is located' "two.jsonl:3: 'input_length' is negative" words
expect_status 'it can be skipped' 0 "$KVSIM" trace info -s on_error=skip two.jsonl
contains 'and that is said' '1 malformed rows skipped' words
contains 'and counted' '1 malformed rows skipped' out
expect_status 'a setting that is not' 2 "$KVSIM" trace info -s sped=2 two.jsonl
expect_status 'a setting without a value' 2 "$KVSIM" trace info -s speedup two.jsonl
expect_status 'no cache at all' 2 "$KVSIM" trace info -l 0 two.jsonl
expect_status 'no such file' 2 "$KVSIM" trace info no/such/file
expect_status 'no files' 2 "$KVSIM" trace info

expect_status 'synth' 0 "$KVSIM" trace synth -s requests=500 -s turns=3 -o a.jsonl.zst
expect_status 'synth again' 0 "$KVSIM" trace synth -s requests=500 -s turns=3 b.jsonl.zst
cmp -s a.jsonl.zst b.jsonl.zst
report 'one seed gives one trace' $?
expect_status 'synth with another seed' 0 "$KVSIM" trace synth -s requests=500 -s turns=3 -s seed=2 b.jsonl.zst
! cmp -s a.jsonl.zst b.jsonl.zst
report 'another seed another' $?
"$KVSIM" trace synth -s requests=500 -s turns=3 >plain.jsonl
zstd -dqc a.jsonl.zst 2>/dev/null | cmp -s - plain.jsonl || ! command -v zstd >/dev/null
report 'standard output has the same trace' $?
expect_status 'two outputs' 2 "$KVSIM" trace synth -o x y
expect_status 'synth like a trace' 0 "$KVSIM" trace synth --like a.jsonl.zst -s requests=300 c.csv
contains 'says what it does not keep' 'c.csv: sessions of a.jsonl.zst are not kept' words
[ "$(wc -l <c.csv)" -eq 301 ]
report 'as many rows as asked for' $?
expect_status 'convert' 0 "$KVSIM" trace convert a.jsonl.zst a.csv.gz
for file in a.jsonl.zst a.csv.gz; do
    "$KVSIM" trace info --json -l 100 $file | sed 's/.*"requests"/"requests"/'
done | uniq | wc -l | grep -qx ' *1'
report 'both say the same' $?
expect_status 'convert of a malformed trace' 2 "$KVSIM" trace convert two.jsonl d.jsonl
[ ! -e d.jsonl ] && [ ! -e d.jsonl.part ]
report 'leaves no file' $?
expect_status 'an unknown subcommand' 2 "$KVSIM" trace chop two.jsonl

# A closed loop through the server: the answer to the first request calls for two others before the
# second session starts, at 100 s; all ten requests of both sessions are completed.
mkdir -p agents
cat >agents/1.json <<'END'
{"block_size": 64, "requests": [
 {"t": 0, "in": 200, "out": 5, "hash_ids": [1, 2, 3], "api_time": 4, "think_time": 0},
 {"t": 10, "in": 300, "out": 6, "hash_ids": [1, 2, 4, 5], "api_time": 5, "think_time": 6},
 {"t": 12, "type": "subagent", "requests": [
  {"t": 0, "in": 64, "out": 7, "hash_ids": [9], "api_time": 2, "think_time": 0},
  {"t": 6, "in": 130, "out": 8, "hash_ids": [9, 10], "api_time": 1, "think_time": 4}]},
 {"t": 40, "in": 320, "out": 0, "hash_ids": [1, 2, 4, 5], "api_time": 1, "think_time": 25}]}
END
cp agents/1.json agents/2.json
cat >agents.yaml <<'END'
name: agents
model: llama-3.1-8b
serving:
  requests: {file: agents, format: coding-agent, loop: closed, session_arrivals: even, session_rate: 0.01}
  device: h200
  kv_blocks: 1000
  request_results: true
END
expect_status 'a closed loop is served' 0 "$KVSIM" run -q agents.yaml -o agents.db
expect_status 'to its end' 0 "$KVSIM" run agents.yaml -o again.db
awk '$2 == "full" { found = $5 == 10 && $6 == 0 } END { exit !found }' out
report 'with all its requests' $?

# Converted, it is the same loop: the file holds sessions, sub-agents and think times.
expect_status 'sessions are converted' 0 "$KVSIM" trace convert -s session_arrivals=even -s session_rate=0.01 \
    agents agents.jsonl
contains 'and it is said how to replay them' 'loop: closed' words
sed 's/  requests:.*/  requests: {file: agents.jsonl, format: mooncake, loop: closed}/' agents.yaml >converted.yaml
"$KVSIM" run -q agents.yaml -o agents1.db && "$KVSIM" run agents.yaml -o agents1.db 2>words | grep full >original
expect_status 'a converted closed loop is served' 0 "$KVSIM" run converted.yaml -o agents2.db
grep full out | cmp -s - original
report 'as the sessions themselves' $?
sed 's/loop: closed/loop: open/' converted.yaml >open.yaml
"$KVSIM" run open.yaml -o agents3.db 2>words | grep full | cmp -s - original
report 'and not as in the open loop' $((1 - $?))
expect_status 'to CSV' 0 "$KVSIM" trace convert agents agents.csv
contains 'which loses the loop and says so' 'open loop only and holds no sub-agents' words
row='"input_length": 9, "output_length": 1, "session_id": 1'
for case in "is there twice!{\"timestamp\": 0, $row, \"turn\": 0}
{\"timestamp\": 1, $row, \"turn\": 0}" "not in the trace before it!{\"timestamp\": 0, $row, \"turn\": 0}
{\"timestamp\": 1, $row, \"turn\": 2, \"delay\": 1}" "sort the trace!{\"timestamp\": 5, $row, \"turn\": 0}
{\"timestamp\": 1, $row, \"turn\": 1}" "no arrival time!{\"timestamp\": 5, $row, \"turn\": 0}
{$row, \"turn\": 1}"; do
    printf '%s\n' "${case#*!}" >wrong.jsonl
    expect_status "refused: ${case%%!*}" 2 "$KVSIM" trace verify -s loop=closed wrong.jsonl
    contains 'at its line' 'wrong.jsonl:2: ' words
    contains 'with these words' "${case%%!*}" words
done

# A long trace through a pipe, with little more address space than the program needs to start. (One that
# is instrumented needs much more to start, and is not asked.)
limit=600000
if ( ulimit -v $limit; "$KVSIM" --version ) >/dev/null 2>&1; then
    "$KVSIM" trace synth -s requests=400000 -s session_rate=50 |
        ( ulimit -v $limit; "$KVSIM" trace info --json -f mooncake - ) >out
    contains 'a long trace is read in bounded memory' '"requests":400000,' out
fi

cd .. && rm -rf "$folder"
echo "1..$number"
