#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks calibration on real attention with measured accuracies (../shared/data): how well policies
# that were left out are predicted, and the measures behind it against an independent
# implementation in Python. Command line, experiments and errors on the sample in the tree.
set -u
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cp "$srcdir/examples/sample.h5" "$srcdir/tests/data/tiny.h5" "$folder" || exit 1
cd "$folder" || exit 1
n=0

report() # report PASSED WHAT
{
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

# says STATUS PATTERN WHAT: the last command ended with STATUS and its stderr has the pattern.
says()
{
    [ "$status" = "$1" ] && grep -q -- "$2" stderr
    passed=$?
    report $passed "$3"
    [ $passed = 0 ] || sed 's/^/# /' stderr
}

try()
{
    "$KVSIM" "$@" >stdout 2>stderr
    status=$?
}

# --- Errors and options ---------------------------------------------------------------------------
# Accuracies that rise with the budget, made up, for three policies.
{
    echo 'task,policy,chunk_size,accuracy,n'
    for task in kv_recall icl; do
        echo "$task,full,whole,0.975,160"
        for keep in 0.1 0.3 0.5 0.7; do
            echo "$task,\"{snapkv: {keep: $keep, evict: chunked, window: 8}}\",64,${keep}1,160"
            echo "$task,\"{knorm: {keep: $keep}}\",64,${keep}2,160"
            echo "$task,{random: {keep: $keep}},64,${keep}3,160"
        done
    done
    echo 'nowhere,full,whole,1,8'
} >accuracy.csv

try fit accuracy.csv --traces sample.h5
says 0 'rows of tasks that no recorded example has are left out: nowhere' 'unknown tasks are told'
grep -Eq '^kv_recall +own +12 +3 +97.5 ' stdout
report $? 'the fit is printed'
try fit --points one -q -j 1 --traces sample.h5 accuracy.csv tiny.h5
[ "$(wc -l <one)" = 27 ]
report $? 'every point is written'
try fit --points two -q -j 3 accuracy.csv --traces sample.h5 tiny.h5
cmp -s one two
report $? 'wherever the traces stand and for any number of threads'
try fit --points two -q --seed 2 accuracy.csv --traces sample.h5 tiny.h5
! cmp -s one two
report $? 'the seed matters'
try fit --points no/such/folder -q accuracy.csv --traces sample.h5
says 1 'no/such/folder: cannot be written' 'a file that cannot be written is named'

try fit accuracy.csv
says 2 'expected --traces FILE' 'traces are needed'
try fit
says 2 'expected a CSV file' 'a file is needed'
try fit nothing.csv -t sample.h5
says 2 'nothing.csv: cannot be opened' 'a missing file is named'
try fit accuracy.csv -t nothing.h5
says 2 'nothing.h5' 'a missing trace is named'
sed '4s/0.12/1.2/' accuracy.csv >wrong.csv
try fit wrong.csv -t sample.h5
says 2 "wrong.csv:4:.*accuracy is '1.2', expected a number from 0 to 1" 'a wrong row is located'
[ ! -s stdout ]
report $? 'nothing is printed then'
head -4 accuracy.csv >few.csv
try fit few.csv -t sample.h5
says 0 'too few points for a fit of its own.*its accuracy would be a proxy' 'few points are told'

# --- Experiments ----------------------------------------------------------------------------------
sql()
{
    sqlite3 "$1" "$2" 2>/dev/null
}
cat >run.yaml <<'EOF'
name: run
attention:
  traces: [tiny.h5]
  policies: [full, {knorm: {keep: [0.1, 0.3]}}, {tova: {keep: [0.1, 0.3, 0.5]}}]
  chunk_size: [64]
  critical: {resamples: 200}
  calibration: {file: accuracy.csv, traces: [sample.h5]}
EOF
if command -v sqlite3 >sqlite; then
    try run run.yaml -q -o apart.db
    report $status 'an experiment is calibrated by other traces'
    [ "$(sql apart.db "SELECT group_concat(DISTINCT accuracy_source) FROM footprint_point WHERE
        task IN ('kv_recall', 'icl')")" = calibrated ]
    report $? 'which measured other examples, so every point is predicted'
    [ "$(sql apart.db "SELECT count(*) FROM example WHERE calibration_only AND NOT calibrates")" = 0 ]
    report $? 'their examples calibrate'
    sed 's/tiny/sample/; s/, traces: .sample.h5.//' run.yaml >same.yaml
    try run same.yaml -q -o same.db
    [ "$(sql same.db "SELECT task, policy, keep, accuracy FROM footprint_point WHERE turn IS NULL AND
        accuracy_source = 'measured' ORDER BY task, keep")" = 'icl|knorm|0.1|0.12
icl|knorm|0.3|0.32
kv_recall|knorm|0.1|0.12
kv_recall|knorm|0.3|0.32' ]
    report $? 'measured points are taken as they are'
    [ "$(sql same.db "SELECT count(*) FROM footprint_point WHERE policy = 'knorm'")" = \
      "$(sql same.db "SELECT count(*) FROM footprint_point WHERE policy = 'knorm' AND chunk_size = 64")" ]
    report $? 'points of the calibration alone are in no curve'
    [ "$(sql same.db "SELECT count(*) FROM warning WHERE text LIKE 'kv_multiturn: accuracy is a proxy%'")" = 1 ]
    report $? 'a task without measurements is told to be a proxy'
    try run same.yaml -q -j 1 -o again.db
    for table in footprint_point critical_footprint calibration calibration_point warning; do
        sql same.db "SELECT * FROM $table" >>a
        sql again.db "SELECT * FROM $table" >>b
    done
    [ -s a ] && cmp -s a b
    report $? 'the same bytes for any number of threads'
else
    n=$((n + 1))
    echo "ok $n # SKIP the sqlite3 program was not found"
fi

# --- Real accuracies ------------------------------------------------------------------------------
data=$KV_SHARED/attention
if [ ! -r "$data/accuracy.csv" ]; then
    n=$((n + 1))
    echo "ok $n # SKIP $data is not there"
    echo "1..$n"
    exit 0
fi

# at_most FILE COLUMN LIMIT TASK...: a column of the table of held-out policies.
at_most()
{
    local file=$1 column=$2 limit=$3 task value
    shift 3
    for task; do
        value=$(awk -v task="$task" -v column="$column" '/^Held-out/ { held = 1 }
            held && $1 == task { print $column; exit }' "$file")
        awk -v value="$value" -v limit="$limit" 'BEGIN { exit !(value != "" && value <= limit) }'
        report $? "$task: $value is at most $limit"
    done
}

try fit --points points "$data/accuracy.csv" --traces "$data/recall.h5"
report $status 'measured accuracies of a small model are fitted'
echo '# mean error on policies that were left out, in points'
at_most stdout 2 3.0 kv_recall kv_multiturn icl
at_most stdout 2 0.5 lm
echo '# mean error of their critical footprints, in points'
at_most stdout 7 2.0 kv_recall kv_multiturn icl
awk '/^Held-out/ { held = 1 } held && /^(kv_recall|kv_multiturn|icl|lm) / { n += $6 >= 95 }
     END { exit n != 4 }' stdout
report $? 'at least 95 % of left-out points lie within their 95 % interval'

# Means of x and q as a separate Python program found them from the same file, in doubles: where two
# scores nearly tie it may keep another entry.
measures()
{
    local got
    got=$(grep "^$1,,$2,$3" points | grep -- "$4" | head -1 | awk -F, '{ print $(NF-1), $NF }')
    awk -v got="$got" -v x="$5" -v q="$6" 'BEGIN { split(got, v, " ")
        exit !(got != "" && v[1]-x < 5e-3 && x-v[1] < 5e-3 && v[2]-q < 5e-3 && q-v[2] < 5e-3) }'
    report $? "$1 $2: $got is near $5 $6"
}
measures kv_recall snapkv '.*""keep"":0.05,' ',128,160,' 0.2808 0.9629
measures kv_recall streaming '.*""window"":149}' ',64,160,' 0.2331 0.9721
measures kv_multiturn tova '.*""keep"":0.2,' ',whole,160,' 0.2145 0.9740
measures icl knorm '.*""keep"":0.7,' ',whole,160,' 0.3795 0.7628
measures icl duo '.*""sparsity"":0.9375,' ',1,160,' 0.6047 0.8975

echo "1..$n"
