#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks that the results of a real run do not depend on threads, kills or shards, and that kvsim run
# leaves alone what is no results database. Every table is compared, column by column, but for the
# three columns of `run` that say when.
. "$srcdir/tests/tap.sh"

run()
{
    "$KVSIM" run -q exp.yaml "$@"
}

dump()
{
    "$PYTHON3" - "$1" <<'PYTHON'
import sqlite3
import sys
base = sqlite3.connect(sys.argv[1])
for (table,) in base.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").fetchall():
    cursor = base.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    keep = [i for i, name in enumerate(names) if name not in ("started_at", "finished_at", "wall_seconds")]
    for row in sorted(repr([row[i] for i in keep]) for row in cursor):
        print(table, row)
PYTHON
}

# same A.db B.db: all tables are equal, and there is something in them.
same()
{
    dump "$1" > a.txt && dump "$2" > b.txt && grep -q '^footprint_point' a.txt && cmp a.txt b.txt
}

# kill_at SECONDS: begins or resumes killed.db and kills it then. Tells whether it was still running.
kill_at()
{
    "$KVSIM" run -q --resume -j 2 exp.yaml -o killed.db 2> /dev/null &
    sleep "$1"
    kill -9 $! 2> /dev/null
    wait $! 2> /dev/null
    [ $? = 137 ]
}

cd "$files" || exit 1
cat > exp.yaml <<YAML
name: resumed
seed: 3
attention:
  traces: [$srcdir/examples/sample.h5]
  policies:
    - full
    - random: {keep: [0.1, 0.3, 0.7], evict: chunked}
    - snapkv: {keep: [0.05, 0.2, 0.5, 0.9], window: 16, evict: [chunked, patched]}
  chunk_size: [32, 64, whole]
  keep_sets: true
YAML
echo 1..14
check 'a run' run -o whole.db -j 1
check 'more threads' run -o threads.db -j 5
check 'give the same tables' same whole.db threads.db
kills=0
for delay in 0.05 0.1 0.15 0.2 0.25 0.3 0.35 0.4; do
    kill_at $delay && kills=$((kills + 1))
done
check 'some kills hit' test $kills -gt 0
check 'a killed run goes on' run --resume -o killed.db
check 'and gives the same tables' same whole.db killed.db
check 'nothing is left to do then' run --resume -o killed.db
for i in 1 2 3; do
    run --shard $i/3 -o shard$i.db
done
check 'an incomplete set of shards' fails 2 'examples are missing' \
    "$KVSIM" merge merged.db shard1.db shard3.db
check 'shards merge' "$KVSIM" merge merged.db shard1.db shard2.db shard3.db
check 'into the same tables' same whole.db merged.db
sed -i 's/seed: 3/seed: 4/' exp.yaml
check 'another experiment is not resumed' fails 2 'cannot resume' run --resume -o killed.db
printf 'not a database\n' > text.db
check 'what is no database is refused' fails 2 'no results database' run -o text.db
check 'and untouched' grep -qx 'not a database' text.db
check 'no such folder' fails 1 'No such file' run -o none/a.db
