#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# TAP test: examples/compare.yaml runs every policy of the attention replay, and ends with one table of
# them, best first, under the oracles. The bytes and reads of some are those of the formulas in docs/policies.md.
folder=$(mktemp -d) || exit 99
trap 'rm -rf "$folder"' EXIT
number=0
result() {
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}

"$KVSIM" run "$srcdir/examples/compare.yaml" -o "$folder/r.db" > "$folder/table" 2> "$folder/errors"
result $? 'compare.yaml runs'
sed 's/^/# /' "$folder/errors"
# The names that the project set out to have, and full, the measure of all.
cat > "$folder/wanted" << 'END'
a_shape adakv cam chunkkv corm criticalkv curdkv duo dynamickv expected_attention finch full gear h2o headkv infllm
keydiff kivi knorm kvmerger kvquant kvzip l2 lagkv locret look_m minference minicache nacl nearest_merge
observed_attention prompt_compression prulong pyramidkv qfilter quest random rerotate retrieval_attention
rocketkv scissorhands simlayerkv snapkv streaming think topk tova tri_shape
END
tr ' ' '\n' < "$folder/wanted" | LC_ALL=C sort > "$folder/names"
"$KVSIM" list policies | awk '$2 ~ /^(retention|transform|read)$/ { print $1 }' | LC_ALL=C sort -u |
    diff "$folder/names" - > "$folder/differ"
result $? 'these are all policies of the attention replay (a new one belongs here and into compare.yaml)'
sed 's/^/# /' "$folder/differ"
# Each has a rank, by itself or in a combination; full and topk, the oracle, are what others are measured by.
while read -r policy; do
    rank='[0-9]+'
    case $policy in full | topk) rank=- ;; esac
    grep -qE "^ *$rank +[01]\.[0-9]+ +(entries|bytes|reads|prefill) .* $policy( |\$)" "$folder/table"
    result $? "$policy is ranked"
done < "$folder/names"
! grep '^not ranked' "$folder/table"
result $? 'nothing is left out'
cat > "$folder/lacking.yaml" << END
name: lacking
attention:
  traces: [$srcdir/examples/sample.h5]
  tasks: [icl]
  rank: {footprint: 0.4}
  skip_refused: true
  policies: [full, criticalkv: {keep: 0.3, window: 8}, tova: {keep: 0.3}]
END
"$KVSIM" run "$folder/lacking.yaml" -o "$folder/lacking.db" > "$folder/lacking" &&
    test "$(grep -c '^not ranked: criticalkv: .*record the dataset value_out' "$folder/lacking")" = 1 &&
    grep -q '^ *1 .* tova$' "$folder/lacking"
result $? 'what the trace lacks something for is named with what to record'
# Beneath the head of the table: full, then the oracles and what is as good, none of these two with a rank.
sed -n '/^rank/,$p' "$folder/table" | sed -n 2p | grep -q '^ *- .* full$'
result $? 'full comes first'
! grep -E '^ *[0-9]+ .*oracle' "$folder/table" && grep -qE '^ *- +1\.000 .* topk oracle' "$folder/table"
result $? 'oracles have no rank'
sed -n 's/^ *[0-9][0-9]* *\([0-9.]*\) .*/\1/p' "$folder/table" > "$folder/accuracy"
sort -rn "$folder/accuracy" | cmp -s - "$folder/accuracy"
result $? 'ranks descend by accuracy'
sed -n 's/^ *[0-9][0-9]* *[0-9.]* *\(entries\|bytes\|reads\|prefill\) *\([0-9.]*\) .*/\1 \2/p' "$folder/table" > "$folder/at"
awk '$2 > 40 { bad = 1 } { seen[$1] = 1 } END { exit bad || !(seen["entries"] && seen["bytes"] &&
    seen["reads"] && seen["prefill"]) }' "$folder/at"
result $? 'what is ranked stays within 40 %, by four measures'
if [ -n "$PYTHON3" ]; then
    "$PYTHON3" - "$folder/r.db" << 'END'
# Critical footprints in bytes against linear interpolation between the points of each curve.
import math, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
crossed = 0
for task, policy, params, target, got, status in db.execute(
        "SELECT task, policy, params, threshold * full_accuracy, kv_footprint_bytes, bytes_status "
        "FROM critical_footprint WHERE turn IS NULL"):
    points = {}
    for x, y in db.execute("SELECT kv_footprint_bytes, accuracy FROM footprint_point WHERE task = ? AND policy = ? "
                           "AND curve = ? AND turn IS NULL", (task, policy, params)):
        points.setdefault(x, []).append(y)
    points = sorted((x, sum(y) / len(y)) for x, y in points.items())
    above = [y >= target - 1e-12 for _, y in points]
    wanted = None
    for (x0, y0), (x1, y1), a, b in zip(points, points[1:], above, above[1:]):
        if a != b and wanted is None:
            wanted = x0 + (target - y0) / (y1 - y0) * (x1 - x0)
    kind = "ok" if wanted is not None else "always" if above[0] else "never"
    assert kind == status, (policy, params, kind, status)
    assert (got is None) == (wanted is None) and (got is None or math.isclose(got, wanted, rel_tol=1e-9))
    crossed += wanted is not None
    plain = db.execute("SELECT min(saves), max(abs(kv_footprint - kv_footprint_bytes)) FROM footprint_point WHERE "
                       "task = ? AND policy = ? AND curve = ? AND turn IS NULL", (task, policy, params)).fetchone()
    assert plain[0] != "entries" or plain[1] < 1e-12  # plain entries: bytes are as entries
assert crossed > 10
END
    result $? 'critical footprints in bytes lie between their points'
fi
echo "1..$number"
