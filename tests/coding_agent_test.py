#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: recorded sessions of coding agents (../shared/data), skipped where they are absent.

Counts against sums over the JSON itself; and in a closed loop, on a server, every turn of a session
arrives its recorded think time after the answer before it ended.
"""
import glob
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile

from tap import check, finish, kvsim

FOLDER = os.path.join(os.environ.get("KV_SHARED", ""), "requests", "weka-sessions")
FILES = 40


def flat(items):
    for item in items:
        if "requests" in item:
            yield from flat(item["requests"])
        else:
            yield item


def test_counts(folder, sessions):
    done = kvsim("trace", "info", "--json", "--format", "coding-agent", folder)
    info = json.loads(done.stdout)
    every = [r for s in sessions.values() for r in flat(s["requests"])]
    check("requests", info["requests"] == len(every), info)
    check("sessions", info["sessions"] == len(sessions), info)
    check("prompt tokens", info["prompt_tokens"]["total"] == sum(r["in"] for r in every), info)
    check("answer tokens", info["output_tokens"]["total"] == sum(r["out"] for r in every), info)
    check("empty answers", info["zero_output"] == sum(r["out"] == 0 for r in every), info)
    check("assumed think times", info["assumed"] == sum(r.get("think_time") is None for r in every),
          info)
    check("blocks are the complete ones", info["blocks"] == sum(r["in"] // 64 for r in every), info)


def test_closed_loop(folder, sessions, out):
    lone = [name for name, s in sorted(sessions.items())
            if not any("requests" in r for r in s["requests"]) and
            all(r.get("think_time") is not None for r in s["requests"]) and len(s["requests"]) < 200]
    for number, name in enumerate(lone[:5]):
        path = os.path.join(out, "e.yaml")
        with open(path, "w") as file:
            file.write("model: llama-3.1-8b\nserving:\n  requests: {file: %s, format: coding-agent, "
                       "loop: closed}\n  device: h200\n  block_size: 64\n  request_results: true\n"
                       "  max_context: 1000000\n" % json.dumps(os.path.join(folder, name)))
        results = os.path.join(out, "%d.db" % number)
        done = kvsim("run", path, "-q", "-o", results)
        with sqlite3.connect(results) as database:
            rows = database.execute("SELECT arrival_s, e2e_s FROM request_result "
                                    "ORDER BY request").fetchall()
        items = sessions[name]["requests"]
        late = [abs(rows[i][0] - rows[i - 1][0] - rows[i - 1][1] - items[i]["think_time"])
                for i in range(1, len(rows))]
        check("%s: %d turns after their think time" % (name, len(items)),
              done.returncode == 0 and len(rows) == len(items) and max(late, default=0) < 1e-6,
              "%s %d rows, off by %g s" % (done.stderr, len(rows), max(late, default=0)))
    check("there were sessions to look at", len(lone) >= 3, len(lone))


def main():
    files = sorted(glob.glob(os.path.join(FOLDER, "*.json.zst")))[:FILES]
    if not files or shutil.which("zstd") is None:
        print("1..0 # SKIP the shared data or zstd is not there")
        return 0
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, "sessions")
        os.mkdir(folder)
        sessions = {}
        for path in files:
            name = os.path.basename(path)[:-len(".zst")]
            text = subprocess.run(["zstd", "-dqc", path], capture_output=True, check=True).stdout
            sessions[name] = json.loads(text)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(text)
        test_counts(folder, sessions)
        test_closed_loop(folder, sessions, work)
    finish()


if __name__ == "__main__":
    raise SystemExit(main())
