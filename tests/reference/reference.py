#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brute-force reference for the attention replay of kvsim, written from the design text alone.

    reference.py TRACE.h5 EXAMPLE POLICY [--chunk N|whole] [--no-sets]

POLICY is flow YAML, e.g. '{snapkv: {keep: 0.3, evict: chunked, window: 16}}' or 'full'.
Prints JSON: retained positions per layer and KV head after the prompt, footprint, peak, measures.

Everything is a straight loop over layers, steps and heads in double precision: slow and plain on purpose.
The functions named published_* are a second, separate implementation of the kept sets of published code.
"""
import argparse
import json
import math
import os
import sys

import h5py
import numpy as np
import yaml

import methods
import scorers

SINKS_LEFT_OUT = 4      # the "without sinks" recall ignores positions below this


# ---------------------------------------------------------------- the recorded example

class Example:
    """One example of an attention file; attention(l) is [query head, row, key], NaN where no row is recorded."""

    def __init__(self, path, name):
        self.path, self.name = path, name
        with h5py.File(path, "r") as f:
            self.L, self.Hq = int(f.attrs["num_layers"]), int(f.attrs["num_heads"])
            self.Hkv, self.D = int(f.attrs["num_kv_heads"]), int(f.attrs["head_dim"])
            self.scale = float(f.attrs.get("scale", 1 / math.sqrt(self.D)))
            e = f["examples"][name]
            self.P, self.N = int(e.attrs["prompt_len"]), int(e.attrs["total_len"])
            self.task = e.attrs["task"].decode() if isinstance(e.attrs["task"], bytes) else e.attrs["task"]
            self.turns, self.evidence = e["turns"][:].tolist(), e["evidence"][:].tolist()
            self.query_pos = e["query_pos"][:]
            read = lambda what: e[what][:].astype(np.float64) if what in e else None
            self.k, self.v, self.q = read("k"), read("v"), read("q")
            self.probs = e["probs"][:] if "probs" in e else None
        self.g = self.Hq // self.Hkv
        self.cache = {}

    def extra(self, name):
        """One of the example's further datasets."""
        with h5py.File(self.path, "r") as f:
            return f["examples"][self.name][name][:].astype(np.float64)

    def attribute(self, name):
        with h5py.File(self.path, "r") as f:
            return f.attrs[name]

    def attention(self, l):
        """probs as recorded where the file has them, softmax(scale q.k) over the causal limit otherwise."""
        if l not in self.cache:
            A = np.full((self.Hq, self.N, self.N), np.nan)
            for r, i in enumerate(self.query_pos):
                A[:, i, :] = 0
                for h in range(self.Hq):
                    if self.probs is not None:
                        A[h, i, :i + 1] = self.probs[l, h, r, :i + 1]
                    else:
                        s = self.scale * (self.k[l, h // self.g, :i + 1] @ self.q[l, h, r])
                        s = np.exp(s - s.max())
                        A[h, i, :i + 1] = s / s.sum()
            self.cache[l] = A
        return self.cache[l]


# ---------------------------------------------------------------- small parts

def half_up(x):
    return math.floor(x + 0.5)


ROUND = {"half_up": half_up, "half_even": round, "truncate": int, "ceil": math.ceil}   # Python's round(): half to even


def compute_n_kept(n, ratio):
    """kvpress 0.5.5: a layer that is not meant to be emptied keeps at least one entry."""
    return 0 if ratio >= 1 else max(1, int(n * (1 - ratio)))


def top(scores, keys, count):
    """The `count` keys of highest score; equal scores: lower position first. Ascending positions."""
    order = sorted(range(len(keys)), key=lambda j: (-scores[j], keys[j]))
    return np.array(sorted(keys[j] for j in order[:max(0, count)]), dtype=int)


def draw(ex, seed, layer, head, token):
    """kvsim's own random numbers, 0 to 1: splitmix64's finaliser (Steele et al. 2014) over what names the draw.

    The stream is FNV-1a over the experiment's seed (0 here), the task and the example; seed: the policy's, -1 if
    it has none.
    """
    full = (1 << 64) - 1

    def mix(z):
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & full
        z = (z ^ z >> 27) * 0x94d049bb133111eb & full
        return z ^ z >> 31
    stream = 14695981039346656037
    for byte in (0).to_bytes(8, "little") + ex.task.encode() + ex.name.encode():
        stream = (stream ^ byte) * 1099511628211 & full
    key = mix(mix(stream + (-1 if seed is None else seed) & full) ^ layer << 32 ^ head)
    return (mix(key + 0x9e3779b97f4a7c15 * (token + 1) & full) >> 11) * 2.0 ** -53


def pool(x, kernel, kind):
    """avg: zero padding counted (always divided by kernel); max: padded with -inf. Stride 1, same length."""
    if kernel <= 1 or len(x) == 0:
        return x
    half, out = kernel // 2, np.zeros(len(x))
    for j in range(len(x)):
        near = x[max(0, j - half):j + half + 1]
        out[j] = near.sum() / kernel if kind == "avg" else near.max()
    return out


def reduce_group(rows, kind):
    if kind == "mean":
        return sum(rows) / len(rows)
    return sum(rows) if kind == "sum" else np.max(rows, axis=0)


def restricted(row, keys, visible, i, as_recorded=False):
    """a'(j) for j in keys: the recorded row of query i over `visible` alone, renormalised (0 if that holds no mass).

    as_recorded: under post-fill every key is still present, and the row is taken as it stands in the file. The kept
    sets shared with the data were made so; it matters where recorded probabilities are rounded, for exact ties.
    """
    if np.isnan(row[0]):
        raise SystemExit(f"row {i} is not recorded")
    if as_recorded:
        return np.where(keys <= i, row[keys], 0)
    mass = row[visible[visible <= i]].sum()
    return np.where(keys <= i, row[keys], 0) / mass if mass > 0 else np.zeros(len(keys))


# ---------------------------------------------------------------- policy: parameters and budgets

PRESETS = {
    None: {},
    "linear": dict(beta=2, window_in_budget=True),
    "kvpress": dict(window=64, kernel=5, pooling="avg", group_when="after", window_in_budget=True, beta=20,
                    evict="postfill"),
    "prulong": dict(window=64, kernel=5, pooling="avg", group_when="after", window_in_budget=False,
                    score_over="chunk", rounding="half_even", beta=20, evict="chunked"),
    "kvcache-factory": dict(window=64, kernel=5, pooling="avg", group_when="before", window_in_budget=True, beta=20,
                            evict="postfill"),
    "minference": dict(window=32, kernel=5, pooling="avg", group_when="before", window_in_budget=True, beta=20,
                       evict="postfill"),
}
DEFAULTS = dict(window=64, kernel=5, pooling="avg", group="mean", group_when="before", window_in_budget=False,
                score_over="chunk", rounding="half_up", beta=20, alpha=0.2, sinks=4, interval=16,
                scope="layer", anchor="unit", skip_layers=0)
SCHEDULE = dict(full="never", streaming="online", duo="online", prulong="online", h2o="online", tova="online",
                snapkv="postfill", pyramidkv="postfill", adakv="postfill", keydiff="postfill",
                observed_attention="postfill")


class Policy:
    def __init__(self, text, ex):
        node = yaml.safe_load(text) if isinstance(text, str) else text
        self.name, given = (node, {}) if isinstance(node, str) else next(iter(node.items()))
        given = given or {}
        if self.name not in SCHEDULE and self.name not in methods.DEFAULTS:
            raise SystemExit(f"unknown policy {self.name}")
        self.preset = given.get("preset", {"adakv": "kvpress", "pyramidkv": "linear"}.get(self.name))
        own = methods.DEFAULTS.get(self.name)
        preset = PRESETS[self.preset] if own is None else methods.PRESETS.get((self.name, self.preset), {})
        self.p = {**DEFAULTS, **(own or {"evict": SCHEDULE[self.name]}), **preset, **given}
        self.has_window = self.name in ("snapkv", "pyramidkv", "adakv")
        self.ex = ex
        if self.name in ("duo", "prulong"):
            self.streams = streaming_heads(self.p, ex)

    def __getattr__(self, key):
        return self.p[key]

    def count(self, n):
        """How many of n: `budget` as given, or keep x n in the named arithmetic."""
        if "budget" in self.p:
            return int(self.budget)
        ratio = 1 - self.keep                       # what kvpress and PruLong are given
        if self.preset == "kvpress":
            return compute_n_kept(n, ratio)
        if self.preset == "prulong":
            return int((1 - ratio) * n) if self.name == "pyramidkv" else round((1 - ratio) * n)
        return ROUND[self.rounding](self.keep * n)

    def total(self, n, layer):
        """Entries kept of n in this layer, the window included."""
        w = min(self.window, n) if self.has_window else 0
        k = pyramid(self, n, w, layer) if self.name == "pyramidkv" else self.count(n)
        if self.has_window and self.name != "pyramidkv" and not self.window_in_budget:
            k += w
        if self.preset != "kvpress":                # kvpress drops part of the window where the budget is below it
            k = max(k, w)
        return max(0, min(n, k))


def pyramid(pol, n, w, layer):
    L = pol.ex.L
    if pol.preset == "linear":                      # kvsim's own, as docs/policies.md has it
        k = min(pol.count(n) - (w if pol.window_in_budget else 0), n - w)
        s = min(1 - 1 / pol.beta, (n - w) / k - 1) if k else 0
        return half_up(k * (1 + s * (1 - 2 * layer / (L - 1)))) + w
    if pol.preset == "kvpress":
        return kvpress_pyramid_budget(n, 1 - pol.keep, pol.window, pol.beta, layer, L)
    return kvcf_pyramid_budget(n, pol.count(n), pol.window, pol.beta, layer, L)


def kvpress_pyramid_budget(q, r, w, beta, layer, L):
    cap = w + q * (1 - r)
    lo = (cap - w) / beta
    hi = (cap - w) * 2 - lo
    if hi >= q - w:
        hi = q - w
        lo = (cap - w) * 2 - hi
    if not q >= hi >= lo >= w:
        return max(1, round(q * (1 - r)))
    return round(hi - layer * ((hi - lo) / (L - 1)))


def kvcf_pyramid_budget(q, cap, w, beta, layer, L):
    c = cap - w
    if q < cap:
        return q
    if q < 2 * c:
        return cap
    lo = c // beta
    hi = 2 * c - lo
    if hi >= q - w:
        hi = q - w
        lo = 2 * c - hi
    return hi - layer * ((hi - lo) // (L - 1)) + w


def streaming_heads(p, ex):
    """[layer][KV head] that stream: the given share of all heads, least important first, ties lower index first."""
    path = p["heads"]
    if not os.path.exists(path):
        path = os.path.join(os.path.dirname(ex.path), path)
    gates = np.loadtxt(path, ndmin=2)
    flat = gates.reshape(-1)
    order = sorted(range(len(flat)), key=lambda x: (flat[x], x))
    out = np.zeros(len(flat), dtype=bool)
    out[order[:ROUND[p["rounding"]](p["sparsity"] * len(flat))]] = True
    return out.reshape(gates.shape)


# ---------------------------------------------------------------- policy: scores and eviction

def window_score(pol, A, h, rows, keys, visible_of):
    """SnapKV score of `keys` for KV head h: mean over the rows, grouped over query heads, pooled."""
    g, per_head = pol.ex.g, []
    for qh in range(h * g, h * g + g):
        s = np.zeros(len(keys))
        for i in rows:
            s += restricted(A[qh, i], keys, visible_of(i), i, pol.evict == "postfill")
        per_head.append(s / len(rows))
    if pol.group_when == "before":
        return pool(reduce_group(per_head, pol.group), pol.kernel, pol.pooling)
    return reduce_group([pool(s, pol.kernel, pol.pooling) for s in per_head], pol.group)


def accumulate(pol, A, memory, a, b, present):
    """H2O and observed attention: add this step's rows, renormalised over what each sees, grouped."""
    for h, keys in enumerate(present):
        for i in range(a, b):
            rows = [restricted(A[qh, i], keys, keys, i, pol.evict == "postfill")
                    for qh in range(h * pol.ex.g, (h + 1) * pol.ex.g)]
            memory[h][keys] += reduce_group(rows, pol.group)


def key_score(pol, layer, h, keys):
    k = pol.ex.k[layer, h, keys]
    norm = np.sqrt((k * k).sum(axis=1))
    if pol.name == "knorm":
        return -norm
    anchor = (k / norm[:, None]).mean(axis=0) if pol.anchor == "unit" else k.mean(axis=0)
    return -(k @ anchor) / (norm * np.sqrt((anchor * anchor).sum()))


def evict(pol, layer, A, memory, a, b, present):
    """The retained sets (one array of positions per KV head) after the step that appended [a, b)."""
    ex, P = pol.ex, pol.ex.P
    decode, last = a >= P, b == P
    if pol.name in ("h2o", "observed_attention") or scorers.accumulates(pol.p.get("scorer", "")):
        accumulate(pol, A, memory, a, b, present)

    if pol.name == "scissorhands" and pol.accumulate:   # rows as they were then, the prompt's last first
        if a >= P:
            memory *= pol.decay
        accumulate(pol, A, memory, max(a, P - pol.history), b, present)
        pol.p["memory"] = memory

    when = {"never": False, "postfill": last, "chunked": not decode, "patched": not decode, "pool": not decode,
            "online": True, "step": decode or last, "interval": last or (decode and (b - P) % pol.interval == 0)}
    if not when[pol.evict] or (layer < pol.skip_layers and pol.name not in methods.DEFAULTS):
        return present

    if "scorer" in pol.p:
        return scorers.evict(sys.modules[__name__], pol, layer, A, memory, a, b, present)
    if pol.name in methods.DEFAULTS:
        return methods.evict(sys.modules[__name__], pol, layer, A, a, b, present)
    if pol.name in ("streaming", "duo", "prulong"):
        W = pol.p["window"]
        if pol.name == "streaming" and ("keep" in pol.p or "budget" in pol.p):
            W = max(1, pol.count(P) - pol.sinks)
        return [keys if pol.name != "streaming" and not pol.streams[layer, h]
                else keys[(keys < pol.sinks) | (keys >= b - W)] for h, keys in enumerate(present)]

    # What is up for eviction: the chunk's own keys (chunked, patched) or everything present (all other schedules).
    own = pol.evict in ("chunked", "patched")
    n = b - a if own else P                                     # what `keep` is a fraction of
    total = pol.total(n, layer)
    kept = [keys[keys < a] if own else keys[:0] for keys in present]
    keys = [x[x >= a] if own else x for x in present]
    if sum(len(x) for x in keys) <= total * ex.Hkv:             # only adakv leaves heads of different size
        return present
    over_chunk = own and pol.score_over == "chunk"
    visible = [lambda i, h=h: keys[h] if over_chunk else present[h] for h in range(ex.Hkv)]

    if pol.has_window:
        chosen = evict_window(pol, layer, A, a, b, own, present, keys, visible, total)
    elif pol.name == "h2o":
        chosen = []
        for h in range(ex.Hkv):
            s = column_sums(pol, A, h, a, b, keys[h], visible[h]) if own else memory[h][keys[h]]
            recent = total - total // 2
            if "recent" in pol.p or pol.preset == "kvcache-factory":
                recent = min(total, int(pol.p.get("recent", pol.window)))
            cut = len(keys[h]) - recent
            chosen.append(np.concatenate([top(s[:cut], keys[h][:cut], total - recent), keys[h][cut:]]))
    elif pol.name == "observed_attention":
        chosen = []
        for h in range(ex.Hkv):
            s = column_sums(pol, A, h, a, b, keys[h], visible[h]) if own else memory[h][keys[h]]
            chosen.append(top(s / (b - keys[h]), keys[h], total))    # rows keys[h] .. b-1 could see the key
    elif pol.name == "tova":
        row = lambda qh, h: restricted(A[qh, b - 1], keys[h], visible[h](b - 1), b - 1, pol.evict == "postfill")
        if pol.scope == "kv_head":
            chosen = [top(reduce_group([row(qh, h) for qh in range(h * ex.g, (h + 1) * ex.g)], pol.group),
                          keys[h], total) for h in range(ex.Hkv)]
        else:                                                   # one set per layer, the newest token always in it
            s = sum(row(qh, qh // ex.g) for qh in range(ex.Hq)) / ex.Hq
            one = np.append(top(s[:-1], keys[0][:-1], total - 1), keys[0][-1])
            chosen = [one] * ex.Hkv
    else:                                                       # keydiff
        chosen = [top(key_score(pol, layer, h, keys[h]), keys[h], total) for h in range(ex.Hkv)]
    return [np.concatenate([kept[h], chosen[h]]).astype(int) for h in range(ex.Hkv)]


def column_sums(pol, A, h, a, b, keys, visible):
    """Sum over the chunk's rows, for h2o and observed attention under `chunked`."""
    s = np.zeros(len(keys))
    for i in range(a, b):
        s += reduce_group([restricted(A[qh, i], keys, visible(i), i)
                           for qh in range(h * pol.ex.g, (h + 1) * pol.ex.g)], pol.group)
    return s


def evict_window(pol, layer, A, a, b, own, present, keys, visible, total):
    """snapkv, pyramidkv, adakv: which of keys[h] stay."""
    ex, P, w = pol.ex, pol.ex.P, pol.window
    if pol.evict == "patched" and b < P:
        # The prompt's last w queries at their own positions; those before the chunk have passed.
        first = max(P - w, a)
        probes = np.arange(max(P - w, b), P)
        see = lambda h: visible[h] if pol.score_over == "chunk" else (
            lambda i: np.concatenate([present[h], probes]))
        return [top(window_score(pol, A, h, range(first, P), keys[h], see(h)), keys[h], total)
                for h in range(ex.Hkv)]
    w_eff = min(w, b - a) if own else min(w, b)
    rows = range(b - w_eff, b)
    score = [window_score(pol, A, h, rows, keys[h][:-w_eff], visible[h]) for h in range(ex.Hkv)]
    if pol.name == "adakv":
        return evict_ada(pol, score, keys, w_eff, total)
    out = []
    for h in range(ex.Hkv):
        forced = keys[h][-w_eff:][:total]                       # a tie inside the window: lower position first
        out.append(np.concatenate([top(score[h], keys[h][:-w_eff], total - w_eff), forced]))
    return out


def evict_ada(pol, score, keys, w, total):
    """Head budgets from one ranking over all heads of the layer; equal scores: lower (head, position) first."""
    H = len(keys)
    if pol.preset == "kvcache-factory":
        base = total - w
        floor = int(pol.alpha * base)
        if pol.p.get("normalize", True):       # as init_adakv sets it
            score = [s * (np.sort(s)[::-1][:base].sum() / s.sum()) for s in score]
        flat = sorted(((-x, h, j) for h in range(H) for j, x in enumerate(score[h])))[:H * base]
        won = [sum(1 for e in flat if e[1] == h) for h in range(H)]
        return [np.concatenate([top(score[h], keys[h][:-w], round(won[h] * (1 - pol.alpha) + floor)), keys[h][-w:]])
                for h in range(H)]
    high = max(s.max() for s in score) + 1                      # kvpress: the window scores above everything
    score = [np.append(s, np.full(w, high)) for s in score]
    safe = int(pol.alpha * total)
    if pol.alpha > 0 and total > 0:                             # n_safe of AdaKVPress
        safe = max(1, safe)
    flat = []
    for h in range(H):
        pinned = set(top(score[h], keys[h], safe))
        flat += [(-math.inf if j in pinned else -x, h, j) for j, x in zip(keys[h], score[h])]
    stay = sorted(flat)[:H * total]
    return [np.array(sorted(e[2] for e in stay if e[1] == h), dtype=int) for h in range(H)]


# ---------------------------------------------------------------- replay

def simulate(ex, policy_text, chunk):
    pol = Policy(policy_text, ex)
    P, N, L, H, g = ex.P, ex.N, ex.L, ex.Hkv, ex.g
    C = P if chunk in ("whole", None) else int(chunk)
    steps = [(a, min(a + C, P)) for a in range(0, P, C)] + [(t, t + 1) for t in range(P, N)]
    turn_of = {t - 1: turn for turn, (_, s, e) in enumerate(ex.turns) for t in range(s, e)}   # row t-1 predicts t
    charge, at_step, retained, seen = 0, [0] * len(steps), [], []
    enters = methods.entering(ex, pol) if pol.name == "prompt_compression" else set(range(P))
    for l in range(L):
        A = ex.attention(l)
        alive = [np.zeros(0, dtype=int) for _ in range(H)]
        memory = np.zeros((H, N))
        for s, (a, b) in enumerate(steps):
            new = np.array([i for i in range(a, b) if i >= P or i in enters], dtype=int)
            n = len(new)
            for h in range(H):
                past = len(alive[h])
                charge += n * (n + 1) // 2 + n * past
                at_step[s] += past + n
            present = [np.concatenate([x, new]) for x in alive]
            for i in range(a, b):
                if i in turn_of and i in ex.query_pos:
                    for h in range(H):
                        for qh in range(h * g, h * g + g):
                            seen.append(look(ex, l, h, qh, i, turn_of[i], A[qh, i], present[h][present[h] <= i]))
            alive = evict(pol, l, A, memory, a, b, present)
            if b == P:
                retained.append([x.tolist() for x in alive])
    out = {"policy": pol.name, "chunk_size": "whole" if C == P else C, "prompt_len": P, "total_len": N,
           "kv_footprint": charge / (L * H * (N * (N + 1) // 2)), "kv_peak": max(at_step) / (L * H * N),
           "entry_steps": charge, "peak_entries": max(at_step)}
    out.update(summarise(ex, seen, range(len(ex.turns))))
    out["turns"] = [summarise(ex, [x for x in seen if x["turn"] == t], [t]) for t in range(len(ex.turns))]
    out["retained"] = retained
    return out


def look(ex, l, h, qh, i, turn, row, alive):
    """What one answer row of one query head keeps."""
    full, part = row[:i + 1].sum(), row[alive].sum()
    x = {"layer": l, "head": qh, "kv_head": h, "row": i, "turn": turn, "recall": part, "mass": full}
    rest = row[SINKS_LEFT_OUT:i + 1].sum()
    x["recall_no_sinks"] = row[alive[alive >= SINKS_LEFT_OUT]].sum() / rest if rest > 0 else None
    if ex.v is not None:
        v = ex.v[l, h]
        o = (row[:i + 1] / full) @ v[:i + 1]
        o2 = (row[alive] / part) @ v[alive] if part > 0 else np.zeros(ex.D)
        size = math.sqrt((o * o).sum())
        x["error"] = math.sqrt(((o2 - o) ** 2).sum()) / size if size > 0 else None
    here = set(alive.tolist())
    x["spans"] = []
    for e, (t, start, end) in enumerate(ex.evidence):
        if t == turn:
            on = [j for j in range(start, end) if j in here]
            x["spans"].append((e, row[start:end].sum(), sum(row[j] for j in on), set(on)))
    return x


def mean(values):
    values = [x for x in values if x is not None]
    return float(np.mean(values)) if values else None


def summarise(ex, seen, turns):
    """All means are over (answer row, layer, query head) samples, every sample with the same weight."""
    if not seen:
        return {}
    heads = sorted({(x["layer"], x["head"]) for x in seen})
    out = {"attention_recall": mean(x["recall"] for x in seen),
           "row_mass": mean(x["mass"] for x in seen),          # 1 but for rounding of recorded probs
           "attention_recall_normalised": mean(x["recall"] / x["mass"] for x in seen),
           "attention_recall_no_sinks": mean(x["recall_no_sinks"] for x in seen),
           "attention_recall_worst_head": min(mean(x["recall"] for x in seen if (x["layer"], x["head"]) == k)
                                              for k in heads),
           "attention_recall_p5": float(np.percentile([x["recall"] for x in seen], 5, method="linear")),
           "attention_recall_layers": [mean(x["recall"] for x in seen if x["layer"] == l) for l in range(ex.L)],
           "output_error": mean(x.get("error") for x in seen)}
    with_evidence = [x for x in seen if x["spans"]]
    if not with_evidence:
        return out
    # Evidence attention, two readings: one ratio of sums over all samples, or the mean of each sample's ratio.
    on_all = [sum(s[1] for s in x["spans"]) for x in with_evidence]
    on_alive = [sum(s[2] for s in x["spans"]) for x in with_evidence]
    out["evidence_recall"] = sum(on_alive) / sum(on_all) if sum(on_all) > 0 else None
    out["evidence_recall_mean_of_ratios"] = mean(p / q if q > 0 else None for p, q in zip(on_alive, on_all))
    # Token counts: per row, over all (layer, KV head).
    per_row = {"alive": [], "complete_share": [], "complete_any": [], "complete_attending": [], "ger": []}
    for i in sorted({x["row"] for x in with_evidence}):
        here = [x for x in with_evidence if x["row"] == i]
        tokens = gone = held = 0
        complete, attending = [], []
        share = []
        for n, (e, *_rest) in enumerate(here[0]["spans"]):
            _, start, end = ex.evidence[e]
            tokens += end - start
            sets = [x["spans"][n][3] for x in here]
            held += sum(len(s) for s in sets) / len(sets)
            gone += sum(1 for j in range(start, end) if not any(j in s for s in sets))
            whole = [len(s) == end - start for s in sets]
            share.append(mean(whole))
            complete.append(any(whole))
            # a head attends to a span when its full row puts more than the uniform share on it
            attending.append(any(ok and x["spans"][n][1] > (end - start) / (i + 1) for ok, x in zip(whole, here)))
        per_row["alive"].append(held / tokens)
        per_row["ger"].append(gone / tokens)
        per_row["complete_share"].append(mean(share))
        per_row["complete_any"].append(mean(complete))
        per_row["complete_attending"].append(mean(attending))
    out["evidence_alive"] = mean(per_row["alive"])
    out["span_complete_share"] = mean(per_row["complete_share"])
    out["span_complete_any"] = mean(per_row["complete_any"])
    out["span_complete_attending"] = mean(per_row["complete_attending"])
    out["global_eviction_ratio"] = mean(per_row["ger"])
    return out


# ---------------------------------------------------------------- published code, kept sets only
# A is [query head, P, P] of one layer (the prompt only), K is [KV head, P, D]; r is the compression ratio.
# Each returns one ascending list per KV head.

def ranked(scores):
    return sorted(range(len(scores)), key=lambda j: (-scores[j], j))


def published_pool(s, kernel, pooling="avg"):
    half = kernel // 2
    pad = np.full(half, 0.0 if pooling == "avg" else -np.inf)
    x = np.concatenate([pad, s, pad])
    f = np.mean if pooling == "avg" else np.max
    return np.array([f(x[j:j + kernel]) for j in range(len(s))])


def published_kvpress_snap_scores(A, Hkv, w, kernel):
    Hq, P, _ = A.shape
    g, out = Hq // Hkv, []
    for h in range(Hkv):
        total = np.zeros(P - w)
        for qh in range(h * g, h * g + g):
            m = A[qh, P - w:, :P - w].mean(axis=0)
            total += published_pool(m, kernel)
        out.append(total / g)
    high = max(s.max() for s in out) + 1
    return [np.append(s, np.full(w, high)) for s in out]


def published_kvpress_snapkv(A, Hkv, r, w=64, kernel=5):
    n = int(A.shape[1] * (1 - r))
    return [sorted(ranked(s)[:n]) for s in published_kvpress_snap_scores(A, Hkv, w, kernel)]


def published_kvpress_pyramidkv(A, Hkv, r, layer, L, w=64, kernel=5, beta=20):
    n = kvpress_pyramid_budget(A.shape[1], r, w, beta, layer, L)
    return [sorted(ranked(s)[:n]) for s in published_kvpress_snap_scores(A, Hkv, w, kernel)]


def published_kvpress_adakv(A, Hkv, r, w=64, kernel=5, alpha=0.2):
    P = A.shape[1]
    n = int(P * (1 - r))
    safe = int(n * alpha)
    s = np.array(published_kvpress_snap_scores(A, Hkv, w, kernel))
    for h in range(Hkv):
        for j in ranked(s[h])[:safe]:
            s[h, j] = np.inf
    flat = s.reshape(-1)
    drop = sorted(range(len(flat)), key=lambda x: (flat[x], -x))[:Hkv * (P - n)]
    keep = np.ones(len(flat), dtype=bool)
    keep[drop] = False
    return [np.flatnonzero(m).tolist() for m in keep.reshape(Hkv, P)]


def published_kvpress_tova(A, Hkv, r):
    P = A.shape[1]
    s = A[:, P - 1, :P - 1].mean(axis=0)
    s = np.append(s, s.max() + 1)
    return [sorted(ranked(s)[:int(P * (1 - r))])] * Hkv


def published_kvpress_observed_attention(A, Hkv, r):
    Hq, P, _ = A.shape
    s = A.sum(axis=1) / np.arange(P, 0, -1)
    return [sorted(ranked(s[h * (Hq // Hkv):(h + 1) * (Hq // Hkv)].mean(axis=0))[:int(P * (1 - r))])
            for h in range(Hkv)]


def published_kvpress_keydiff(K, r):
    out = []
    for k in K:
        unit = k / np.linalg.norm(k, axis=1, keepdims=True)
        anchor = unit.mean(axis=0)
        out.append(sorted(ranked(-(unit @ anchor) / np.linalg.norm(anchor))[:int(len(k) * (1 - r))]))
    return out


def published_kvpress_knorm(K, r):
    return [sorted(ranked(-np.linalg.norm(k, axis=1))[:int(len(k) * (1 - r))]) for k in K]


def published_kvpress_streaming(P, Hkv, r, S=4):
    n = int(P * (1 - r))
    return [list(range(S)) + list(range(P - (n - S), P))] * Hkv


def published_kvcf_scores(A, Hkv, w, kernel, pooling):
    """Sum over the window rows, mean over the group, then pooling, over the keys before the window."""
    Hq, P, _ = A.shape
    g = Hq // Hkv
    return [published_pool(sum(A[qh, P - w:, :P - w].sum(axis=0) for qh in range(h * g, h * g + g)) / g,
                           kernel, pooling) for h in range(Hkv)]


def published_kvcf_snapkv(A, Hkv, cap, w=64, kernel=5, pooling="avg"):
    P = A.shape[1]
    if P < cap:
        return [list(range(P))] * Hkv
    return [sorted(ranked(s)[:cap - w]) + list(range(P - w, P))
            for s in published_kvcf_scores(A, Hkv, w, kernel, pooling)]


def published_kvcf_pyramidkv(A, Hkv, cap, layer, L, w=64, kernel=5, pooling="avg", beta=20):
    return published_kvcf_snapkv(A, Hkv, kvcf_pyramid_budget(A.shape[1], cap, w, beta, layer, L), w, kernel, pooling)


def published_kvcf_h2o(A, Hkv, cap, w=64):
    Hq, P, _ = A.shape
    if P < cap:
        return [list(range(P))] * Hkv
    s = A.sum(axis=1)[:, :P - w].reshape(Hkv, Hq // Hkv, P - w).mean(axis=1)
    return [sorted(ranked(x)[:cap - w]) + list(range(P - w, P)) for x in s]


def published_kvcf_streaming(P, Hkv, cap, w):
    if P < cap:
        return [list(range(P))] * Hkv
    return [list(range(cap - w)) + list(range(P - w, P))] * Hkv


def published_kvcf_adakv(A, Hkv, cap, w=32, kernel=7, pooling="max", floor_alpha=0.2, normalise=False):
    P, base = A.shape[1], cap - w
    if P < cap:
        return [list(range(P))] * Hkv
    s = [x / w for x in published_kvcf_scores(A, Hkv, w, kernel, pooling)]
    if normalise:
        s = [x * (sum(sorted(x, reverse=True)[:base]) / x.sum()) for x in s]
    won = np.zeros(Hkv, dtype=int)
    for x in ranked(np.concatenate(s))[:Hkv * base]:
        won[x // (P - w)] += 1
    floor = int(floor_alpha * base)
    return [sorted(ranked(s[h])[:round(won[h] * (1 - floor_alpha) + floor)]) + list(range(P - w, P))
            for h in range(Hkv)]


def published_prulong_chunked(A, Hkv, s, C, w=64, kernel=5, pyramid_layer=None, L=None, beta=20):
    """Naive chunked SnapKV (or PyramidKV of one layer): each row over the current chunk's keys only."""
    Hq, P, _ = A.shape
    g, out = Hq // Hkv, [[] for _ in range(Hkv)]
    for a in range(0, P, C):
        b = min(a + C, P)
        n = b - a
        total = min(round((1 - s) * n) + w, n)
        if pyramid_layer is not None:
            total = min(n, max(w, kvcf_pyramid_budget(n, int((1 - s) * n), w, beta, pyramid_layer, L)))
        for h in range(Hkv):
            if total >= n:
                out[h] += range(a, b)
                continue
            score = np.zeros(n - w)
            for qh in range(h * g, h * g + g):
                block = A[qh, b - w:b, a:b]
                mass = block.sum(axis=1, keepdims=True)
                block = block / np.where(mass > 0, mass, 1)         # a row without mass on the chunk adds nothing
                score += published_pool(block[:, :n - w].mean(axis=0), kernel) / g
            out[h] += [a + j for j in sorted(ranked(score)[:total - w])] + list(range(b - w, b))
    return out


def main():
    arg = argparse.ArgumentParser(description="Brute-force attention replay")
    arg.add_argument("trace")
    arg.add_argument("example")
    arg.add_argument("policy")
    arg.add_argument("--chunk", default="whole")
    arg.add_argument("--no-sets", action="store_true", help="leave the retained positions out")
    a = arg.parse_args()
    out = simulate(Example(a.trace, a.example), a.policy, a.chunk)
    if a.no_sets:
        del out["retained"]
    json.dump(out, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
