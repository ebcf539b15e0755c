#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Adds to tiny.h5 the numbers per token that no run of its model recorded: made up, for tests alone.

The rotary base is the model's own.
"""
import os

import h5py
import numpy as np

rng = np.random.default_rng(20)
with h5py.File(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny.h5"), "r+") as f:
    L, Hq, Hkv = (int(f.attrs[x]) for x in ("num_layers", "num_heads", "num_kv_heads"))
    f.attrs["rope_theta"] = 1e6
    for e in f["examples"].values():
        N, P = int(e.attrs["total_len"]), int(e.attrs["prompt_len"])
        made = {"token_scores": rng.normal(size=(L, Hkv, N)),
                "reconstruction": rng.random((L, Hq, 2, N)) ** 8,
                "value_out": np.exp(rng.normal(size=(L, Hq, N))),
                "prompt_scores": rng.random(P)}
        for name, numbers in made.items():
            if name in e:
                del e[name]
            e.create_dataset(name, data=numbers.astype(np.float16), compression="gzip")
