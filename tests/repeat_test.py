#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test of kvsim_repeat.py: from what a small network of known weights recorded, it finds what a second
pass of that network over the context attends to. The network and its passes are written here anew."""
import os
import re
import subprocess
import sys
import tempfile

from tap import check, finish

RECORDER = os.path.join(os.environ["srcdir"], "traces", "recorder")
sys.path.insert(0, RECORDER)
try:
    import h5py
    import numpy as np
    from kvsim_record import Recorder
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

LAYERS, HEADS, KV_HEADS, DIM, WIDTH, INNER, VOCABULARY, TOKENS, THETA = 3, 2, 1, 8, 16, 24, 20, 64, 100.0
CONTEXT = TOKENS - 6


class Truth:
    def __init__(self, rng):
        self.emb = rng.normal(size=(VOCABULARY, WIDTH))
        self.layers = [{name: rng.normal(size=shape) * shape[0] ** -0.5 for name, shape in (
            ("qkv", (WIDTH, (HEADS + 2 * KV_HEADS) * DIM)), ("out", (HEADS * DIM, WIDTH)), ("gate", (WIDTH, INNER)),
            ("up", (WIDTH, INNER)), ("down", (INNER, WIDTH)))} for _ in range(LAYERS)]

    def run(self, tokens):
        """q, k, v after rotation and the probabilities, token by token."""
        def normed(x):
            return x / np.sqrt((x ** 2).mean() + 1e-5)

        def turned(x, position):
            frequencies = THETA ** (-np.arange(DIM // 2) * 2 / DIM)
            pairs = (x[:DIM // 2] + 1j * x[DIM // 2:]) * np.exp(1j * position * frequencies)
            return np.concatenate([pairs.real, pairs.imag])

        n = len(tokens)
        q, k, v = (np.zeros((LAYERS, h, n, DIM)) for h in (HEADS, KV_HEADS, KV_HEADS))
        probs = np.zeros((LAYERS, HEADS, n, n))
        for t, token in enumerate(tokens):
            x = self.emb[token]
            for layer, w in enumerate(self.layers):
                parts = (normed(x) @ w["qkv"]).reshape(-1, DIM)
                for h in range(HEADS):
                    q[layer, h, t] = turned(parts[h], t)
                k[layer, 0, t], v[layer, 0, t] = turned(parts[HEADS], t), parts[HEADS + 1]
                mixed = []
                for h in range(HEADS):
                    e = np.exp(k[layer, 0, :t + 1] @ q[layer, h, t] * DIM ** -0.5)
                    probs[layer, h, t, :t + 1] = e / e.sum()
                    mixed.append(probs[layer, h, t, :t + 1] @ v[layer, 0, :t + 1])
                x = x + np.concatenate(mixed) @ w["out"]
                gate = normed(x) @ w["gate"]
                x = x + (gate / (1 + np.exp(-gate)) * (normed(x) @ w["up"])) @ w["down"]
        return q, k, v, probs


def record(path, truth, rng, examples):
    with Recorder(path, model="truth", layers=LAYERS, heads=HEADS, kv_heads=KV_HEADS, head_dim=DIM) as r:
        texts = [np.concatenate([[0], rng.integers(1, VOCABULARY, TOKENS - 1)]) for _ in range(examples)]
        for tokens in texts:
            q, k, v, _ = truth.run(tokens)
            r.add_example(task="t", tokens=tokens, turns=[(CONTEXT, TOKENS - 3, TOKENS)], full_score=1.0,
                          **{n: a.astype(np.float16) for n, a in (("q", q), ("k", k), ("v", v))})
    return texts


def repeat(*arguments):
    return subprocess.run([sys.executable, os.path.join(RECORDER, "kvsim_repeat.py"), *arguments],
                          capture_output=True, text=True)


def main():
    rng = np.random.default_rng(3)
    truth = Truth(rng)
    with tempfile.TemporaryDirectory() as folder:
        own, other = (os.path.join(folder, n) for n in ("own.h5", "other.h5"))
        texts = record(own, truth, rng, 2)
        record(other, truth, rng, 40)
        settings = ["--fit", other, "--theta", str(THETA), "--inner", "32", "--steps", "1500", "--batch", "512"]
        got = repeat(own, *settings)
        check("it runs", got.returncode == 0, got.stderr)
        fits = [float(x) for line in got.stdout.splitlines() if "R2" in line for x in re.findall(r"[01]\.\d{4}", line)]
        check("what is held out fits in all layers", len(fits) == 2 * LAYERS * 3 and min(fits) > 0.9, got.stdout)
        with h5py.File(own, "r") as f:
            for name, tokens in zip(sorted(f["examples"]), texts):
                check(f"the file says how {name} came by it", "fitted" in
                      f["examples"][name]["reconstruction"].attrs["source"])
                found = f["examples"][name]["reconstruction"][:, :, 0]
                second = truth.run(np.concatenate([tokens[:CONTEXT], tokens[1:CONTEXT]]))[3]
                wanted = second[:, :, CONTEXT:, :CONTEXT].max(axis=2)
                away = np.abs(found[:, :, :CONTEXT] - wanted).mean() / wanted.mean()
                check(f"the second pass over {name} is that of the network", away < 0.1, away)
                check("what is no context gets nothing", not found[:, :, CONTEXT:].any(), found)
        before = open(own, "rb").read()
        got = repeat(own, *settings[:-4], "--steps", "2", "--dry-run")
        check("a dry run adds nothing", got.returncode == 0 and open(own, "rb").read() == before, got.stderr)
        with open(os.path.join(folder, "text"), "w") as f:
            f.write("no recording\n")
            text = f.name
        lacking = os.path.join(folder, "lacking.h5")
        record(lacking, truth, rng, 1)
        with h5py.File(lacking, "r+") as f:
            del f["examples/0000/v"]
        for arguments, words in (
                (["--steps", "0"], "argument --steps: 0 is not a number of at least 1"),
                (["--hold-out", "0"], "argument --hold-out: 0 is not"), (["--theta", "nan"], "argument --theta: nan"),
                (["--hold-out", "41"], "40 other examples leave none to hold out"),
                (["--width", "99"], "--width 99 is more than the 32 numbers of a token's q, k and v"),
                (["--fit", text], "is no HDF5 file"), (["--fit", text + "s"], "No such file"),
                (["--fit", lacking], "does not hold v")):
            got = repeat(own, *settings[:4], *arguments, "--dry-run")
            check(f"refused: {words}",
                  got.returncode == 2 and words in got.stderr and "Traceback" not in got.stderr, got.stderr)
        with h5py.File(other, "r+") as f:
            f.attrs["scale"] = 0.5
        got = repeat(own, *settings)
        check("a recording of another model is refused", got.returncode == 2 and got.stderr.count("\n") == 1 and
              "another model" in got.stderr, got.stderr)
    finish()


if __name__ == "__main__":
    main()
