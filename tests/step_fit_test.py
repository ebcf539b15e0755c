#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: `kvsim fit EXPERIMENT.yaml`.

Tables are written here from the formulas of a device that reaches known shares of its peaks: the fit
must find these shares, and refuse tables that would need more than the peak. A measured run is a run
with a known step_overhead: the fit must find that too. Wrong input ends with its exit status.
"""
import json
import os
import random
import re
import sqlite3
import tempfile

from tap import check, finish, kvsim, write

# Llama-3.1-8B, from its configuration: 32 layers, hidden size 4096, 32 heads and 8 KV heads of 128,
# MLP of 14336, 128256 words. RTX 4090, from its data sheet: 165.2 TFLOP/s, 1008 GB/s.
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, MLP, WORDS = 32, 4096, 32, 8, 128, 14336, 128256
MATRICES = HIDDEN * HEAD * (HEADS + 2 * KV_HEADS) + HEADS * HEAD * HIDDEN + 3 * HIDDEN * MLP
PEAK, BANDWIDTH = 165.2e12, 1008e9


def doubles(first, last):
    while first <= last:
        yield first
        first *= 2


def tables(folder, compute, attention, memory, overhead_us):
    """The tables of a device that reaches these shares of its peaks."""
    def matrices_us(tokens):
        weights = 2 * (MATRICES + 2 * HIDDEN)
        return max(2 * MATRICES * tokens / (PEAK * compute), weights / (BANDWIDTH * memory)) * 1e6

    def head_us(sequences):
        flops = 2 * HIDDEN * WORDS
        return max(flops * sequences / (PEAK * compute), flops / (BANDWIDTH * memory)) * 1e6

    def prefill_us(chunk, history):
        flops = 4 * HEADS * HEAD * chunk * (history + (chunk + 1) / 2)
        moved = 2 * 2 * KV_HEADS * HEAD * (history + chunk)
        return max(flops / (PEAK * attention), moved / (BANDWIDTH * memory)) * 1e6 if chunk else 0

    def decode_us(sequences, keys):
        return sequences * keys * 2 * 2 * KV_HEADS * HEAD / (BANDWIDTH * memory) * 1e6

    write(folder, "dense.csv", "layer,tokens,time_us\n" + "".join(
        "layer,%d,%.9f\n" % (n, matrices_us(n) + overhead_us) for n in range(1, 2049)))
    write(folder, "per_sequence.csv", "layer,sequences,time_us\n" + "".join(
        "lm_head,%d,%.9f\n" % (n, head_us(n)) for n in range(1, 257)))
    rows = ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"]
    for chunk in [0, *doubles(16, 2048)]:
        for history in [0, *doubles(512, 8192)] if chunk else [0]:
            for n in [0, *doubles(1, 256)]:
                for keys in doubles(128, 8192) if n else [0]:
                    rows.append("%d,%d,%d,%d,%.9f\n" % (
                        chunk, history, n, keys, prefill_us(chunk, history) + decode_us(n, keys)))
    write(folder, "attention.csv", "".join(rows))


def experiment(folder, requests, step_time):
    return write(folder, "e.yaml", "model: llama-3.1-8b\nserving:\n  device: rtx-4090\n"
                 "  kv_blocks: 20000\n  scheduler: {max_batched_tokens: 2048}\n"
                 "  requests: %s\n  step_time: %s\n" % (requests, step_time))


def test_roofline(folder):
    known = {"compute_efficiency": 0.62, "attention_efficiency": 0.35, "memory_efficiency": 0.81,
             "layer_overhead": 12.5}
    tables(os.path.join(folder, "p"), 0.62, 0.35, 0.81, 12.5)
    path = experiment(folder, "{format: synth, requests: 5}", "{model: table, path: p}")
    done = kvsim("fit", path)
    check("the efficiencies behind tables are found", done.returncode == 0 and all(
        abs(float(re.search(name + r": ([\d.]+)", done.stdout).group(1)) / value - 1) < (3e-2 if name == "layer_overhead" else 2e-3)
        for name, value in known.items()), done.stdout + done.stderr)
    residuals = re.findall(r"^  (?:prefill|decode) +\d+ +([\d.]+)", done.stdout, re.M)
    check("and nothing is left over", len(residuals) == 2 and
          all(float(residual) < 0.2 for residual in residuals), done.stdout)
    tables(os.path.join(folder, "p"), 0.62, 0.35, 1.1, 12.5)
    done = kvsim("fit", path)
    check("more than the peak is refused", done.returncode == 2 and
          "memory_efficiency would have to be 1.1" in done.stderr, done.stdout + done.stderr)
    done = kvsim("run", path, "-q", "-o", os.path.join(folder, "x.db"), "--set",
                 "serving.step_time={model: roofline, compute_efficiency: 1.01}")
    check("in an experiment, too", done.returncode == 2 and "compute_efficiency" in done.stderr,
          done.stderr)


def measured(folder, name, step_time):
    """A run as if it had been measured: the times that kvsim gives it. What went wrong, or ''."""
    draw = random.Random(3)
    arrival, requests = 0, []
    for _ in range(200):
        arrival += draw.expovariate(4) * 1000
        requests.append((int(arrival), draw.randint(1, 1500), draw.randint(2, 300)))
    write(folder, "t.jsonl", "".join(json.dumps({
        "timestamp": r[0], "input_length": r[1], "output_length": r[2]}) + "\n" for r in requests))
    out = os.path.join(folder, name + ".db")
    done = kvsim("run", experiment(folder, "{file: t.jsonl, format: mooncake}", step_time), "-q",
                 "-o", out, "--set", "serving.request_results=true")
    if done.returncode != 0:
        return done.stderr
    with sqlite3.connect(out) as database:
        times = database.execute("SELECT arrival_s, ttft_s, e2e_s FROM request_result "
                                 "ORDER BY request").fetchall()
    write(folder, "m.jsonl", "".join(json.dumps({
        "input_toks": r[1], "output_toks": r[2], "queued_ts": round(1000 + t[0], 9),
        "first_token_ts": 1000 + t[0] + t[1], "last_token_ts": 1000 + t[0] + t[2]}) + "\n"
        for r, t in zip(requests, times)))
    return ""


def test_overhead(folder):
    tables(os.path.join(folder, "p"), 0.62, 0.35, 0.81, 12.5)
    for overhead in (0, 0.7):
        why = measured(folder, "m%g" % overhead,
                       "{model: table, path: p, step_overhead: %gms}" % overhead)
        check("a run with %g ms per step" % overhead, why == "", why)
        path = experiment(folder, "{file: m.jsonl}", "{model: table, path: p}")
        done = kvsim("fit", path, "-q")
        found = re.search(r"step_overhead: (-?[\d.]+)ms \+- ([\d.]+)ms", done.stdout)
        check("its %g ms are found" % overhead, done.returncode == 0 and found is not None and
              abs(float(found.group(1)) - overhead) < 2e-3 and float(found.group(2)) < 0.02,
              done.stdout + done.stderr)
        fitted = [float(line.split()[-1]) for line in done.stdout.splitlines()
                  if line.startswith("  ") and " mean " in line]
        check("with which it is as measured", len(fitted) == 3 and
              all(abs(value) < 0.5 for value in fitted), done.stdout)


def test_errors(folder):
    path = experiment(folder, "{file: m.jsonl, format: vllm-bench}", "{model: table, path: p}")
    with open(os.path.join(folder, "m.jsonl")) as file:
        good = file.read()
    cases = [
        ('{"input_toks": 5, "output_toks": 2}\n', [], "m.jsonl:1: 'queued_ts' is missing"),
        (good.replace('"last_token_ts"', '"lost"', 1), [], "m.jsonl:1: 'last_token_ts' is missing"),
        (good.replace('"first_token_ts": 1000', '"first_token_ts": 999', 1), [], "m.jsonl:1: expected que"),
        ("".join(good.splitlines(True)[:7]), [], "at least 20 requests, not 7"),
        (good, ["serving.max_context=200"], "is rejected here: too_long"),
        (good, ["serving.requests.speedup=2"], "speedup 1"),
        (good, ["serving.requests.limit=100"], "only 100 of 200"),
        (good, ["serving.chunk_size=[64, 128]"], "not 2 combinations"),
        (good, ["serving.step_time.path=nowhere"], "nowhere"),
    ]
    for text, sets, words in cases:
        write(folder, "m.jsonl", text)
        done = kvsim("fit", path, "-q", *[a for s in sets for a in ("--set", s)])
        check("error: " + words, done.returncode == 2 and words in done.stderr,
              "%d\n%s%s" % (done.returncode, done.stdout, done.stderr))
    bare = write(folder, "bare.yaml", "model: llama-3.1-8b\n")
    for arguments, status, words in (((path, "--traces", "x.h5"), 2, "--set only"),
                                     (("m.csv", "--set", "a=1"), 2, "not an experiment"),
                                     ((bare,), 2, "serving"), (("none.yaml",), 2, "none.yaml")):
        done = kvsim("fit", *arguments)
        check("error: " + words, done.returncode == status and words in done.stderr,
              "%d\n%s" % (done.returncode, done.stderr))


def main():
    with tempfile.TemporaryDirectory() as folder:
        test_roofline(folder)
        test_overhead(folder)
        test_errors(folder)
    finish()


if __name__ == "__main__":
    raise SystemExit(main())
