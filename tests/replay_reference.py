#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: kvsim run against a brute force written from the design text (reference/reference.py).

Every retention policy, every schedule, chunked and whole, published presets: retained sets
must be equal, footprint and peak equal to 1e-12, measures of attention to 1e-6 (kvsim keeps rows in
single precision). Skips where Python has no numpy, h5py or yaml.
"""
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "reference"))
try:
    import reference
    import yaml
except ImportError as missing:
    print("1..0 # SKIP %s is not installed" % missing.name)
    sys.exit(0)

TRACE = os.path.join(HERE, "data", "tiny.h5")
CHUNKS = ["whole", 16, 23]
SCHEDULES = ["postfill", "chunked", "patched", "pool", "step", "interval", "online"]
WINDOW = ("window: 4, kernel: 3, window_in_budget: %s, score_over: %s, group: %s, group_when: %s, "
          "pooling: %s")
MEASURES = ["attention_recall", "attention_recall_no_sinks", "attention_recall_worst_head",
            "attention_recall_p5", "output_error", "evidence_recall"]


def schedule_policies():
    """One snapkv with other settings and every scorer under each schedule."""
    settings = [("true", "chunk", "mean", "before", "avg"), ("false", "present", "max", "after", "max"),
                ("false", "chunk", "sum", "before", "max"), ("true", "present", "mean", "after", "avg")]
    for i, evict in enumerate(SCHEDULES):
        for keep in (0.45, 0.7):
            window = WINDOW % settings[(i + int(10 * keep)) % len(settings)]
            yield "{snapkv: {keep: %s, evict: %s, interval: 3, %s}}" % (keep, evict, window)
        common = "keep: 0.35, evict: %s, interval: 4, rounding: half_up" % evict
        yield "{h2o: {%s}}" % common
        for name, more in (("knorm", ""), ("keydiff", "anchor: raw"), ("keydiff", "anchor: unit"),
                           ("observed_attention", "")):
            yield "{%s: {%s, window: 0, window_in_budget: true%s}}" % (
                name, common, ", " + more if more else "")
        if evict != "patched":      # the reference has no probe rows for tova
            yield "{tova: {%s, scope: layer}}" % common
            yield "{tova: {%s, scope: kv_head}}" % common


def preset_policies():
    for keep in (0.3, 0.5, 0.7):
        for text in ("snapkv: {preset: kvpress, window: 8", "snapkv: {preset: kvcache-factory, rounding: half_up, window: 8",
                     "pyramidkv: {preset: kvpress, window: 4, beta: 3",
                     "pyramidkv: {preset: kvcache-factory, rounding: half_up, window: 4, beta: 3",
                     "adakv: {preset: kvpress, window: 8",
                     "adakv: {preset: kvcache-factory, rounding: half_up, normalize: false, window: 8, kernel: 5, pooling: avg",
                     "adakv: {preset: kvcache-factory, rounding: half_up, window: 4, kernel: 3, pooling: avg",
                     "tova: {preset: kvpress", "observed_attention: {preset: kvpress",
                     "keydiff: {preset: kvpress", "knorm: {preset: kvpress", "streaming: {preset: kvpress"):
            yield "{%s, keep: %s}}" % (text, keep)


def every_other(policies):
    """Half of them, so that the test stays short: of those that differ in schedule or amount alone every second,
    the first one always, so that every kind is met."""
    met, out = {}, []
    for policy in policies:
        kind = re.sub(r"(evict|keep|threshold): [^,}]+", "", policy)
        place, count = met.setdefault(kind, [len(met), 0])
        met[kind][1] += 1
        if count == 0 or (place + count) % 2 == 0:
            out.append(policy)
    return out


def method_policies():
    """Policies of reference/methods.py, `patched` left out."""
    for evict in SCHEDULES:
        if evict == "patched":
            continue
        common = "keep: 0.4, evict: %s, interval: 3" % evict
        yield "{l2: {%s, skip_layers: 1, prune_after: 20}}" % common
        yield "{scissorhands: {%s, window: 4, sinks: 2, history: 9, decay: 0.8}}" % common
        yield "{scissorhands: {%s, window: 3, sinks: 0, history: 12, importance: count}}" % common
        yield "{scissorhands: {%s, window: 3, sinks: 1, history: 6, selection: sample, temperature: 0.3, seed: 5}}" % common
        yield "{nacl: {%s, window: 6, random: 0}}" % common
        yield "{nacl: {%s, window: 5, sinks: 2, temperature: 0.02}}" % common
        yield "{random: {%s}}" % common
        yield "{random: {%s, sinks: 3, window: 6, seed: 11}}" % common
        yield "{lagkv: {%s, lag: 8, sinks: 3}}" % common
        yield "{lagkv: {%s, lag: 7, cross_scoring: true}}" % common
        yield "{curdkv: {%s, local: 5}}" % common
        yield "{curdkv: {%s, sinks: 0, leverage: %s, local: %d}}" % (
            common, ["key", "value", "kv_avg", "kv_product"][SCHEDULES.index(evict) % 4], 7 * (len(evict) % 2))
        yield "{corm: {window: 7, evict: %s, interval: 3}}" % evict
        yield "{corm: {window: 2, sinks: 3, evict: %s, interval: 3}}" % evict
        for threshold in (0.1, 0.4, 0.9):
            yield "{simlayerkv: {threshold: %s, sinks: 2, recent: 9, rows: 2, evict: %s, interval: 3}}" % (
                threshold, evict)
        yield "{chunkkv: {%s, chunk: 6, window: 5, kernel: 3}}" % common
        yield "{chunkkv: {budget: 20, evict: %s, interval: 3, chunk: 5, window: 3, kernel: 1}}" % evict
        yield "{finch: {%s, sinks: 1}}" % common
        yield "{finch: {%s, normalize: false}}" % common
        yield "{topk: {%s}}" % common
        if evict in ("postfill", "chunked"):
            yield "{criticalkv: {%s, window: 5, kernel: 3, norm: value, first_stage: 0.3}}" % common
            yield "{criticalkv: {%s, window: 3, kernel: 1}}" % common
        yield "{qfilter: {%s, sinks: 2, filters: filters.tsv}}" % common
        yield "{expected_attention: {%s, sinks: 3, future: 40, epsilon: 0.01}}" % common
        yield "{expected_attention: {%s, future: 7, vnorm: false, covariance: false, rope_theta: 10000}}" % common
        if evict in ("postfill", "chunked"):
            yield "{headkv: {%s, window: 4, kernel: 3, heads: importance.tsv, beta: 1.3}}" % common
            yield "{headkv: {%s, window: 4, kernel: 3, heads: heads.tsv, per: kv_head}}" % common
        yield "{prompt_compression: {keep: %s}}" % (0.1 + 0.14 * SCHEDULES.index(evict))
        yield "{prompt_compression: {keep: %s, sinks: 3, scores: recorded}}" % (
            0.12 + 0.12 * SCHEDULES.index(evict))
    for keep in (0.2, 0.45, 0.8):
        for pool in ("model", "layer", "kv_head"):
            yield "{kvzip: {keep: %s, pool: %s}}" % (keep, pool)
        yield "{dynamickv: {keep: %s, window: 4, sinks: 1, kernel: 3}}" % keep
        yield "{dynamickv: {keep: %s, window: 4, most: 1.1}}" % keep
        yield "{locret: {keep: %s, window: 3, local: 0, scores: recorded, rounding: half_up}}" % keep
    for keep in (0.3, 0.55):
        yield "{criticalkv: {preset: kvpress, window: 8, keep: %s}}" % keep
        yield "{criticalkv: {preset: kvpress, window: 30, keep: %s}}" % keep
        yield "{expected_attention: {preset: kvpress, keep: %s}}" % keep
        yield "{headkv: {preset: kvcache-factory, rounding: half_up, window: 8, keep: %s, heads: importance.tsv}}" % keep
        yield "{lagkv: {preset: kvpress, lag: 16, keep: %s}}" % keep
        yield "{chunkkv: {preset: kvpress, chunk: 9, window: 8, keep: %s}}" % keep
        yield "{finch: {preset: kvpress, keep: %s}}" % keep


def scorer_policies():
    """One policy's scores under another's budget (reference/scorers.py)."""
    expected = "{expected_attention: {sinks: %d, future: %d, epsilon: 0.01}}"
    snapkv = "{snapkv: {window: 4, kernel: 3}}"
    for evict in ("postfill", "chunked"):
        common = "keep: %s, evict: %s"
        for i, scorer in enumerate(("knorm", "keydiff", "h2o", "observed_attention", expected % (3, 40), snapkv,
                                    "{keydiff: {anchor: raw}}", "{criticalkv: {norm: value, scorer: knorm}}",
                                    "{criticalkv: {scorer: %s}}" % expected % (2, 30))):
            yield "{adakv: {scorer: %s, %s}}" % (scorer, common % (0.3 + 0.05 * i, evict))
        for i, scorer in enumerate(("knorm", "h2o", "observed_attention", expected % (3, 40), snapkv)):
            yield "{criticalkv: {scorer: %s, norm: value, first_stage: 0.3, %s}}" % (
                scorer, common % (0.3 + 0.1 * i, evict))
            yield "{chunkkv: {scorer: %s, chunk: 5, %s}}" % (scorer, common % (0.65 - 0.1 * i, evict))
    for evict in ("pool", "step", "interval", "online"):
        yield "{criticalkv: {scorer: keydiff, keep: 0.4, evict: %s, interval: 3}}" % evict
        yield "{chunkkv: {scorer: keydiff, keep: 0.4, chunk: 4, evict: %s, interval: 3}}" % evict
        yield "{chunkkv: {scorer: {observed_attention: {}}, keep: 0.5, chunk: 6, evict: %s, interval: 3}}" % evict
    for keep in (0.2, 0.35, 0.6):
        for scorer in ("knorm", "keydiff", "expected_attention", "observed_attention", "{expected_attention: {epsilon: 0.01}}",
                       "{snapkv: {window: 8}}", "{criticalkv: {scorer: expected_attention}}"):
            yield "{adakv: {preset: kvpress, scorer: %s, keep: %s}}" % (scorer, keep)
        for scorer in ("knorm", "expected_attention", "{snapkv: {window: 8}}"):
            yield "{criticalkv: {preset: kvpress, scorer: %s, keep: %s}}" % (scorer, keep)
        for scorer in ("keydiff", "expected_attention", "{snapkv: {window: 8}}"):
            yield "{chunkkv: {preset: kvpress, chunk: 7, scorer: %s, keep: %s}}" % (scorer, keep)
    for budget in (12, 25, 41):
        yield "{adakv: {scorer: knorm, budget: %d}}" % budget
        yield "{criticalkv: {scorer: knorm, norm: value, budget: %d}}" % budget
        yield "{chunkkv: {scorer: keydiff, chunk: 4, budget: %d}}" % budget


def kvpress_counts():
    """kvpress keeps one entry where its product truncates to none; KVzipPress truncates what leaves."""
    for keep in (0.004, 0.01):
        for text in ("snapkv: {window: 1", "pyramidkv: {window: 1", "criticalkv: {window: 8",
                     "observed_attention: {", "knorm: {", "tova: {"):
            yield "{%s%spreset: kvpress, keep: %s}}" % (text, "" if text[-1] == "{" else ", ", keep)
    for keep, pool in ((0.033, "model"), (0.3, "layer"), (0.787, "model"), (0.55, "kv_head")):
        yield "{kvzip: {preset: kvpress, keep: %s, pool: %s}}" % (keep, pool)
    yield "{adakv: {preset: kvpress, window: 2, alpha: 0.01, keep: 0.2}}"
    for keep in (0.1, 0.3, 0.55):
        yield "{curdkv: {preset: kvpress, keep: %s}}" % keep
        yield "{adakv: {preset: kvpress, scorer: {curdkv: {leverage: kv_avg}}, keep: %s}}" % keep
    yield "{chunkkv: {preset: kvpress, chunk: 7, scorer: curdkv, keep: 0.4}}"


def kvcache_factory_counts():
    """HeadKV's window comes on top of its capacities; AdaKV normalises."""
    for budget in (9, 40, 101, 5000):
        yield "{headkv: {preset: kvcache-factory, window: 8, budget: %d, heads: importance.tsv}}" % budget
    for beta in (1.01, 3):
        yield "{headkv: {preset: kvcache-factory, window: 4, budget: 30, beta: %s, heads: importance.tsv}}" % beta
    for recent in ("recent: 3", "recent: 20", "window: 20"):     # what is written beside a preset wins
        yield "{h2o: {preset: kvcache-factory, rounding: half_up, keep: 0.5, %s}}" % recent
    for keep in (0.5, 0.97, 1.0):
        yield "{headkv: {window: 4, keep: %s, heads: importance.tsv}}" % keep
    for keep in (0.05, 0.1, 0.13, 0.2, 0.5):     # below, at and above what sinks and window take
        yield "{nacl: {preset: kvcache-factory, random: 0, window: 5, sinks: 4, keep: %s}}" % keep
        yield "{scissorhands: {preset: kvcache-factory, window: 4, sinks: 5, history: 7, keep: %s}}" % keep
    for text in ("budget: 3", "budget: 12, evict: step", "keep: 0.3, evict: interval, interval: 2, decay: 0.7"):
        yield "{scissorhands: {preset: kvcache-factory, window: 4, sinks: 3, history: 5, %s}}" % text
    yield "{nacl: {preset: kvcache-factory, random: 0, window: 4, sinks: 3, budget: 6}}"
    yield "{nacl: {preset: kvcache-factory, random_tokens: 0, window: 4, sinks: 3, budget: 20}}"


def finch_chunks():
    """FinchPress with chunk_length, which ranks within chunks what the whole prompt's scores say."""
    for keep, chunk in ((0.3, 20), (0.45, 33), (0.02, 7), (0.6, 500)):
        yield "{finch: {preset: kvpress, keep: %s, chunk: %d}}" % (keep, chunk)
    yield "{finch: {keep: 0.4, chunk: 10, sinks: 2, normalize: false}}"


def edges():
    """Rules that only show at some amounts: the least that stays, prompts (62 and 78 tokens) shorter than a chunk,
    layers that are spared, a budget of all there is; kvsim's own pyramid."""
    for chunk in (9, 70, 100):
        for keep in (0.01, 0.4):
            yield "{chunkkv: {preset: kvpress, window: 8, kernel: 3, chunk: %d, keep: %s}}" % (chunk, keep)
    yield "{chunkkv: {window: 8, chunk: 9, keep: 0.01}}"
    for budget in (61, 62, 78, 79):
        yield "{headkv: {preset: kvcache-factory, window: 8, budget: %d, heads: importance.tsv}}" % budget
    for keep in (0.2, 0.6):
        yield "{knorm: {preset: prulong, window: 5, keep: %s}}" % keep
        yield "{knorm: {preset: kvcache-factory, keep: %s}}" % keep
        yield "{l2: {preset: devoto, prune_after: 30, keep: %s}}" % keep
        for beta in (1, 2, 7):
            yield "{pyramidkv: {window: 4, beta: %d, keep: %s}}" % (beta, keep)
        yield "{pyramidkv: {window: 6, beta: 3, window_in_budget: false, keep: %s, evict: chunked}}" % keep
    for budget in (40, 64, 70, 100):    # points of one lane: the larger ones leave the shorter prompt alone
        yield "{adakv: {preset: kvcache-factory, window: 5, kernel: 3, pooling: avg, alpha: 0.5, normalize: false, budget: %d}}" % (
                budget)
    for length in (62, 63, 78, 79):     # a head of as many entries is pruned
        yield "{l2: {keep: 0.5, skip_layers: 0, prune_after: %d}}" % length


def lazy_layers():
    """SimLayerKVPress: threshold 1 spares every layer; the least length that is looked at (prompts of 62 and 78 tokens)."""
    for recent, rows in ((56, 1), (57, 1), (56, 2), (73, 1), (71, 3), (71, 2)):
        yield "{simlayerkv: {threshold: 0.3, sinks: 4, recent: %d, rows: %d}}" % (recent, rows)
    yield "{simlayerkv: {threshold: 1, sinks: 3, recent: 8}}"


def other_policies():
    yield "full"
    yield "{streaming: {sinks: 4, window: 9}}"
    yield "{streaming: {sinks: 2, keep: 0.3}}"
    yield "{duo: {heads: heads.tsv, sparsity: 0.5, sinks: 4, window: 8}}"
    yield "{duo: {preset: kvpress, heads: heads.tsv, sparsity: 0.5, sinks: 4, window: 8}}"
    for threshold in (0.1, 0.4):
        yield "{simlayerkv: {preset: kvpress, threshold: %s, sinks: 3, recent: 11}}" % threshold


def run_kvsim(policies, folder):
    with open(os.path.join(folder, "heads.tsv"), "w") as out:
        out.write("0.4\t0.1\t0.8\t0.9\n0.6\t1\t0\t0.95\n0.45\t0.5\t0.7\t0.15\n0.2\t0.35\t0.75\t0.25\n")
    for name, columns in (("filters.tsv", 64), ("importance.tsv", 8)):
        with open(os.path.join(folder, name), "w") as out:
            for layer in range(4):
                out.write("\t".join("%d" % ((7 * i * i + 13 * layer * i + 3 * i + layer) % 23 - (
                    11 if columns == 64 else 0)) for i in range(columns)) + "\n")
    experiment = {"name": "reference", "seed": 0, "attention": {
        "traces": [TRACE], "keep_sets": True, "chunk_size": CHUNKS, "critical": {"resamples": 1},
        "policies": [yaml.safe_load(p) for p in policies]}}
    path, database = os.path.join(folder, "e.yaml"), os.path.join(folder, "r.db")
    with open(path, "w") as out:
        yaml.safe_dump(experiment, out)
    subprocess.run([os.environ["KVSIM"], "run", path, "-o", database, "-q"], check=True)
    return sqlite3.connect(database)


def points_of(db):
    """Points in the order of the experiment: policy by policy, chunk size by chunk size."""
    rows = db.execute("select distinct policy, params, chunk_size from footprint_point where turn is null"
                      " order by id")
    return [dict(policy=r[0], params=r[1], chunk=r[2] or "whole") for r in rows]


def read_example(db, policy, params, chunk, example):
    where = "policy = ? and params = ? and chunk_size is ? and p.turn is null and e.example like ?"
    names = ["kv_footprint", "kv_peak"] + MEASURES
    arguments = (policy, params, None if chunk == "whole" else chunk, "%" + example)
    row = db.execute("select p.id, %s from footprint_point p join example_point e on e.point_id = p.id where %s"
                     % (", ".join("e." + n for n in names), where), arguments).fetchone()
    sets = db.execute("select layer, kv_head, positions from retained_set where point_id = ? and example like ?",
                      (row[0], "%" + example))
    return dict(zip(names, row[1:])), {(l, h): json.loads(p) for l, h, p in sets}


def compare(policy, chunk, got, sets, want):
    wrong = []
    for (layer, head), positions in sets.items():
        if positions != [int(p) for p in want["retained"][layer][head]]:
            wrong.append("retained set of layer %d, KV head %d" % (layer, head))
    for name in ["kv_footprint", "kv_peak"] + MEASURES:
        tolerance = 1e-12 if name in ("kv_footprint", "kv_peak") else 1e-6
        if want[name] is None and got[name] is None:
            continue
        if want[name] is None or got[name] is None or not abs(want[name] - got[name]) <= tolerance:
            wrong.append("%s %r, expected %r" % (name, got[name], want[name]))
    return wrong


def main():
    policies = list(schedule_policies()) + list(preset_policies()) + every_other(
        method_policies()) + every_other(scorer_policies()) + list(kvpress_counts()) + list(
        kvcache_factory_counts()) + list(finch_chunks()) + list(edges()) + list(lazy_layers()) + list(
        other_policies())
    examples = ["0000", "0002"]
    print("1..%d" % len(policies))
    with tempfile.TemporaryDirectory() as folder:
        db = run_kvsim(policies, folder)
        os.chdir(folder)
        loaded = [reference.Example(TRACE, e) for e in examples]
        points = iter(points_of(db))
        failed = 0
        for number, policy in enumerate(policies, 1):
            wrong = []
            for chunk in CHUNKS:
                point = next(points)
                for name, example in zip(examples, loaded):
                    got, sets = read_example(db, point["policy"], point["params"], chunk, name)
                    want = reference.simulate(example, policy, chunk)
                    wrong += ["chunk %s, example %s: %s" % (chunk, name, w)
                              for w in compare(policy, chunk, got, sets, want)]
            print("%s %d - %s" % ("not ok" if wrong else "ok", number, policy.replace("#", "")))
            for line in wrong[:5]:
                print("# " + line)
            failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
