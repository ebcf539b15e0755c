#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Checks the recorder: what it writes passes `kvsim trace verify`, and what it is given wrongly it
refuses. The hook for Hugging Face models runs on a random model where transformers is there."""
import json
import os
import subprocess
import sys
import tempfile

from tap import KVSIM, check, finish

sys.path.insert(0, os.path.join(os.environ["srcdir"], "traces", "recorder"))
try:
    import numpy as np
    import h5py
    from kvsim_record import Recorder, record_hugging_face, recorder_for
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

SHAPE = {"model": "made-up", "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 8}
TOTAL = 50
ABOUT = {"task": "recall", "tokens": range(100, 100 + TOTAL), "turns": [(30, 33, 40), (41, 44, 50)],
         "full_score": 0.5, "evidence": [(0, 3, 7), (1, 20, 22)], "mode": "multi_turn"}


def arrays(rows=TOTAL):
    random = np.random.default_rng(1)
    make = lambda heads, n: random.standard_normal((3, heads, n, 8)).astype(np.float32)
    return {"q": make(4, rows), "k": make(2, TOTAL), "v": make(2, TOTAL)}


def softmax_rows(q, k, positions):
    logits = np.einsum("lhrd,lhnd->lhrn", q, np.repeat(k, 2, axis=1)) / np.sqrt(8)
    logits = np.where(np.arange(TOTAL)[None, :] > np.asarray(positions)[:, None], -np.inf, logits)
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kvsim(*words):
    return subprocess.run([KVSIM, "trace", *words], capture_output=True, text=True)


def check_verifies(name, folder, settings, example):
    path = os.path.join(folder, "a.h5")
    with Recorder(path, **SHAPE, **settings) as r:
        r.add_example(**ABOUT, **example)
        r.add_example(**{**ABOUT, "task": "other"}, **example)
    run = kvsim("verify", path)
    check(name, run.returncode == 0, run.stderr)
    return path


def check_refused(name, words, folder, change, example=None):
    try:
        with Recorder(os.path.join(folder, "bad.h5"), **SHAPE) as r:
            r.add_example(**{**ABOUT, **change}, **(example or arrays()))
    except ValueError as error:
        left = os.path.exists(os.path.join(folder, "bad.h5"))
        check(name, words in str(error) and not left, error)
    else:
        check(name, False, "nothing was refused")


def check_half_an_example(folder):
    path, some = os.path.join(folder, "half.h5"), arrays()
    with Recorder(path, **SHAPE) as r:
        r.add_example(**ABOUT, **some)
        try:
            with r.begin_example(**ABOUT) as example:
                example.layer(1, q=some["q"][1])
            check("half an example", False, "nothing was refused")
        except ValueError as error:
            check("half an example", "q was written for 1 of 3 layers" in str(error), error)
    with h5py.File(path) as f:
        check("half an example is not kept", list(f["examples"]) == ["0000"])


def check_hugging_face(folder):
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as missing:
        check(f"hook for Hugging Face models # SKIP {missing}", True)
        return
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)
    model = LlamaForCausalLM(config).eval()
    tokens = torch.arange(100, 100 + TOTAL)
    model.set_attn_implementation("eager")
    want = model(tokens[None], output_attentions=True)
    model.set_attn_implementation("sdpa")
    path = os.path.join(folder, "hf.h5")
    with recorder_for(path, model, dtype="float32") as r:
        got = record_hugging_face(r, model, **{**ABOUT, "tokens": tokens})
    check("the hook leaves the model's output", torch.allclose(got.logits, want.logits, atol=1e-4))
    with h5py.File(path, "a") as f:  # the model's own attention beside q and k: verify compares them
        f["examples/0000/probs"] = torch.stack(want.attentions)[:, 0].detach().numpy()
    run = kvsim("verify", path)
    check("recorded q and k give the model's attention", run.returncode == 0, run.stderr)


def main():
    with tempfile.TemporaryDirectory() as folder:
        some = arrays()
        check_verifies("q, k and v", folder, {}, some)
        check_verifies("contiguous float32", folder, {"dtype": "float32", "compression": None}, some)
        probs = softmax_rows(some["q"], some["k"], range(TOTAL))
        check_verifies("probs beside q and k", folder, {}, {**some, "probs": probs})
        check_verifies("rounded probs", folder, {"probs_quantum_bits": 14}, {"probs": probs})
        sample = [5, 31, 32, 33, 43, 49]
        path = check_verifies("a sample of rows", folder, {}, {
            **arrays(len(sample)), "query_pos": sample, "context_id": "c", "modality": [0] * TOTAL})
        info = json.loads(kvsim("info", "--json", path).stdout)
        check("info tells what was recorded",
              info["examples"] == 2 and info["groups"][0]["rows"] == [6, 6]
              and info["arrays"]["q"]["type"] == "f16" and not info["meets"]["every_row"], info)

        wrong = {**some, "k": some["k"][:, :, :-1]}
        check_refused("wrong shape", "k of layer 0 has shape [2, 49, 8]", folder, {}, wrong)
        huge = {**some, "v": some["v"] * 1e6}
        check_refused("too large for a half", "too large for float16", folder, {}, huge)
        check_refused("NaN", "not finite", folder, {}, {**some, "q": some["q"] * np.nan})
        check_refused("not causal", "beyond the causal limit", folder, {},
                      {"probs": probs[:, :, ::-1]})
        check_refused("sums", "sums to 1 +- 0.1", folder, {}, {"probs": probs * 0.9})
        check_refused("turns out of order", "turn 1 is", folder,
                      {"turns": [(30, 33, 40), (39, 44, 50)], "evidence": ()})
        check_refused("evidence", "evidence 0 is (2, 1, 2)", folder, {"evidence": [(2, 1, 2)]})
        check_refused("query_pos", "query_pos must ascend", folder, {"query_pos": [3, 2]})
        check_refused("score", "full_score is 2", folder, {"full_score": 2})
        check_refused("mode", "mode is 'chat'", folder, {"mode": "chat"})
        check_half_an_example(folder)
        check_hugging_face(folder)
    finish()


main()
