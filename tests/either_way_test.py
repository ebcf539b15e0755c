#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""A recording gives the same kept sets and measures whether its rows come as probabilities or are
computed from q and k. Probabilities are numpy's, in double precision, of the same q and k."""
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

from tap import KVSIM, check, finish

try:
    import numpy as np
    import h5py
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

LAYERS, HEADS, KV_HEADS, DIM, TOTAL, PROMPT = 2, 4, 2, 16, 160, 140
EXPERIMENT = """\
name: either-way
attention:
  traces: [trace.h5]
  keep_sets: true
  policies:
    - snapkv: {keep: [0.2, 0.5], window: 8, evict: [postfill, chunked, patched]}
    - h2o: {keep: 0.3}
    - tova: {keep: 0.3}
    - observed_attention: {keep: 0.4}
    - adakv: {keep: 0.3, window: 8}
    - keydiff: {keep: 0.4, evict: chunked}
  chunk_size: [32, whole]
"""


def attention(q, k):
    logits = np.einsum("lhrd,lhnd->lhrn", q.astype("f8"),
                       np.repeat(k.astype("f8"), HEADS // KV_HEADS, axis=1)) / np.sqrt(DIM)
    hidden = np.arange(TOTAL)[None, :] > np.arange(TOTAL)[:, None]
    e = np.where(hidden, 0, np.exp(logits - logits.max(axis=-1, keepdims=True)))
    return e / e.sum(axis=-1, keepdims=True)


def write_trace(path, arrays):
    with h5py.File(path, "w") as f:
        f.attrs.update({"format": "kvsim.attention", "version": 1, "model": "made-up",
                        "num_layers": LAYERS, "num_heads": HEADS, "num_kv_heads": KV_HEADS,
                        "head_dim": DIM})
        g = f.create_group("examples/a")
        g.attrs.update({"task": "recall", "mode": "single", "context_len": PROMPT - 8,
                        "prompt_len": PROMPT, "total_len": TOTAL, "full_score": 1.0})
        g["tokens"] = np.arange(TOTAL, dtype="i4")
        g["turns"] = np.array([[PROMPT - 8, PROMPT, TOTAL]], "i4")
        g["evidence"] = np.array([[0, 30, 40]], "i4")
        g["query_pos"] = np.arange(TOTAL, dtype="i4")
        for name, value in arrays.items():
            g[name] = value


def replay(folder, arrays):
    write_trace(os.path.join(folder, "trace.h5"), arrays)
    out = os.path.join(folder, "out.db")
    if os.path.exists(out):
        os.remove(out)
    subprocess.run([KVSIM, "run", "-q", "e.yaml", "-o", "out.db"], cwd=folder, check=True)
    with contextlib.closing(sqlite3.connect(out)) as db:
        sets = {row[:5]: set(json.loads(row[5])) for row in db.execute(
            "SELECT policy, params, chunk_size, layer, kv_head, positions FROM retained_set "
            "JOIN footprint_point ON point_id = footprint_point.id WHERE turn IS NULL")}
        measures = np.array(db.execute(
            "SELECT kv_footprint, kv_peak, attention_recall, evidence_recall, output_error "
            "FROM footprint_point WHERE turn IS NULL ORDER BY id").fetchall(), dtype=float)
    return sets, measures


def compare(name, a, b, different, off_by):
    (sets_a, measures_a), (sets_b, measures_b) = a, b
    share = sum(len(sets_a[key] ^ sets_b[key]) for key in sets_a) / sum(map(len, sets_a.values()))
    worst = np.nanmax(np.abs(measures_a - measures_b))
    check(f"{name}: the same entries are kept",
          sets_a.keys() == sets_b.keys() and len(sets_a) > 50 and share <= different,
          f"{share:.2%} of {len(sets_a)} sets' entries differ")
    check(f"{name}: the same measures", measures_a.shape == measures_b.shape and worst <= off_by,
          f"they differ by up to {worst}")


def main():
    folder = tempfile.mkdtemp(prefix="kvsim-either-")
    random = np.random.default_rng(11)
    make = lambda heads: (1.5 * random.standard_normal((LAYERS, heads, TOTAL, DIM))).astype("f2")
    q, k, v = make(HEADS), make(KV_HEADS), make(KV_HEADS)
    probs = attention(q, k)
    try:
        with open(os.path.join(folder, "e.yaml"), "w") as f:
            f.write(EXPERIMENT)
        computed = replay(folder, {"q": q, "k": k, "v": v})
        single = replay(folder, {"probs": probs.astype("f4"), "k": k, "v": v})
        half = replay(folder, {"probs": probs.astype("f2"), "k": k, "v": v})
        both = replay(folder, {"probs": probs.astype("f4"), "q": q, "k": k, "v": v})
    finally:
        shutil.rmtree(folder)
    compare("probabilities in single precision", computed, single, 0, 1e-5)
    compare("a file that holds both", computed, both, 0, 1e-5)
    # Halves are off by 2^-11 of themselves: of entries whose scores are that near, the other may stay.
    compare("probabilities as halves", computed, half, 0.01, 2e-3)
    finish()


main()
