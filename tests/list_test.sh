#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks `kvsim list` for people and as JSON, what it says to unknown names, and that experiments
# with mistakes end with status 2 and a message that says where.
n=0

# is WHAT STATUS: a test line from a status.
is()
{
    n=$((n + 1))
    test "$2" -eq 0 && echo "ok $n - $1" || echo "not ok $n - $1"
}

# says WHAT WANTED_STATUS PATTERN COMMAND...: exit status, and a line of stdout or stderr.
says()
{
    what=$1 status=$2 pattern=$3
    shift 3
    output=$("$@" 2>&1)
    got=$?
    test $got -eq "$status" && printf '%s\n' "$output" | grep -q -- "$pattern"
    is "$what" $?
}

folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
echo 'attention: {traces: none.h5, policies: full}' >"$folder/none.yaml"
printf 'attention:\n  traces: x\n  policys: full\n' >"$folder/key.yaml"
printf 'a: [\n' >"$folder/open.yaml"

says 'kinds' 0 '^policies  *which' "$KVSIM" list
says 'policies' 0 '^snapkv  *retention  *compression  *keeps' "$KVSIM" list policies
says 'read policies' 0 '^quest  *read  *loading ' "$KVSIM" list policies
says 'cached text elsewhere' 0 '^blend  *reuse  *retrieval ' "$KVSIM" list policies
says 'compute or load' 0 '^both-ends  *load  *loading ' "$KVSIM" list policies
says 'blend has its share' 0 '^  recompute  *of blended' "$KVSIM" list policies blend
says 'topk keeps' 0 '^topk  *retention  *compression .*oracle' "$KVSIM" list policies
says 'topk reads' 0 '^topk  *read  *loading .*oracle' "$KVSIM" list policies
says 'a policy shows its bounds' 0 'a fraction from 0 to 1' "$KVSIM" list policies snapkv
says 'a policy shows what a recording must hold' 0 'needs  *q, k, every row$' \
    "$KVSIM" list policies infllm
for case in 'criticalkv|value_out' 'expected_attention|rope_theta' 'headkv|heads, a file' \
    'qfilter|filters, a file'; do
    says "${case%|*} names what it takes by default" 0 "needs .*${case#*|}" \
        "$KVSIM" list policies "${case%|*}"
done
says 'a policy shows whose scores it takes' 0 'name: settings.: .*expected_attention' \
    "$KVSIM" list policies adakv
says 'a policy shows its presets' 0 'window=64' "$KVSIM" list policies snapkv
says 'models' 0 '^llama-3.1-8b' "$KVSIM" list models
# 32 layers x 8 heads x 128 x 2 (keys, values) x 2 bytes = 131072
says 'a model shows its bytes' 0 'KV per token *131072 bytes$' "$KVSIM" list models llama-3.1-8b
says 'a device shows its memory' 0 'memory *79.6474609375 GiB$' "$KVSIM" list devices h100-sxm
says 'a trace format shows its columns' 0 'Parameters in columns' "$KVSIM" list traces csv
says 'an unknown kind' 2 "did you mean 'policies'" "$KVSIM" list polices
says 'an unknown name' 2 "did you mean 'snapkv'" "$KVSIM" list policies snapvk
says 'too many words' 2 'at most a kind and a name' "$KVSIM" list policies full full
says 'an unknown option' 2 'list --help' "$KVSIM" list --jsn
says 'a full disk' 1 'standard output cannot be written' \
    sh -c '"$0" list >/dev/full' "$KVSIM"
says 'a trace that is not there' 2 "none.yaml:1:21: traces: no file matches 'none.h5'" \
    "$KVSIM" run "$folder/none.yaml" -o "$folder/r.db"
says 'an unknown key' 2 "key.yaml:3:3: unknown key 'policys', did you mean 'policies'" \
    "$KVSIM" run "$folder/key.yaml" -o "$folder/r.db"
says 'broken YAML' 2 'open.yaml:2:1: not YAML' "$KVSIM" run "$folder/open.yaml" -o "$folder/r.db"
says 'a wrong --set' 2 '^kvsim: --set attention.x=1: unknown key' \
    "$KVSIM" run "$folder/none.yaml" --set attention.x=1 -o "$folder/r.db"
test ! -e "$folder/r.db"
is 'nothing was written' $?

quick=$srcdir/examples/quick.yaml
says 'a setting that does nothing' 0 'warning: snapkv: interval does nothing' "$KVSIM" run -q "$quick" \
    --set 'attention.policies=[full, snapkv: {keep: 0.3, window: 8, interval: 4}]' -o "$folder/i.db"
"$KVSIM" run -q "$quick" -o "$folder/j.db" --set \
    'attention.policies=[full, h2o: {keep: 0.3, evict: [online, interval], interval: 4}]' 2>&1 | grep -q nothing
test $? -eq 1
is 'a setting that one of a list needs' $?
if test -n "$PYTHON3"; then
    for kind in '' policies models devices traces; do
        # shellcheck disable=SC2086
        "$KVSIM" list $kind --json | "$PYTHON3" -c '
import json, sys
items = json.load(sys.stdin)
assert items and all(i["name"] and "brief" in i for i in items)
for item in items:
    for p in item.get("parameters", []):
        assert {"name", "type", "unit", "default", "help"} <= set(p)
'
        is "JSON of '$kind'" $?
    done
fi
echo "1..$n"
