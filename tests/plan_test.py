#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: kvsim plan against brute force.

What the plan answers by search is answered here by `kvsim run` of every replica count, and by runs of
the same trace at other speeds and block counts; rankings and fronts are made again in Python.
"""
import contextlib
import itertools
import math
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile

from tap import KVSIM, check, finish, kvsim, rows, write

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples")
PRICE = {"a100-80": 1.8, "h100-sxm": 2.9, "l40s": 1.1}
LIMITS = {"ttft_p99": 2.0, "tpot_p99": 0.05}


def plan(folder, name, *sets, example="plan.yaml"):
    out = os.path.join(folder, name + ".db")
    done = kvsim("plan", os.path.join(EXAMPLES, example), "-o", out,
                 *itertools.chain(*(("--set", s) for s in sets)))
    return out, done


def simulate(folder, name, *sets):
    """Rows of `kvsim run` on the serving part of the example, keyed by device, chunk and replicas."""
    out = os.path.join(folder, name + ".db")
    done = kvsim("run", os.path.join(EXAMPLES, "plan.yaml"), "-q", "-o", out,
                 *itertools.chain(*(("--set", s) for s in sets)))
    assert done.returncode == 0, done.stderr
    return {(r["device"], r["chunk_size"], r["replicas"]): r for r in rows(
        out, "SELECT *, settings->>'$.device' AS device, settings->>'$.serving.replicas' AS replicas "
        "FROM serving_point")}


def keeps(row, limits=None):
    return all(row[name] <= most for name, most in (limits or LIMITS).items())


def slack(row, limits=None):
    """Of the latencies the one nearest to its limit, as a share of it."""
    return max(row[name] / most for name, most in (limits or LIMITS).items())


def test_answer(folder):
    out, done = plan(folder, "plan")
    check("a plan is made", done.returncode == 0, done.stderr)
    brute = simulate(folder, "brute", "serving.replicas=[1,2,3,4]")
    choices = rows(out, "SELECT * FROM plan_choice ORDER BY number")
    least = {}
    for (device, chunk, replicas), row in sorted(brute.items()):
        if keeps(row):
            least.setdefault((device, chunk), (replicas, row))
    check("every configuration is there", len(choices) == len(least) == 6, choices)
    check("with the least replicas that brute force finds",
          all(c["replicas"] == least[c["device"], c["chunk_size"]][0] for c in choices), choices)
    check("and the latencies of that run",
          all(c[m] == least[c["device"], c["chunk_size"]][1][m] for c in choices
              for m in ("ttft_p99", "tpot_p99", "e2e_p99", "goodput", "throughput_tok_s")), choices)
    check("what it costs is devices times price",
          all(math.isclose(c["cost_per_hour"], c["replicas"] * PRICE[c["device"]]) for c in choices))
    order = sorted(choices, key=lambda c: (round(c["cost_per_hour"], 9), slack(c), c["number"]))
    check("the cheapest comes first, of equals the one that is farther from its limits",
          [c["rank"] for c in order] == list(range(1, 7)) and order[0]["verdict"] == "chosen", order)
    bad = []
    for c in choices:
        before = brute.get((c["device"], c["chunk_size"], c["replicas"] - 1))
        excess = {} if before is None else {m: before[m] / most - 1 for m, most in LIMITS.items()}
        worst = max(excess, key=excess.get) if excess else None
        if (c["binding"] or "").split(" ")[0] != (worst or ""):
            bad.append((c["label"], c["binding"], excess))
    check("what binds is the limit that a replica less misses most", not bad, bad)
    check("the summary names the answer", order[0]["label"] in done.stdout, done.stdout)
    return out, choices


def test_rates(folder, out, choices):
    """Runs at the largest rate, and at the next larger one that was tried."""
    bad = []
    for i, c in enumerate(choices):
        tried = rows(out, "SELECT min(rate_factor) AS f FROM plan_point WHERE choice_id = ? AND "
                     "rate_req_s > ? * 1.000001 AND NOT feasible AND replicas = ?", c["id"],
                     c["max_rate_req_s"], c["replicas"])[0]["f"]
        speed = c["max_rate_req_s"] / c["rate_req_s"]
        if not speed < tried <= 1.02 * speed * 1.000001:
            bad.append((c["label"], speed, tried))
        for factor, good in ((speed, True), (tried, False)):
            found = simulate(folder, f"rate{i}-{good}", f"serving.device={c['device']}",
                             f"serving.chunk_size={c['chunk_size']}",
                             f"serving.replicas={c['replicas']}",
                             "serving.requests={file: %s, format: csv, speedup: %.17g}"
                             % (os.path.join(EXAMPLES, "requests.csv"), factor))
            if keeps(next(iter(found.values()))) != good:
                bad.append((c["label"], factor, good))
    check("limits hold at the largest rate and not at one at most 2 % above", not bad, bad)
    lines = open(os.path.join(EXAMPLES, "requests.csv"), encoding="utf-8").read().splitlines()[1:]
    arrivals = [float(line.split(",")[0]) for line in lines]
    rate = (len(arrivals) - 1) / (max(arrivals) - min(arrivals))
    check("the trace's rate is its own", all(math.isclose(c["rate_req_s"], rate, rel_tol=1e-6)
                                             for c in choices), (rate, choices[0]["rate_req_s"]))


def test_blocks(folder):
    """Little memory, so that 10 % of it matter: against runs with the blocks given."""
    sets = ["serving.kv_blocks=2000", "serving.device=h100-sxm", "serving.chunk_size=512",
            "plan.limits=[ttft_p99 <= 300ms]"]
    out, done = plan(folder, "blocks", *sets)
    check("a plan with few blocks", done.returncode == 0, done.stderr)
    c = rows(out, "SELECT * FROM plan_choice")[0]
    needed = {}
    for blocks in (1800, 2000, 2200):
        found = simulate(folder, f"b{blocks}", sets[1], sets[2], f"serving.kv_blocks={blocks}",
                         "serving.replicas=[1,2,3,4,5,6,7,8,9,10]")
        needed[blocks] = min(k[2] for k, row in found.items() if keeps(row, {"ttft_p99": 0.3}))
    check("replicas with 10 % fewer and more blocks",
          [c["replicas_fewer_blocks"], c["replicas"], c["replicas_more_blocks"]] ==
          [needed[b] for b in (1800, 2000, 2200)], (c, needed))
    cases = [r["replicas"] for r in rows(out, "SELECT * FROM plan_case ORDER BY number")]
    check("and the answer in each case", cases[:3] == [needed[b] for b in (2000, 1800, 2200)], cases)


def test_infeasible(folder):
    out, done = plan(folder, "never", "plan.limits=[ttft_p99 <= 2s, tpot_p99 <= 2ms]")
    check("limits that nothing keeps are answered", done.returncode == 0 and
          "Nothing that was tried keeps all limits" in done.stdout, done.stdout + done.stderr)
    nearest = [r["nearest_text"] for r in rows(out, "SELECT * FROM plan_limit ORDER BY number")]
    check("with the limit to relax", nearest[0] is None and nearest[1].startswith("tpot_p99 <= "),
          nearest)
    check("no configuration is called feasible",
          {r["verdict"] for r in rows(out, "SELECT verdict FROM plan_choice")} == {"infeasible"})
    _, again = plan(folder, "nearly", f"plan.limits=[ttft_p99 <= 2s, {nearest[1]}]")
    check("which something keeps", again.returncode == 0 and "\nRun " in again.stdout, again.stdout)
    value = float(nearest[1].split("<= ")[1].removesuffix("ms"))
    _, below = plan(folder, "below", f"plan.limits=[ttft_p99 <= 2s, tpot_p99 <= {0.99 * value}ms]")
    check("and nothing that was tried keeps one 1 % tighter", "Nothing that was" in below.stdout,
          below.stdout)
    out, done = plan(folder, "both", "plan.limits=[ttft_p99 <= 1ms, tpot_p99 <= 1ms]")
    loose = [r["nearest_text"] for r in rows(out, "SELECT * FROM plan_limit ORDER BY number")]
    _, again = plan(folder, "both2", "plan.limits=[%s]" % ", ".join(loose))
    check("limits that must be relaxed together can then be kept", "\nRun " in again.stdout,
          (loose, again.stdout))
    out, done = plan(folder, "price", "plan.limits=[ttft_p99 <= 600ms, tpot_p99 <= 50ms, price <= 2]")
    near = [r["nearest_text"] for r in rows(out, "SELECT * FROM plan_limit ORDER BY number")]
    _, exact = plan(folder, "exact", "plan.limits=[ttft_p99 <= 600ms, tpot_p99 <= 50ms, price <= 2.2]")
    check("and that price can be kept, to the cent", "\nRun " in exact.stdout, exact.stdout)
    check("a price that is too low is answered with the least that suffices", "price <= 2.2" in near,
          near)


def front_of(points, limits):
    """What keeps the limits and is beaten by nothing else that does, in brute force over each choice's
    least replicas to twice as many, at most 8 more; every one of them must be there."""
    good = {(p["choice_id"], p["replicas"]): p for p in points if p["rate_factor"] == 1 and
            p["blocks_factor"] == 1 and keeps(p, limits) and (p["accuracy_of_full"] or 0) >= 0.9}
    least = {c: min(n for d, n in good if d == c) for c, _ in good}
    wanted = [(c, n) for c in least for n in range(least[c], least[c] + min(least[c], 8) + 1)]
    kept = [p for key, p in good.items() if key in wanted]
    check("all numbers of replicas from the least to twice as many were simulated",
          wanted and len(kept) == len(wanted), (wanted, good.keys()))

    def values(p):
        cost = p["cost_per_hour"] if p["cost_per_hour"] is not None else p["devices"]
        return -p["accuracy_of_full"], round(cost, 9), slack(p, limits)

    def better(a, b):
        return all(x <= y for x, y in zip(values(a), values(b))) and values(a) != values(b)

    return [p for p in kept if not any(better(o, p) for o in kept)]


def test_front(folder, out):
    for path, limits, size in ((out, LIMITS, 3), (os.path.join(folder, "policies.db"),
                                               {"ttft_p99": 5, "tpot_p99": 0.15}, 10)):
        points = rows(path, "SELECT * FROM plan_point")
        front = front_of(points, limits)
        key = sorted((p["choice_id"], p["replicas"]) for p in front)
        check("the front is what keeps all limits and no other point beats", len(front) == size and
              front == [p for p in points if p["pareto"]], front)
        shown = rows(path, "SELECT * FROM plan_front")
        answer = rows(path, "SELECT id, replicas FROM plan_choice WHERE rank = 1")[0]
        check("a view shows it", key == sorted((r["choice_id"], r["replicas"]) for r in shown), shown)
        check("with the answer in it", [(r["choice_id"], r["replicas"]) for r in shown if r["answer"]] ==
              [(answer["id"], answer["replicas"])], shown)
    done = plan(folder, "plan2")[1]
    lines = done.stdout.split("\nFront of ")[1].split("\n\n")[0].split("\n")[2:]
    check("and the summary", len(lines) == 3 and lines[0].endswith("; the answer") and
          lines[0].split()[:2] == ["2", "2.2"] and lines[1].split()[:2] == ["1", "2.9"], lines)


def test_reasons(folder):
    """An answer that nothing keeps names the nearest of every limit, or says why it has none."""
    def said(name, *sets):
        out, done = plan(folder, name, *sets)
        found = rows(out, "SELECT text, nearest_text, why_none FROM plan_limit ORDER BY number")
        check(name + ": each limit is there, or has a reason", done.returncode == 0 and
              "Nothing that was tried" in done.stdout and any(
                  f["nearest_text"] or f["why_none"] for f in found) and not any(
                  f["nearest_text"] and f["why_none"] for f in found) and all(
                  (f["nearest_text"] or f["why_none"] or "") in done.stdout for f in found) and
              "nan" not in done.stdout, done.stdout + done.stderr)
        return found

    short = "serving.max_context=20"
    found = said("requests beyond the context", short, "plan.limits=[ttft_p99 <= 2s]")
    check("it is the context", "1500 of 1500 are longer than the context" in found[0]["why_none"], found)
    found = said("requests beyond the cache", "serving.kv_blocks=20", "plan.limits=[ttft_p99 <= 2s]")
    tokens = [sum(map(int, line.split(",")[1:3])) for line in
              open(os.path.join(EXAMPLES, "requests.csv"), encoding="utf-8").read().splitlines()[1:]]
    beyond = sum(t - 1 > 19 * 16 for t in tokens)  # one block is reserved; the last token needs none
    check("it is the cache, and how many", f"{beyond} of 1500" in found[0]["why_none"], (beyond, found))
    found = said("no accuracy", "plan.limits=[accuracy >= 0.5, ttft_p99 <= 1ms]")
    check("it is not known, and the latency has a nearest", "accuracy of no configuration is known" in
          found[0]["why_none"] and found[1]["nearest_text"].startswith("ttft_p99 <= "), found)
    text = open(os.path.join(EXAMPLES, "plan.yaml"), encoding="utf-8").read()
    text = text[:text.index("  price:")].replace("requests.csv", os.path.join(EXAMPLES, "requests.csv"))
    path = write(folder, "free.yaml", text)
    done = kvsim("plan", path, "-o", os.path.join(folder, "free.db"), "--set",
                 "plan.limits=[price <= 3, ttft_p99 <= 2s]")
    check("no price", "price <= 3: the price of no device is known" in done.stdout, done.stdout)
    found = said("no goodput", "plan.limits=[goodput >= 1]", "serving.goodput={ttft: 1us}")
    check("none is within its limits", "goodput is 0 in every" in found[0]["why_none"], found)
    bare = write(folder, "one.csv", "arrival,prompt,output\n0,100,1\n")
    out = os.path.join(folder, "one.db")
    done = kvsim("plan", path, "-o", out, "--set", "plan.limits=[tpot_p99 <= 1s]", "--set",
                 "serving.requests={file: %s, format: csv}" % bare)
    check("a latency that no request has is a dash, and NULL", done.returncode == 0 and
          "TPOT p99 -" in done.stdout and "nan" not in done.stdout and rows(
              out, "SELECT count(*) AS n FROM plan_choice WHERE tpot_p99 IS NULL")[0]["n"] == 6,
          done.stdout)


def test_sweep(folder):
    """Devices, tiers, policies and chunk sizes are lists, and every combination is a candidate."""
    text = open(os.path.join(EXAMPLES, "plan.yaml"), encoding="utf-8").read()
    path = write(folder, "sweep.yaml", text.replace("requests.csv", os.path.join(EXAMPLES, "requests.csv")))
    out = os.path.join(folder, "sweep.db")
    done = kvsim("plan", path, "-q", "-o", out, "--set", "serving.device=[h100-sxm, l40s]", "--set",
                 "serving.tiers={cpu: {capacity: [1GiB, 64GiB]}}", "--set",
                 "serving.policies=[full, {streaming: {sinks: 4, window: [512, 1024]}}]", "--set",
                 "serving.chunk_size=[512, 2048]", "--set", "plan.limits=[ttft_p99 <= 2s]")
    found = rows(out, "SELECT device, policy, params, chunk_size, settings->>'$.tiers.cpu.capacity' AS cpu, "
                 "rank, max_rate_req_s FROM plan_choice")
    wanted = {(d, p, c, t) for d in ("h100-sxm", "l40s") for p in ("full", "512", "1024")
              for c in (512, 2048) for t in ("1GiB", "64GiB")}
    got = {(f["device"], "full" if f["policy"] == "full" else next(
        w for w in ("1024", "512") if ":" + w in f["params"]), f["chunk_size"], f["cpu"]) for f in found}
    check("a plan over devices, tiers, policies and chunk sizes", done.returncode == 0 and
          len(found) == 24 and got == wanted, (done.stderr, got))
    check("with a rank and a largest rate for each", sorted(f["rank"] for f in found) ==
          list(range(1, 25)) and all(f["max_rate_req_s"] > 0 for f in found), found)


def test_too_long(folder):
    """Requests beyond the context are no failure of a server, but they are said."""
    out, done = plan(folder, "short", "serving.max_context=500", "serving.device=l40s", "serving.chunk_size=512")
    with open(os.path.join(EXAMPLES, "requests.csv")) as file:
        lengths = [sum(map(int, line.split(",")[1:3])) for line in file.readlines()[1:]]
    long = sum(length > 500 for length in lengths)
    check("requests beyond the context are counted", 0 < long < len(lengths) and rows(
        out, "SELECT DISTINCT requests AS n, rejected_too_long AS long FROM plan_point") ==
        [{"n": len(lengths), "long": long}], long)
    check("and told of", f"  of {len(lengths)} requests {long} are longer than the context and are rejected" in
          done.stdout, done.stdout)
    page = os.path.join(folder, "short.html")
    kvsim("report", out, "-o", page)
    with open(page) as file:
        check("on the page, too", f"Of {len(lengths)} requests {long} are longer than the context" in file.read())
    out, done = plan(folder, "fits", "serving.device=l40s", "serving.chunk_size=512")
    check("where there are any", "longer than" not in done.stdout, done.stdout)


def stopped_search(folder, whole, example):
    """Whether --resume says what it keeps of a plan that was stopped in its search."""
    out = os.path.join(folder, "stopped.db")
    shutil.copy(whole, out)
    with contextlib.closing(sqlite3.connect(out)) as base, base:
        base.execute("UPDATE run SET finished_at = NULL")
        for table in ("plan_case", "plan_limit", "plan_point", "plan_choice"):
            base.execute(f"DELETE FROM {table}")
    done = kvsim("plan", example, "-o", out, "--resume")
    return (done.returncode == 0 and "\nRun keydiff" in done.stdout and done.stderr ==
            "kvsim: run 1 was stopped: its replayed examples are kept, the search for servers starts anew\n")


def test_killed(folder):
    """A plan that is killed leaves no row of a plan; begun again, it says what it would have said."""
    tables = ("plan_choice", "plan_point", "plan_limit", "plan_case", "footprint_point")
    whole, killed = (os.path.join(folder, name) for name in ("whole.db", "killed.db"))
    example = os.path.join(EXAMPLES, "plan-h100.yaml")
    kvsim("plan", example, "-q", "-o", whole)
    began, resumed = 0, True
    for wait in (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 1, 2, 4, 8, 16):  # the long ones for slow machines
        if began > 2:
            break
        process = subprocess.Popen([KVSIM, "plan", example, "-q", "-o", killed, "--resume"])
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if os.path.exists(killed) and rows(killed, "SELECT 1 FROM sqlite_master WHERE name = 'plan_case'"):
            began += 1
            done = rows(killed, "SELECT finished_at IS NOT NULL AS done FROM run")
            count = rows(killed, "SELECT (SELECT count(*) FROM plan_choice) AS n, (SELECT count(*) FROM "
                         "plan_case) AS cases")[0]
            resumed = resumed and (count["n"], count["cases"]) in ((0, 0), (5, 5)) and len(done) <= 1
    check("a killed plan has no rows or all", began > 0 and resumed, began)
    done = kvsim("plan", example, "-o", killed, "--resume")
    check("and --resume gives what one run gives", done.returncode == 0 and "\nRun keydiff" in done.stdout and
          all(rows(whole, f"SELECT * FROM {t}") == rows(killed, f"SELECT * FROM {t}") for t in tables),
          done.stderr)
    check("which says of a search that it starts anew", stopped_search(folder, whole, example))
    again = kvsim("plan", example, "-o", killed, "--resume")
    check("a plan that is done is shown again", again.stdout == done.stdout and len(
        rows(killed, "SELECT id FROM run")) == 1, again.stdout)
    done = kvsim("plan", example, "-o", killed, "--resume", "--set", "plan.tolerance=0.1")
    check("another is not taken up", done.returncode == 2 and "cannot resume" in done.stderr, done.stderr)


MODEL = ("model: {name: tiny, layers: 4, hidden_size: 128, vocabulary: 256, mlp: {intermediate_size: 256}, "
         "attention: {heads: 8, kv_heads: 4, head_dim: 16}, max_context: 100000, dtype: fp16}\n")


def test_accuracy(folder):
    """Accuracy of the sample's recorded attention: `full` keeps it all, and that is said."""
    text = open(os.path.join(EXAMPLES, "plan.yaml"), encoding="utf-8").read()
    text = text.replace("file: requests.csv", "file: " + os.path.join(EXAMPLES, "requests.csv"))
    text = text.replace("model: llama-3.1-8b\n", MODEL)
    path = write(folder, "joined.yaml", text +
                 "attention:\n  traces: [%s]\n  tasks: [kv_recall, kv_multiturn]\n"
                 "  policies: [full]\n  chunk_size: [64]\n" % os.path.join(EXAMPLES, "sample.h5"))
    out = os.path.join(folder, "joined.db")
    done = kvsim("plan", path, "-o", out)
    check("attention and serving in one plan", done.returncode == 0, done.stderr)
    wanted = rows(out, "SELECT task, accuracy FROM footprint_point WHERE turn IS NULL")
    found = rows(out, "SELECT DISTINCT accuracy, accuracy_of_full, accuracy_task FROM plan_choice")
    check("accuracy is that of a task", len(found) == 1 and found[0]["accuracy_of_full"] == 1 and
          any(w["task"] == found[0]["accuracy_task"] and w["accuracy"] == found[0]["accuracy"]
              for w in wanted), (found, wanted))
    run = os.path.join(folder, "attention.db")
    kvsim("run", path, "-q", "-o", run)
    second, done = plan(folder, "other", f"plan.results={run}")
    check("or comes from the results of another run", done.returncode == 0 and rows(
        second, "SELECT DISTINCT accuracy, accuracy_of_full, accuracy_task FROM plan_choice")
          == found, done.stderr)


def test_policies(folder):
    """Policies in both replays: accuracy is that of the attention part, replicas those of brute force."""
    out, done = plan(folder, "policies", example="plan-h100.yaml")
    check("policies in both replays", done.returncode == 0, done.stderr)
    points = rows(out, "SELECT * FROM footprint_point WHERE turn IS NULL")
    full = next(p["accuracy"] for p in points if p["policy"] == "full")
    share = {(p["policy"], p["params"]): p["accuracy"] / full for p in points}
    choices = rows(out, "SELECT * FROM plan_choice ORDER BY number")
    check("accuracy is that of the policy and its settings", len(choices) == 5 and all(
        math.isclose(c["accuracy_of_full"], share[c["policy"], c["params"]]) for c in choices), share)
    check("who misses it is told so", all(
        (c["accuracy_of_full"] < 0.9) == (c["binding"] == "accuracy >= 0.9 of full" and
                                          c["verdict"] == "infeasible") for c in choices), choices)
    path = os.path.join(folder, "h100.db")
    done = kvsim("run", os.path.join(EXAMPLES, "plan-h100.yaml"), "-q", "-o", path, "--set",
                 "serving.replicas=[1,2,3,4]")
    found = rows(path, "SELECT *, settings->>'$.serving.replicas' AS replicas FROM serving_point")
    limits = {"ttft_p99": 5, "tpot_p99": 0.15}
    wanted = {params: min(f["replicas"] for f in found if f["params"] == params and f["policy"] == policy
                          and keeps(f, limits)) for policy, params in share
              if policy != "topk" and share[policy, params] >= 0.9}  # the oracle is no choice
    check("replicas of policies are those of brute force", done.returncode == 0 and wanted == {
        c["params"]: c["replicas"] for c in choices if c["verdict"] != "infeasible"}, wanted)
    best = min(wanted.values())
    check("a smaller cache takes fewer devices", best < wanted["{}"] and next(
        c["replicas"] for c in choices if c["rank"] == 1) == best, wanted)


def test_tasks(folder):
    """Tasks that are worst in different numbers, by hand: each limit is on the one that is worst in it."""
    made = os.path.join(folder, "tasks.db")
    shutil.copy(os.path.join(folder, "policies.db"), made)
    with sqlite3.connect(made) as database:
        keep = database.execute("SELECT id, params FROM footprint_point WHERE policy = 'keydiff' AND turn IS "
                                "NULL AND keep = 0.5 ORDER BY id").fetchone()
        full, = database.execute("SELECT id FROM footprint_point WHERE policy = 'full' AND turn IS NULL "
                                 "ORDER BY id").fetchone()
        names = [r[1] for r in database.execute("PRAGMA table_info(footprint_point)") if r[1] not in (
            "id", "task", "accuracy", "accuracy_lo", "accuracy_hi")]
        database.execute("CREATE TEMP TABLE kept AS SELECT * FROM footprint_point WHERE id IN (?, ?)",
                         (keep[0], full))
        database.execute("PRAGMA foreign_keys = off")
        for table in ("footprint_point", "critical_footprint"):
            database.execute(f"DELETE FROM {table}")
        for task, whole, value, lo, hi in (("one", 1, 0.92, 0.85, 0.97), ("two", 0.6, 0.59, 0.58, 0.6),
                                           ("three", 1, 0.95, 0.5, 0.96)):
            for source, numbers in ((full, (whole, whole, whole)), (keep[0], (value, lo, hi))):
                database.execute("INSERT INTO footprint_point (task, accuracy, accuracy_lo, accuracy_hi, %s) "
                                 "SELECT ?, ?, ?, ?, %s FROM kept WHERE id = ?"
                                 % (", ".join(names), ", ".join(names)), (task, *numbers, source))
    def ask(name, limit):
        out, done = plan(folder, name, f"plan.results={made}", f"plan.limits=[{limit}, ttft_p99 <= 5s]",
                         example="plan-h100.yaml")
        check(name + " is planned", done.returncode == 0, done.stderr)
        choice = rows(out, "SELECT * FROM plan_choice WHERE params = ?", keep[1])[0]
        low, high = (rows(out, "SELECT choice_id FROM plan_case WHERE number = ?", n)[0]["choice_id"]
                     for n in (3, 4))
        return choice, low, high
    choice, low, high = ask("share", "accuracy >= 0.9 of full")
    check("least of values, of shares and of ends", [choice[k] for k in (
        "accuracy", "accuracy_of_full", "accuracy_lo", "accuracy_hi", "accuracy_task")] ==
        [0.59, 0.92, 0.5, 0.6, "one"] and choice["verdict"] != "infeasible", choice)
    check("at its lower end 0.5 of full is left", low != choice["id"] and high is not None, (low, high))
    choice, low, high = ask("value", "accuracy >= 0.6")
    check("a limit in absolute terms is on the least value", choice["verdict"] == "infeasible" and
          choice["binding"] == "accuracy >= 0.6", choice)
    choice, low, high = ask("value 2", "accuracy >= 0.55")
    check("which may be kept, and not at its lower end", choice["verdict"] != "infeasible" and
          low != choice["id"], (choice, low))


def test_no_room(folder):
    """70.55e9 numbers of 2 bytes leave no room on one device; four have it."""
    out, done = plan(folder, "room", "model=llama-3.1-70b", "serving.device=[l40s, h100-sxm]",
                     "serving.tensor_parallel=[1, 4]", "serving.chunk_size=512",
                     "plan.limits=[ttft_p99 <= 9s]")
    check("what does not fit does not end a plan", done.returncode == 0 and "\nRun full" in done.stdout,
          done.stderr)
    found = rows(out, "SELECT device, binding, verdict, rank, replicas, settings->>"
                 "'$.serving.tensor_parallel' AS parallel FROM plan_choice")
    left = {f["device"]: [float(re.search(p, f["binding"])[1]) for p in (
        r"of the (\S+) GB", r"weights take ([0-9.]+)")] for f in found if f["parallel"] == 1
        and f["verdict"] == "infeasible" and f["replicas"] == 0 and f["binding"].startswith("does not fit: ")}
    wanted = {"l40s": (0.9 * 46068 * 1.048576e-3, 141.1), "h100-sxm": (0.9 * 81559 * 1.048576e-3, 141.1)}
    check("it is told what it lacks", left.keys() == wanted.keys() and all(
        math.isclose(x, y, rel_tol=5e-3) for d in wanted for x, y in zip(left[d], wanted[d])), (left, wanted))
    check("the others are ranked", sorted(f["rank"] for f in found if f["parallel"] == 4) == [1, 2], found)
    check("and it is no limit that was missed", "misses does" not in done.stdout and
          "; does not fit: " in done.stdout, done.stdout)


def test_labels_and_words(folder):
    out, done = plan(folder, "labels", "serving.prefix_cache={enabled: [true, false]}",
                     "serving.tensor_parallel=[1, 2]", "serving.device=l40s", "serving.chunk_size=512")
    labels = {r["label"] for r in rows(out, "SELECT label FROM plan_choice")}
    check("labels name settings as they are written", labels == {
        f"full, tensor_parallel {t}, prefix_cache enabled {e}" for t in (1, 2) for e in ("true", "false")},
        labels)
    check("one list of prices serves many plans", done.returncode == 0 and done.stderr == "", done.stderr)
    out, done = plan(folder, "unpriced", "serving.device=l40s", "plan.price={a100-80: 1.8}")
    check("a list of which nothing is used is said", done.returncode == 0 and
          "no configuration has a device of which a price is given" in done.stderr, done.stderr)
    out, done = plan(folder, "few", "plan.limits=[tpot_p99 <= 2ms]")
    near = rows(out, "SELECT * FROM plan_limit")[0]
    point = rows(out, "SELECT tpot_p99 FROM plan_point WHERE choice_id = ? AND replicas = ? AND rate_factor "
                 "= 1 AND blocks_factor = 1", near["nearest_choice_id"], near["nearest_replicas"])
    check("the nearest limit comes with its replicas", len(point) == 1 and 0 <= near["nearest"] -
          point[0]["tpot_p99"] < 1e-3 * near["nearest"] and
          f"with {near['nearest_replicas']} replica" in done.stdout, (near, point))
    page = os.path.join(folder, "policies.html")
    kvsim("report", os.path.join(folder, "policies.db"), "-o", page)
    text = open(page, encoding="utf-8").read()
    table = text[text.index('id="critical-table"'):]
    marked = [r for r in re.findall(r"<tr>.*?</tr>", table[:table.index("</table>")], re.S) if ' best"' in r]
    words = text[text.index('<ul class="words">', text.index("Critical footprints</h2>")):]
    words = words[:words.index("</ul>")]
    check("an oracle is in the table, is never the best, and is not recommended", "topk" in table and
          len(marked) >= 1 and not any("topk" in r for r in marked) and "topk" not in words,
          (marked, words))


def test_same_bytes(folder):
    tables = []
    for jobs in ("1", "3"):
        out = os.path.join(folder, f"jobs{jobs}.db")
        kvsim("plan", os.path.join(EXAMPLES, "plan.yaml"), "-q", "-j", jobs, "-o", out)
        tables.append([rows(out, f"SELECT * FROM {t}") for t in
                       ("plan_choice", "plan_point", "plan_limit", "plan_case")])
    check("the same tables for any number of threads", tables[0] == tables[1] and tables[0][1])


def test_wrong_input(folder):
    for name, change, words in (
            ("an unknown metric", "plan.limits=[ttft_p98 <= 2s]", "did you mean 'ttft_p9"),
            ("a wrong relation", "plan.limits=[ttft_p99 >= 2s]", "expected <= instead of >="),
            ("no unit", "plan.limits=[ttft_p99 <= 2]", "ttft_p99"),
            ("no relation", "plan.limits=[fast]", "is no limit"),
            ("a share of full of a latency", "plan.limits=[goodput >= 3 of full]", "expected a number"),
            ("a share in percent", "plan.limits=[accuracy >= 90 of full]", "at most 1"),
            ("more than all", "plan.limits=[accuracy >= 1.5]", "at most 1"),
            ("half a name of a device", "serving.device=h100", "h100-sxm"),
            ("nothing that fits", "model=llama-3.1-70b", "no configuration can be run"),
            ("a negative accuracy", "plan.limits=[accuracy >= -1]", "above 0"),
            ("no limits", "plan.limits=[]", "limits"),
            ("goodput without its limits", "plan.limits=[goodput >= 1]", "takes `goodput: {ttft"),
            ("a price for half of the devices", "plan.price={l40s: 1}", "has none"),
            ("a price of nothing", "plan.price={l40s: 0, h100-sxm: 1, a100-80: 1}", "above 0"),
            ("a price of no device", "plan.price={h1000: 1}", "h1000"),
            ("no results", "plan.results=/nowhere.db", "nowhere.db")):
        out, done = plan(folder, "wrong", change)
        check(name + " is refused, and nothing is written", done.returncode == 2 and words in done.stderr
              and not os.path.exists(out), (done.returncode, done.stderr))
    path = write(folder, "bad.yaml", "model: llama-3.1-8b\nserving:\n  requests: {file: %s, format: "
                 "csv}\n  device: l40s\nplan:\n  limits:\n    - ttft_p99 <= 2s\n    - tpot <= 5ms\n"
                 % os.path.join(EXAMPLES, "requests.csv"))
    done = kvsim("plan", path)
    check("with its place", "bad.yaml:8:7: " in done.stderr and done.returncode == 2, done.stderr)
    head = ("model: llama-3.1-8b\nserving:\n  requests: {file: %s, format: csv}\n  device: l40s\nplan:\n"
            "  limits: [ttft_p99 <= 2s]\n" % os.path.join(EXAMPLES, "requests.csv"))
    for name, line, place in (("price", "  price: {l40: 1}\n", "place.yaml:7:11: "),
                              ("results", "  results: gone.db\n", "place.yaml:7:12")):
        done = kvsim("plan", write(folder, "place.yaml", head + line))
        check("so has " + name, place in done.stderr and done.returncode == 2, done.stderr)
    done = kvsim("plan", write(folder, "place.yaml", head.replace(
        os.path.join(EXAMPLES, "requests.csv"), write(folder, "empty.csv", "arrival,prompt,output\n"))))
    check("a trace without requests is refused", "place.yaml:3:13: " in done.stderr and
          "has no requests" in done.stderr and done.returncode == 2, done.stderr)
    done = kvsim("plan", os.path.join(EXAMPLES, "serving-chunk-size.yaml"))
    check("no plan in it", done.returncode == 2 and "section `plan`" in done.stderr, done.stderr)
    done = kvsim("plan", "-j", "0", os.path.join(EXAMPLES, "plan.yaml"))
    check("no threads", done.returncode == 2, done.stderr)


def main():
    with tempfile.TemporaryDirectory() as folder:
        out, choices = test_answer(folder)
        test_rates(folder, out, choices)
        test_blocks(folder)
        test_infeasible(folder)
        test_reasons(folder)
        test_accuracy(folder)
        test_policies(folder)
        test_front(folder, out)
        test_tasks(folder)
        test_no_room(folder)
        test_labels_and_words(folder)
        test_sweep(folder)
        test_killed(folder)
        test_too_long(folder)
        test_same_bytes(folder)
        test_wrong_input(folder)
    finish()


main()
