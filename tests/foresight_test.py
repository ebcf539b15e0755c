#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Replacement `belady` in a server, against a brute-force cache that looks through the whole trace at
every eviction: cached tokens of every request, on one replica and on several, in the open and the
closed loop, with a tier. Requests stand so far apart that none waits: memory is then all that matters."""
import json
import os
import random
import sqlite3
import subprocess
import tempfile

from tap import KVSIM, check, finish

BLOCK = 16


def run(folder, requests, blocks, extra="", policy="belady", options=()):
    path, out = os.path.join(folder, "e.yaml"), os.path.join(folder, "e.db")
    with open(path, "w") as file:
        file.write("model: llama-3.1-8b\nserving:\n  requests: %s\n  device: h200\n  kv_blocks: %d\n"
                   "  reserved_blocks: 0\n  block_size: %d\n  request_results: true\n"
                   "  prefix_cache: {replacement: %s}\n%s" % (requests, blocks, BLOCK, policy, extra))
    if os.path.exists(out):
        os.remove(out)
    done = subprocess.run([KVSIM, "run", path, "-q", "-o", out, *options], capture_output=True,
                          text=True, timeout=120)
    if done.returncode != 0:
        return done.stderr, done.returncode
    with sqlite3.connect(out) as database:
        return [c for c, in database.execute("SELECT cached_tokens FROM request_result ORDER BY "
                                             "point_id, arrival_s")], 0


def make_prompts(rng, count):
    """Prompts that begin like an earlier one and go on with blocks of their own."""
    prompts, fresh = [], 0
    for _ in range(count):
        like = rng.choice(prompts) if prompts else []
        shared = like[:rng.randint(0, len(like))]
        new = rng.randint(0 if shared else 1, 8)
        prompts.append((shared + list(range(fresh, fresh + new)))[:20])
        fresh += new
    return prompts


def brute_force(prompts, capacity, replicas=1):
    """A request takes what it finds, then block after block; the last tokens and its answer take a block
    that has no name. Whoever is named latest of all, by any later request, leaves."""
    caches, hits = [[] for _ in range(replicas)], []
    for number, prompt in enumerate(prompts):
        cache = caches[number % replicas]

        def next_use(block):
            for later in range(number + 1, len(prompts)):
                if block in prompts[later]:
                    # within a prompt, later blocks are used later
                    return later * 1000 + prompts[later].index(block)
            return 10 ** 9 + 1000 * [p for p in prompts if block in p][0].index(block)

        found = 0
        while found < len(prompt) and prompt[found] in cache:
            found += 1
        held = prompt[:found]
        for block in prompt[found:] + [None]:
            if block not in cache and len(cache) == capacity:
                cache.remove(max((b for b in cache if b not in held), key=next_use))
            if block is not None and block not in cache:
                cache.append(block)
            held.append(block)
        hits.append(BLOCK * found)
    return hits


def write_trace(folder, prompts):
    with open(os.path.join(folder, "t.jsonl"), "w") as file:
        for number, prompt in enumerate(prompts):
            file.write(json.dumps({"timestamp": number * 100000, "input_length": BLOCK * len(prompt) + 5,
                                   "output_length": 2, "hash_ids": prompt, "block_size": BLOCK}) + "\n")
    return "{file: t.jsonl, format: mooncake}"


def test_open(folder, seed):
    prompts = make_prompts(random.Random(seed), 120)
    requests = write_trace(folder, prompts)
    for blocks in (25, 60):
        for replicas in (1, 3):
            got, status = run(folder, requests, blocks, "  replicas: %d\n" % replicas)
            want = brute_force(prompts, blocks, replicas)
            check("seed %d, %d blocks, %d replicas" % (seed, blocks, replicas), got == want,
                  (got, want) if status == 0 else got)
    lru, _ = run(folder, requests, 25, policy="lru")
    belady, _ = run(folder, requests, 25)
    check("seed %d: more than lru" % seed, sum(belady) > sum(lru), (sum(belady), sum(lru)))
    stepwise, _ = run(folder, requests, 25, options=["--stepwise"])
    check("seed %d: the same step by step" % seed, stepwise == belady)
    small = "  load: always\n  tiers: {cpu: {capacity: 8MiB%s}}\n"  # 2 MiB a block
    tiers = [run(folder, requests, 25, small % r)[0] for r in (", replacement: lru",
                                                              ", replacement: belady")]
    check("seed %d: a tier that looks ahead finds more" % seed, sum(tiers[1]) > sum(tiers[0]) and
          sum(tiers[0]) >= sum(belady), [sum(t) for t in tiers])


def test_closed(folder, seed):
    """Sessions start every 1000 s, their turns follow 90 to 2000 s after an answer: no two come near
    each other, so that the order is that of answers that take no time."""
    rng = random.Random(seed)
    sessions, order = os.path.join(folder, "sessions"), []
    os.makedirs(sessions, exist_ok=True)
    prompts, taken = make_prompts(rng, 90), set()
    for s in range(30):
        at, turns = 1000 * s, []
        for turn in range(3):
            think = rng.choice([t for t in range(90, 2000) if all(
                abs(at + t - o) > 20 for o in taken)]) if turn else 0
            at += think
            taken.add(at)
            prompt = prompts[3 * s + turn]
            order.append((at, prompt))
            turns.append({"t": at - 1000 * s, "in": BLOCK * len(prompt) + 5, "out": 2,
                          "hash_ids": prompt, "api_time": 0, "think_time": think})
        with open(os.path.join(sessions, "%02d.json" % s), "w") as file:
            json.dump({"block_size": BLOCK, "hash_id_scope": "global", "requests": turns}, file)
    got, status = run(folder, "{file: sessions, format: coding-agent, loop: closed, session_arrivals: "
                      "even, session_rate: 0.001}", 25)
    want = brute_force([prompt for _, prompt in sorted(order)], 25)
    check("closed loop, seed %d" % seed, got == want, (got, want) if status == 0 else got)


def test_refused(folder):
    write_trace(folder, make_prompts(random.Random(1), 3))
    read, write = os.pipe()
    os.close(write)
    for name in ("'-'", "/dev/stdin"):
        got, status = run(folder, "{file: %s, format: mooncake}" % name, 25)
        check("standard input as " + name, status == 2 and "twice" in got and "e.yaml:3:" in got, got)
    os.close(read)


with tempfile.TemporaryDirectory() as work:
    for chosen in (1, 2, 3):
        test_open(work, chosen)
    test_closed(work, 4)
    test_closed(work, 5)
    test_refused(work)
finish()
