#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: defaults and presets are the published ones.

The numbers below were read in the sources that stand beside them, not in kvsim. What kvsim chose itself (such
as snapkv's window without a preset) is left out.
"""
import json

import tap

# (policy, preset or None, settings, source)
PUBLISHED = [
    ("streaming", None, dict(sinks=4), "arXiv 2309.17453, start_size"),
    ("duo", None, dict(sinks=128, window=256), "arXiv 2410.10819, released patterns"),
    ("prulong", None, dict(sinks=128, window=1024), "arXiv 2506.17121"),
    ("locret", None, dict(window=2500, local=100), "arXiv 2410.01805: stabilizers, local_len"),
    ("l2", None, dict(skip_layers=2), "arXiv 2406.11430, its code"),
    ("l2", "devoto", dict(skip_layers=2, prune_after=2048, evict="online"), "arXiv 2406.11430, its code"),
    ("knorm", "prulong", dict(skip_layers=2, window=64), "arXiv 2506.17121, its code"),
    ("knorm", "kvcache-factory", dict(skip_layers=2), "init_l2norm: skip_layers [0, 1]"),
    ("corm", None, dict(window=256), "arXiv 2404.15949"),
    ("adakv", None, dict(alpha=0.2), "arXiv 2407.11550, floor_alpha"),
    ("adakv", "kvcache-factory", dict(alpha=0.2, normalize=True, window=32, kernel=7, pooling="max"), "init_adakv"),
    ("headkv", None, dict(beta=1.01), "arXiv 2410.19258"),
    ("headkv", "kvcache-factory", dict(window=32, kernel=7, pooling="max"), "HeadKVCluster"),
    ("dynamickv", None, dict(window=32, kernel=7, pooling="max", most=10), "arXiv 2412.14838, radio_max"),
    ("snapkv", "kvpress", dict(window=64, kernel=5, pooling="avg"), "SnapKVPress"),
    ("snapkv", "prulong", dict(window=64, kernel=5, pooling="avg", window_in_budget=False), "arXiv 2506.17121, its code"),
    ("snapkv", "kvcache-factory", dict(window=64, kernel=5, pooling="avg"), "SnapKVCluster"),
    ("snapkv", "minference", dict(window=32, kernel=5, pooling="avg"), "SCBench, snapkv"),
    ("pyramidkv", "kvpress", dict(beta=20, window=64, kernel=5), "PyramidKVPress"),
    ("pyramidkv", "kvcache-factory", dict(beta=20, window=64, kernel=5, pooling="avg"), "PyramidKVCluster"),
    ("h2o", "kvcache-factory", dict(recent=64), "H2OKVCluster, window_size"),
    ("streaming", "kvpress", dict(sinks=4), "StreamingLLMPress, n_sink"),
    ("streaming", "minference", dict(sinks=128, window=3968), "SCBench, streamingllm"),
    ("lagkv", "kvpress", dict(sinks=4, lag=128, cross_scoring=False), "LagKVPress"),
    ("curdkv", "kvpress", dict(sinks=4, leverage="kv_product", local=16), "CURPress"),
    ("chunkkv", "kvpress", dict(chunk=20, window=64, kernel=5), "ChunkKVPress"),
    ("criticalkv", "kvpress", dict(first_stage=0.5, epsilon=1e-4, norm="projected"), "CriticalKVPress"),
    ("expected_attention", "kvpress", dict(future=512, sinks=4, covariance=True, vnorm=True, epsilon=0),
     "ExpectedAttentionPress"),
    ("simlayerkv", "kvpress", dict(sinks=4, recent=1024, rows=1, threshold=1), "SimLayerKVPress"),
    ("finch", "kvpress", dict(normalize=True), "FinchPress"),
    ("kvzip", "kvpress", dict(sinks=4, pool="model"), "KVzipPress"),
    ("kivi", None, dict(key_bits=2, value_bits=2, group=32, residual=128), "arXiv 2402.02750, its code"),
    ("kivi", "scbench", dict(group=32, residual=32), "SCBench, kivi"),
    ("kvquant", None, dict(bits=3, outliers=0.01, sinks=1), "arXiv 2401.18079: nuq3-1%, first_few_fp16 1"),
    ("gear", None, dict(bits=2, group=64, outliers=0.02, rank=4, decode_rank=2, buffer=20), "arXiv 2403.05527, its code"),
    ("think", None, dict(ratio=0.4, recent=32, observers=32), "arXiv 2407.21018"),
    ("think", "kvpress", dict(observers=32, recent=0, scored="all"), "ThinKPress"),
    ("think", "kvcache-factory", dict(ratio=0.4, recent=32, observers=32, scored="all"), "key_pruner_query_driven"),
    ("minicache", None, dict(t=0.6, retain=0.05), "arXiv 2405.14366"),
    ("cam", None, dict(merge=32), "CAMPress, merge_budget"),
    ("a_shape", None, dict(sinks=128, local=3968), "SCBench, n_init and n_local"),
    ("tri_shape", None, dict(sinks=128, local=3968, last=100), "SCBench, n_last"),
    ("minference", None, dict(vertical=1000, slash=6096, last=64, block=64, blocks=100), "arXiv 2407.02490, its code"),
    ("quest", None, dict(read=1024, page=16, skip_layers=2), "arXiv 2406.10774; SCBench, token_budget"),
    ("infllm", None, dict(sinks=128, local=4096, block=128, blocks=16, representatives=4), "arXiv 2402.04617, its code"),
    ("retrieval_attention", None, dict(sinks=128, local=512, read=2000), "SCBench, top_k"),
    ("rocketkv", None, dict(window=32, kernel=63), "arXiv 2502.14051"),
]


def value(text):
    """A setting of a preset, as JSON has it."""
    for known, meant in (("true", True), ("false", False)):
        if text == known:
            return meant
    try:
        return float(text)
    except ValueError:
        return text


def listed(entry, preset):
    """All settings of a policy under a preset."""
    settings = {p["name"]: p["default"] for p in entry["parameters"]}
    if preset is not None:
        words = next(p["values"] for p in entry["presets"] if p["name"] == preset).split()
        settings.update((name, value(text)) for name, text in (w.split("=", 1) for w in words))
    return settings


entries = {e["name"]: e for e in json.loads(tap.kvsim("list", "--json", "policies").stdout)
           if e["name"] != "topk"}
for policy, preset, want, source in PUBLISHED:
    got = listed(entries[policy], preset)
    wrong = ["%s is %r, published %r" % (n, got.get(n), v) for n, v in want.items() if got.get(n) != v]
    tap.check("%s%s: %s" % (policy, " " + preset if preset else "", source), not wrong, ", ".join(wrong))
tap.finish()
