#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Wrong input of every kind, as a user meets it: `kvsim run` (for damage that only every number
shows, `kvsim trace verify`) ends with status 2, says where and what, and leaves no results behind."""
import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

from tap import KVSIM, check, finish

try:
    import numpy as np
    import h5py
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

LAYERS, HEADS, KV_HEADS, DIM, TOTAL, PROMPT = 2, 4, 2, 8, 40, 32

EXPERIMENT = """\
name: wrong
attention:
  traces: [trace.h5]
  policies: [full, {keydiff: {keep: 0.5}}, {h2o: {keep: 0.5}}]
  chunk_size: [8, whole]
"""


def softmax_rows(q, k):
    logits = np.einsum("lhrd,lhnd->lhrn", q, np.repeat(k, HEADS // KV_HEADS, axis=1)) / np.sqrt(DIM)
    hidden = np.arange(TOTAL)[None, :] > np.arange(TOTAL)[:, None]
    e = np.where(hidden, 0, np.exp(logits))
    return (e / e.sum(axis=-1, keepdims=True)).astype(np.float32)


def write_trace(path, leave_out=()):
    random = np.random.default_rng(3)
    make = lambda heads: random.standard_normal((LAYERS, heads, TOTAL, DIM)).astype(np.float32)
    q, k, v = make(HEADS), make(KV_HEADS), make(KV_HEADS)
    with h5py.File(path, "w") as f:
        f.attrs.update({"format": "kvsim.attention", "version": 1, "model": "made-up",
                        "num_layers": LAYERS, "num_heads": HEADS, "num_kv_heads": KV_HEADS,
                        "head_dim": DIM})
        g = f.create_group("examples/a")
        g.attrs.update({"task": "recall", "mode": "single", "context_len": 28,
                        "prompt_len": PROMPT, "total_len": TOTAL, "full_score": 1.0})
        data = {"tokens": np.arange(TOTAL, dtype=np.int32),
                "turns": np.array([[28, PROMPT, TOTAL]], np.int32),
                "evidence": np.array([[0, 3, 6]], np.int32),
                "query_pos": np.arange(TOTAL, dtype=np.int32),
                "probs": softmax_rows(q, k), "q": q, "k": k, "v": v}
        for name, value in data.items():
            if name not in leave_out:
                g[name] = value


def run(folder, *words):
    return subprocess.run([KVSIM, *words], cwd=folder, capture_output=True, text=True, timeout=60,
                          errors="replace")


def points(path):
    if not os.path.exists(path):
        return 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT count(*) FROM footprint_point").fetchone()[0]


def refused(folder, name, pattern, words=("run", "-q", "wrong.yaml", "-o", "out.db")):
    """Status 2, a message that matches, nothing on stdout, no results. (A run that ends in its
    midst leaves a database from which to resume, without a point.)"""
    for file in os.listdir(folder):
        if file.startswith("out.db"):
            os.remove(os.path.join(folder, file))
    result = run(folder, *words)
    left = points(os.path.join(folder, "out.db"))
    good = (result.returncode == 2 and re.search(pattern, result.stderr) and not result.stdout
            and left == 0)
    check(name, good, f"status {result.returncode}, {left} points, said: {result.stderr}")


# --- Recordings ----------------------------------------------------------------------------------

def set_number(dataset, place, value):
    def damage(f):
        f["examples/a/" + dataset][place] = value
    return damage


def replace(dataset, value):
    def damage(f):
        g = f["examples/a"]
        del g[dataset]
        if value is not None:
            g[dataset] = value
    return damage


def set_attribute(where, name, value):
    def damage(f):
        f[where].attrs[name] = value
    return damage


def hide_negative(f):
    row = f["examples/a/probs"][1, 2, 20]
    row[7] += row[5] + 0.01
    row[5] = -0.01
    f["examples/a/probs"][1, 2, 20] = row


def link(make):
    def damage(f):
        g = f["examples/a"]
        del g["k"]
        g["k"] = make
    return damage


def cyclic(f):
    f["examples/a/k2"] = h5py.SoftLink("/examples/a/k3")
    f["examples/a/k3"] = h5py.SoftLink("/examples/a/k2")
    del f["examples/a/k"]
    f["examples/a/k"] = h5py.SoftLink("/examples/a/k2")


def folder_in_itself(f):
    f["examples/b"] = f["examples"]


RECORDINGS = [  # what, damage, words of the message
    ("probs: NaN", set_number("probs", (1, 2, 20, 5), np.nan), r"trace\.h5: .*layer 1, head 2.*20"),
    ("probs: a row that does not sum to 1", set_number("probs", (0, 1, 9, 3), 0.9),
     r"layer 0, head 1, row of position 9.*sum to"),
    ("probs: a negative number that its row makes up for", hide_negative,
     r"layer 1, head 2, row of position 20, key 5.*-0\.01"),
    ("k: infinite", set_number("k", (1, 0, 4, 2), np.inf), r"k\[layer 1, head 0, token 4, dim.*2\]"),
    ("v: NaN", set_number("v", (0, 1, 39, 7), np.nan), r"v\[layer 0, head 1, token 39, dim.*7\]"),
    ("probs: wrong shape", replace("probs", np.zeros((LAYERS, HEADS, TOTAL, 3), "f4")), r"probs"),
    ("k: integers", replace("k", np.zeros((LAYERS, KV_HEADS, TOTAL, DIM), "i4")), r"/k"),
    ("tokens: absent", replace("tokens", None), r"tokens"),
    ("query_pos: descends", replace("query_pos", np.arange(TOTAL, dtype="i4")[::-1]), r"query_pos"),
    ("turns: beyond the end", replace("turns", np.array([[28, 32, 400]], "i4")), r"turns"),
    ("turns: backwards", replace("turns", np.array([[33, 32, 40]], "i4")), r"turns"),
    ("evidence: of no turn", replace("evidence", np.array([[4, 3, 6]], "i4")), r"evidence"),
    ("evidence: negative", replace("evidence", np.array([[0, -3, 6]], "i4")), r"evidence"),
    ("attribute: another format", set_attribute("/", "format", "other"), r"format"),
    ("attribute: a later version", set_attribute("/", "version", 9), r"version"),
    ("attribute: no layers", set_attribute("/", "num_layers", 0), r"num_layers"),
    ("attribute: KV heads that do not divide", set_attribute("/", "num_kv_heads", 3), r"num_kv_heads"),
    ("attribute: prompt longer than all", set_attribute("examples/a", "prompt_len", 99), r"prompt_len"),
    ("attribute: score above 1", set_attribute("examples/a", "full_score", 1.5), r"full_score"),
    ("attribute: no such mode", set_attribute("examples/a", "mode", "many"), r"mode"),
    ("an external link", link(h5py.ExternalLink("other.h5", "/k")), r"link"),
    ("a dangling link", link(h5py.SoftLink("/nowhere")), r"trace\.h5: .*k"),
    ("links in a circle", cyclic, r"trace\.h5: .*k"),
    ("a folder that holds itself", folder_in_itself, r"trace\.h5: .*examples"),
]


def check_recordings(folder):
    trace = os.path.join(folder, "trace.h5")
    for name, damage, pattern in RECORDINGS:
        write_trace(trace)
        with h5py.File(trace, "r+") as f:
            damage(f)
        refused(folder, "recording, " + name, pattern)
    for missing, pattern in (("probs", "sum to|finite"), ):
        write_trace(trace, leave_out=(missing,))
        with h5py.File(trace, "r+") as f:
            f["examples/a/q"][0, 0, 35, 1] = np.nan
        refused(folder, "recording, q: NaN where rows are computed", pattern)
    write_trace(trace, leave_out=("k", "q"))
    refused(folder, "recording, no keys for a policy that needs them", r"lacks keys, which keydiff needs: record the dataset k")


def keep_rows(f, positions):
    g, rows = f["examples/a"], np.array(sorted(positions), np.int32)
    for name in ("probs", "q"):
        numbers = g[name][()][:, :, rows]
        del g[name]
        g[name] = numbers
    del g["query_pos"]
    g["query_pos"] = rows


ANSWER = range(PROMPT - 1, TOTAL - 1)   # the rows that predict the answer: what measures need


def span(first, end):
    return f"with every position from {first} to {end - 1} in query_pos"


def chunks(rows, size, end):
    last = PROMPT - (rows if rows > 1 else 1)
    each = f"the {rows}" if rows > 1 else "that"
    rest = f"every position from {last} to {end - 1}" if last < end - 1 else f"position {last}"
    return f"with {each} before each multiple of {size} in the prompt and {rest} in query_pos"


def ends(rows, size):
    return [p for end in range(size, PROMPT + 1, size) for p in range(end - rows, end)]


DECODE = TOTAL - 1                      # behind the last row that sees an eviction
ROWS = [  # policies, chunk, who lacks the rows, what to record as docs/policies.md says it looks, the same
    ("{snapkv: {keep: 0.5, window: 8}}", "whole", "snapkv", span(24, PROMPT), range(24, 32)),
    ("{snapkv: {keep: 0.5, window: 8, evict: chunked}}", 16, "snapkv", chunks(8, 16, PROMPT), ends(8, 16)),
    ("{snapkv: {keep: 0.5, window: 16, evict: chunked}}", 8, "snapkv", span(0, PROMPT), range(32)),
    ("{nacl: {keep: 0.5, window: 8}}", "whole", "nacl", span(24, PROMPT), range(24, 32)),
    ("{scissorhands: {keep: 0.5, history: 4}}", 8, "scissorhands", chunks(4, 8, DECODE), ends(4, 8)),
    ("{scissorhands: {keep: 0.5, history: 400}}", 8, "scissorhands", span(0, DECODE), range(32)),
    ("{corm: {window: 4}}", "whole", "corm", span(28, DECODE), range(28, 32)),
    ("{corm: {window: 4}}", 8, "corm", chunks(4, 8, DECODE), ends(4, 8)),
    ("{chunkkv: {keep: 0.5, window: 4}}", 8, "chunkkv", span(28, PROMPT), range(28, 32)),
    ("{headkv: {keep: 0.5, window: 4, heads: heads.tsv}}", 8, "headkv", span(28, PROMPT), range(28, 32)),
    ("{dynamickv: {keep: 0.5, window: 4}}", 8, "dynamickv", span(28, PROMPT), range(28, 32)),
    ("{criticalkv: {keep: 0.5, norm: value, window: 4}}", 8, "criticalkv", span(28, PROMPT), range(28, 32)),
    ("{tova: {keep: 0.5}}", 8, "tova", chunks(1, 8, DECODE), ends(1, 8)),
    ("{think: {observers: 4}}", 8, "think", span(28, PROMPT), range(28, 32)),
    ("{minference: {last: 4}}", 8, "minference", span(28, PROMPT), range(28, 32)),
    ("{minference: {pattern: block, block: 8, blocks: 2}}", 8, "minference", span(0, DECODE), range(32)),
    ("{minference: {pattern: search, last: 4}}", 8, "minference", span(0, DECODE), range(32)),
    ("{rocketkv: {compression: 2, window: 4}}", 8, "snapkv beside rocketkv", span(28, PROMPT), range(28, 32)),
    ("[{h2o: {keep: 0.5}}, {cam: {}}]", 8, "h2o beside cam", span(0, DECODE), range(32)),
    ("[{keydiff: {keep: 0.5, evict: chunked}}, {cam: {}}]", 8, "cam", chunks(1, 8, PROMPT), ends(1, 8)),
    ("[{snapkv: {keep: 0.5, window: 2}}, {think: {observers: 6}}]", 8, "think", span(26, PROMPT), range(26, 32)),
    ("[{snapkv: {keep: 0.5, window: 6}}, {cam: {}}]", 8, "snapkv beside cam", span(26, PROMPT), range(26, 32)),
]


def check_missing_rows(folder):
    """A recording with the answer's rows alone is refused with all that the policy looks at, and what it
    names is enough: without the first of them it is refused again, with them it runs."""
    trace = os.path.join(folder, "trace.h5")
    with open(os.path.join(folder, "heads.tsv"), "w") as f:
        f.write("\n".join(" ".join("1" for _ in range(HEADS)) for _ in range(LAYERS)) + "\n")
    for policies, chunk, who, positions, rows in ROWS:
        with open(os.path.join(folder, "wrong.yaml"), "w") as f:
            f.write(f"{HEAD}  chunk_size: [{chunk}]\n  policies: [{policies}]\n")
        first = next(p for p in sorted(rows) if p not in ANSWER)
        for kept in (set(ANSWER), set(rows) - {first} | set(ANSWER)):
            write_trace(trace)
            with h5py.File(trace, "r+") as f:
                keep_rows(f, kept)
            refused(folder, f"{policies} by {chunk} on {len(kept)} rows",
                    re.escape(f"lacks attention rows, that of position {first} the first, which {who} needs: "
                              f"record probs (or q and k) {positions}"))
        write_trace(trace)
        with h5py.File(trace, "r+") as f:
            keep_rows(f, set(rows) | set(ANSWER))
        for file in os.listdir(folder):
            if file.startswith("out.db"):
                os.remove(os.path.join(folder, file))
        done = run(folder, "run", "-q", "wrong.yaml", "-o", "out.db")
        check(f"{policies} by {chunk} on what it asked for", done.returncode == 0, done.stderr)
    with open(os.path.join(folder, "wrong.yaml"), "w") as f:
        f.write(EXPERIMENT)


def check_cut_recordings(folder):
    trace = os.path.join(folder, "trace.h5")
    write_trace(trace)
    whole = open(trace, "rb").read()
    for bytes_left in (0, 7, 100, 1000, len(whole) // 2, len(whole) - 1):
        with open(trace, "wb") as f:
            f.write(whole[:bytes_left])
        refused(folder, f"recording, cut after {bytes_left} bytes", r"trace\.h5: ")
        refused(folder, f"verify, cut after {bytes_left} bytes", r"trace\.h5: .*(HDF5|cut|ends|read)",
                ("trace", "verify", "-q", "trace.h5"))


# --- Experiments ---------------------------------------------------------------------------------

HEAD = "name: w\nattention:\n  traces: [trace.h5]\n"
BOMB = "name: w\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
EXPERIMENTS = [  # what, text, message
    ("an unknown key", HEAD + "  policy: [full]\n", r"wrong\.yaml:4:3: .*did you mean 'policies'"),
    ("an unknown policy", HEAD + "  policies: [snapvk]\n", r"wrong\.yaml:4:14: .*'snapkv'"),
    ("an unknown setting", HEAD + "  policies: [{snapkv: {kep: 0.5}}]\n", r"wrong\.yaml:4:24: .*'keep'"),
    ("a key twice", HEAD + "  policies: [full]\n  policies: [full]\n", r"wrong\.yaml:5:3: "),
    ("out of range", HEAD + "  policies: [{snapkv: {keep: 1.5}}]\n", r"wrong\.yaml:4:30: .*0 to 1"),
    ("a word for a number", HEAD + "  policies: [full]\n  chunk_size: big\n", r"wrong\.yaml:5:15: "),
    ("a number with a leading 0", HEAD + "  policies: [full]\n  chunk_size: 010\n",
     r"wrong\.yaml:5:15: .*'010'"),
    ("a negative number", HEAD + "  policies: [full]\n  chunk_size: -8\n", r"wrong\.yaml:5:15: "),
    ("NaN", HEAD + "  policies: [{snapkv: {keep: .nan}}]\n", r"wrong\.yaml:4:30: "),
    ("a missing unit", HEAD + "  policies: [full]\n  step_time: {prefill_token: 5}\n",
     r"wrong\.yaml:5:\d+: .*(unit|us)"),
    ("a missing trace", HEAD.replace("trace.h5", "none.h5") + "  policies: [full]\n",
     r"wrong\.yaml:3:12: .*none\.h5"),
    ("an unknown task", HEAD + "  tasks: [recal]\n  policies: [full]\n",
     r"wrong\.yaml:4:11: .*did you mean 'recall'"),
    ("no policies", HEAD + "  policies: []\n", r"wrong\.yaml:4:13: "),
    ("a mask that is not there", HEAD + "  policies: [{duo: {heads: none.tsv, sparsity: 0.5}}]\n",
     r"none\.tsv: .*wrong\.yaml:4:15"),
    ("an open bracket", HEAD + "  policies: [full\n", r"wrong\.yaml:\d+:\d+: "),
    ("a tab", HEAD + "\tpolicies: [full]\n", r"wrong\.yaml:4:1: "),
    ("aliases that explode", BOMB, r"wrong\.yaml:\d+:\d+: "),
    ("an alias of itself", "name: w\nattention: &a {traces: *a}\n", r"wrong\.yaml:2:\d+: "),
    ("deep nesting", "name: " + "[" * 5000 + "]" * 5000 + "\n", r"wrong\.yaml:1:\d+: "),
    ("two documents", HEAD + "  policies: [full]\n---\nname: b\n", r"wrong\.yaml:5:\d+: "),
    ("nothing", "", r"wrong\.yaml.*: "),
    ("a list", "- 1\n", r"wrong\.yaml:1:1: "),
    ("no part to run", "name: w\n", r"wrong\.yaml.*: .*attention"),
]


def check_experiments(folder):
    write_trace(os.path.join(folder, "trace.h5"))
    path = os.path.join(folder, "wrong.yaml")
    for name, text, pattern in EXPERIMENTS:
        with open(path, "w") as f:
            f.write(text)
        refused(folder, "experiment, " + name, pattern)
    for name, data in (("bytes that are no text", bytes(range(256))), ("a zero byte", b"name: a\0b\n")):
        with open(path, "wb") as f:
            f.write(data)
        refused(folder, "experiment, " + name, r"wrong\.yaml:1")
    os.remove(path)
    refused(folder, "experiment, none there", r"wrong\.yaml: ")


# --- Tables --------------------------------------------------------------------------------------

CELL = '"{keydiff: {keep: 0.5}}"'
TABLES = [
    ("no accuracy column", "task,policy,chunk_size\nrecall,full,whole\n", r"accuracy\.csv:1: .*'accuracy'"),
    ("accuracy above 1", "task,policy,chunk_size,accuracy\nrecall,full,whole,1.2\n", r"accuracy\.csv:2:19: "),
    ("accuracy that is none", "task,policy,chunk_size,accuracy\nrecall,full,whole,good\n", r"csv:2:19: "),
    ("accuracy NaN", "task,policy,chunk_size,accuracy\nrecall,full,whole,nan\n", r"csv:2:19: "),
    ("an unknown policy", "task,policy,chunk_size,accuracy\nrecall,fall,whole,1\n", r"csv:2:8: .*'full'"),
    ("a chunk of 0", "task,policy,chunk_size,accuracy\nrecall,full,0,1\n", r"csv:2:13: "),
    ("a point twice", f"task,policy,chunk_size,accuracy\nrecall,{CELL},8,1\nrecall,{CELL},8,1\n",
     r"csv:3: .*line 2"),
    ("a short row", "task,policy,chunk_size,accuracy\nrecall,full\n", r"csv:2: "),
    ("an open quote", 'task,policy,chunk_size,accuracy\n"recall,full,whole,1\n', r"accuracy\.csv:2"),
    ("nothing", "", r"accuracy\.csv: "),
    ("no rows", "task,policy,chunk_size,accuracy\n", r"accuracy\.csv"),
]
MASKS = [
    ("a row too few", "1 0\n", r"heads\.tsv:1: ends after 1"),
    ("a row too many", "1 0\n0 1\n1 1\n", r"heads\.tsv:3: "),
    ("a number too few", "1 0\n0\n", r"heads\.tsv:2:\d: "),
    ("a number too many", "1 0\n0 1 1\n", r"heads\.tsv:2: "),
    ("a word", "1 0\n0 x\n", r"heads\.tsv:2:\d: "),
    ("NaN", "1 nan\n0 1\n", r"heads\.tsv:1:\d: .*finite"),
    ("nothing", "", r"heads\.tsv: "),
]


def check_tables(folder):
    write_trace(os.path.join(folder, "trace.h5"))
    with open(os.path.join(folder, "wrong.yaml"), "w") as f:
        f.write(EXPERIMENT + "  calibration: {file: accuracy.csv}\n")
    for name, text, pattern in TABLES:
        with open(os.path.join(folder, "accuracy.csv"), "w") as f:
            f.write(text)
        refused(folder, "measured accuracy, " + name, pattern)
    with open(os.path.join(folder, "wrong.yaml"), "w") as f:
        f.write(HEAD + "  policies: [{duo: {heads: heads.tsv, sparsity: 0.5}}]\n")
    for name, text, pattern in MASKS:
        with open(os.path.join(folder, "heads.tsv"), "w") as f:
            f.write(text)
        refused(folder, "head mask, " + name, pattern)


def check_good(folder):
    """What all of the above starts from is right: it is the damage that is refused."""
    write_trace(os.path.join(folder, "trace.h5"))
    result = run(folder, "run", "-q", "wrong.yaml", "-o", "good.db")
    check("what is not damaged runs", result.returncode == 0, result.stderr)


def main():
    folder = tempfile.mkdtemp(prefix="kvsim-bad-")
    try:
        with open(os.path.join(folder, "wrong.yaml"), "w") as f:
            f.write(EXPERIMENT)
        check_good(folder)
        check_recordings(folder)
        check_missing_rows(folder)
        check_cut_recordings(folder)
        check_experiments(folder)
        check_tables(folder)
    finally:
        shutil.rmtree(folder)
    finish()


main()
