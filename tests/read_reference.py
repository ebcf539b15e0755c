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
    import h5py
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
    in_prefill = True       # metadata is there from the first token on

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


class Read:
    """Defaults of the slots: nothing beside the entries, all of them on the device."""
    phases = ("decode",)
    in_prefill = True

    def __init__(self, p):
        self.p = {**self.defaults, **p}

    def metadata(self, n, layer):
        return 0

    def scan(self, n, layer):
        return self.metadata(n, layer)

    def home(self):
        return (10 ** 9, 0)


def prefill_end(row):
    """The end of the prompt, or of the question that a later row belongs to."""
    for _, start, _ in row.ex.turns:
        if row.ex.P <= row.position < start:
            return start
    return row.ex.P


class AShape(Read):
    phases = ("prefill",)
    defaults = dict(sinks=128, local=3968)

    def select(self, row):
        i = row.position
        return [j for j in row.present if j < self.p["sinks"] or j > i - max(1, self.p["local"])]


class TriShape(AShape):
    defaults = dict(sinks=128, local=3968, last=100)

    def select(self, row):
        dense = row.position >= prefill_end(row) - self.p["last"]
        return row.present if dense else super().select(row)


class MInference(Read):
    phases = ("prefill",)
    defaults = dict(pattern="vertical_slash", vertical=1000, slash=6096, last=64, block=64, blocks=100)
    memory = {}

    def sums(self, row):
        """The last rows' attention by column and by distance, and the rows."""
        ex, n = row.ex, row.ex.P
        column, distance, rows = np.zeros(n), np.zeros(n), range(max(0, n - self.p["last"]), n)
        for i in rows:
            a = ex.attention(row.layer)[row.head, i]
            for j in range(i + 1):
                column[j] += a[j]
                distance[i - j] += a[j]
        return column, distance, rows

    def lines(self, row, vertical, slash, by_position=False):
        column, distance, _ = self.sums(row)
        column[:30], distance[:100] = np.inf, np.inf
        n = row.ex.P
        if by_position:
            return set(range(min(vertical, n))), set(range(min(slash, n))) | {0}
        keep = lambda x, k: set(sorted(range(n), key=lambda t: (-x[t], t))[:k])
        return keep(column, vertical), keep(distance, slash) | {0}

    def blocks(self, row, position, end, count, present):
        size = self.p["block"]
        own = position // size
        recorded = list(row.ex.query_pos)
        queries = [row.ex.q[row.layer, row.head, recorded.index(i)]
                   for i in range(own * size, min((own + 1) * size, end)) if i in recorded]
        q = np.mean(queries, axis=0)
        left = [[j for j in present if j // size == b] for b in range(own)]
        score = [q @ row.k[keys].mean(axis=0) if keys else -np.inf for keys in left]
        return {own} | set(sorted(range(own), key=lambda b: (-score[b], b))[:count - 1])

    def search(self, row):
        """The shape that covers most of the last rows' attention; blocks: their number."""
        every, size = self.p["vertical"] + self.p["slash"], self.p["block"]
        eighth, (_, _, rows) = every // 8, self.sums(row)
        shapes = [self.lines(row, self.p["vertical"], self.p["slash"], True)] + [
            self.lines(row, v, s) for v, s in ((self.p["vertical"], self.p["slash"]), (eighth, every - eighth),
                                               (every // 2, every - every // 2), (every - eighth, max(1, eighth)))]
        a = row.ex.attention(row.layer)[row.head]
        covered = [sum(a[i][j] for i in rows for j in range(i + 1) if j in c or i - j in d) for c, d in shapes]
        best = int(np.argmax(covered))
        count = max(1, every // size)
        blocks = {i // size: self.blocks(row, i, row.ex.P, count, range(row.ex.P)) for i in rows}
        if sum(a[i][j] for i in rows for j in range(i + 1) if j // size in blocks[i // size]) > covered[best]:
            return count
        return shapes[best]

    def select(self, row):
        key = (row.ex.path, id(row.ex), row.layer, row.head, tuple(sorted(self.p.items())))
        pattern, size = self.p["pattern"], self.p["block"]
        if key not in self.memory:
            self.memory[key] = (self.p["blocks"] if pattern == "block" else self.search(row) if pattern == "search"
                                else self.lines(row, self.p["vertical"], self.p["slash"]))
        found = self.memory[key]
        if isinstance(found, int):
            kept = self.blocks(row, row.position, prefill_end(row), found, row.present)
            return [j for j in row.present if j // size in kept]
        return [j for j in row.present if j in found[0] or row.position - j in found[1]]


def pages(present, size):
    return [present[i:i + size] for i in range(0, len(present), size)]


def page_bound(q, keys, dims):
    """The largest dot product that a vector within the page's channel-wise bounds could have."""
    least, most = keys.min(axis=0), keys.max(axis=0)
    return sum(max(q[d] * least[d], q[d] * most[d]) for d in dims)


def best_pages(groups, score, count):
    kept = sorted(range(len(groups)), key=lambda p: (-score[p], p))[:count]
    return sorted(j for p in kept for j in groups[p])


class Quest(Read):
    defaults = dict(read=1024, page=16, skip_layers=2)

    def select(self, row):
        if row.layer < self.p["skip_layers"]:
            return row.present
        groups = pages(row.present, self.p["page"])
        score = [page_bound(row.q, row.k[g], range(row.ex.D)) for g in groups]
        return best_pages(groups, score, max(3, min(self.p["read"], len(row.present)) // self.p["page"]))

    def metadata(self, n, layer):
        return 0 if layer < self.p["skip_layers"] else math.ceil(n / self.p["page"])


class RetrievalAttention(Read):
    defaults = dict(sinks=128, local=512, read=2000)

    def select(self, row):
        n = len(row.present)
        first = row.present[:self.p["sinks"]]
        last = row.present[max(len(first), n - self.p["local"]):] if self.p["local"] else []
        middle = row.present[len(first):n - len(last)]
        return first + best(row.a, middle, self.p["read"]) + last

    def home(self):
        return (self.p["sinks"], self.p["local"])


class InfLLM(Read):
    defaults = dict(sinks=128, local=4096, block=128, blocks=16, representatives=4)
    memory = {}

    def received(self, row, head):
        key = (id(row.ex), row.layer, head, self.p["local"])
        if key not in self.memory:
            total = np.zeros(row.ex.N)
            for i in range(row.ex.P):
                first = max(0, i - self.p["local"])
                total[first:i + 1] += row.ex.attention(row.layer)[head, i, first:i + 1]
            self.memory[key] = total
        return self.memory[key]

    def select(self, row):
        ex, size = row.ex, self.p["block"]
        sinks = min(self.p["sinks"], row.position + 1)
        count = max(0, row.position + 1 - sinks - self.p["local"]) // size
        at = list(ex.query_pos).index(row.position)
        score = []
        for b in range(count):
            block = range(sinks + b * size, sinks + (b + 1) * size)
            total = 0
            for head in range(ex.Hq):
                block_of_head = [j for j in block if j in row.held[head // ex.g]]     # what has left scores nothing
                chosen = best(self.received(row, head), block_of_head, self.p["representatives"])
                if not chosen:
                    continue
                total += ex.q[row.layer, head, at] @ ex.k[row.layer, head // ex.g, chosen].mean(axis=0)
            score.append(total)
        kept = set(sorted(range(count), key=lambda b: (-score[b], b))[:self.p["blocks"]])
        return [j for j in row.present
                if j < sinks or (j - sinks) // size >= count or (j - sinks) // size in kept]

    def metadata(self, n, layer):
        return max(0, n - self.p["sinks"] - self.p["local"]) // self.p["block"] * GROUP / 2

    def home(self):
        return (self.p["sinks"], self.p["local"])


class RocketKV(Read):
    in_prefill = False
    defaults = dict(window=32, kernel=63)

    def __init__(self, p):
        super().__init__(p)
        c = p["compression"]
        self.r = min(0.2 + 0.06 * math.log2(c), 0.8)
        self.second = c ** ((1 - self.r) / 2)
        self.page = max(1, round(self.second))

    def select(self, row):
        ex = row.ex
        at = list(ex.query_pos).index(row.position)
        queries = [ex.q[row.layer, h, at] for h in range(row.kv_head * ex.g, (row.kv_head + 1) * ex.g)]
        size = sum(abs(q) for q in queries)
        dims = best(size, range(ex.D), max(1, round(ex.D / self.second)))
        groups = pages(row.present, self.page)
        score = [sum(page_bound(q, row.k[g], dims) for q in queries) for g in groups]
        wanted = math.ceil(len(row.present) / self.p["compression"] ** (1 - self.r))
        return best_pages(groups, score, math.ceil(wanted / self.page))

    def metadata(self, n, layer):
        return math.ceil(n / self.page)

    def scan(self, n, layer):
        return self.metadata(n, layer) * max(1, round(WIDTH / self.second)) / WIDTH / 2


GROUP, WIDTH = 2, 16        # query heads of a KV head and head_dim of the trace
POLICIES = {"topk": TopK, "a_shape": AShape, "tri_shape": TriShape, "minference": MInference,
            "quest": Quest, "retrieval_attention": RetrievalAttention, "infllm": InfLLM,
            "rocketkv": RocketKV}


def cases():
    """(read policy as text, evicts beforehand)."""
    for read in ("{topk: {read: 1}}", "{topk: {read: 7}}", "{topk: {share: 0.13}}", "{topk: {share: 1}}",
                 "{a_shape: {sinks: 3, local: 9}}", "{a_shape: {}}", "{tri_shape: {sinks: 2, local: 5, last: 6}}",
                 "{tri_shape: {sinks: 2, local: 5, last: 0}}",
                 "{minference: {vertical: 33, slash: 7, last: 8}}", "{minference: {vertical: 31, slash: 102, last: 64}}",
                 "{minference: {pattern: block, block: 8, blocks: 3}}", "{minference: {}}",
                 "{minference: {pattern: search, vertical: 6, slash: 10, last: 8, block: 4}}",
                 "{minference: {pattern: search, vertical: 2, slash: 22, last: 30, block: 2}}",
                 "{quest: {read: 24, page: 4, skip_layers: 0}}", "{quest: {read: 1, page: 5, skip_layers: 1}}",
                 "{quest: {}}", "{retrieval_attention: {sinks: 4, local: 8, read: 6}}",
                 "{retrieval_attention: {sinks: 0, local: 0, read: 5}}", "{retrieval_attention: {}}",
                 "{infllm: {sinks: 4, local: 8, block: 8, blocks: 2, representatives: 3}}",
                 "{infllm: {sinks: 0, local: 1, block: 5, blocks: 4, representatives: 1}}", "{infllm: {}}"):
        yield read, False
        yield read, True
    for read in ("{rocketkv: {compression: 2, window: 4, kernel: 5}}", "{rocketkv: {compression: 3}}", "{rocketkv: {compression: 8}}",
                 "{rocketkv: {compression: 1}}", "{rocketkv: {compression: 100, window: 8}}"):
        yield read, False
    yield "{rocketkv: {compression: 16}}", True


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
                    held = [set(retained[layer][h]) | set(range(ex.P, ex.N)) for h in range(ex.Hkv)]
                    union = set()
                    for head in range(kv_head * ex.g, (kv_head + 1) * ex.g):
                        row = Row(ex, layer, head, position, present, prefill)
                        row.held = held
                        chosen = list(choose(policy, row))
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
    """Entries and metadata summed over steps, over the entries of full causal attention; the same of
    what is on the device."""
    total = device = 0.0
    for layer in range(ex.L):
        for kv_head in range(ex.Hkv):
            prefill = [i + 1 for i in range(ex.P)]
            decode = [len(retained[layer][kv_head]) + i + 1 for i in range(ex.N - ex.P)]
            beside = [policy.metadata(n, layer) if policy.in_prefill else 0 for n in prefill]
            beside += [policy.metadata(n, layer) for n in decode]
            total += sum(prefill + decode) + sum(beside)
            device += sum(min(n, sum(policy.home())) for n in prefill + decode) + sum(beside)
    full = ex.L * ex.Hkv * ex.N * (ex.N + 1) / 2
    return total / full, device / full


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
    names = ["kv_footprint_bytes", "kv_footprint_device"] + MEASURES
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


def refusals(folder):
    """Recordings that lack what a policy needs: status 2 and what to record."""
    cases = [("q", "{quest: {}}", "lacks queries, which quest needs: record the dataset q"),
             ("k", "{rocketkv: {compression: 2}}", "lacks keys, which rocketkv needs: record the dataset k"),
             ("rows", "{minference: {}}", "which minference needs"),
             ("rows", "{infllm: {}}", "which infllm needs"),
             ("v", "[{lagkv: {keep: 0.5}}, {a_shape: {}}]", "lacks values, which lagkv beside a_shape needs"),
             ("q", "[{knorm: {keep: 0.5}}, {quest: {}}]", "lacks queries, which quest needs"),
             ("rows", "[{knorm: {keep: 0.5}}, {infllm: {}}]", "which infllm needs"),
             ("rows", "[{h2o: {keep: 0.5}}, {a_shape: {}}]", "which h2o beside a_shape needs"),
             ("v", "{adakv: {scorer: lagkv, keep: 0.5}}", "which adakv over lagkv needs"),
             ("rows", "{h2o: {keep: 0.5}}", "every position from 0 to"),
             ("rows", "{expected_attention: {keep: 0.5, rope_theta: 10000}}",
              "enough queries of its prompt (8 are recorded), which expected_attention needs: record at least 32"),
             ("v", "{headkv: {keep: 0.5}}", "headkv: give heads, a file"),
             ("v", "{qfilter: {keep: 0.5}}", "qfilter: give filters, a file")]
    for number, (lacks, read, message) in enumerate(cases):
        trace, path = os.path.join(folder, "lacks%d.h5" % number), os.path.join(folder, "lacks.yaml")
        with h5py.File(TRACE) as source, h5py.File(trace, "w") as out:
            out.attrs.update(source.attrs)
            source.copy(source["examples"]["0000"], out.create_group("examples"), "0000")
            example = out["examples"]["0000"]
            if lacks != "rows":
                del example[lacks]
            else:
                for name in ("probs", "q"):
                    rows = example[name][:, :, 70:]
                    del example[name]
                    example[name] = rows
                del example["query_pos"]
                example["query_pos"] = np.arange(70, 80, dtype=np.int32)
        with open(path, "w") as file:
            yaml.safe_dump({"attention": {"traces": [trace], "policies": [yaml.safe_load(read)]}}, file)
        done = subprocess.run([os.environ["KVSIM"], "run", path, "-o", os.path.join(folder, "no.db")],
                              capture_output=True, text=True)
        yield read + " without " + lacks, done.returncode == 2 and message in done.stderr, done.stderr
    # trace info says it beforehand: of the file without keys, and of the one without early rows (lacks1, lacks3)
    for number, serves, lacking in ((1, {"snapkv", "h2o", "a_shape"}, {"knorm", "rocketkv", "kivi"}),
                                    (3, {"knorm", "tova", "quest"}, {"h2o", "infllm", "expected_attention"})):
        done = subprocess.run([os.environ["KVSIM"], "trace", "info", "--json",
                               os.path.join(folder, "lacks%d.h5" % number)], capture_output=True, text=True)
        said = {p["name"]: p for p in json.loads(done.stdout)["policies"]} if done.returncode == 0 else {}
        good = said and all(said[n]["suffices"] and said[n]["lacks"] is None for n in serves)
        good = good and all(not said[n]["suffices"] and "record" in said[n]["lacks"] for n in lacking)
        yield "in trace info %d" % number, good, done.stderr


def longer_rows(folder):
    """minference where there are more diagonals than the 100 that always come first: on the sample. With 30 columns
    and 100 diagonals row i reads the positions below 30 and those above i - 100; with more the best are ranked."""
    sample, database = os.path.join(HERE, "..", "examples", "sample.h5"), os.path.join(folder, "longer.db")
    path, ranked = os.path.join(folder, "longer.yaml"), dict(vertical=37, slash=120, last=16)
    with open(path, "w") as out:
        yaml.safe_dump({"attention": {"traces": [sample], "tasks": ["kv_recall"], "critical": {"resamples": 1}, "policies": [
            {"minference": dict(vertical=30, slash=100)}, {"minference": ranked}]}}, out)
    subprocess.run([os.environ["KVSIM"], "run", path, "-o", database, "-q"], check=True)
    got = sqlite3.connect(database).execute("select e.example, e.kv_reads_prefill, e.prefill_recall from footprint_point p join "
                                            "example_point e on e.point_id = p.id order by p.id, e.example").fetchall()
    wrong, examples = [], len(got) // 2
    for name, share, _ in got[:examples]:
        rows = probed(reference.Example(sample, name[-4:]))
        want = sum(min(i + 1, 30 + min(100, max(0, i - 29))) for i in rows) / sum(i + 1 for i in rows)
        wrong += [] if abs(share - want) < 1e-9 else ["%s: %r, expected %r" % (name, share, want)]
    name, share, recall = got[examples]
    ex = reference.Example(sample, name[-4:])
    want = measure(ex, MInference(ranked), [[range(ex.P)] * ex.Hkv] * ex.L)
    wrong += compare({"kv_reads_prefill": share, "prefill_recall": recall},
                     {n: want[n] for n in ("kv_reads_prefill", "prefill_recall")})
    return wrong


def first_stage(ex, model, retained):
    """What rocketkv keeps of the prompt: snapkv at compression^-r; a budget below the window keeps the newest."""
    p = model.p
    keep = p["compression"] ** -model.r
    count = math.floor(keep * ex.P + 0.5)
    policy = {"snapkv": dict(keep=keep, window=p["window"], kernel=p["kernel"], window_in_budget=True)}
    want = reference.simulate(ex, policy, "whole")["retained"]
    if count <= p["window"]:
        want = [[range(ex.P - count, ex.P)] * ex.Hkv] * ex.L
    return ["retained set of layer %d, KV head %d" % (l, h) for l in range(ex.L) for h in range(ex.Hkv)
            if [j for j in retained[l][h] if j < ex.P] != [int(j) for j in want[l][h] if j < ex.P]]


def main():
    all_cases = list(cases())
    points = [([yaml.safe_load(EVICTION)] if evicts else []) + [yaml.safe_load(read)] for read, evicts in all_cases]
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
                want["kv_footprint_bytes"], want["kv_footprint_device"] = footprint_bytes(ex, model, retained)
                wrong += ["example %s: %s" % (example, w) for w in compare(got, want)]
                if name == "rocketkv" and not evicts:
                    wrong += ["example %s: %s" % (example, w) for w in first_stage(ex, model, retained)]
            print("%s %d - %s" % ("not ok" if wrong else "ok", number, read + (" after eviction" if evicts else "")))
            for line in wrong[:5]:
                print("# " + line)
            failed += bool(wrong)
        for number, (what, good, message) in enumerate(refusals(folder), len(all_cases) + 1):
            print("%s %d - refuses %s" % ("ok" if good else "not ok", number, what))
            print("# " + message.strip())
            failed += not good
        wrong = longer_rows(folder)
        print("%s %d - what minference reads of longer rows" % ("not ok" if wrong else "ok", number + 1))
        for line in wrong[:5]:
            print("# " + line)
        failed += bool(wrong)
    print("1..%d" % (number + 1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
