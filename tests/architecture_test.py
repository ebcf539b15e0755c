#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: bytes of attention replay under a `model` whose layers do not all cache everything.

Sliding windows, shared caches, one latent cache for all heads, recurrent states beside attention layers that
alone were recorded: footprint in bytes, peak bytes and byte-seconds against a loop over steps and entries, under
policies that evict by position and by score, and for the full cache against `kvsim footprint` as well.
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
    import numpy as np
    import reference
    import yaml
except ImportError as missing:
    print("1..0 # SKIP %s is not installed" % missing.name)
    sys.exit(0)

TINY = os.path.join(HERE, "data", "tiny.h5")         # 4 layers, 4 KV heads of 8 query heads, head_dim 16
CHUNKS = ["whole", 23]
SNAP = "{snapkv: {keep: %s, window: 4, kernel: 3, evict: %s, window_in_budget: true}}"
POLICIES = ["full", "{streaming: {sinks: 2, window: 12}}", SNAP % (0.4, "chunked"), SNAP % (0.5, "postfill"),
            SNAP % (0.3, "online"), SNAP % (0.2, "postfill")]    # the two of postfill share a lane
SHAPE = dict(layers=4, hidden_size=128, vocabulary=256, dtype="fp16", attention=dict(heads=8, kv_heads=4, head_dim=16),
             mlp=dict(intermediate_size=256))
MAMBA = dict(inner_size=256, state_size=16, convolution=4, step_rank=8, state_dtype="fp32")
LATENT = dict(heads=4, head_dim=16, kv_rank=24, rope_dim=8)


# Each: the model, per recorded layer (its own cache, window or None), latent, bytes of an entry, of the states, and
# the entries of a token in a plain cache of all its layers. Entries are 2 x 16 numbers of 2 bytes.
def models():
    yield "plain", dict(SHAPE), [(True, None)] * 4, False, 64, 0, 16
    windows = dict(SHAPE, kinds=dict(local=dict(window=16), all={}), pattern=["local", "all"])
    yield "windows", windows, [(True, 16), (True, None)] * 2, False, 64, 0, 16
    shared = dict(SHAPE, kinds=dict(own={}, local=dict(window=9), reads=dict(shares="own")),
                  pattern=["own", "reads", "local", "reads"])
    yield "shared", shared, [(True, None), (False, None), (True, 9), (False, None)], False, 64, 0, 16
    yield "latent", dict(SHAPE, attention=LATENT), [(True, None)] * 4, True, 2 * (24 + 8), 0, 4
    hybrid = dict(SHAPE, layers=8, mamba=MAMBA, kinds=dict(m=dict(mixer="mamba"), a={}), pattern=["m", "a"])
    state = 4 * 256 * (16 * 4 + 3 * 2)                 # 4 layers: the scan's state, and 3 inputs of the convolution
    yield "hybrid", hybrid, [(True, None)] * 4, False, 64, state, 32


def brute_force(ex, policy, chunk, layers, latent, entry, state, full):
    pol, P, N = reference.Policy(policy, ex), ex.P, ex.N
    C = P if chunk == "whole" else chunk
    steps = [(a, min(a + C, P)) for a in range(0, P, C)] + [(t, t + 1) for t in range(P, N)]
    area, peaks = N * state, [state] * len(steps)
    for l, (own, window) in enumerate(layers):
        A, memory = ex.attention(l), np.zeros((ex.Hkv, N))
        alive = [np.zeros(0, dtype=int) for _ in range(ex.Hkv)]
        for s, (a, b) in enumerate(steps):
            kept = [set(j for j in x.tolist() if window is None or j > a - window) for x in alive]
            for past in ([set().union(*kept)] if latent else kept) if own else []:
                area += entry * sum(len(past) + i for i in range(1, b - a + 1))
                peaks[s] += entry * (len(past) + b - a)
            present = [np.concatenate([x, np.arange(a, b)]) for x in alive]
            alive = reference.evict(pol, l, A, memory, a, b, present)
    return area / (full * entry * N * (N + 1) / 2), max(peaks), area


def write(model, folder, policies=POLICIES, footprint="simulated"):
    experiment = {"name": "architecture", "model": dict(model, name="m"), "attention": {
        "traces": [TINY], "chunk_size": CHUNKS, "critical": {"resamples": 1}, "footprint_model": footprint,
        "policies": [yaml.safe_load(p) for p in policies]}}
    path = os.path.join(folder, "e.yaml")
    with open(path, "w") as out:
        yaml.safe_dump(experiment, out)
    return path


def refusal(model, folder):
    out = subprocess.run([os.environ["KVSIM"], "run", write(model, folder, ["{kivi: {}}"]), "-o",
                          os.path.join(folder, "no.db"), "-q"], capture_output=True, text=True)
    return out.stderr if out.returncode == 2 else ""


def replay(*arguments):
    path, database = write(*arguments), os.path.join(arguments[1], "r.db")
    if os.path.exists(database):
        os.remove(database)
    subprocess.run([os.environ["KVSIM"], "run", path, "-o", database, "-q"], check=True)
    return sqlite3.connect(database).execute(
        "select p.policy, p.chunk_size, e.kv_footprint_bytes, e.kv_bytes_peak, e.kv_bytes_seconds from footprint_point p"
        " join example_point e on e.point_id = p.id where p.turn is null and e.example like '%0000' order by p.id"
    ).fetchall()


def calculator(model, ex, chunk, policy="full"):
    out = subprocess.run([os.environ["KVSIM"], "footprint", "--json", "--model", json.dumps(dict(model, name="m")),
                          "--prompt", str(ex.P), "--generate", str(ex.N - ex.P), "--chunk", str(chunk), policy],
                         check=True, capture_output=True, text=True)
    point = json.loads(out.stdout)["points"][0]
    return point["kv_footprint"], point["kv_bytes_peak"], point["kv_byte_steps"]


def close(got, want):
    return all(abs(g - w) <= 1e-12 * max(1, abs(w)) for g, w in zip(got, want))


def transforms_agree(name, model, ex, folder):
    """Bytes of transforms: replay and calculator, which share no sums."""
    items = ["{kivi: {group: 8, residual: 8}}", "{kvquant: {}}", "{gear: {buffer: 6}}", "{think: {recent: 4}}"]
    if name == "plain":
        items += ["{minicache: {}}", "[%s, {kivi: {group: 4, residual: 4}}]" % (SNAP % (0.5, "chunked"))]
    rows = iter(replay(model, folder, items))
    return all(close(next(rows)[3:], calculator(model, ex, chunk, item)[1:]) for item in items for chunk in CHUNKS)


def main():
    ex, number, failed = reference.Example(TINY, "0000"), 0, 0
    print("1..%d" % ((len(POLICIES) * len(CHUNKS) + 2) * len(list(models()))))
    with tempfile.TemporaryDirectory() as folder:
        for name, model, *rest in models():
            formula = [row[2:] for row in replay(model, folder, ["full"], "analytic")]
            good = all(close(got, calculator(model, ex, chunk)) for got, chunk in zip(formula, CHUNKS))
            number, failed = number + 1, failed + (not good)
            print("%s %d - %s: full, by formula" % ("ok" if good else "not ok", number, name))
            if name == "latent":
                good = "transforms keys and values" in refusal(model, folder)
                print("%s %d - latent: no transform" % ("ok" if good else "not ok", number + 1))
            else:
                good = transforms_agree(name, model, ex, folder)
                print("%s %d - %s: transforms, by calculator" % ("ok" if good else "not ok", number + 1, name))
            number, failed = number + 1, failed + (not good)
            rows = iter(replay(model, folder))
            for policy in POLICIES:
                for chunk in CHUNKS:
                    got, want = next(rows)[2:], brute_force(ex, policy, chunk, *rest)
                    good = close(got, want) and (policy != "full" or close(got, calculator(model, ex, chunk)))
                    number, failed = number + 1, failed + (not good)
                    print("%s %d - %s: %s in chunks of %s" % ("ok" if good else "not ok", number, name, policy, chunk))
                    if not good:
                        print("# %r, expected %r" % (got, want))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
