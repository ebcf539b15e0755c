#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# A sweep spread over MPI ranks writes the tables that one process writes; a run that fails on all
# ranks says so once, with the exit status of one process.
if ! command -v mpirun >/dev/null || ! ldd "$KVSIM" | grep -q libmpi; then
    echo "1..0 # SKIP kvsim was built without MPI, or mpirun is missing"
    exit 0
fi
echo "1..2"
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe
export OMPI_MCA_btl_vader_single_copy_mechanism
folder=$(mktemp -d) || exit 99
trap 'rm -rf "$folder"' EXIT
cat >"$folder/e.yaml" <<END
name: ranks
attention:
  traces: ["$srcdir/examples/sample.h5"]
  keep_sets: true
  critical: {resamples: 20}
  policies: [full, {snapkv: {keep: [0.2, 0.5], window: 16, evict: chunked}}, {h2o: {keep: 0.3}}]
  chunk_size: [32, whole]
END


same=ok
"$KVSIM" run "$folder/e.yaml" -o "$folder/one.db" -q -j 1 || same="not ok"
timeout 60 mpirun -n 3 "$KVSIM" run "$folder/e.yaml" -o "$folder/three.db" -q -j 1 || same="not ok"
for table in footprint_point example_point critical_footprint retained_set; do
    for run in one three; do
        python3 -c "import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute('select * from ' + sys.argv[2]): print(row)" \
            "$folder/$run.db" "$table" >"$folder/$run.txt"
    done
    [ -s "$folder/one.txt" ] && cmp -s "$folder/one.txt" "$folder/three.txt" || same="not ok"
done
echo "$same 1 - three ranks write what one process writes"

timeout 60 mpirun -n 2 "$KVSIM" run "$folder/absent.yaml" -q 2>"$folder/words"
status=$?
if [ $status -eq 2 ] && [ "$(grep -c '^kvsim: ' "$folder/words")" -eq 1 ]; then
    echo "ok 2 - an error is said once"
else
    echo "not ok 2 - an error is said once"
    sed 's/^/# /' "$folder/words"
fi
