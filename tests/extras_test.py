#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test of the numbers per token that a recording may hold: refused where missing, with what to
record; found wrong where they are; written by kvsim_extras.py; Q-Filters directions."""
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

from tap import KVSIM, check, finish

sys.path.insert(0, os.path.join(os.environ["srcdir"], "traces", "recorder"))
try:
    import h5py
    import numpy as np
    import kvsim_extras
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

TINY = os.path.join(os.environ["srcdir"], "tests", "data", "tiny.h5")
NAMES = ("token_scores", "reconstruction", "value_out", "prompt_scores")


def run(trace, policy):
    folder = os.path.dirname(trace)
    path = os.path.join(folder, "e.yaml")
    with open(path, "w") as out:
        out.write(json.dumps({"name": "x", "attention": {
            "traces": [trace], "policies": [policy], "chunk_size": ["whole"], "critical": {"resamples": 1}}}))
    return subprocess.run([KVSIM, "run", path, "-o", os.path.join(folder, "r.db"), "-q"],
                          capture_output=True, text=True)


def measures(trace, policy):
    """Recall of what the policy kept, per task."""
    results = os.path.join(os.path.dirname(trace), "r.db")
    if os.path.exists(results):
        os.remove(results)
    got = run(trace, policy)
    assert got.returncode == 0, got.stderr
    with contextlib.closing(sqlite3.connect(results)) as db:
        return db.execute("SELECT task, attention_recall FROM footprint_point WHERE turn IS NULL "
                          "ORDER BY task").fetchall()


def verify(trace):
    return subprocess.run([KVSIM, "trace", "verify", trace], capture_output=True, text=True)


def bare(folder):
    path = os.path.join(folder, "bare.h5")
    shutil.copy(TINY, path)
    with h5py.File(path, "r+") as f:
        if "rope_theta" in f.attrs:
            del f.attrs["rope_theta"]
        for e in f["examples"].values():
            for name in NAMES:
                if name in e:
                    del e[name]
    return path


def script(*arguments):
    return subprocess.run([sys.executable, kvsim_extras.__file__, *arguments], capture_output=True, text=True)


def test_retaining(folder):
    """Scores of an example come from the others alone, and find what was planted in all of them."""
    path = os.path.join(folder, "retaining.h5")
    shutil.copy(TINY, path)
    before = kvsim_extras.retaining(path)
    with h5py.File(path, "r+") as f:
        e = f["examples/0000"]
        row = int(e["turns"][0][1]) - 1  # predicts the first answer: no feature of the prompt's other tokens
        e["q"][:, :, row] = -e["q"][:, :, row].astype(np.float32)
    after = kvsim_extras.retaining(path)
    rest = [t for t in range(before["0000"].shape[2]) if t != row]
    own = np.abs(before["0000"][:, :, rest] - after["0000"][:, :, rest]).max()
    other = np.abs(before["0001"] - after["0001"]).max()
    # Means over all features move a little with one query; what was learned from the row moves the others.
    check("an example's own answers do not move its scores", own < 0.05 * other, f"{own} {other}")
    got = script("retaining", path)
    with h5py.File(path, "r") as f:
        same = np.abs(f["examples/0001/token_scores"][:] - after["0001"]).max()
    check("retaining adds them to the recording", got.returncode == 0 and same < 1e-3 * np.abs(after["0001"]).max(),
          f"{got.stderr} {same}")


def test_modality(folder):
    """look_m is refused without kinds and runs with them; on text alone its prior keeps what h2o keeps."""
    trace = bare(folder)
    both = [{"h2o": {"keep": 0.3}}, {"look_m": {"merge": "none"}}]
    got = run(trace, both)
    check("look_m says what to record", got.returncode == 2 and "record the dataset modality" in got.stderr,
          got.stderr)
    got = script("text", trace)
    with h5py.File(trace, "r") as f:
        kinds = [e["modality"] for e in f["examples"].values()]
        right = all(k.dtype == np.uint8 and k.shape == e["tokens"].shape and not k[:].any()
                    for k, e in zip(kinds, f["examples"].values()))
    check("text says that every token is text", got.returncode == 0 and right, got.stderr)
    got = verify(trace)
    check("which passes verify", got.returncode == 0, got.stderr)
    text, alone = measures(trace, both), measures(trace, both[:1])
    with kvsim_extras.Extras(trace) as x:
        for name in x.examples():
            kinds = np.zeros(x.tokens(name))
            kinds[10:40] = 1
            x.modality(name, kinds)
        for wrong in ([2] * x.tokens("0000"), [0] * 3):
            try:
                x.modality("0000", wrong)
                check("kinds that are none are refused", False)
            except ValueError as error:
                check("kinds that are none are refused", "modality of 0000" in str(error), error)
    some = measures(trace, both)
    check("all text keeps what h2o keeps, images leave first", text == alone and text != some,
          f"{text} {alone} {some}")


def test_wrong_files(folder):
    lacking = os.path.join(folder, "lacking.h5")
    shutil.copy(TINY, lacking)
    with h5py.File(lacking, "r+") as f:
        del f["examples/0001/q"]
        del f["examples/0001"].attrs["prompt_len"]
    for command, path, words in (("text", lacking + "s", "No such file"), ("retaining", __file__, "is no HDF5 file"),
                                 ("text", lacking, "/examples/0001 lacks prompt_len")):
        got = script(command, path)
        check(f"{command}: {words}", got.returncode == 2 and got.stderr.count("\n") == 1 and words in got.stderr,
              got.stderr)


def main():
    wants = [({"criticalkv": {"keep": 0.3, "window": 4}}, "record the dataset value_out"),
             ({"kvzip": {"keep": 0.3}}, "record the dataset reconstruction"),
             ({"locret": {"keep": 0.3, "window": 4, "local": 0, "scores": "recorded"}},
              "record the dataset token_scores"),
             ({"expected_attention": {"keep": 0.3}}, "rope_theta")]
    with tempfile.TemporaryDirectory() as folder:
        trace = bare(folder)
        for policy, words in wants:
            got = run(trace, policy)
            check(f"{next(iter(policy))} says what to record", got.returncode == 2 and words in got.stderr,
                  got.stderr)
        rng = np.random.default_rng(1)
        with kvsim_extras.Extras(trace) as x:
            w_o = rng.normal(size=(x.layers, x.heads, x.head_dim, 5))
            x.rope(frequencies=1e6 ** (-np.arange(8) / 8))
            for name in x.examples():
                e = x.file["examples"][name]
                total, prompt = int(e.attrs["total_len"]), int(e.attrs["prompt_len"])
                x.token_scores(name, rng.normal(size=(x.layers, x.kv_heads, total)))
                x.reconstruction(name, rng.random((x.layers, x.heads, 3, total)))
                x.value_out(name, w_o)
                x.prompt_scores(name, rng.random(prompt))
            v = x.file["examples"]["0000"]["v"][1, 2, 7].astype(float)
            by_hand = sum(abs(sum(v[d] * w_o[1, 5, d, m] for d in range(16))) for m in range(5))
            got = float(x.file["examples"]["0000"]["value_out"][1, 5, 7])
        check("value_out is the L1 norm behind the head's projection", abs(got - by_hand) < 1e-4 * by_hand,
              f"{got} {by_hand}")
        got = verify(trace)
        check("what the script writes passes verify", got.returncode == 0, got.stderr)
        for policy, words in wants:
            got = run(trace, policy)
            check(f"{next(iter(policy))} runs with it", got.returncode == 0, got.stderr)
        for name, value, words in (("value_out", -1, "value_out: [layer 2, head 3, row 0, token 4] is -1"),
                                   ("token_scores", np.nan, "token_scores: [layer 2, head 3, row 0, token 4]"),
                                   ("reconstruction", 1.5, "reconstruction: [layer 2, head 3, row 0, token 4] is 1.5")):
            with h5py.File(trace, "r+") as f:
                place = (2, 3, 0, 4) if name == "reconstruction" else (2, 3, 4)
                old = f["examples/0001"][name][place]
                f["examples/0001"][name][place] = value
            got = verify(trace)
            check(f"verify finds a wrong {name}", got.returncode != 0 and words in got.stderr, got.stderr)
            with h5py.File(trace, "r+") as f:
                f["examples/0001"][name][place] = old
        with h5py.File(trace, "r+") as f:
            del f["examples/0001/value_out"]
            f["examples/0001"].create_dataset("value_out", data=np.ones((4, 8, 3), np.float32))
        got = verify(trace)
        check("a wrong shape is refused", got.returncode == 2 and "value_out" in got.stderr, got.stderr)
        filters = kvsim_extras.qfilters(TINY)
        expected = np.zeros(16)
        with h5py.File(TINY, "r") as f:
            for head in (2, 3):
                q = np.concatenate([e["q"][1, head].astype(float) for e in f["examples"].values()])
                u, _, vt = np.linalg.svd(q, full_matrices=False)
                expected -= vt[0] * (1 if (u[:, 0] > 0).mean() > 0.5 else -1) / 2
        check("Q-Filters directions are the mean over the group of minus the first singular vectors",
              np.abs(filters[1, 1] - expected).max() < 1e-9,
              str(filters[1, 1] - expected))
        test_retaining(folder)
        test_modality(folder)
        test_wrong_files(folder)
    finish()


if __name__ == "__main__":
    main()
