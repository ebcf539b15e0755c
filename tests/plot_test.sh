#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks kvsim plot: pictures are what their names say, names of tasks and policies are text and never
# a script or markup, wrong input and a missing gnuplot leave a message and no file,
# no text of a picture meets another. Not checked: how a picture looks otherwise.
. "$srcdir/tests/tap.sh"
plan=69

no_gnuplot()
{
    env PATH="$files/empty" "$KVSIM" plot "$db" curve -o "$files/none.svg"
}

see()
{
    "$PYTHON3" "$srcdir/tests/plot_check.py" "$@"
}

# listed: every kind is in the help and on the manual page.
listed()
{
    local kind
    "$KVSIM" plot --help > help
    for kind in chunk curve heads latency pareto retained timeline turns; do
        grep -q "^  $kind " help || return 1
        grep -q "^.It Cm $kind\$" "$srcdir/docs/man/kvsim-plot.1" || return 1
    done
}

# full KIND: a device that is full.
full()
{
    "$KVSIM" plot "$db" curve > /dev/full
}

# sizes DB KIND OPTION...: a kind at all sizes, without texts that meet.
sizes()
{
    local size
    for size in 480x640 640x400 800x500 1200x700; do
        "$KVSIM" plot "$1" "$2" "${@:3}" --size $size -o "$2-$size.svg" || return 1
    done
    see apart "$font" "$2"-480x640.svg "$2"-640x400.svg "$2"-800x500.svg "$2"-1200x700.svg
}

# drawn WHAT DB OPTION...: the numbers that reach gnuplot are those of the database.
drawn()
{
    PATH=$files/fake:$PATH "$KVSIM" plot "$2" "${@:3}" > script.gp && see "$1" script.gp "$2"
}

cd "$files" || exit 1
mkdir empty fake
printf '#!/bin/sh\nexec cat\n' > fake/gnuplot
chmod +x fake/gnuplot
db=$files/large.db
"$builddir/tests/make_results" "$db" || exit 1
"$builddir/tests/make_results" hostile.db hostile || exit 1
"$builddir/tests/make_results" empty.db empty || exit 1
echo 1..$plan

check 'no gnuplot is said and leaves no file' fails 2 'gnuplot was not found' no_gnuplot
check 'and nothing else' test "$(ls none.svg* 2> /dev/null | wc -l)" = 0
check 'no points' fails 2 'has no points yet' "$KVSIM" plot empty.db curve -o none.svg
check 'no such file' fails 2 'No such file' "$KVSIM" plot missing.db curve -o none.svg
check 'no such kind' fails 2 "did you mean 'curve'" "$KVSIM" plot "$db" curv -o none.svg
check 'and what there is' fails 2 \
    'expected curve, chunk, turns, heads, retained, timeline, latency, pareto' \
    "$KVSIM" plot "$db" nothing -o none.svg
check 'help lists the kinds' listed
check 'no such task' fails 2 "did you mean 'kv_recall'" \
    "$KVSIM" plot "$db" curve --task kv_recal -o none.svg
check 'no such format' fails 2 'FILE.svg, FILE.png or FILE.pdf' \
    "$KVSIM" plot "$db" curve -o none.jpg
check 'no such chunk size' fails 2 "'12k' is no value for --chunk-size" \
    "$KVSIM" plot "$db" curve --chunk-size 12k -o none.svg
check 'no such size' fails 2 "no value for --size (expected WIDTHxHEIGHT from" "$KVSIM" plot "$db" curve --size 10x10
check 'an argument is missing' fails 2 'expected RESULTS.db and a kind' "$KVSIM" plot "$db"
if ! command -v gnuplot > /dev/null; then
    skip_to $plan 'gnuplot is not installed'
    exit 0
fi
check 'no such folder' fails 1 'cannot write' "$KVSIM" plot "$db" curve -o "$files/none/a.svg"
check 'none of these left a file' test "$(ls none* 2> /dev/null | wc -l)" = 0

check 'SVG' "$KVSIM" plot "$db" curve -o a.svg
check 'PNG' "$KVSIM" plot "$db" curve -o a.png --size 1300x800
check 'PDF' "$KVSIM" plot "$db" curve -o a.pdf
check 'PNG has its size' "$PYTHON3" -c 'import struct
head = open("a.png", "rb").read(24)
assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:]) == (1300, 800)'
check 'PDF is one' grep -qa '^%PDF-' a.pdf
check 'nothing is left beside them' test "$(ls a.* | wc -l)" = 3
"$KVSIM" plot "$db" curve > b.svg
check 'standard output gets the same SVG' cmp a.svg b.svg
check 'a full disk is said' fails 1 'cannot write' full
check 'the source of accuracy is said' grep -q 'accuracy (proxy)' a.svg
"$KVSIM" plot hostile.db curve -o hostile.svg
check 'names are text, not markup' see markup hostile.svg

"$KVSIM" run -q -o sets.db "$srcdir/examples/quick.yaml" --set attention.keep_sets=true \
    > /dev/null || exit 1
"$KVSIM" run -q -o sets.db "$srcdir/examples/serving-chunk-size.yaml" \
    --set serving.request_results=true > /dev/null || exit 1
check 'a policy that is not there' fails 2 'there are the policies full' \
    "$KVSIM" plot sets.db latency --policy snapkv -o none.svg
check 'curves of another run' fails 2 'run 2 has no footprint points; run 1 has: --run 1' \
    "$KVSIM" plot sets.db curve -o none.svg
check 'a chunk size that is not there' fails 2 'there are the chunk sizes 32, 128, whole and turns up to 5' \
    "$KVSIM" plot sets.db curve --run 1 --chunk-size 64 -o none.svg
check 'no such axis' fails 2 'expected entries, bytes, reads or prefill' \
    "$KVSIM" plot sets.db curve --axis tokens -o none.svg
check 'latency: shares of requests' drawn latency sets.db latency
check 'timeline: what was sampled' drawn timeline sets.db timeline --point 2
check 'heads: shares of the prompt' drawn heads sets.db heads --run 1 --keep 0.5
# Six of the eight, as more share their panels' columns among several positions.
check 'retained: the sets' drawn retained sets.db retained --run 1 --keep 0.5 --policy random \
    --policy streaming --policy snapkv --policy keydiff --policy duo
check 'chunk: critical footprints' drawn critical sets.db chunk --run 1
check 'turns: critical footprints' drawn turns sets.db turns --run 1
"$KVSIM" run -q -o bytes.db "$srcdir/examples/quick.yaml" --set attention.chunk_size=64 --set \
    'attention.policies=[full, [h2o: {keep: [0.1, 0.3, 0.6]}, kivi: {group: 16, residual: 16}]]' \
    > /dev/null || exit 1
check 'curve: bytes along the axis' drawn along_bytes bytes.db curve --axis bytes --policy h2o+kivi \
    --task kv_recall
"$KVSIM" run -q -o counts.db "$srcdir/examples/quick.yaml" --set attention.chunk_size=64 --set \
    'attention.policies=[full, duo: {sparsity: [0.2, 0.8]}]' --set attention.oracle=false || exit 1
check 'counts alone are said to have no curve' fails 2 'accuracy of duo there' \
    "$KVSIM" plot counts.db curve -o none.svg
check 'an axis has a name' fails 2 "'size' is no value for --axis" \
    "$KVSIM" plot bytes.db curve --axis size -o none.svg
"$KVSIM" plan -q -o sets.db "$srcdir/examples/plan.yaml" || exit 1
check 'pareto: cost and latency' drawn pareto sets.db pareto
named() {
    "$PYTHON3" -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as d:
    d.execute("UPDATE plan_choice SET label = replace(label, \"full\", ?)", (sys.argv[2],))' "$1" "$2" &&
        "$KVSIM" plot "$1" pareto -o "$2.png" && "$KVSIM" plot "$1" pareto -o "$2.svg"
}
cp sets.db signs.db
cp sets.db kanji.db
named signs.db 日本語 && named kanji.db 漢字表 || exit 1
check 'characters that the font has not are drawn alike' cmp 日本語.png 漢字表.png
check 'and are text in SVG' grep -q 日本語 日本語.svg
check 'a point that is not there' fails 2 'and points 0 to 3' \
    "$KVSIM" plot sets.db timeline --run 2 --point 99 -o none.svg
check 'two chunk sizes are both drawn' sh -c '"$1" plot "$2" curve --run 1 --chunk-size 32 \
    --chunk-size 128 -o two.svg && grep -q "chunk 32" two.svg && grep -q "chunk 128" two.svg' - \
    "$KVSIM" sets.db
font=$(fc-match -f '%{file}' 'DejaVu Sans:style=Book' 2> /dev/null)
case $font in
    *DejaVuSans.ttf)
        for kind in curve chunk turns heads retained; do
            check "$kind: no text meets another at any size" sizes sets.db $kind --run 1
        done
        for kind in chunk latency timeline; do
            check "$kind of serving: no text meets another" sizes sets.db $kind --run 2
        done
        check 'pareto: no text meets another' sizes sets.db pareto ;;
    *)
        skip_to $((n + 9)) 'DejaVu Sans is not installed' ;;
esac
cp sets.db tiers.db
see tiers tiers.db || exit 1
check 'timeline: every tier' drawn tiered tiers.db timeline --run 2 --point 2
check 'no plan is said' fails 2 'kvsim plan' "$KVSIM" plot "$db" pareto -o none.svg
check 'no sets are said' fails 2 'keep_sets: true' "$KVSIM" plot "$db" heads -o none.svg
check 'no requests are said' fails 2 'request_results: true' "$KVSIM" plot "$db" latency -o none.svg
check 'no timeline is said' fails 2 'timeline: 10s' "$KVSIM" plot "$db" timeline -o none.svg
check 'no such example' fails 2 "sets of an example 'nobody'" \
    "$KVSIM" plot sets.db retained --run 1 --example nobody -o none.svg
check 'keep is a share' fails 2 "'1.5' is no value for --keep" "$KVSIM" plot sets.db heads --keep 1.5
check 'none of these left a file' test "$(ls none* 2> /dev/null | wc -l)" = 0
see poison sets.db || exit 1
for kind in chunk turns heads retained; do
    "$KVSIM" plot sets.db $kind --run 1 -o $kind.svg
    check "$kind: names are text" see markup $kind.svg
done
for kind in chunk latency timeline; do
    "$KVSIM" plot sets.db $kind --run 2 -o $kind.svg
    check "$kind of serving: names are text" see markup $kind.svg
done
"$KVSIM" plot sets.db pareto -o pareto.svg
check 'pareto: names are text' see markup pareto.svg
"$KVSIM" plot sets.db chunk --run 1 -o chunk.svg
case $font in
    *DejaVuSans.ttf)
        check 'long names meet nothing either' see apart "$font" chunk.svg turns.svg heads.svg \
            retained.svg latency.svg timeline.svg pareto.svg ;;
    *) skip_to $((n + 1)) 'DejaVu Sans is not installed' ;;
esac
check 'nor commands' test ! -e pwned
