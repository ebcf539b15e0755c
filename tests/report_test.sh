#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks kvsim report: the page is self-contained, well nested and shows names as text; tables come out
# to the last bit; in a browser, if there is one, buttons hide series and sort tables without an error.
# Not checked: how a page looks.
. "$srcdir/tests/tap.sh"
plan=39

report()
{
    "$KVSIM" report "$@"
}

see()
{
    "$PYTHON3" "$srcdir/tests/report_check.py" "$@"
}

# browse PAGE [OPTION]...: the page after its scripts ran, in browsed.html; fails on a message of the console.
browse()
{
    timeout 120 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$files/profile" \
        --enable-logging=stderr "${@:2}" --dump-dom "file://$files/$1" > browsed.html 2> browser.log
    grep 'CONSOLE' browser.log && return 1
    grep -q '</html>' browsed.html
}

cd "$files" || exit 1
mkdir empty
db=$files/large.db
"$builddir/tests/make_results" "$db" || exit 1
"$builddir/tests/make_results" hostile.db hostile || exit 1
"$builddir/tests/make_results" empty.db empty || exit 1
echo 1..$plan

check 'without gnuplot' env PATH="$files/empty" "$KVSIM" report "$db" -o bare.html
check 'the page says so and has its tables' see no_curves bare.html
check 'a run without points' report empty.db -o empty.html
check 'is said not to be complete' grep -q 'This run is not complete' empty.html
check 'no such file' fails 2 'No such file' report missing.db -o none.html
check 'no such run' fails 2 'there is no run 7' report "$db" --run 7 -o none.html
check 'no such table' fails 2 "did you mean 'footprint_point'" \
    report "$db" --format csv --table footprint_points
check 'work tables are not shown' fails 2 'no table' \
    report "$db" --format csv --table attention_unit
check 'no such format' fails 2 'expected html, csv or json' report "$db" --format xml
check 'a table needs a format' fails 2 'goes with --format' report "$db" --table run
check 'no such folder' fails 1 'cannot write' report "$db" -o "$files/none/a.html"
check 'a folder is no file to write' fails 2 'is a directory' report "$db" -o empty
mkfifo pipe
timeout 60 cat pipe > piped.html &
report "$db" --format json --table run -o pipe
wait $!
check 'a pipe is written, not replaced' test -p pipe -a -s piped.html
touch aim.json
ln -s aim.json link.json
report "$db" --format json --table run -o link.json
check 'a link is followed' sh -c 'test -L link.json && cmp aim.json piped.html'
check 'none of these left a file' test "$(ls none* 2> /dev/null | wc -l)" = 0

for table in footprint_point critical_footprint; do
    report "$db" --format csv --table $table -o $table.csv
    check "$table as CSV" see exported_csv $table.csv "$db" $table
    report "$db" --format json --table $table > $table.json
    check "$table as JSON" see exported_json $table.json "$db" $table
done
report hostile.db --format csv --table run -o run.csv
check 'texts as CSV' see exported_csv run.csv hostile.db run
report hostile.db --format json --table example -o example.json
check 'texts as JSON' see exported_json example.json hostile.db example

# One run that plans and one that serves, joined to one page.
"$KVSIM" plan -q -o plan.db "$srcdir/examples/plan.yaml" || exit 1
"$KVSIM" run -q -o serving.db "$srcdir/examples/serving-chunk-size.yaml" \
    --set serving.request_results=true || exit 1
see join plan.db serving.db || exit 1
report plan.db -o served.html
check 'answer, serving and timelines' see served served.html plan.db "$srcdir/examples/requests.csv"
check 'shares of requests within a latency' see latencies served.html plan.db
check 'what a plan tried, by cost' see front served.html plan.db
"$KVSIM" run -q -o shared.db "$srcdir/examples/shared-context.yaml" || exit 1
report shared.db -o shared.html
check 'bytes and reads beside entries' see savings shared.html shared.db
report plan.db --format json --table plan_choice -o plan_choice.json
check 'a plan as JSON' see exported_json plan_choice.json plan.db plan_choice
cp plan.db poisoned.db
"$PYTHON3" "$srcdir/tests/plot_check.py" poison poisoned.db || exit 1
report poisoned.db -o poisoned.html
check 'hostile names of servers are text' see poisoned poisoned.html

if command -v gnuplot > /dev/null; then
    report "$db" -o page.html
    check 'the page' see curves page.html
    check 'spots lie on points' see spots page.html
    report hostile.db -o hostile.html
    check 'names are text' see hostile hostile.html
    report "$db" > again.html
    check 'the same bytes again' cmp page.html again.html
    cp "$db" calibrated.db
    see add_calibration calibrated.db
    report calibrated.db -o calibrated.html
    check 'warnings and errors of the accuracy model' see calibrated calibrated.html
else
    skip_to $((plan - 7)) 'gnuplot is not installed'
fi
if ! command -v chromium > /dev/null; then
    skip_to $plan 'chromium is not installed'
    exit 0
fi
cat served.html "$srcdir/tests/report_probe_serving.html" > probe.html
check 'a browser runs a page of servers without an error' browse probe.html
check 'lines hide, tables sort, keys reach all' see pressed browsed.html
check 'a narrow window, too' browse probe.html --window-size=420,900
check 'with nothing wider than it' see pressed browsed.html
check 'hostile names run nothing' browse poisoned.html
if ! command -v gnuplot > /dev/null; then
    skip_to $plan 'gnuplot is not installed'
    exit 0
fi
cat page.html "$srcdir/tests/report_probe.html" > probe.html
check 'a browser runs it without an error' browse probe.html
check 'series hide and tables sort' see result browsed.html
