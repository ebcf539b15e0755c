# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Brute force of further retention policies, from the design text and the papers' descriptions alone.

Plain numpy in double precision, one function per policy. reference.py replays; this says which
entries stay at one event. `patched` is not covered.
"""
import numpy as np

np.seterr(divide="ignore", invalid="ignore")

# Defaults as `kvsim list policies NAME` gives them.
DEFAULTS = {
    "l2": dict(evict="postfill", skip_layers=2, prune_after=0, sinks=0, window=0),
    "scissorhands": dict(evict="online", window=32, sinks=4, history=64, decay=1, importance="probability",
                         score_over="present"),
    "nacl": dict(evict="postfill", window=64, sinks=4, random=0.3),
    "lagkv": dict(evict="postfill", window=0, sinks=4, lag=128, cross_scoring=False),
    "corm": dict(evict="online", window=256, sinks=0, score_over="present"),
    "simlayerkv": dict(evict="postfill", threshold=1, sinks=4, recent=1024, rows=1, score_over="present"),
    "chunkkv": dict(evict="postfill", chunk=20, window=64, kernel=5, pooling="avg", group="mean",
                    group_when="before"),
    "finch": dict(evict="postfill", sinks=0, normalize=True, score_over="present"),
    "topk_future": dict(evict="postfill", window=0, sinks=0),
}
PRESETS = {
    ("chunkkv", "kvpress"): dict(group_when="after"),
}


class Event:
    """What is up for eviction after the step [a, b) of a layer."""

    def __init__(self, ref, pol, layer, A, a, b, present):
        self.ref, self.pol, self.layer, self.A, self.a, self.b, self.present = ref, pol, layer, A, a, b, present
        self.ex = pol.ex
        own = pol.evict in ("chunked", "patched")
        self.n = b - a if own else self.ex.P
        self.start = a if own else 0
        self.kept = [x[x < a] if own else x[:0] for x in present]
        self.keys = [x[x >= a] if own else x for x in present]
        over_chunk = own and pol.p.get("score_over", "chunk") == "chunk"
        self.visible = self.keys if over_chunk else present
        self.postfill = pol.evict == "postfill"
        self.heads = range(self.ex.Hkv)

    def group(self, h):
        return range(h * self.ex.g, (h + 1) * self.ex.g)

    def row(self, h, qh, i):
        """Probabilities of the candidates, renormalised over what query i sees, and how much that is."""
        p = self.ref.restricted(self.A[qh, i], self.keys[h], self.visible[h], i, self.postfill)
        return p, i + 1 if self.postfill else int((self.visible[h] <= i).sum())

    def rows(self, count):
        return range(max(self.start, self.b - count), self.b)

    def group_score(self, h, per_head):
        return self.ref.reduce_group([per_head(h, qh) for qh in self.group(h)], self.pol.p.get("group", "mean"))

    def choose(self, h, score, window=None):
        """Sinks, then the newest, then the best, within the budget."""
        keys, budget = self.keys[h], self.pol.count(self.n)
        window = self.pol.window if window is None else window
        first = [j for j in keys if j < self.pol.sinks][:budget]
        free = [j for j in keys if j not in first]
        last = free[max(0, len(free) - min(window, budget - len(first))):]
        rest = np.array([j for j in free if j not in last], dtype=int)
        at = {j: s for j, s in zip(keys, score)}
        best = self.ref.top(np.array([at[j] for j in rest]), rest, budget - len(first) - len(last))
        return np.array(sorted(first + list(best) + last), dtype=int)


def evict(ref, pol, layer, A, a, b, present):
    e = Event(ref, pol, layer, A, a, b, present)
    chosen = globals()["keep_" + pol.name](e)
    return [np.concatenate([k, np.sort(c)]).astype(int) for k, c in zip(e.kept, chosen)]


def keep_l2(e):
    out = []
    for h in e.heads:
        spared = e.layer < e.pol.skip_layers or len(e.keys[h]) < e.pol.prune_after
        score = -np.sqrt((e.ex.k[e.layer, h, e.keys[h]] ** 2).sum(axis=1))
        out.append(e.keys[h] if spared else e.choose(h, score))
    return out


def keep_scissorhands(e):
    def per_head(h, qh):
        s = np.zeros(len(e.keys[h]))
        for i in e.rows(e.pol.history):
            p, seen = e.row(h, qh, i)
            what = (p >= 1 / seen) & (e.keys[h] <= i) if e.pol.importance == "count" else p
            s += e.pol.decay ** (e.b - 1 - i) * what
        return s
    return [e.choose(h, e.group_score(h, per_head)) for h in e.heads]


def keep_nacl(e):
    assert e.pol.random == 0
    per_head = lambda h, qh: sum(e.row(h, qh, i)[0] for i in e.rows(e.pol.window))
    return [e.choose(h, e.group_score(h, per_head)) for h in e.heads]


def keep_lagkv(e):
    out = []
    for h in e.heads:
        keys, lag = e.keys[h], e.pol.lag
        sinks = int((keys < e.pol.sinks).sum())
        n = len(keys)
        score = np.ones(n)
        blocks = (n - sinks) // lag
        if blocks < 2:
            score[sinks:] = np.arange(n - sinks) / (n - sinks)
        for block in range(blocks - 1):
            here = slice(sinks + block * lag, sinks + (block + 1) * lag)
            after = slice(here.stop, here.stop + lag)
            parts = []
            for x in (e.ex.k[e.layer, h, keys], e.ex.v[e.layer, h, keys]):
                low, high = x[after].min(axis=0), x[after].max(axis=0)
                moves = high > low      # the published code has no answer where it divides by 0
                spread = np.zeros(lag)
                if moves.sum() > 1:
                    spread = ((x[here] - low) / (high - low))[:, moves].std(axis=1, ddof=1)
                parts.append(np.exp(spread) / np.exp(spread).sum())
            both = (parts[0] + parts[1]) / 2
            if e.pol.cross_scoring:
                score[here] = both
            else:
                worst_first = sorted(range(lag), key=lambda k: (both[k], -k))
                for rank, k in enumerate(worst_first):
                    score[here.start + k] = rank / lag
        out.append(e.choose(h, score))
    return out


def keep_corm(e):
    out = []
    for h in e.heads:
        keys = e.keys[h]
        major = np.zeros(len(keys), dtype=bool)
        for qh in e.group(h):
            for i in e.rows(e.pol.window):
                p, seen = e.row(h, qh, i)
                major |= (p >= 1 / seen) & (keys <= i)
        major |= keys < e.pol.sinks
        major[max(0, len(keys) - e.pol.window):] = True
        out.append(keys[major])
    return out


def keep_simlayerkv(e):
    p, out = e.pol, []
    for h in e.heads:
        keys = e.keys[h]
        sinks = int((keys < p.sinks).sum())
        if len(keys) < sinks + p.recent:
            out.append(keys)
            continue
        shares = []
        for qh in range(e.ex.Hq):
            for i in e.rows(p.rows):
                row = e.row(h, qh, i)[0][keys < e.b - len(e.rows(p.rows))]
                shares.append(row[:sinks].sum() + row[-p.recent:].sum())
        lazy = np.mean(shares) > p.threshold
        tail = keys[len(keys) - p.recent + p.rows:]
        out.append(np.unique(np.concatenate([keys[:sinks], tail])) if lazy else keys)
    return out


def keep_chunkkv(e):
    p, length = e.pol, e.pol.chunk
    keys = e.keys[0]
    before = int((keys < e.b - len(e.rows(p.window))).sum())
    total, best = np.zeros(before), 0
    for h in e.heads:
        heads = [sum(e.row(h, qh, i)[0][:before] for i in e.rows(p.window)) / len(e.rows(p.window))
                 for qh in e.group(h)]
        if p.group_when == "after":
            heads = [e.ref.pool(s, p.kernel, p.pooling) for s in heads]
        s = e.ref.reduce_group(heads, p.group)
        if p.group_when == "before":
            s = e.ref.pool(s, p.kernel, p.pooling)
        total += s
        best = max(best, s.max() if before else 0)
    total = np.append(total, np.full(len(keys) - before, e.ex.Hkv * (best + 1)))
    chunks = [range(f, min(f + length, len(keys))) for f in range(0, len(keys), length)]
    value = [total[list(c)].mean() for c in chunks]
    stay = max(1, p.budget // length if "budget" in p.p else p.count(-(-e.n // length)))
    best = sorted(range(len(chunks)), key=lambda c: (-value[c], c))[:stay]
    one = np.array(sorted(keys[k] for c in best for k in chunks[c]), dtype=int)
    return [one] * e.ex.Hkv


def keep_finch(e):
    question = e.ex.P - e.ex.turns[0][0]

    def per_head(h, qh):
        s = np.zeros(len(e.keys[h]))
        for i in e.rows(question):
            row, seen = e.row(h, qh, i)
            s += row * (seen - 1 if e.pol.normalize else 1)
        return s / len(e.rows(question))
    return [e.choose(h, e.group_score(h, per_head), question) for h in e.heads]


def keep_topk_future(e):
    future = [i for _, start, end in e.ex.turns for i in range(start - 1, end - 1) if i >= e.b]
    return [e.choose(h, sum(e.A[qh, i][e.keys[h]] for qh in e.group(h) for i in future))
            for h in e.heads] if future else [e.choose(h, np.zeros(len(e.keys[h]))) for h in e.heads]
