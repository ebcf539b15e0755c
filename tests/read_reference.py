#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: read policies, alone and combined with eviction, against a brute force.

The brute force below is written from the publications, in plain loops over double precision numbers:
given what is present (the retained sets that kvsim wrote, which replay_reference.py checks, and all
that came later) it chooses what each query head reads and computes recall, evidence recall, output
error, reads and traffic. Nothing in it comes from kvsim. Skips where Python has no numpy, h5py or yaml.
"""
import json
import math
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

TRACE = os.path.join(HERE, "data", "tiny.h5")
EXAMPLES = ["0000", "0001", "0002"]
MEASURES = ["attention_recall", "evidence_recall", "output_error", "kv_reads", "kv_reads_bytes",
            "kv_fetched_bytes", "kv_reads_prefill", "prefill_recall"]
EVICTION = "{snapkv: {keep: 0.5, window: 4, kernel: 3}}"
ENTRY_BYTES = 2 * 2                 # times head_dim: key and value of 2 bytes a number


class Row:
    """What one query head sees at one row."""

    def __init__(self, ex, layer, head, position, present, prefill):
        self.ex, self.layer, self.head, self.position, self.prefill = ex, layer, head, position, prefill
        self.kv_head = head // ex.g
        self.present = [int(j) for j in present if j <= position]
        self.a = ex.attention(layer)[head, position]
        self.q = ex.q[layer, head, list(ex.query_pos).index(position)]
        self.k = ex.k[layer, self.kv_head]


def best(score, keys, count):
    return sorted(sorted(keys, key=lambda j: (-score[j], j))[:count])


# --- the policies: what is read of row.present; in which phases; metadata, scan and home in entries

class TopK:
    phases = ("prefill", "decode")

    def __init__(self, p):
        self.p = p

    def select(self, row):
        n = len(row.present)
        count = self.p.get("read") or max(1, math.ceil(self.p["share"] * n))
        return best(row.a, row.present, count)

    def metadata(self, n, layer):
        return 0

    def scan(self, n, layer):
        return self.metadata(n, layer)

    def home(self):
        return (10 ** 9, 0)


POLICIES = {"topk": TopK}


def cases():
    """(read policy as text, evicts beforehand)."""
    for read in ("{topk: {read: 1}}", "{topk: {read: 7}}", "{topk: {share: 0.13}}", "{topk: {share: 1}}"):
        yield read, False
        yield read, True


# --- measuring

def probed(ex):
    rows = [i for i in range(len(ex.query_pos)) if ex.query_pos[i] < ex.P]
    picks = rows if len(rows) <= 64 else [rows[(i + 1) * len(rows) // 64 - 1] for i in range(64)]
    return [int(ex.query_pos[i]) for i in picks]


def choose(policy, row):
    phase = "prefill" if row.prefill else "decode"
    return policy.select(row) if phase in policy.phases else row.present


def measure(ex, policy, retained):
    """The measures of one example, all turns together."""
    recall, error, alive, full = [], [], 0.0, 0.0
    reads = read_bytes = fetched = all_reads = 0.0
    steps = 0
    for turn, (_, start, end) in enumerate(ex.turns):
        spans = [range(s, e) for t, s, e in ex.evidence if t == turn]
        for position in range(start - 1, end - 1):
            prefill = position == start - 1
            steps += not prefill
            for layer in range(ex.L):
                for kv_head in range(ex.Hkv):
                    kept = retained[layer][kv_head] if position >= ex.P else list(range(ex.P))
                    present = list(kept) + list(range(ex.P, position + 1))
                    union = set()
                    for head in range(kv_head * ex.g, (kv_head + 1) * ex.g):
                        row = Row(ex, layer, head, position, present, prefill)
                        chosen = choose(policy, row)
                        assert set(chosen) <= set(row.present)
                        union |= set(chosen)
                        mass = row.a[chosen].sum()
                        recall.append(mass)
                        o = row.a[:position + 1] @ ex.v[layer, kv_head, :position + 1] / row.a[:position + 1].sum()
                        o1 = row.a[chosen] @ ex.v[layer, kv_head, chosen] / mass if mass > 0 else 0 * o
                        error.append(np.linalg.norm(o1 - o) / np.linalg.norm(o))
                        for span in spans:
                            full += row.a[list(span)].sum()
                            alive += sum(row.a[j] for j in span if j in set(chosen))
                    if prefill:
                        continue
                    n = len(row.present)
                    first, last = policy.home()
                    away = [j for i, j in enumerate(row.present) if i >= first and i < n - last]
                    reads += len(union)
                    read_bytes += len(union) + policy.scan(n, layer)
                    fetched += len(union & set(away))
                    all_reads += position + 1
    out = {"attention_recall": np.mean(recall), "output_error": np.mean(error),
           "evidence_recall": alive / full if full > 0 else None,
           "kv_reads": reads / all_reads, "kv_reads_bytes": read_bytes / all_reads,
           "kv_fetched_bytes": fetched * ENTRY_BYTES * ex.D / steps,
           "kv_reads_prefill": None, "prefill_recall": None}
    if "prefill" in policy.phases:
        scores = all_scores = 0
        mass = []
        for position in probed(ex):
            for layer in range(ex.L):
                for head in range(ex.Hq):
                    row = Row(ex, layer, head, position, range(position + 1), True)
                    chosen = policy.select(row)
                    scores += len(chosen)
                    all_scores += position + 1
                    mass.append(row.a[chosen].sum())
        out["kv_reads_prefill"], out["prefill_recall"] = scores / all_scores, np.mean(mass)
    return out


def footprint_bytes(ex, policy, retained):
    """Entries and metadata summed over steps, over the entries of full causal attention."""
    total = 0.0
    for layer in range(ex.L):
        for kv_head in range(ex.Hkv):
            held = [i + 1 for i in range(ex.P)]
            held += [len(retained[layer][kv_head]) + i + 1 for i in range(ex.N - ex.P)]
            total += sum(n + policy.metadata(n, layer) for n in held)
    return total / (ex.L * ex.Hkv * ex.N * (ex.N + 1) / 2)


# --- kvsim's answers

def run_kvsim(points, folder):
    experiment = {"attention": {"traces": [TRACE], "keep_sets": True, "critical": {"resamples": 1},
                                "policies": [p if len(p) > 1 else p[0] for p in points]}}
    path, database = os.path.join(folder, "e.yaml"), os.path.join(folder, "r.db")
    with open(path, "w") as out:
        yaml.safe_dump(experiment, out)
    subprocess.run([os.environ["KVSIM"], "run", path, "-o", database, "-q"], check=True)
    return sqlite3.connect(database)


def read_example(db, policy, params, example):
    names = ["kv_footprint_bytes"] + MEASURES
    row = db.execute("select p.id, %s from footprint_point p join example_point e on e.point_id = p.id "
                     "where p.turn is null and policy = ? and params = ? and e.example like ?"
                     % ", ".join("e." + n for n in names), (policy, params, "%" + example)).fetchone()
    sets = db.execute("select layer, kv_head, positions from retained_set where point_id = ? and example like ?",
                      (row[0], "%" + example))
    retained = {}
    for layer, head, positions in sets:
        retained.setdefault(layer, {})[head] = json.loads(positions)
    return dict(zip(names, row[1:])), retained


def compare(got, want):
    wrong = []
    for name, value in want.items():
        if value is None and got[name] is None:
            continue
        if value is None or got[name] is None or not abs(value - got[name]) <= 2e-6 * max(1, abs(value)):
            wrong.append("%s %r, expected %r" % (name, got[name], value))
    return wrong


def main():
    all_cases = list(cases())
    points = [([yaml.safe_load(EVICTION)] if evicts else []) + [yaml.safe_load(read)] for read, evicts in all_cases]
    print("1..%d" % len(all_cases))
    loaded = {name: reference.Example(TRACE, name) for name in EXAMPLES}
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        db = run_kvsim(points, folder)
        rows = db.execute("select distinct policy, params from footprint_point where turn is null order by id")
        for number, ((read, evicts), (policy, params)) in enumerate(zip(all_cases, rows.fetchall()), 1):
            name, settings = next(iter(yaml.safe_load(read).items()))
            wrong = []
            for example, ex in loaded.items():
                got, retained = read_example(db, policy, params, example)
                model = POLICIES[name](settings or {})
                want = measure(ex, model, retained)
                want["kv_footprint_bytes"] = footprint_bytes(ex, model, retained)
                wrong += ["example %s: %s" % (example, w) for w in compare(got, want)]
            print("%s %d - %s" % ("not ok" if wrong else "ok", number, read + (" after eviction" if evicts else "")))
            for line in wrong[:5]:
                print("# " + line)
            failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
