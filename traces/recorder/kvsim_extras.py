#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Adds to recorded attention what only some policies need, and finds Q-Filters directions in it.

    with Extras("recall.h5") as x:
        x.rope(theta=1e6)                                # expected_attention
        for name in x.examples():
            x.value_out(name, w_o)                       # criticalkv; [layers, heads, head_dim, hidden]
            x.reconstruction(name, probs)                # kvzip; [layers, heads, rows, tokens]
            x.token_scores(name, scores)                 # locret; [layers, kv_heads, tokens]
            x.prompt_scores(name, scores)                # prompt_compression; [prompt_len]
            x.modality(name, kinds)                      # look_m; [tokens], 0 text, 1 image

    kvsim_extras.py qfilters RECORDING.h5 FILTERS.h5     # qfilter
    kvsim_extras.py retaining RECORDING.h5               # locret: token_scores learned from the recording
    kvsim_extras.py text RECORDING.h5                    # look_m: says that every token is text

Needs numpy and h5py.
"""
import argparse
import os
import sys

import h5py
import numpy as np


def _need(condition, message):
    if not condition:
        raise ValueError(message)


SHAPE = ("num_layers", "num_heads", "num_kv_heads", "head_dim")
LENGTHS = ("total_len", "prompt_len", "context_len")


def open_recording(path, mode="r"):
    """The file of a recording; a ValueError if it is none."""
    try:
        file = h5py.File(path, mode)
    except OSError as error:
        raise ValueError(f"{path}: {os.strerror(error.errno) if error.errno else 'is no HDF5 file'}") from None
    try:
        _need(file.attrs.get("format") == "kvsim.attention" and "examples" in file, f"{path} is no recorded attention")
        for group, names in [(file, SHAPE)] + [(e, LENGTHS) for e in file["examples"].values()]:
            lacking = [name for name in names if name not in group.attrs]
            _need(not lacking, f"{path}: {group.name} lacks {', '.join(lacking)}; see kvsim trace verify")
    except ValueError:
        file.close()
        raise
    return file


def need_arrays(file, *names):
    for name, example in file["examples"].items():
        for array in names:
            _need(array in example, f"example {name} of {file.filename} does not hold {array}")


def run(parser, work, *arguments):
    """The work of a command line; what is wrong is one line, and exit status 2."""
    try:
        work(*arguments)
        return 0
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


class Extras:
    """A recording that is added to; datasets that are there already are replaced."""

    def __init__(self, path):
        self.file = open_recording(path, "r+")
        self.layers, self.heads, self.kv_heads, self.head_dim = (
            int(self.file.attrs[name]) for name in SHAPE)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.file.close()

    def examples(self):
        return sorted(self.file["examples"])

    def _put(self, example, name, numbers, shape, dtype=np.float32):
        numbers = np.asarray(numbers, dtype=dtype)
        _need(numbers.shape == shape, f"{name} of {example} has shape {list(numbers.shape)}, "
                                      f"expected {list(shape)}")
        _need(np.isfinite(numbers).all(), f"{name} of {example} holds numbers that are not finite")
        group = self.file["examples"][example]
        if name in group:
            del group[name]
        group.create_dataset(name, data=numbers, compression="gzip", shuffle=True)

    def tokens(self, example):
        return int(self.file["examples"][example].attrs["total_len"])

    def rope(self, theta=None, frequencies=None, interleaved=False):
        """How queries and keys were turned: by base, or by radians per position of each pair."""
        _need((theta is None) != (frequencies is None), "give either theta or frequencies")
        if theta is not None:
            self.file.attrs["rope_theta"] = float(theta)
        else:
            self.file.create_dataset("rope_frequencies", data=np.asarray(frequencies, dtype=np.float64))
        self.file.attrs["rope_interleaved"] = int(interleaved)

    def token_scores(self, example, scores):
        self._put(example, "token_scores", scores, (self.layers, self.kv_heads, self.tokens(example)))

    def reconstruction(self, example, probs):
        """Attention of the queries that repeat the context; their most is what is stored."""
        probs = np.asarray(probs)
        _need(probs.ndim == 4, f"reconstruction of {example} has {probs.ndim} dimensions, expected "
                               "layers, heads, rows, tokens")
        _need((probs >= 0).all() and (probs <= 1.001).all(), "probabilities lie within 0 to 1")
        self._put(example, "reconstruction", probs.max(axis=2, keepdims=True),
                  (self.layers, self.heads, 1, self.tokens(example)))

    def value_out(self, example, w_o):
        """From the recorded values and the output projections [layers, heads, head_dim, hidden]: each
        head's rows of W_o as y = sum over heads of v @ w_o[layer, head]."""
        w_o = np.asarray(w_o, dtype=np.float64)
        _need(w_o.shape[:3] == (self.layers, self.heads, self.head_dim),
              f"w_o has shape {list(w_o.shape)}, expected [{self.layers}, {self.heads}, {self.head_dim}, hidden]")
        v = self.file["examples"][example]["v"]
        group = self.heads // self.kv_heads
        size = np.stack([[np.abs(v[layer, h // group].astype(np.float64) @ w_o[layer, h]).sum(axis=1)
                          for h in range(self.heads)] for layer in range(self.layers)])
        self._put(example, "value_out", size, (self.layers, self.heads, self.tokens(example)))

    def prompt_scores(self, example, scores):
        prompt = int(self.file["examples"][example].attrs["prompt_len"])
        self._put(example, "prompt_scores", scores, (prompt,))

    def modality(self, example, kinds):
        """What each token is: 0 text, 1 image."""
        kinds = np.asarray(kinds)
        _need(np.isin(kinds, (0, 1)).all(), f"modality of {example} is 0 (text) or 1 (image)")
        self._put(example, "modality", kinds, (self.tokens(example),), np.uint8)


def qfilters(path):
    """[layers, kv_heads, head_dim], as the published code makes its files: the first right singular vector
    of each query head's recorded queries, turned against most of them, averaged over the group. A key that
    goes along with the queries has a negative product, and qfilter keeps those."""
    with open_recording(path) as f:
        need_arrays(f, "q")
        layers, heads, kv_heads = (int(f.attrs[n]) for n in ("num_layers", "num_heads", "num_kv_heads"))
        group = heads // kv_heads
        out = np.zeros((layers, kv_heads, int(f.attrs["head_dim"])))
        for layer in range(layers):
            for h in range(heads):
                q = np.concatenate([e["q"][layer, h].astype(np.float64) for e in f["examples"].values()])
                _, vectors = np.linalg.eigh(q.T @ q)
                direction = vectors[:, -1]
                along = (q @ direction > 0).mean()
                out[layer, h // group] += (-direction if along > 0.5 else direction) / group
    return out


UNITS = 256  # of the hidden layer of a retaining head


def _most_attention(e, layer, heads, scale):
    """log of the most that any row which predicts an answer gives each token; -inf: no such row follows."""
    k = e["k"][layer, heads.start * e["k"].shape[1] // e["q"].shape[1]].astype(np.float64)
    q = e["q"][layer, heads].astype(np.float64)
    recorded = {int(p): i for i, p in enumerate(e["query_pos"][:])}
    most = np.full(len(k), -np.inf)
    for row in sorted({r for _, start, end in e["turns"][:] for r in range(start - 1, end - 1)} & set(recorded)):
        logits = scale * q[:, recorded[row]] @ k[:row + 1].T
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        most[:row + 1] = np.maximum(most[:row + 1], np.log(probs.max(axis=0) + 1e-6))
    return most


def _features(e, layer, heads):
    """Of each token: its query (mean over the group), key and value, as Locret's heads are given."""
    kv_head = heads.start * e["k"].shape[1] // e["q"].shape[1]
    tokens = e["k"].shape[2]
    _need(e["q"].shape[2] == tokens, "retaining heads look at the queries of all tokens; record every row of q")
    return np.concatenate([e["q"][layer, heads].astype(np.float64).mean(axis=0),
                           e["k"][layer, kv_head].astype(np.float64), e["v"][layer, kv_head].astype(np.float64)], axis=1)


def retaining(path):
    """{example: [layers, kv_heads, tokens]}: what a head that was fitted on the other examples says each
    token will be worth, log of the most attention that an answer gives it. After Locret (arXiv 2410.01805),
    whose heads are trained on other texts; the hidden layer is drawn, not trained, so that a least squares
    fit (ridge 1) is all. No example's scores depend on its own answers."""
    with open_recording(path) as f:
        need_arrays(f, "q", "k", "v", "query_pos", "turns")
        layers, heads, kv_heads = (int(f.attrs[n]) for n in ("num_layers", "num_heads", "num_kv_heads"))
        scale = float(f.attrs.get("scale", f.attrs["head_dim"] ** -0.5))
        examples = f["examples"]
        _need(len(examples) > 1, "retaining heads need at least two examples, one to learn from")
        out = {n: np.zeros((layers, kv_heads, e["k"].shape[2])) for n, e in examples.items()}
        for layer in range(layers):
            for h in range(kv_heads):
                group = slice(h * heads // kv_heads, (h + 1) * heads // kv_heads)
                x = {n: _features(e, layer, group) for n, e in examples.items()}
                every = np.concatenate(list(x.values()))
                mean, spread = every.mean(axis=0), every.std(axis=0) + 1e-9
                drawn = np.random.default_rng(0).normal(size=(every.shape[1], UNITS)) / np.sqrt(every.shape[1])
                z = {n: np.concatenate([np.tanh((a - mean) / spread @ drawn), a, np.ones((len(a), 1))], axis=1)
                     for n, a in x.items()}
                gram, target = {}, {}
                for n, e in examples.items():
                    most = _most_attention(e, layer, group, scale)
                    known = np.isfinite(most)
                    gram[n], target[n] = z[n][known].T @ z[n][known], z[n][known].T @ most[known]
                for n in examples:
                    others = sum(g for m, g in gram.items() if m != n) + np.eye(len(gram[n]))
                    out[n][layer, h] = z[n] @ np.linalg.solve(others, sum(t for m, t in target.items() if m != n))
    return out


def write_qfilters(recording, path):
    filters = qfilters(recording)
    if path.endswith((".h5", ".hdf5")):
        with h5py.File(path, "w") as f:
            f["q_filters"] = filters
    else:
        np.savetxt(path, filters.reshape(len(filters), -1), fmt="%.5f", delimiter="\t")


def add_token_scores(recording):
    scores = retaining(recording)
    with Extras(recording) as x:
        for name, numbers in scores.items():
            x.token_scores(name, numbers)


def add_text(recording):
    with Extras(recording) as x:
        for name in x.examples():
            x.modality(name, np.zeros(x.tokens(name)))


def main():
    parser = argparse.ArgumentParser(description="Finds in a recording what some policies need beside it.")
    parser.add_argument("command", choices=["qfilters", "retaining", "text"],
                        help="qfilters: directions of its queries; retaining: adds learned token_scores; text: "
                             "adds a modality that says that every token is text")
    parser.add_argument("recording")
    parser.add_argument("filters", nargs="?", help="of qfilters: ends in .h5: HDF5; else text, a line per layer")
    args = parser.parse_args()
    if (args.filters is None) == (args.command == "qfilters"):
        parser.error("qfilters writes a second file, the others add to the recording")
    if args.command == "qfilters":
        return run(parser, write_qfilters, args.recording, args.filters)
    return run(parser, add_token_scores if args.command == "retaining" else add_text, args.recording)


if __name__ == "__main__":
    sys.exit(main())
