#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: contexts that several questions share, against the brute force of reference/reference.py.

`compress_with: context` is that brute force with the context in the place of the prompt. Requests that
fork a context: the first of them compresses it with its question; the brute force of the others is given
what the first kept of the context. All numbers are compared turn by turn, and the collapse of eviction
in later turns, and its absence for read policies, is looked for on the shared data where it is there.
Skips where Python has no numpy, h5py or yaml.
"""
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
    import yaml
except ImportError as missing:
    print("1..0 # SKIP %s is not installed" % missing.name)
    sys.exit(0)

TRACE = os.path.join(HERE, "data", "tiny.h5")
RECALL = os.path.join(os.environ.get("KV_SHARED", ""), "attention", "recall.h5")
CHUNKS = ["whole", 16]
MEASURES = ["attention_recall", "attention_recall_worst_head", "output_error", "evidence_recall"]
WINDOW = "window: 2, kernel: 3, window_in_budget: true, score_over: present, pooling: avg"
POLICIES = ["full", "{streaming: {sinks: 4, window: 9}}", "{h2o: {keep: 0.35, rounding: half_up}}",
            "{knorm: {keep: 0.4, window: 0, window_in_budget: true}}",
            "{tova: {keep: 0.35, scope: layer}}"] + \
    ["{snapkv: {keep: %s, evict: %s, interval: 3, %s}}" % (keep, evict, WINDOW)
     for keep in (0.45, 0.7) for evict in ("postfill", "chunked", "pool", "step", "interval", "online")]
number = failed = 0


def check(wrong, what):
    global number, failed
    number += 1
    failed += bool(wrong)
    print("%s %d - %s" % ("not ok" if wrong else "ok", number, what))
    for line in wrong[:5]:
        print("# " + line)


def run(folder, trace, policies, **settings):
    experiment = {"attention": {"traces": [trace], "policies": [yaml.safe_load(p) for p in policies],
                                "critical": {"resamples": 1}, **settings}}
    path, database = os.path.join(folder, "e.yaml"), os.path.join(folder, "r%d.db" % number)
    with open(path, "w") as out:
        yaml.safe_dump(experiment, out)
    done = subprocess.run([os.environ["KVSIM"], "run", path, "-o", database, "-q"], capture_output=True, text=True)
    return (sqlite3.connect(database) if done.returncode == 0 else None), done


def points_of(db):
    return db.execute("select distinct policy, params, chunk_size from footprint_point where turn is null "
                      "order by id").fetchall()


def compare(db, point, example, want):
    """Where kvsim's numbers of one example differ, all turns together and each."""
    wrong = []
    for turn, values in [(None, want)] + list(enumerate(want["turns"], 1)):
        names = MEASURES + (["kv_footprint", "kv_peak"] if turn is None else [])
        row = db.execute("select %s from footprint_point p join example_point e on e.point_id = p.id where "
                         "policy = ? and params = ? and chunk_size is ? and p.turn is ? and e.example like ?"
                         % ", ".join("e." + n for n in names), (*point, turn, "%" + example)).fetchone()
        if row is None and len(want["turns"]) == 1:
            continue        # one turn has no row of its own
        for name, got in zip(names, row):
            tolerance = 1e-12 if name in ("kv_footprint", "kv_peak") else 1e-6
            if values[name] is None and got is None:
                continue
            if values[name] is None or got is None or abs(got - values[name]) > tolerance:
                wrong.append("%s chunk %s, example %s, turn %s: %s is %r, expected %r"
                             % (point[0], point[2], example, turn, name, got, values[name]))
    return wrong


def context_alone(folder):
    """P is the context: the first question is a step like every later one."""
    db, _ = run(folder, TRACE, POLICIES, chunk_size=CHUNKS, compress_with="context")
    points = iter(points_of(db))
    examples = []
    for name in ("0000", "0001", "0002"):
        with h5py.File(TRACE) as f:
            context = int(f["examples"][name].attrs["context_len"])
        ex = reference.Example(TRACE, name)
        ex.P = context
        examples.append((name, ex))
    for policy in POLICIES:
        wrong = []
        for chunk in CHUNKS:
            point = next(points)
            for name, ex in examples:
                wrong += compare(db, point, name, reference.simulate(ex, policy, chunk))
        check(wrong, "context alone: " + policy)


def write_requests(path):
    """Three requests: `a` and `b` share a context of 55 tokens, `c` has it without saying so."""
    random = np.random.default_rng(5)
    with h5py.File(TRACE) as source, h5py.File(path, "w") as out:
        for key, value in source.attrs.items():
            out.attrs[key] = value
        base = source["examples"]["0001"]
        for name in "abc":
            e = out.create_group("examples/" + name)
            e.attrs.update(task="requests", mode="multi_request", context_len=55, prompt_len=58, total_len=63,
                           full_score=1.0)
            if name != "c":
                e.attrs["context_id"] = "shared"
            e["turns"] = np.array([[55, 58, 63]], dtype=np.int32)
            e["evidence"] = np.array([[0, 10, 15]], dtype=np.int32)
            e["query_pos"] = np.arange(63, dtype=np.int32)
            e["tokens"] = np.arange(63, dtype=np.int32)
            for what in "qkv":
                numbers = base[what][:, :, :63].astype(np.float32)
                if name != "a":
                    numbers[:, :, 55:] += random.normal(size=numbers[:, :, 55:].shape)
                e[what] = numbers


def follow(ex, policy, chunk, given):
    """The brute force of a request whose context was compressed by another."""
    own = reference.evict

    def fork(pol, layer, A, memory, a, b, present):
        kept = own(pol, layer, A, memory, a, b, present)        # it remembers what it sees
        return [np.array(x, dtype=int) for x in given[layer]] if b == ex.P else kept

    try:
        reference.evict = fork
        return reference.simulate(ex, policy, chunk)
    finally:
        reference.evict = own


def serves_best(ex, count):
    """For each layer and KV head the `count` tokens below P of most attention from the answer's rows to come."""
    (_, first, end), = ex.turns
    sums = [ex.attention(layer)[:, max(ex.P, first - 1):end - 1, :ex.P].reshape(ex.Hkv, ex.g, -1, ex.P).sum((1, 2))
            for layer in range(ex.L)]
    return [[sorted(np.argsort(-head, kind="stable")[:count].tolist()) for head in layer] for layer in sums]


def oracle(folder, trace, loaded):
    """topk bounds what any set of the context serves a request: each chooses for its own answer."""
    what, count = "{topk: {budget: 12}}", 12
    db, _ = run(folder, trace, [what, "{h2o: {budget: 12}}"], oracle=False)
    point, other = points_of(db)
    own = {name: follow(ex, "full", None, serves_best(ex, count)) for name, ex in loaded.items()}
    check([line for name in loaded for line in compare(db, point, name, own[name])],
          "requests: " + what + ", each its own set")
    first = [[[j for j in head if j < 55] for head in layer] for layer in serves_best(loaded["a"], count)]
    shared = follow(loaded["b"], "full", None, first)["attention_recall"]
    evicted, = db.execute("select e.attention_recall from footprint_point p join example_point e on e.point_id = p.id "
                          "where policy = 'h2o' and p.turn is null and e.example like '%b'").fetchone()
    check([] if own["b"]["attention_recall"] > max(shared, evicted) + 0.01 else [str((own["b"], shared, evicted))],
          "requests: a later request has more of its own set than of the first's, or of h2o's")


def requests(folder):
    trace = os.path.join(folder, "requests.h5")
    write_requests(trace)
    db, _ = run(folder, trace, POLICIES, chunk_size=CHUNKS)
    points = iter(points_of(db))
    loaded = {name: reference.Example(trace, name) for name in "abc"}
    loaded["b"].P = 55
    for policy in POLICIES:
        wrong = []
        for chunk in CHUNKS:
            point = next(points)
            first = reference.simulate(loaded["a"], policy, chunk)
            given = [[[j for j in head if j < 55] for head in layer] for layer in first["retained"]]
            wrong += compare(db, point, "a", first)
            wrong += compare(db, point, "b", follow(loaded["b"], policy, chunk, given))
            wrong += compare(db, point, "c", reference.simulate(loaded["c"], policy, chunk))
        check(wrong, "requests: " + policy)
    oracle(folder, trace, loaded)
    with h5py.File(trace, "a") as f:
        f["examples/b"].attrs["context_len"] = 54
    _, done = run(folder, trace, ["full"])
    check([] if done.returncode == 2 and "expected the same context" in done.stderr else [done.stderr],
          "contexts of different lengths under one context_id are refused")
    with h5py.File(trace, "a") as f:
        f["examples/b"].attrs["context_len"] = 0
    _, done = run(folder, trace, ["full"], compress_with="context")
    check([] if done.returncode == 2 and "context_len is 0" in done.stderr else [done.stderr],
          "a context of no tokens is refused")


def collapse(folder):
    """kv_multiturn: eviction with the first question visible keeps what it asks for and loses what later
    ones do; what reads less of everything keeps all of it."""
    what = "later turns collapse under eviction, not under read policies"
    if not os.path.exists(RECALL):
        return check([], what + " # SKIP the shared data is not there")
    db, _ = run(folder, RECALL, ["{snapkv: {keep: 0.3, window: 16}}", "{retrieval_attention: {sinks: 4, local: 16, read: 32}}"],
                tasks=["kv_multiturn"])
    recall = {}
    for policy, turn, evidence in db.execute("select policy, turn, evidence_recall from footprint_point where turn "
                                             "is not null order by id"):
        recall.setdefault(policy, {})[turn] = evidence
    wrong = [str(recall)] if not (recall["snapkv"][1] > 0.95 and max(recall["snapkv"][t] for t in (2, 3, 4, 5)) < 0.6
                                  and min(recall["retrieval_attention"].values()) > 0.95) else []
    check(wrong, what)


def main():
    print("1..%d" % (2 * len(POLICIES) + 5))
    with tempfile.TemporaryDirectory() as folder:
        context_alone(folder)
        requests(folder)
        collapse(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
