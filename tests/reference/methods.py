# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Brute force of further retention policies, from the design text and the papers' descriptions alone.

Plain numpy in double precision, one function per policy. reference.py replays; this says which
entries stay at one event. `patched` is not covered.
"""
import math

import numpy as np

np.seterr(divide="ignore", invalid="ignore")

# Defaults as `kvsim list policies NAME` gives them.
DEFAULTS = {
    "random": dict(evict="postfill", window=0, sinks=0, seed=None),
    "knorm": dict(evict="postfill", skip_layers=0, sinks=0, window=0, window_in_budget=True),
    "l2": dict(evict="postfill", skip_layers=2, prune_after=0, sinks=0, window=0),
    "scissorhands": dict(evict="online", window=32, sinks=4, history=64, decay=1, importance="probability",
                         score_over="present", selection="top", temperature=1, seed=None, accumulate=False),
    "nacl": dict(evict="postfill", window=64, sinks=4, random=0.3, temperature=1, seed=None),
    "curdkv": dict(evict="postfill", window=0, sinks=4, leverage="kv_product", local=16),
    "lagkv": dict(evict="postfill", window=0, sinks=4, lag=128, cross_scoring=False),
    "corm": dict(evict="online", window=256, sinks=0, score_over="present"),
    "simlayerkv": dict(evict="postfill", threshold=1, sinks=4, recent=1024, rows=1, score_over="present"),
    "chunkkv": dict(evict="postfill", chunk=20, window=64, kernel=5, pooling="avg", group="mean",
                    group_when="before"),
    "finch": dict(evict="postfill", sinks=0, normalize=True, score_over="present", chunk=0),
    "criticalkv": dict(evict="postfill", window=64, kernel=5, pooling="avg", group="mean", group_when="before",
                       first_stage=0.5, epsilon=1e-4, norm="projected"),
    "qfilter": dict(evict="postfill", window=0, sinks=0),
    "headkv": dict(evict="postfill", window=64, kernel=5, pooling="avg", group="mean", group_when="before",
                   beta=1.01, sinks=0, per="query_head"),
    "expected_attention": dict(evict="postfill", window=0, sinks=4, future=512, covariance=True, vnorm=True,
                               epsilon=0, rope_theta=0),
    "kvzip": dict(evict="postfill", sinks=4, pool="model"),
    "dynamickv": dict(evict="postfill", window=32, kernel=7, pooling="max", group="mean", group_when="before",
                      sinks=0, most=10),
    "prompt_compression": dict(evict="never", sinks=1, scores="uniform"),
    "locret": dict(evict="chunked", window=2500, window_in_budget=False, local=100, sinks=0),
    "topk": dict(evict="postfill", window=0, sinks=0),
}
PRESETS = {
    ("knorm", "prulong"): dict(skip_layers=2, window=64, window_in_budget=False, evict="pool"),
    ("knorm", "kvcache-factory"): dict(skip_layers=2, rounding="half_even"),
    ("l2", "devoto"): dict(skip_layers=2, prune_after=2048, rounding="ceil", evict="online"),
    ("chunkkv", "kvpress"): dict(group_when="after"),
    ("criticalkv", "kvpress"): dict(group_when="after"),
    ("kvzip", "kvpress"): dict(),
    ("scissorhands", "kvcache-factory"): dict(accumulate=True, rounding="half_even"),
    ("nacl", "kvcache-factory"): dict(rounding="half_even"),
    ("headkv", "kvcache-factory"): dict(window=32, kernel=7, pooling="max"),
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

    def window_scores(self, before):
        """SnapKV's score of the first `before` candidates of each head."""
        p, out = self.pol, []
        rows = self.rows(p.window)
        for h in self.heads:
            heads = [sum(self.row(h, qh, i)[0][:before] for i in rows) / len(rows) for qh in self.group(h)]
            if p.group_when == "after":
                heads = [self.ref.pool(s, p.kernel, p.pooling) for s in heads]
            s = self.ref.reduce_group(heads, p.group)
            out.append(self.ref.pool(s, p.kernel, p.pooling) if p.group_when == "before" else s)
        return out

    def choose(self, h, score, window=None, budget=None):
        """Sinks, then the newest, then the best, within the budget."""
        keys, budget = self.keys[h], self.pol.count(self.n) if budget is None else budget
        window = self.pol.window if window is None else window
        first = [j for j in keys if j < self.pol.sinks]
        if self.pol.preset == "kvcache-factory" and self.pol.name in ("nacl", "scissorhands"):
            protected = sorted(set(first) | set(keys[max(0, len(keys) - window):]))
            if len(protected) > budget:     # both modules keep protected[-budget:]
                return np.array(protected[-budget:] if budget else [], dtype=int)
        first = first[:budget]
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


def drawn(e, h, score):
    """Scores whose best n are a sample of n, without replacement, by softmax(score / temperature)."""
    p = e.pol
    noise = [e.ref.draw(e.ex, p.seed, e.layer, h, int(j)) for j in e.keys[h]]
    return np.array([s / p.temperature - math.log(-math.log(u + 2.0 ** -54)) for s, u in zip(score, noise)])


def keep_random(e):
    return [e.choose(h, [e.ref.draw(e.ex, e.pol.seed, e.layer, h, int(j)) for j in e.keys[h]]) for h in e.heads]


def keep_knorm(e):
    if e.layer < e.pol.skip_layers:
        return e.keys
    beside = 0 if e.pol.window_in_budget else e.pol.window
    score = lambda h: e.ref.key_score(e.pol, e.layer, h, e.keys[h])
    return [e.choose(h, score(h), budget=min(len(e.keys[h]), e.pol.count(e.n) + beside)) for h in e.heads]


def keep_l2(e):
    out = []
    for h in e.heads:
        spared = e.layer < e.pol.skip_layers or len(e.keys[h]) < e.pol.prune_after
        score = -np.sqrt((e.ex.k[e.layer, h, e.keys[h]] ** 2).sum(axis=1))
        out.append(e.keys[h] if spared else e.choose(h, score))
    return out


def keep_scissorhands(e):
    if e.pol.accumulate and e.b > e.ex.P:
        return [e.choose(h, e.pol.memory[h][e.keys[h]]) for h in e.heads]

    def per_head(h, qh):
        s = np.zeros(len(e.keys[h]))
        for i in e.rows(e.pol.history):
            p, seen = e.row(h, qh, i)
            what = (p >= 1 / seen) & (e.keys[h] <= i) if e.pol.importance == "count" else p
            s += e.pol.decay ** (e.b - 1 - i) * what
        return s
    score = [e.group_score(h, per_head) for h in e.heads]
    return [e.choose(h, drawn(e, h, s) if e.pol.selection == "sample" else s) for h, s in zip(e.heads, score)]


def keep_nacl(e):
    """The best of what competes stay but for the share `random` of the room, which is drawn from the others."""
    p, out = e.pol, []
    per_head = lambda h, qh: sum(e.row(h, qh, i)[0] for i in e.rows(p.window))
    for h in e.heads:
        s, keys = e.group_score(h, per_head), e.keys[h]
        free = [k for k in range(max(0, len(keys) - p.window)) if keys[k] >= p.sinks]
        room = min(p.count(e.n), len(keys)) - (len(keys) - len(free))
        lots = min(room, p.p.get("random_tokens", e.ref.half_up(p.random * room)))
        best = sorted(free, key=lambda k: (-s[k], k))[:max(0, room - lots)]
        score = drawn(e, h, s)
        score[best] = np.inf
        out.append(e.choose(h, score))
    return out


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


def leverage_scores(e, p, h):
    """CURPress: squared lengths of keys and values, as shares of each `local` of them, combined."""
    def shares(x):
        size = (x ** 2).sum(axis=1)
        if not p.local:
            return size
        padded = np.pad(size, (0, -len(size) % p.local)).reshape(-1, p.local)
        return np.nan_to_num(padded / padded.sum(axis=1, keepdims=True)).reshape(-1)[:len(size)]
    k2, v2 = shares(e.ex.k[e.layer, h, e.keys[h]]), shares(e.ex.v[e.layer, h, e.keys[h]])
    score = {"key": k2, "value": v2, "kv_avg": (k2 + v2) / 2, "kv_product": k2 * v2}[p.leverage]
    return score / score.sum()


def keep_curdkv(e):
    return [e.choose(h, leverage_scores(e, e.pol, h)) for h in e.heads]


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
        if p.threshold == 1 or len(keys) <= sinks + p.recent + p.rows:
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
    scores = e.window_scores(before)
    total = sum(scores) if before else np.zeros(0)
    best = max(x.max() for x in scores) if before else 0
    if e.n < length:        # no whole chunk: as the scorer alone
        return [e.ref.top(np.append(s, np.full(len(keys) - before, best + 1)), keys, p.count(e.n)) for s in scores]
    total = np.append(total, np.full(len(keys) - before, e.ex.Hkv * (best + 1)))
    chunks = [range(f, min(f + length, len(keys))) for f in range(0, len(keys), length)]
    value = [total[list(c)].mean() for c in chunks]
    stay = max(1, p.budget // length if "budget" in p.p else p.count(-(-e.n // length)))
    best = sorted(range(len(chunks)), key=lambda c: (-value[c], c))[:stay]
    one = np.array(sorted(keys[k] for c in best for k in chunks[c]), dtype=int)
    return [one] * e.ex.Hkv


def keep_finch(e):
    if e.pol.chunk:
        return keep_finch_chunks(e)
    question = e.ex.P - e.ex.turns[0][0]

    def per_head(h, qh):
        s = np.zeros(len(e.keys[h]))
        for i in e.rows(question):
            row, seen = e.row(h, qh, i)
            s += row * (seen - 1 if e.pol.normalize else 1)
        return s / len(e.rows(question))
    return [e.choose(h, e.group_score(h, per_head), question) for h in e.heads]


def keep_finch_chunks(e):
    """FinchPress with chunk_length: the best of each chunk by scores of the whole, the question's the highest."""
    p, question, out = e.pol, e.ex.P - e.ex.turns[0][0], []
    for h in e.heads:
        keys, kept = e.keys[h], []
        rows = e.rows(question)
        def per_head(qh):
            got = [e.row(h, qh, i) for i in rows]
            return sum(row * (seen - 1 if p.normalize else 1) for row, seen in got) / len(got)
        s = e.ref.reduce_group([per_head(qh) for qh in e.group(h)], "mean")
        s = np.where((keys >= rows[0]) | (keys < p.sinks), s.max() + 1, s)
        for first in range(0, len(keys), p.chunk):
            part = slice(first, first + p.chunk)
            kept += list(e.ref.top(s[part], keys[part], p.count(len(keys[part]))))
        out.append(np.array(kept, dtype=int))
    return out


def keep_topk(e):
    future = [i for _, start, end in e.ex.turns for i in range(start - 1, end - 1) if i >= e.b]
    return [e.choose(h, sum(e.A[qh, i][e.keys[h]] for qh in e.group(h) for i in future))
            for h in e.heads] if future else [e.choose(h, np.zeros(len(e.keys[h]))) for h in e.heads]


# ---------------------------------------------------------------- with numbers that only some recordings hold

def keep_criticalkv(e):
    p, out = e.pol, []
    keys = e.keys[0]
    before = int((keys < e.b - len(e.rows(p.window))).sum())
    scores = e.window_scores(before)
    pad = max(x.max() for x in scores) + 1 if before else 1
    staged = e.ref.half_up(p.keep * (e.n * p.first_stage))
    if p.preset == "kvpress":       # selection_budget of CriticalKVPress
        staged = max(1, int((1 - (1 - p.keep)) * e.n * p.first_stage)) if p.first_stage > 0 else 0
    for h in e.heads:
        s = np.append(scores[h], np.full(len(keys) - before, pad))
        first = set(e.ref.top(s, np.arange(len(keys)), staged))
        if p.norm == "value":
            size = np.abs(e.ex.v[e.layer, h, keys]).sum(axis=1)
        else:
            size = sum(e.ex.extra("value_out")[e.layer, qh, keys] for qh in e.group(h)) / e.ex.g
        s = [np.inf if k in first else (x + p.epsilon) * y for k, (x, y) in enumerate(zip(s, size))]
        out.append(e.ref.top(np.array(s), keys, p.count(e.n)))
    return out


def keep_qfilter(e):
    filters = np.loadtxt(e.pol.filters).reshape(e.ex.L, e.ex.Hkv, e.ex.D)
    return [e.choose(h, -(e.ex.k[e.layer, h, e.keys[h]] @ filters[e.layer, h])) for h in e.heads]


def keep_headkv(e):
    p = e.pol
    imp = np.loadtxt(p.heads)
    imp = imp / imp.sum()
    published = p.preset == "kvcache-factory"   # capacities share the whole budget, the window is added to them
    even = p.count(e.n) - (0 if published else p.window)
    if p.count(e.n) > e.n if published else p.count(e.n) >= len(e.keys[0]):
        return e.keys
    shared = even // p.beta
    caps = np.round(imp * (shared * imp.size) + (even - shared))
    group = imp.shape[1] // e.ex.Hkv
    out, scores = [], e.window_scores(len(e.keys[0]) - p.window)
    for h in e.heads:
        cap = round(float(caps[e.layer, h * group:(h + 1) * group].mean())) + p.window
        out.append(e.choose(h, np.append(scores[h], np.zeros(p.window)), budget=cap))
    return out


def rotation(angle, dim):
    """The matrix that turns pairs (j, j + dim/2) by the angles."""
    half = dim // 2
    out = np.zeros((dim, dim))
    for j in range(half):
        out[j, j] = out[j + half, j + half] = np.cos(angle[j])
        out[j, j + half], out[j + half, j] = -np.sin(angle[j]), np.sin(angle[j])
    return out


def keep_expected_attention(e):
    return [e.choose(h, expected_scores(e, e.pol, h)) for h in e.heads]


def expected_scores(e, p, h):
    """The score of the candidates of a KV head, 0 for sinks."""
    ex = e.ex
    theta = p.rope_theta or float(ex.attribute("rope_theta"))
    frequency = theta ** (-2 * np.arange(ex.D // 2) / ex.D)
    mean_r = sum(rotation(i * frequency, ex.D) for i in range(e.b, e.b + p.future)) / p.future
    end = min(e.b, ex.P)
    keys = e.keys[h]
    free = keys >= p.sinks
    k = ex.k[e.layer, h, keys[free]]
    share = np.zeros(len(k))
    for qh in e.group(h):
        plain = np.array([rotation(i * frequency, ex.D).T @ ex.q[e.layer, qh, r]
                          for r, i in enumerate(ex.query_pos) if p.sinks <= i < end])
        mu = mean_r @ plain.mean(axis=0)
        s = k @ mu * ex.scale
        if p.covariance:
            sigma = mean_r @ np.cov(plain.T, bias=True) @ mean_r.T
            s = s + np.einsum("ni,ij,nj->n", k, sigma, k) * ex.scale ** 2 / 2
        s = np.exp(s - s.max())
        share += s / s.sum() / ex.g
    if p.vnorm:
        share = (share + p.epsilon) * np.linalg.norm(ex.v[e.layer, h, keys[free]], axis=1)
    score = np.zeros(len(keys))
    score[free] = share
    return score


def pooled_counts(e, score, per_layer, total):
    """How many of [layer][head] scores are among the best of all (or of their layer): total(heads) of them."""
    L, H, n = len(score), e.ex.Hkv, len(score[0][0])
    counts = np.zeros((L, H), dtype=int)
    for layers in ([[l] for l in range(L)] if per_layer else [range(L)]):
        flat = sorted((-score[l][h][j], l, h, j) for l in layers for h in range(H) for j in range(n))
        for _, l, h, _ in flat[:max(0, total(len(layers) * H))]:
            counts[l, h] += 1
    return counts


def largest_remainder(shares):
    """Whole numbers as near to the shares as can be, of the same sum (rounded down); ties: the first."""
    whole = [math.floor(s) for s in shares]
    left = math.floor(float(sum(shares)) + 1e-9) - sum(whole)
    for i in sorted(range(len(shares)), key=lambda i: (-round(shares[i] - whole[i], 9), i))[:left]:
        whole[i] += 1
    return whole


def kvzip_total(p, entries):
    """What KVzipPress leaves of all entries at once; without the preset, the nearest number."""
    if "budget" in p.p:
        return p.budget * (entries // p.ex.P)
    return entries - int(entries * (1 - p.keep)) if p.preset == "kvpress" else math.floor(p.keep * entries + 0.5)


def keep_kvzip(e):
    p, ex = e.pol, e.ex
    most = ex.extra("reconstruction").max(axis=2)
    score = [[np.max([most[l, qh] for qh in range(h * ex.g, (h + 1) * ex.g)], axis=0) for h in e.heads]
             for l in range(ex.L)]
    question = ex.P - ex.turns[0][0]
    if p.pool == "kv_head":
        each = kvzip_total(p, ex.P)
        return [e.choose(h, score[e.layer][h][e.keys[h]], question, each) for h in e.heads]
    pins = p.sinks + question
    total = lambda heads: kvzip_total(p, heads * ex.P)
    ranked = [[s[p.sinks:ex.P - question] for s in layer] for layer in score]
    counts = pooled_counts(e, ranked, p.pool == "layer", lambda heads: total(heads) - pins * heads)
    heads = ex.Hkv if p.pool == "layer" else ex.Hkv * ex.L      # that share, of which this is the nth
    nth = lambda h: h if p.pool == "layer" else e.layer * ex.Hkv + h
    pinned = lambda h: min(pins, total(heads) // heads + (nth(h) < total(heads) % heads))
    return [e.choose(h, score[e.layer][h][e.keys[h]], question, counts[e.layer, h] + pinned(h)) for h in e.heads]


def keep_dynamickv(e):
    p, ex = e.pol, e.ex
    rest = ex.P - p.window
    score = []
    for l in range(ex.L):
        other = Event(e.ref, p, l, ex.attention(l), e.a, e.b, e.present)
        score.append([x.astype(np.float32)[p.sinks:] for x in other.window_scores(rest)])
    each = max(0, p.count(e.n) - p.sinks - p.window)
    counts = pooled_counts(e, score, False, lambda heads: heads * each)
    mine = largest_remainder([min(c.mean(), p.most * each) for c in counts])[e.layer]
    return [e.choose(h, np.append(s, np.zeros(p.window)), budget=mine + p.sinks + p.window)
            for h, s in enumerate(e.window_scores(rest))]


def keep_locret(e):
    score = e.ex.extra("token_scores")[e.layer]
    return [e.choose(h, score[h, e.keys[h]], budget=min(len(e.keys[h]), e.pol.count(e.n) + e.pol.window))
            for h in e.heads]


def entering(ex, pol):
    """Positions of the prompt that enter the model, before anything is computed."""
    total = max(1, pol.count(ex.P))
    first = min(pol.sinks, total)
    question = min(ex.P - ex.turns[0][0], total - first)
    middle, room = range(first, ex.P - question), total - first - question
    if pol.scores == "uniform":
        # the i-th of n is in where the line of slope room/n passes a whole number on it
        kept = [p for i, p in enumerate(middle)
                if (i + 1) * room // len(middle) > i * room // len(middle)]
    else:
        score = ex.extra("prompt_scores")
        kept = sorted(middle, key=lambda p: (-score[p], p))[:room]
    return set(range(first)) | set(kept) | set(range(ex.P - question, ex.P))
