#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: transforms of kvsim run against a brute force (reference/transforms.py, reference.py).

Every transform, alone and after evictions of several schedules, and two in a row: the output error must be
equal to 1e-5 (kvsim stores single precision), recall as without the transform, counts those of plain
eviction, and bytes those of what is stored. Skips where Python has no numpy, h5py or yaml.
"""
import json
import os
import sqlite3
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "reference"))
try:
    import h5py
    import numpy as np
    import reference
    import transforms
    import yaml
except ImportError as missing:
    print("1..0 # SKIP %s is not installed" % missing.name)
    sys.exit(0)

TINY = os.path.join(HERE, "data", "tiny.h5")
SNAP = "snapkv: {keep: %s, window: 4, kernel: 3, evict: %s, interval: 3, window_in_budget: true}"
CHUNKS = ["whole", 23]
EXAMPLES = ["0000", "0002"]
MEASURES = ["kv_footprint", "kv_peak", "attention_recall", "output_error", "kv_footprint_bytes"]


def policies():
    small = "group: 8, residual: 16"
    yield "{kivi: {%s}}" % small
    yield "{kivi: {%s, key_bits: 4, value_bits: 3}, %s}" % (small, SNAP % (0.6, "chunked"))
    yield "{kvquant: {}}"
    yield "{kvquant: {bits: 2, outliers: 0.1, sinks: 4}, %s}" % (SNAP % (0.5, "step"))
    yield "{kvquant: {levels: uniform}}"
    yield "{kvquant: {bits: 2}}"
    yield "{kvquant: {bits: 2, levels: uniform}}"
    yield "{kvquant: {levels: uniform, bits: 2, outliers: 0.1, sinks: 4}, %s}" % (SNAP % (0.5, "step"))
    yield "{gear: {}}"
    yield "{gear: {bits: 1, group: 8, outliers: 0.2, rank: 3, buffer: 4}, %s}" % (SNAP % (0.7, "postfill"))
    yield "{think: {observers: 8, recent: 8}}"
    yield "{think: {ratio: 0.6, recent: 4, observers: 8}}"     # 9.6 of 16 channels
    yield "{think: {ratio: 0.5, recent: 0, observers: 4}, %s}" % (SNAP % (0.5, "chunked"))
    yield "{think: {preset: kvcache-factory, observers: 8, recent: 8}}"
    yield "{think: {preset: kvpress, ratio: 0.5, observers: 8}}"
    yield "{nearest_merge: {preset: kvpress}, %s}" % (SNAP % (0.3, "postfill"))
    for scheme in ("pivot", "weighted", "values"):
        yield "{nearest_merge: {scheme: %s}, %s}" % (scheme, SNAP % (0.4, "postfill"))
    yield "{nearest_merge: {}, %s}" % (SNAP % (0.4, "online"))
    yield "{nearest_merge: {}, streaming: {sinks: 2, window: 12}}"
    for merge in ("averaged", "pivotal", "weighted", "none"):
        yield "{look_m: {merge: %s}, %s}" % (merge, SNAP % (0.4, "postfill"))
    yield "{look_m: {text_prior: false}, %s}" % (SNAP % (0.4, "interval"))
    yield "{kvmerger: {}, %s}" % (SNAP % (0.5, "postfill"))
    yield "{kvmerger: {threshold: 0.4, sigma: 2}, %s}" % (SNAP % (0.5, "chunked"))
    yield "{kvmerger: {threshold: -1}, %s}" % (SNAP % (0.3, "step"))
    yield "{cam: {merge: 4}, %s}" % (SNAP % (0.5, "step"))
    yield "{cam: {preset: kvpress}, %s}" % (SNAP % (0.5, "step"))       # fewer than 32 follow
    yield "{cam: {seed: 7}, h2o: {keep: 0.4, evict: online, rounding: half_up}}"
    yield "{rerotate: {}, %s}" % (SNAP % (0.4, "postfill"))
    yield "{rerotate: {}, %s}" % (SNAP % (0.5, "chunked"))
    yield "{rerotate: {rope_theta: 1000000}, streaming: {sinks: 2, window: 12}}"
    for read in ("topk: {read: 9}", "retrieval_attention: {sinks: 2, local: 4, read: 5}"):      # by stored keys
        yield "{kivi: {%s}, %s}" % (small, read)
        yield "{%s, nearest_merge: {}, %s}" % (SNAP % (0.4, "postfill"), read)
    yield "{minicache: {}}"
    yield "{minicache: {t: 0.3, retain: 0.2, start_layer: 1}}"
    yield "{%s, nearest_merge: {}, kivi: {%s}}" % (SNAP % (0.5, "chunked"), small)


def with_modality(folder):
    """The tiny trace with every third run of 5 tokens an image."""
    path = os.path.join(folder, "tiny.h5")
    with h5py.File(TINY) as source, h5py.File(path, "w") as out:
        for name, value in source.attrs.items():
            out.attrs[name] = value
        source.copy("examples", out)
        for example in out["examples"].values():
            n = int(example.attrs["total_len"])
            example["modality"] = (np.arange(n) // 5 % 3 == 1).astype(np.uint8)
    return path


def load(path, name):
    ex = reference.Example(path, name)
    with h5py.File(path) as f:
        ex.modality = f["examples"][name]["modality"][:]
    return ex


def split(text):
    """The retention policy of a combination, and its transforms in order."""
    parts = list(yaml.safe_load(text).items())
    kinds = [(transforms.KINDS[n], s or {}) for n, s in parts if n in transforms.KINDS]
    kept = [{n: s} for n, s in parts if n not in transforms.KINDS and n not in READS]
    names = [n for n, _ in parts]
    return (kept[0] if kept else "full"), kinds, any(n in transforms.NEW_KEYS for n in names)


READS = ("topk", "retrieval_attention")


def read_of(text, dot, seen, first_of_turn):
    """What a query reads of `seen`, given its dot products with the keys as they are stored."""
    for name, p in yaml.safe_load(text).items():
        best = lambda keys, n: sorted(sorted(keys, key=lambda j: (-dot[j], j))[:n])
        keys = [int(j) for j in seen]
        if name == "topk":
            return np.array(best(keys, p["read"]))
        if name == "retrieval_attention" and not first_of_turn:
            first, last = keys[:p["sinks"]], keys[len(keys) - p["local"]:]
            return np.array(first + best(keys[p["sinks"]:len(keys) - p["local"]], p["read"]) + last)
    return seen


def output_error(ex, l, qh, i, K, V, alive, new_keys):
    row = ex.attention(l)[qh, i, :i + 1]
    o = (row / row.sum()) @ ex.v[l, qh // ex.g, :i + 1]
    a = row[alive]
    if new_keys:
        logit = ex.scale * (K[alive] @ ex.q[l, qh, list(ex.query_pos).index(i)])
        a = np.exp(logit - logit.max())
    out = (a / a.sum()) @ V[alive] if a.sum() > 0 else 0 * o
    return np.linalg.norm(out - o) / np.linalg.norm(o)


def biased_evict(pol, bias, l, A, memory, a, b, present):
    """reference.evict with scores that transforms change first."""
    plain = reference.top

    def top(scores, keys, count):
        scores = np.asarray(scores, dtype=float)
        for t in bias:
            scores = t.score(np.asarray(keys), scores) if len(keys) else scores
        return plain(scores, keys, count)
    reference.top = top
    try:
        return reference.evict(pol, l, A, memory, a, b, present)
    finally:
        reference.top = plain


def simulate(ex, text, chunk):
    kept, kinds, new_keys = split(text)
    pol, P, N, H = reference.Policy(kept, ex), ex.P, ex.N, ex.Hkv
    C = P if chunk == "whole" else chunk
    steps = [(a, min(a + C, P)) for a in range(0, P, C)] + [(t, t + 1) for t in range(P, N)]
    answers = {t - 1 for _, s, e in ex.turns for t in range(s, e)}
    firsts = {s - 1 for _, s, _ in ex.turns}
    plain, bits, errors, recalls = 2 * transforms.PLAIN * ex.D, 0.0, [], []
    for l in range(ex.L):
        A, memory = ex.attention(l), np.zeros((H, N))
        K, V = ex.k[l].copy(), ex.v[l].copy()
        chain = [kind(ex, l, settings) for kind, settings in kinds]
        alive = [np.zeros(0, dtype=int) for _ in range(H)]
        for a, b in steps:
            n = b - a
            for h in range(H):
                held = plain * len(alive[h])
                for t in chain if len(alive[h]) else []:
                    held *= t.bits(h, alive[h].tolist(), a < P) / (plain * len(alive[h]))
                bits += n * held + n * (n + 1) / 2 * plain
            present = [np.concatenate([x, np.arange(a, b)]) for x in alive]
            for i in (i for i in range(a, b) if i in answers):
                for qh in range(ex.Hq):
                    seen = present[qh // ex.g][present[qh // ex.g] <= i]
                    q = ex.q[l, qh, list(ex.query_pos).index(i)]
                    seen = read_of(text, K[qh // ex.g] @ q, seen, i in firsts)
                    recalls.append(A[qh, i][seen].sum())
                    errors.append(output_error(ex, l, qh, i, K[qh // ex.g], V[qh // ex.g], seen, new_keys))
            after = biased_evict(pol, chain, l, A, memory, a, b, present)
            for h in range(H):
                gone = np.setdiff1d(present[h], after[h]).tolist()
                for t in chain:
                    t.step(h, K[h], V[h], after[h].tolist(), gone, a, b)
            alive = after
    want = reference.simulate(ex, kept, chunk) if not any(k is transforms.LookM for k, _ in kinds) else {}
    return {"kv_footprint": want.get("kv_footprint"), "kv_peak": want.get("kv_peak"),
            "attention_recall": float(np.mean(recalls)), "output_error": float(np.mean(errors)),
            "kv_footprint_bytes": bits / (ex.L * H * N * (N + 1) / 2 * plain)}


def run_kvsim(texts, trace, folder):
    combinations = [[{n: s} for n, s in yaml.safe_load(t).items()] for t in texts]
    experiment = {"name": "transforms", "seed": 0, "attention": {
        "traces": [trace], "chunk_size": CHUNKS, "critical": {"resamples": 1},
        "policies": [c if len(c) > 1 else c[0] for c in combinations]}}
    path, database = os.path.join(folder, "e.yaml"), os.path.join(folder, "r.db")
    with open(path, "w") as out:
        yaml.safe_dump(experiment, out, sort_keys=False)
    subprocess.run([os.environ["KVSIM"], "run", path, "-o", database, "-q"], check=True)
    return sqlite3.connect(database)


def fitted_levels_pay(db, number):
    """What nuq is for: a smaller output error than even levels of as many bits."""
    errors = dict(((json.loads(p)["bits"], json.loads(p)["levels"]), error) for p, error in db.execute(
        "select params, avg(output_error) from footprint_point where policy = 'kvquant' and turn is null"
        " and params like '%\"outliers\":0.01,%' group by params"))
    pays = all(errors[bits, "nuq"] < errors[bits, "uniform"] for bits in (2, 3))
    print("%sok %d - kvquant's fitted levels err less than even ones: %s" % ("" if pays else "not ", number, errors))
    return pays


def main():
    texts = list(policies())
    print("1..%d" % (len(texts) + 1))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        trace = with_modality(folder)
        db = run_kvsim(texts, trace, folder)
        loaded = [load(trace, e) for e in EXAMPLES]
        points = iter(db.execute("select distinct policy, params, chunk_size from footprint_point"
                                 " where turn is null order by id").fetchall())
        for number, text in enumerate(texts, 1):
            wrong = []
            for chunk in CHUNKS:
                point = next(points)
                for name, ex in zip(EXAMPLES, loaded):
                    got = db.execute(
                        "select %s from footprint_point p join example_point e on e.point_id = p.id where p.policy = ?"
                        " and p.params = ? and p.chunk_size is ? and p.turn is null and e.example like ?"
                        % ", ".join("e." + m for m in MEASURES), (*point, "%" + name)).fetchone()
                    want = simulate(ex, text, chunk)
                    for measure, value in zip(MEASURES, got):
                        if want[measure] is not None and not abs(value - want[measure]) <= 1e-5:
                            wrong.append("chunk %s, example %s: %s %r, expected %r"
                                         % (chunk, name, measure, value, want[measure]))
            print("%s %d - %s" % ("not ok" if wrong else "ok", number, text))
            for line in wrong[:6]:
                print("# " + line)
            failed += bool(wrong)
        failed += not fitted_levels_pay(db, len(texts) + 1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
