#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Adds `reconstruction` (kvzip) to a recording whose model is no longer at hand.

    kvsim_repeat.py RECORDING.h5 --fit OTHER.h5 ... --theta 1e6

Who has the model lets it repeat its context and gives the probabilities to Extras.reconstruction. This
script fits a network in its place: of a Llama-style decoder (RMSNorm, rotary embedding in halves, SwiGLU, no
biases, one matrix for q, k and v) the recorded q, k and v of every token are what each layer computes, so
that no text has to be predicted. With the recorded attention as the input of each layer, tokens are
independent of each other, and a fit is that of a small residual network. Only what q, k and v show of the
hidden states can be found, and only that is needed.

Some examples of the other recordings are held out of the fit, and what the network makes of them is printed:
of the whole of each, and of its second half after its recorded first half, which is how it is used, since
the second pass reads the recorded keys and values of the context. The pass begins after the context and
repeats it without its first token (which begins every sequence).

Needs numpy and h5py; takes as long as the steps say, about 15 per second on one core for 0.5 M parameters.
"""
import argparse
import os
import sys

import numpy as np

from kvsim_extras import SHAPE, Extras, need_arrays, open_recording, run

EPS = 1e-5  # of RMSNorm
SOURCE = "kvsim_repeat.py: a network fitted to recorded q, k and v"  # said of what is added


def turn(x, positions, frequencies):
    """Rotary embedding in halves; negative positions undo it."""
    half = x.shape[-1] // 2
    angle = np.outer(positions, frequencies)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1)


def attend(q, k, v, scale):
    """Probabilities [heads, rows, keys] and outputs [rows, heads * head_dim]; the last row sees every key."""
    heads, rows, keys = len(q), q.shape[1], k.shape[1]
    later = np.triu(np.full((rows, keys), -np.inf), 1 + keys - rows)
    probs = np.empty((heads, rows, keys))
    for h in range(heads):
        logits = scale * q[h] @ k[h * len(k) // heads].T + later
        probs[h] = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs[h] /= probs[h].sum(axis=1, keepdims=True)
    outputs = [probs[h] @ v[h * len(v) // heads] for h in range(heads)]
    return probs, np.concatenate(outputs, axis=1)


class Example:
    """What was recorded of one sequence, and each layer's attention outputs."""

    def __init__(self, group, scale, frequencies):
        self.tokens, self.context = group["tokens"][:], int(group.attrs["context_len"])
        self.q, self.k, self.v = (group[name][:].astype(np.float64) for name in "qkv")
        if self.q.shape[2] != len(self.tokens):
            raise ValueError(f"{group.file.filename}: {group.name} does not hold the queries of every token")
        if self.context < 2:
            raise ValueError(f"{group.file.filename}: {group.name} has no context that could be repeated")
        back = -np.arange(len(self.tokens))
        self.made = np.stack([np.concatenate(  # [layers, tokens, (heads + 2 kv_heads) head_dim], before turning
            [x.transpose(1, 0, 2).reshape(len(self.tokens), -1)
             for x in (turn(q, back, frequencies), turn(k, back, frequencies), v)], axis=1)
            for q, k, v in zip(self.q, self.k, self.v)])
        self.out = np.stack([attend(*qkv, scale)[1] for qkv in zip(self.q, self.k, self.v)])


def norm(x):
    r = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + EPS)
    return x * r, r


def norm_gradient(d, normed, r):
    return r * (d - normed * (d * normed).mean(axis=1, keepdims=True))


def orthogonal(m):
    """About the nearest matrix of orthonormal rows or columns: Muon's quintic Newton-Schulz steps."""
    x = m / (np.linalg.norm(m) + 1e-12)
    x = x if len(m) <= len(m[0]) else x.T
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x if len(m) <= len(m[0]) else x.T


def mean_by_token(made, tokens, vocabulary):
    """What the first layer makes of each token, wherever it stands; 0 of tokens that were not seen."""
    total = np.zeros((vocabulary, made.shape[1]))
    np.add.at(total, tokens, made)
    return total / np.maximum(np.bincount(tokens, minlength=vocabulary), 1)[:, None]


class Network:
    """Hidden states begin as known @ emb times a length per token: known [vocabulary, width] is what the
    first layer makes of each token, whitened, and a matrix times the normed embedding. Of each layer: made,
    the normed state to whitened q, k, v (but of the first), and out, gate, up, down (but of the last, whose
    output nothing recorded depends on)."""

    def __init__(self, known, layers, inner, attended, rng):
        def draw(rows, columns, size=1.0):
            return rng.normal(size=(rows, columns), scale=size * rows ** -0.5).astype(np.float32)

        width = known.shape[1]
        self.known, self.layers = known, layers
        self.length = np.ones((len(known), 1), np.float32)
        first = {"emb": np.eye(width, dtype=np.float32)}
        self.of = [(first if layer == 0 else {"made": draw(width, width)}) | ({} if layer == layers - 1 else {
            "out": draw(attended, width, 0.3), "gate": draw(width, inner), "up": draw(width, inner),
            "down": draw(inner, width, 0.3)}) for layer in range(layers)]

    def begin(self, tokens):
        return (self.length * (self.known @ self.of[0]["emb"]))[tokens]

    def tail(self, layer, x, attended, keep=None):
        """The hidden state behind a layer, from that before it and its attention outputs."""
        w = self.of[layer]
        x = x + attended @ w["out"]
        normed, r = norm(x)
        gate, up = normed @ w["gate"], normed @ w["up"]
        open_ = 1 / (1 + np.exp(-gate))
        if keep is not None:
            keep.append((normed, r, gate, up, open_))
        return x + (gate * open_ * up) @ w["down"]

    def gradient(self, tokens, out, wanted):
        """Mean squared error of each layer behind the first, and the gradient of their sum, shaped as length
        and of."""
        x, heads, tails = self.begin(tokens), [], []
        for layer in range(1, self.layers):
            x = self.tail(layer - 1, x, out[:, layer - 1], tails)
            heads.append(norm(x))
        d, grad, errors = 0, [{} for _ in self.of], [0] * len(heads)
        for layer in reversed(range(self.layers)):
            w = self.of[layer]
            if layer < self.layers - 1:
                m, s, gate, up, open_ = tails[layer]
                d_inner = d @ w["down"].T
                d_up, d_gate = d_inner * gate * open_, d_inner * up * open_ * (1 + gate * (1 - open_))
                grad[layer] |= {"down": (gate * open_ * up).T @ d, "gate": m.T @ d_gate, "up": m.T @ d_up}
                d = d + norm_gradient(d_gate @ w["gate"].T + d_up @ w["up"].T, m, s)
                grad[layer]["out"] = out[:, layer].T @ d
            if layer > 0:
                normed, r = heads[layer - 1]
                error = normed @ w["made"] - wanted[:, layer - 1]
                errors[layer - 1] = float((error * error).mean())
                error *= 2 / error.size
                grad[layer]["made"] = normed.T @ error
                d = d + norm_gradient(error @ w["made"].T, normed, r)
        hot = np.zeros((len(self.known), len(tokens)), np.float32)
        hot[tokens, np.arange(len(tokens))] = 1
        d = hot @ d
        grad[0]["emb"] = self.known.T @ (self.length * d)
        return errors, (d * (self.known @ self.of[0]["emb"])).sum(axis=1, keepdims=True), grad

    def descend(self, tokens, out, wanted, steps, batch, rng, rate=0.01):
        """Muon (Jordan et al. 2024) on matrices and Adam on lengths, the rate falling to 0."""
        speed = [{name: np.zeros_like(m) for name, m in w.items()} for w in self.of]
        first, second = np.zeros_like(self.length), np.zeros_like(self.length)
        for step in range(1, steps + 1):
            if (step - 1) * batch % len(tokens) < batch:
                order = rng.permutation(len(tokens))
            pick = order[np.arange((step - 1) * batch, step * batch) % len(tokens)]
            errors, d_length, grad = self.gradient(tokens[pick], out[pick], wanted[pick])
            now = rate * min(1, step / 100) * (1 - step / (steps + 1))
            first += 0.1 * (d_length - first)
            second += 0.01 * (d_length ** 2 - second)
            self.length -= 0.3 * now * first / (np.sqrt(second / (1 - 0.99 ** step)) + 1e-10)
            for w, v, g in zip(self.of, speed, grad):
                for name, m in w.items():
                    v[name] += 0.05 * (g[name] - v[name])
                    m -= 0.2 * now * max(m.shape) ** 0.5 * orthogonal(0.95 * v[name] + 0.05 * g[name])
            if step % 250 == 0 or step == steps:
                print(f"step {step}: errors {' '.join(f'{e:.2g}' for e in errors)}", file=sys.stderr, flush=True)


class Model:
    """A network fitted to examples."""

    def __init__(self, examples, args, heads, kv_heads, scale, frequencies):
        self.heads, self.kv_heads, self.scale, self.frequencies = heads, kv_heads, scale, frequencies
        rng = np.random.default_rng(args.seed)
        tokens = np.concatenate([e.tokens for e in examples])
        out = np.concatenate([e.out for e in examples], axis=1).transpose(1, 0, 2).astype(np.float32)
        made = np.concatenate([e.made for e in examples], axis=1)
        width = args.width or out.shape[2]
        wanted = []
        if width > made.shape[2]:
            raise ValueError(f"--width {width} is more than the {made.shape[2]} numbers of a token's q, k and v")
        for m in made:  # whitened, what a layer makes is a matrix times the state, and as easy to fit everywhere
            size, basis = np.linalg.eigh(m.T @ m / len(m))
            if size[-width] < 1e-13 * size[-1]:
                raise ValueError(f"the recorded q, k and v span fewer than {width} directions; see --width")
            wanted.append((m @ (basis[:, -width:] / np.sqrt(size[-width:]))).astype(np.float32))
        self.table = mean_by_token(made[0], tokens, args.vocabulary)
        known = mean_by_token(wanted[0], tokens, args.vocabulary).astype(np.float32)
        self.net = Network(known, len(made), args.inner or 2 * width, out.shape[2], rng)
        self.net.descend(tokens, out, np.stack(wanted[1:], axis=1), args.steps, args.batch, rng)
        self.made = []
        x = self.net.begin(tokens)
        for layer, m in enumerate(made[1:]):  # the last word on each layer's matrix: least squares
            x = self.net.tail(layer, x, out[:, layer])
            n = norm(x)[0].astype(np.float64)
            self.made.append(np.linalg.solve(n.T @ n + 1e-3 * np.eye(width), n.T @ m))

    def run(self, tokens, k, v):
        """Runs tokens after recorded keys and values [layers, kv_heads, before, head_dim]: what each layer
        makes [tokens, ...], and its probabilities [heads, tokens, before + tokens]."""
        positions = k.shape[2] + np.arange(len(tokens))
        x, made, probs = self.net.begin(tokens).astype(np.float64), [], []
        for layer in range(self.net.layers):
            y = norm(x)[0] @ self.made[layer - 1] if layer else self.table[tokens]
            parts = y.reshape(len(tokens), self.heads + 2 * self.kv_heads, -1).transpose(1, 0, 2)
            q, own_k, own_v = np.split(parts, [self.heads, self.heads + self.kv_heads])
            p, out = attend(turn(q, positions, self.frequencies),
                            np.concatenate([k[layer], turn(own_k, positions, self.frequencies)], axis=1),
                            np.concatenate([v[layer], own_v], axis=1), self.scale)
            made.append(y)
            probs.append(p)
            x = self.net.tail(layer, x, out) if layer < self.net.layers - 1 else x
        return made, probs

    def repeat(self, e):
        """[layers, heads, rows, tokens]: what the repeat of the context attends to in it; the rest is 0."""
        c = e.context
        probs = self.run(e.tokens[1:c], e.k[:, :, :c], e.v[:, :, :c])[1]
        rest = len(e.tokens) - c
        return np.stack([np.pad(p[:, :, :c], ((0, 0), (0, 0), (0, rest))) for p in probs])


def ranks(x):
    return np.argsort(np.argsort(x, axis=-1), axis=-1)


def fidelity(model, held, begin):
    """Prints how near the network comes, from a share of each example on."""
    layers, n = model.net.layers, len(held)
    parts = np.cumsum([model.heads, model.kv_heads, model.kv_heads]) * held[0].q.shape[3]
    wrong, spread = np.zeros((2, layers, 3))
    distance, order = np.zeros((2, layers))
    for e in held:
        start = int(begin * len(e.tokens))
        made, probs = model.run(e.tokens[start:], e.k[:, :, :start], e.v[:, :, :start])
        for layer in range(layers):
            y = e.made[layer, start:]
            for part, columns in enumerate(np.split(np.arange(parts[-1]), parts[:-1])):
                wrong[layer, part] += ((made[layer] - y)[:, columns] ** 2).sum()
                spread[layer, part] += ((y - y.mean(axis=0))[:, columns] ** 2).sum()
            truth = attend(e.q[layer][:, start:], e.k[layer], e.v[layer], model.scale)[0]
            distance[layer] += np.abs(probs[layer] - truth).sum(axis=2).mean() / 2
            if start:
                a, b = (ranks(p[:, :, :start].max(axis=1)) for p in (probs[layer], truth))
                order[layer] += np.mean([np.corrcoef(x, z)[0, 1] for x, z in zip(a, b)])
    print(f"{n} examples held out, run from {begin:g} of their length on; layer by layer:")
    print("  R2 of q/k/v: " + ", ".join("/".join(f"{1 - x:.4f}" for x in row) for row in wrong / spread))
    print("  total variation between rows: " + ", ".join(f"{x / n:.4f}" for x in distance))
    if begin:
        print("  rank correlation of the most each earlier token gets: " + ", ".join(f"{x / n:.4f}" for x in order))


def load(path, theta):
    """What all of a recording's examples share, and the examples by name."""
    with open_recording(path) as f:
        need_arrays(f, "q", "k", "v", "tokens")
        if len(f["examples"]) == 0:
            raise ValueError(f"{path} holds no example")
        shape = tuple(int(f.attrs[n]) for n in SHAPE)
        scale = float(f.attrs.get("scale", shape[3] ** -0.5))
        theta = float(f.attrs.get("rope_theta", theta or 0))
        if theta <= 0 or f.attrs.get("rope_interleaved", 0) or "rope_frequencies" in f:
            raise ValueError(f"{path} needs a plain rotary embedding in halves of a known base; see --theta")
        frequencies = theta ** (-np.arange(shape[3] // 2) * 2 / shape[3])
        return shape, scale, frequencies, {n: Example(e, scale, frequencies) for n, e in f["examples"].items()}


def number(kind, least):
    """Of an option: a number of at least so much."""
    def parse(text):
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least}")
        return value
    parse.__name__ = kind.__name__  # argparse's own messages say it
    return parse


def add(args):
    if not args.dry_run and os.path.exists(args.recording) and not os.access(args.recording, os.W_OK):
        raise ValueError(f"{args.recording} cannot be written; see --dry-run")
    shape, scale, frequencies, own = load(args.recording, args.theta)
    others = []
    for path in args.fit:
        found = load(path, args.theta)
        if found[0] != shape or found[1] != scale or (found[2] != frequencies).any():
            raise ValueError(f"{path} is of another model than {args.recording}")
        others += found[3].values()
    held = others[args.hold_out - 1::args.hold_out]
    if not held:
        raise ValueError(f"{len(others)} other examples leave none to hold out; see --hold-out")
    args.vocabulary = 1 + max(int(e.tokens.max()) for e in [*own.values(), *others])
    known = {e.tokens.tobytes() for e in held}
    learn = [e for e in [*own.values(), *others] if e.tokens.tobytes() not in known]
    far, recorded = max(2 * e.context - 1 for e in own.values()), max(len(e.tokens) for e in learn)
    if far > recorded:
        print(f"the second pass ends at position {far}, where no example was recorded: they end at {recorded}",
              file=sys.stderr)
    model = Model(learn, args, shape[1], shape[2], scale, frequencies)
    for begin in (0, 0.5):
        fidelity(model, held, begin)
    if not args.dry_run:
        with Extras(args.recording) as x:
            for name, e in own.items():
                x.reconstruction(name, model.repeat(e))
                x.file["examples"][name]["reconstruction"].attrs["source"] = SOURCE


def main():
    parser = argparse.ArgumentParser(description="Adds what a second pass over the context attends to, from a "
                                                 "network fitted to the recorded q, k and v.")
    parser.add_argument("recording", help="that reconstruction is added to; the fit learns from it as well")
    parser.add_argument("--fit", nargs="+", required=True, metavar="OTHER", help="recordings of the same model")
    parser.add_argument("--theta", type=number(float, 1), help="rotary base of recordings that do not say")
    parser.add_argument("--width", type=number(int, 1), help="of the hidden state; default: heads times head_dim")
    parser.add_argument("--inner", type=number(int, 1), help="units of the MLP; default: twice the width")
    parser.add_argument("--steps", type=number(int, 1), default=6000, help="of the fit; default %(default)s")
    parser.add_argument("--batch", type=number(int, 1), default=1024, help="tokens per step; default %(default)s")
    parser.add_argument("--hold-out", type=number(int, 1), default=8, metavar="N",
                        help="every Nth other example is not learned from; default %(default)s")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of what the fit begins with; default 0")
    parser.add_argument("--dry-run", action="store_true", help="print what is held out, add nothing")
    args = parser.parse_args()
    return run(parser, add, args)


if __name__ == "__main__":
    sys.exit(main())
