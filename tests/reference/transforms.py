# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Brute force of what transforms make of a KV cache, written from docs/policies.md alone.

One object per transform and layer. `step` rewrites K and V ([token, channel] of one KV head) after the tokens
a .. b-1 ran and `dropped` left; `bits` says how many bits all entries of `present` take, keys and values together.
Straight loops in double precision over numpy arrays: slow and plain on purpose.
"""
import math

import numpy as np
from reference import draw

PLAIN = 16


def cosine(x, y):
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y) / size if size > 0 else 0.0


def levels(x, lo, hi, bits):
    """The nearest of 2^bits levels of lo .. hi, halves to the even level; what lies outside stays."""
    step = (hi - lo) / (2 ** bits - 1)
    if not step > 0:
        return x.copy()
    inside = (x >= lo) & (x <= hi)
    return np.where(inside, lo + np.round((x - lo) / step) * step, x)


def least_range(x, outliers):
    """The narrowest stretch of sorted numbers that leaves out `outliers` of them."""
    s = np.sort(x)
    n = max(len(s) - outliers, 1)
    widths = [s[i + n - 1] - s[i] for i in range(len(s) - n + 1)]
    first = int(np.argmin(widths))
    return s[first], s[first + n - 1]


class Transform:
    merges = False
    presets = {}

    def __init__(self, ex, layer, settings):
        preset = self.presets.get(settings.get("preset"), {})
        self.ex, self.layer, self.p = ex, layer, {**self.defaults, **preset, **settings}

    def score(self, keys, score):
        return score

    def bits(self, h, present, prefill):
        return 2 * PLAIN * self.ex.D * len(present)


class Kivi(Transform):
    defaults = dict(key_bits=2, value_bits=2, group=32, residual=128)

    def __init__(self, *args):
        super().__init__(*args)
        self.keys, self.values = [set() for _ in range(self.ex.Hkv)], [set() for _ in range(self.ex.Hkv)]

    def step(self, h, K, V, present, dropped, a, b):
        g, R = self.p["group"], self.p["residual"]
        waiting = [j for j in present if j not in self.keys[h]]
        batch = waiting[:len(waiting) // R * R]
        for first in range(0, len(batch), g):
            rows = batch[first:first + g]
            for d in range(self.ex.D):
                x = K[rows, d]
                K[rows, d] = levels(x, x.min(), x.max(), self.p["key_bits"])
        self.keys[h] |= set(batch)
        waiting = [j for j in present if j not in self.values[h]]
        for j in waiting[:max(0, len(waiting) - R)]:
            for first in range(0, self.ex.D, g):
                x = V[j, first:first + g]
                V[j, first:first + g] = levels(x, x.min(), x.max(), self.p["value_bits"])
            self.values[h].add(j)

    def bits(self, h, present, prefill):
        g, D = self.p["group"], self.ex.D
        key = {True: self.p["key_bits"] + 32 / g, False: PLAIN}
        value = {True: self.p["value_bits"] + 32 / min(g, D), False: PLAIN}
        return D * sum(key[j in self.keys[h]] + value[j in self.values[h]] for j in present)


def k_means(x, weight, count):
    """Lloyd's iterations, 50 at most, from numbers at equal shares of the weight and from even steps; the better."""
    order = np.lexsort((weight, x))
    x, weight = x[order], weight[order]
    shares, total = np.cumsum(weight), weight.sum()
    starts = [np.array([x[min(np.searchsorted(shares, total * (c + 0.5) / count), len(x) - 1)] for c in range(count)]),
              np.linspace(x[0], x[-1], count)]
    best = None
    for level in starts:
        for _ in range(50):
            of = np.searchsorted((level[1:] + level[:-1]) / 2, x, side="left")
            mass, sums = np.bincount(of, weight, count), np.bincount(of, weight * x, count)
            moved = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), level)
            if np.allclose(moved, level, rtol=0, atol=1e-15):
                break
            level = moved
        error = (weight * (x - nearest(level, x)) ** 2).sum()
        if best is None or error < best[0] * (1 - 1e-9):
            best = error, level
    return best[1]


def nearest(level, x):
    return level[np.searchsorted((level[1:] + level[:-1]) / 2, x, side="left")]


class Kvquant(Transform):
    defaults = dict(bits=3, outliers=0.01, sinks=1, levels="nuq")

    def __init__(self, *args):
        super().__init__(*args)
        self.done, self.fitted = [set() for _ in range(self.ex.Hkv)], {}

    def fit(self, h):
        """Levels of keys and of values from the prompt: squared error of logits, and of values."""
        ex, P, sinks = self.ex, self.ex.P, self.p["sinks"]
        k, v = ex.k[self.layer, h, sinks:P], ex.v[self.layer, h, sinks:P]
        asked = ex.q[self.layer, h * ex.g:(h + 1) * ex.g, ex.query_pos < P].reshape(-1, ex.D)
        ranges = [least_range(k[:, d], self.count(P - sinks)) for d in range(ex.D)]
        keys = [(k[:, d], lo, hi, (asked[:, d] ** 2).sum()) for d, (lo, hi) in enumerate(ranges)]
        values = [(row, *least_range(row, self.count(ex.D)), 1) for row in v]
        out = [ranges]
        for vectors in (keys, values):
            inside = [((x[(x >= lo) & (x <= hi)] - lo) / (hi - lo), w * (hi - lo) ** 2) for x, lo, hi, w in vectors
                      if hi > lo]
            out.append(k_means(np.concatenate([x for x, _ in inside]),
                               np.concatenate([np.full(len(x), w) for x, w in inside]), 2 ** self.p["bits"]))
        return out

    def read(self, x, lo, hi, level):
        if self.p["levels"] == "uniform":
            return levels(x, lo, hi, self.p["bits"])
        if not hi > lo:
            return x.copy()
        return np.where((x >= lo) & (x <= hi), lo + nearest(level, (x - lo) / (hi - lo)) * (hi - lo), x)

    def count(self, n):
        return max(1, math.floor(self.p["outliers"] * n + 0.5)) if self.p["outliers"] > 0 else 0

    def step(self, h, K, V, present, dropped, a, b):
        ex = self.ex
        for j in present:
            if j in self.done[h]:
                continue
            self.done[h].add(j)
            if j < self.p["sinks"]:
                continue
            if h not in self.fitted:
                self.fitted[h] = self.fit(h)
            ranges, key_level, value_level = self.fitted[h]
            for d in range(ex.D):
                K[j, d] = self.read(K[j, d:d + 1], *ranges[d], key_level)[0]
            V[j] = self.read(V[j], *least_range(V[j], self.count(ex.D)), value_level)

    def bits(self, h, present, prefill):
        D, b, o = self.ex.D, self.p["bits"], self.p["outliers"]
        exact = min(self.p["sinks"], len(present))
        key, value = D * (b + 32 * o), D * b + 32 + 32 * self.count(D)
        return exact * 2 * PLAIN * D + (len(present) - exact) * (key + value)


class Gear(Transform):
    defaults = dict(bits=2, group=64, outliers=0.02, rank=4, decode_rank=2, buffer=20)

    def __init__(self, *args):
        super().__init__(*args)
        self.done = [set() for _ in range(self.ex.Hkv)]

    def vector(self, x):
        end = int(self.p["outliers"] / 2 * len(x))
        s = np.sort(x)
        inside = (x >= s[end]) & (x <= s[len(s) - 1 - end])
        out = x.copy()
        for first in range(0, len(x), self.p["group"]):
            part = np.arange(first, min(first + self.p["group"], len(x)))
            part = part[inside[part]]
            if len(part) > 0:
                out[part] = levels(x[part], x[part].min(), x[part].max(), self.p["bits"])
        return out

    def block(self, X, rank):
        quantised = lambda M: np.stack([self.vector(x) for x in M])
        for M, Q in ((X[0], quantised(X[0].T).T), (X[1], quantised(X[1]))):
            U, s, Vt = np.linalg.svd(M - Q, full_matrices=False)
            yield Q + (U[:, :rank] * s[:rank]) @ Vt[:rank]

    def step(self, h, K, V, present, dropped, a, b):
        waiting = [j for j in present if j not in self.done[h]]
        if len(waiting) >= self.p["buffer"]:
            rank = self.p["rank"] if a < self.ex.P else self.p["decode_rank"]
            K[waiting], V[waiting] = self.block((K[waiting], V[waiting]), rank)
            self.done[h] |= set(waiting)

    def bits(self, h, present, prefill):
        """As documented: all that is quantised as one block of the prompt's rank."""
        n, D, p = len(present), self.ex.D, self.p
        full = n if n >= p["buffer"] else 0
        full -= 0 if prefill else full % p["buffer"]
        if full == 0:
            return super().bits(h, present, prefill)
        out = 32 * 2 * (D * int(p["outliers"] / 2 * full) + full * int(p["outliers"] / 2 * D))
        low_rank = 2 * PLAIN * p["rank"] * (full + D)
        scales = full * D * (32 / p["group"] + 32 / min(p["group"], D))
        return (n - full) * 2 * PLAIN * D + 2 * full * D * p["bits"] + scales + out + low_rank


class Think(Transform):
    defaults = dict(ratio=0.4, recent=32, observers=32, scored="old")
    presets = {"kvpress": dict(recent=0, scored="all"), "kvcache-factory": dict(recent=32, scored="all")}

    def __init__(self, *args):
        super().__init__(*args)
        self.channels, self.done = [None] * self.ex.Hkv, [set() for _ in range(self.ex.Hkv)]

    def step(self, h, K, V, present, dropped, a, b):
        ex, recent = self.ex, self.p["recent"]
        if b < ex.P:
            return
        if self.channels[h] is None:
            rows = [list(ex.query_pos).index(i) for i in range(max(0, ex.P - self.p["observers"]), ex.P)]
            q = sum((ex.q[self.layer, qh][rows] ** 2).sum(0) for qh in range(h * ex.g, h * ex.g + ex.g))
            every = len(present) <= recent or self.p["scored"] == "all"
            old = present if every else present[:len(present) - recent]
            score = q * (K[old] ** 2).sum(0)
            self.channels[h] = np.argsort(score, kind="stable")[:int(self.p["ratio"] * ex.D)]
        for j in present[:max(0, len(present) - recent)]:
            K[j, self.channels[h]] = 0
            self.done[h].add(j)

    def bits(self, h, present, prefill):
        D = self.ex.D
        pruned = sum(j in self.done[h] for j in present)
        return 2 * PLAIN * D * len(present) - pruned * PLAIN * int(self.p["ratio"] * D)


class Merge(Transform):
    """blend(K, V, dropped, taker, cosine) -> weight, self, norm; x' = (x (1+sum self) + sum weight y) / (1+sum norm)."""
    keys = True

    def takers(self, K, present, dropped):
        return {j: max(present, key=lambda k: (round(cosine(K[j], K[k]), 12), -k)) for j in dropped}

    def step(self, h, K, V, present, dropped, a, b):
        if len(dropped) == 0 or len(present) == 0:
            return
        K0, V0, takes = K.copy(), V.copy(), self.takers(K, present, dropped)
        for k in set(takes.values()):
            mine = [j for j in dropped if takes.get(j) == k]
            parts = [self.blend(K0, V0, j, k, cosine(K0[j], K0[k]), mine) for j in mine]
            for X, X0, wanted in ((K, K0, self.keys), (V, V0, True)):
                if wanted:
                    X[k] = (X0[k] * (1 + sum(s for _, s, _ in parts)) +
                            sum(w * X0[j] for j, (w, _, _) in zip(mine, parts))) / (1 + sum(n for _, _, n in parts))


class NearestMerge(Merge):
    defaults = dict(scheme="pivot")
    presets = {"kvpress": dict(scheme="values"), "kvcache-factory": dict(scheme="pivot")}

    def blend(self, K, V, j, k, c, mine):
        if self.p["scheme"] == "pivot":
            return 0.5, 0.5, 1
        w = max((c + 1) / 2, 1e-6)
        if self.p["scheme"] == "values":
            x, y = np.linalg.norm(V[k]), np.linalg.norm(V[j])
            w = max(c, 0) * y / (y + x)
        return w, 0, w

    @property
    def keys(self):
        return self.p["scheme"] != "values"


class LookM(Merge):
    defaults = dict(merge="pivotal", text_prior=True)

    def blend(self, K, V, j, k, c, mine):
        return {"averaged": (1, 0, 1), "pivotal": (0.5, 0.5, 1), "weighted": (c, 0, 1)}[self.p["merge"]]

    def score(self, keys, score):
        first = score.max() - score.min() + 1 if self.p["text_prior"] else 0
        return score + np.where(self.ex.modality[keys] == 0, first, 0)

    def step(self, *args):
        if self.p["merge"] != "none":
            super().step(*args)


class Kvmerger(Merge):
    defaults = dict(threshold=0.75, sigma=0)

    def takers(self, K, present, dropped):
        tokens, kept = sorted([*present, *dropped]), set(present)
        runs, out = [[tokens[0]]], {}
        for before, token in zip(tokens, tokens[1:]):
            if cosine(K[before], K[token]) >= self.p["threshold"]:
                runs[-1].append(token)
            else:
                runs.append([token])
        for run in runs:
            stays = [k for k in run if k in kept]
            for j in run:
                if j not in kept and stays:
                    out[j] = min(stays, key=lambda k: (abs(k - j), k))
        return out

    def blend(self, K, V, j, k, c, mine):
        sigma = self.p["sigma"] or np.mean([np.linalg.norm(K[i] - K[k]) for i in mine])
        w = math.exp(-np.sum((K[j] - K[k]) ** 2) / (2 * sigma ** 2)) if sigma > 0 else 1
        return w, 0, w


class Cam(Transform):
    defaults = dict(merge=32, seed=None)
    presets = {"kvpress": dict(merge=32)}

    def step(self, h, K, V, present, dropped, a, b):
        ex, present = self.ex, np.array(present)
        if len(dropped) == 0:
            return
        rows = ex.attention(self.layer)[h * ex.g:h * ex.g + ex.g, b - 1]
        seen = rows[:, [*present, *dropped]].sum(1)
        mean = (rows / np.where(seen > 0, seen, np.inf)[:, None]).mean(0)
        for j in dropped:
            behind = present[present > j]
            if mean[behind].sum() > 0 and draw(ex, self.p["seed"], self.layer, h, j) < mean[j] / mean[behind].mean():
                takers = behind[:self.p["merge"]]
                shares = len(takers) if self.p.get("preset") == "kvpress" else self.p["merge"]
                V[takers] += V[j] / shares


class Minicache(Transform):
    defaults = dict(t=0.6, retain=0.05, start_layer=None)

    def __init__(self, *args):
        super().__init__(*args)
        start = self.ex.L // 2 if self.p["start_layer"] is None else self.p["start_layer"]
        other = self.layer + 1 if (self.layer - start) % 2 == 0 else self.layer - 1
        self.other = other if self.layer >= start and other < self.ex.L else None
        self.done = [set() for _ in range(self.ex.Hkv)]

    def step(self, h, K, V, present, dropped, a, b):
        if self.other is None:
            return
        new = [j for j in present if j not in self.done[h]]
        self.done[h] |= set(new)
        for X, Y in ((K, self.ex.k[self.other, h]), (V, self.ex.v[self.other, h])):
            angle = {j: math.acos(min(1, max(-1, cosine(X[j], Y[j])))) for j in new}
            widest = sorted(new, key=lambda j: -angle[j])[:math.floor(self.p["retain"] * len(new) + 0.5)]
            for j in set(new) - set(widest):
                low, up = (Y[j], X[j]) if self.layer > self.other else (X[j], Y[j])
                w, t = angle[j], self.p["t"]
                e = (math.sin((1 - t) * w) * low / np.linalg.norm(low) +
                     math.sin(t * w) * up / np.linalg.norm(up)) / math.sin(w)
                X[j] = np.linalg.norm(X[j]) * e

    def bits(self, h, present, prefill):
        share = 1 if self.other is None else self.p["retain"] + (1 - self.p["retain"]) * (0.5 + 1 / self.ex.D)
        return share * super().bits(h, present, prefill)


class Rerotate(Transform):
    """Keys at positions without gaps, the last right before the next token; rotate-half pairs, base 1e6."""
    keys = True
    defaults = {}

    def step(self, h, K, V, present, dropped, a, b):
        half = self.ex.D // 2
        for rank, j in enumerate(present):
            angle = (b - len(present) + rank - j) * 1e6 ** (-np.arange(half) / half)
            x, y = self.ex.k[self.layer, h, j, :half].astype(float), self.ex.k[self.layer, h, j, half:].astype(float)
            K[j] = np.concatenate([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)])


KINDS = dict(rerotate=Rerotate, kivi=Kivi, kvquant=Kvquant, gear=Gear, think=Think, nearest_merge=NearestMerge, look_m=LookM,
             kvmerger=Kvmerger, cam=Cam, minicache=Minicache)
NEW_KEYS = ("rerotate", "kivi", "kvquant", "gear", "think", "nearest_merge", "look_m", "kvmerger", "minicache")
