# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Brute force of one policy's scores under another's budget: adakv, criticalkv and chunkkv with `scorer`.

From what the wrapping presses of kvpress are described to do: AdaKVPress, CriticalKVPress and
ChunkKVPress ask any ScorerPress for scores [KV heads, keys]. What a scorer never lets go (sinks,
window, recent entries) scores above all others of the layer. Numpy in double precision.
"""
import math
from types import SimpleNamespace

import numpy as np

import methods

DEFAULTS = {
    "knorm": dict(),
    "keydiff": dict(anchor="unit"),
    "observed_attention": dict(),
    "h2o": dict(),
    "curdkv": dict(sinks=4, leverage="kv_product", local=16),
    "expected_attention": dict(sinks=4, future=512, covariance=True, vnorm=True, epsilon=0, rope_theta=0),
    "snapkv": dict(window=64, kernel=5, pooling="avg", group="mean", group_when="before"),
    "criticalkv": dict(first_stage=0.5, epsilon=1e-4, norm="projected"),
}
PRESETS = {("snapkv", "kvpress"): dict(group_when="after")}


def accumulates(scorer):
    name = scorer if isinstance(scorer, str) else next(iter(scorer))
    inner = {} if isinstance(scorer, str) else scorer[name]
    return name in ("h2o", "observed_attention") or ("scorer" in inner and accumulates(inner["scorer"]))


class Scorer:
    """A scorer as it is written, at one event."""

    def __init__(self, e, memory, written, preset, total):
        self.name, given = (written, {}) if isinstance(written, str) else next(iter(written.items()))
        preset = given.get("preset", preset)
        settings = {**DEFAULTS[self.name], **PRESETS.get((self.name, preset), {}), **given}
        self.p = SimpleNamespace(name=self.name, ex=e.ex, evict=e.pol.evict, p=settings, **settings)
        self.e, self.memory, self.total = e, memory, total
        self.inner = Scorer(e, memory, given["scorer"], preset, total) if "scorer" in given else None

    def pins(self):
        """First positions and last candidates that always stay."""
        if self.name == "h2o":
            return 0, self.total - self.total // 2
        return self.p.p.get("sinks", 0), self.p.p.get("window", 0)

    def scores(self):
        """One array per KV head, over its candidates."""
        return getattr(self, self.name)()

    def padded(self):
        """The same, pinned candidates above all others of the layer."""
        e, (first, last) = self.e, self.pins()
        scores = [np.array(s, dtype=float) for s in self.scores()]
        rivals = [(k >= first) & (np.arange(len(k)) < len(k) - last) for k in e.keys]
        best = max([0.0] + [s[r].max() for s, r in zip(scores, rivals) if r.any()])
        for s, r in zip(scores, rivals):
            s[~r] = best + 1
        return scores

    def knorm(self):
        return [self.e.ref.key_score(self.p, self.e.layer, h, self.e.keys[h]) for h in self.e.heads]

    keydiff = knorm

    def h2o(self):
        e = self.e
        if e.pol.evict in ("chunked", "patched"):
            return [e.ref.column_sums(e.pol, e.A, h, e.a, e.b, e.keys[h], lambda i, h=h: e.visible[h]) for h in e.heads]
        return [self.memory[h][e.keys[h]] for h in e.heads]

    def observed_attention(self):
        return [s / (self.e.b - k) for s, k in zip(self.h2o(), self.e.keys)]

    def expected_attention(self):
        return [methods.expected_scores(self.e, self.p, h) for h in self.e.heads]

    def curdkv(self):
        return [methods.leverage_scores(self.e, self.p, h) for h in self.e.heads]

    def snapkv(self):
        e = self.e
        view = methods.Event(e.ref, SimpleNamespace(**{**vars(self.p), "p": {**self.p.p, "score_over": "chunk"}}),
                             e.layer, e.A, e.a, e.b, e.present)
        before = len(e.keys[0]) - min(self.p.window, len(e.keys[0]))
        return [np.append(s, np.zeros(len(k) - before)) for s, k in zip(view.window_scores(before), e.keys)]

    def criticalkv(self):
        return critical(self.e, self.p, self.inner.padded())


def amount(pol, n, keys):
    if "budget" in pol.p:
        return min(int(pol.budget), keys)
    if pol.p.get("preset") == "kvpress":
        return min(max(1, int(n * (1 - (1 - pol.keep)))), keys)
    return min(math.floor(pol.keep * n + 0.5), keys)


def critical(e, p, scores):
    """The best share of the budget first, the rest times the size of the value."""
    n, outer = e.n, e.pol
    staged = math.floor(outer.p.get("keep", 0) * (n * p.first_stage) + 0.5)
    if "budget" in outer.p:
        staged = math.floor(outer.budget * p.first_stage)
    elif outer.p.get("preset") == "kvpress":
        staged = max(1, int((1 - (1 - outer.keep)) * n * p.first_stage))
    out = []
    for h in e.heads:
        keys = e.keys[h]
        if p.norm == "value":
            size = np.abs(e.ex.v[e.layer, h, keys]).sum(axis=1)
        else:
            size = sum(e.ex.extra("value_out")[e.layer, qh, keys] for qh in e.group(h)) / e.ex.g
        s = (scores[h] + p.epsilon) * size
        s[e.ref.top(scores[h], np.arange(len(keys)), staged)] = np.inf
        out.append(s)
    return out


def keep_adakv(e, scorer, total):
    """A floor for each head, the rest of the layer's total to the best of all heads."""
    p = e.pol
    scores = scorer.padded() if scorer.name != "criticalkv" else scorer.scores()
    safe = int(p.alpha * total)
    if p.p.get("preset") == "kvpress" and p.alpha > 0:
        safe = max(1, safe)
    flat = []
    for h in e.heads:
        floor = set(e.ref.top(scores[h], e.keys[h], safe))
        flat += [(-math.inf if j in floor else -x, j not in floor, h, j) for j, x in zip(e.keys[h], scores[h])]
    stay = sorted(flat)[:e.ex.Hkv * total]
    return [np.array(sorted(x[3] for x in stay if x[2] == h), dtype=int) for h in e.heads]


def keep_criticalkv(e, scorer, total):
    return [e.ref.top(s, k, total) for s, k in zip(critical(e, e.pol, scorer.padded()), e.keys)]


def chunks_kept(pol, n):
    chunks = -(-n // pol.chunk)
    return max(1, pol.budget // pol.chunk if "budget" in pol.p else amount(pol, chunks, chunks))


def keep_chunkkv(e, scorer, total):
    length, keys = e.pol.chunk, e.keys[0]
    sums = sum(scorer.padded() if scorer.name != "criticalkv" else scorer.scores())
    chunks = [range(f, min(f + length, len(keys))) for f in range(0, len(keys), length)]
    value = [sums[list(c)].mean() for c in chunks]
    best = sorted(range(len(chunks)), key=lambda c: (-value[c], c))[:chunks_kept(e.pol, e.n)]
    one = np.array(sorted(keys[k] for c in best for k in chunks[c]), dtype=int)
    return [one] * e.ex.Hkv


def evict(ref, pol, layer, A, memory, a, b, present):
    e = methods.Event(ref, pol, layer, A, a, b, present)
    total = amount(pol, e.n, len(e.keys[0]))
    if pol.name == "chunkkv":
        total = min(chunks_kept(pol, e.n) * pol.chunk, len(e.keys[0]))
    scorer = Scorer(e, memory, pol.p["scorer"], pol.p.get("preset"), total)
    chosen = globals()["keep_" + pol.name](e, scorer, total)
    return [np.concatenate([k, np.sort(c)]).astype(int) for k, c in zip(e.kept, chosen)]
