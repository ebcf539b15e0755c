#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: the queries of docs/results.md on a file that holds all kinds of runs, views against what
Python makes of the tables, and the metadata for datasette."""
import json
import math
import os
import re
import sqlite3
import subprocess
import tempfile

from tap import KVSIM, check, finish, kvsim

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "examples")


def said(*arguments):
    return kvsim(*arguments, check=True).stdout


def rows(database, sql):
    database.row_factory = sqlite3.Row
    return [dict(row) for row in database.execute(sql)]


def test_page(database):
    """Every query of the page has an answer in some run of the file, and rows of no other run."""
    page = open(os.path.join(HERE, "..", "docs", "results.md"), encoding="utf-8").read()
    queries = [q.strip() for block in re.findall(r"```sql\n(.*?)```", page, re.S)
               for q in block.split(";") if q.strip()]
    views = {name for name, in database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'view' AND name NOT IN ('latest_run', 'curve', "
        "'calibration_policy')")}
    runs = [run for run, in database.execute("SELECT id FROM run").fetchall()]
    for query in queries:
        view = re.search(r"FROM (\w+)", query).group(1)
        found = {run: rows(database, query.replace("run_id = 1", f"run_id = {run}")) for run in runs}
        mixed = rows(database, query.replace("run_id = 1", "run_id > 0"))
        check("the page's " + view, any(found.values()) and "run_id = 1" in query and
              sum(map(len, found.values())) == len(mixed), query)
    missing = views - {re.search(r"FROM (\w+)", q).group(1) for q in queries}
    check("all views that answer a question are on the page", len(views) > 7 and not missing, missing)


def test_two_plans(database):
    """The two plans of the file have an answer and a front each."""
    plans = [run for run, in database.execute("SELECT DISTINCT run_id FROM plan_choice").fetchall()]
    for run in plans:
        answer = rows(database, f"SELECT * FROM plan_answer WHERE run_id = {run}")
        choice = rows(database, f"SELECT * FROM plan_choice WHERE run_id = {run} AND rank <= 2 ORDER BY rank")
        limits = [r["text"] for r in rows(
            database, f"SELECT text FROM plan_limit WHERE run_id = {run} ORDER BY number")]
        front = rows(database, f"SELECT * FROM plan_front WHERE run_id = {run}")
        check(f"plan of run {run}", len(answer) == 1 and answer[0]["label"] == choice[0]["label"] and
              answer[0]["next_label"] == choice[1]["label"] and answer[0]["limits"] == "; ".join(limits)
              and [f["label"] for f in front if f["answer"]] == [choice[0]["label"]], (answer, front))
    check("there are two plans, which differ", len(plans) == 2 and len({
        r["limits"] for r in rows(database, "SELECT limits FROM plan_answer")}) == 2, plans)


HOSTILE = ["", None, " ", "a,b", '"', '""', "x\ny", "x\r\ny", "\r", "'", "NULL", "null", "9e999", "é中", "\t"]
REALS = [None, 0.0, -0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), 1e22]


def test_round_trip(folder, path):
    """What a table holds is what CSV and JSON say, however odd: read back by Python's own readers."""
    odd = os.path.join(folder, "odd.db")
    with sqlite3.connect(path) as database, sqlite3.connect(odd) as copy:
        database.backup(copy)
        columns = [r[1] for r in copy.execute("PRAGMA table_info(plan_choice)")]
        first = list(copy.execute("SELECT * FROM plan_choice LIMIT 1").fetchone())
        for n, (text, real) in enumerate((t, r) for t in HOSTILE for r in REALS):
            row = list(first)
            row[columns.index("id")] = 100000 + n
            row[columns.index("number")] = 100000 + n
            row[columns.index("binding")] = text
            row[columns.index("accuracy_hi")] = real
            copy.execute(f"INSERT INTO plan_choice VALUES ({', '.join('?' * len(row))})", row)
    database = sqlite3.connect(odd)
    for name in ("footprint_point", "plan_choice", "plan_front", "critical_rank"):
        cursor = database.execute(f"SELECT * FROM {name}")
        wanted = cursor.fetchall()
        heads = [c[0] for c in cursor.description]
        text = said("report", odd, "--format", "json", "--table", name)
        found = [tuple(row.values()) for row in json.loads(text)]
        check(name + " as JSON and back", found == wanted and len(found) > 1 and
              list(json.loads(text)[0]) == heads, [p for p in zip(found, wanted) if p[0] != p[1]][:2])
        out = os.path.join(folder, "odd.csv")
        said("report", odd, "--format", "csv", "--table", name, "-o", out)
        found = parse_csv(open(out, encoding="utf-8", newline="").read())
        same = found[0] == heads and len(found) == len(wanted) + 1 and all(
            (cell is None) == (value is None) and (value is None or type(value)(cell) == value)
            for line, row in zip(found[1:], wanted) for cell, value in zip(line, row))
        check(name + " as CSV and back", same, found[:2])


def parse_csv(text):
    """RFC 4180, and NULL where a cell without quotes is empty (which Python's csv does not tell)."""
    lines, line, at = [], [], 0
    while at < len(text):
        if text[at] == '"':
            end = at + 1
            while text[end] != '"' or text[end:end + 2] == '""':
                end += 2 if text[end] == '"' else 1
            line.append(text[at + 1:end].replace('""', '"'))
            at = end + 1
        else:
            end = min(i for i in (text.find(",", at), text.find("\n", at)) if i >= 0)
            line.append(text[at:end] or None)
            at = end
        if text[at] == "\n":
            lines.append(line)
            line = []
        else:
            assert text[at] == ","
        at += 1
    return lines


def test_tables(path):
    """--table offers every table and view but those that only an incomplete run needs."""
    with sqlite3.connect(path) as database:
        known = {name for name, in database.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")}
    shown = said("report", "--help").split("Tables and views:\n")[1].split()
    check("help lists tables", set(shown) < known and len(shown) == len(set(shown)) > 25, shown)
    bad = []
    for name in sorted(known):
        done = subprocess.run([KVSIM, "report", path, "--format", "json", "--table", name],
                              capture_output=True, text=True, timeout=300)
        if (done.returncode == 0) != (name in shown) or (name not in shown and "no table" not in done.stderr):
            bad.append((name, done.stderr))
    check("and those are written, no others", not bad, bad)


def test_critical(database):
    critical = [r for r in rows(database, "SELECT * FROM critical_footprint") if r["policy"] != "full"
                and " oracle" not in r["label"]]

    least = {}
    for r in rows(database, "SELECT * FROM footprint_point"):
        curve = r["task"], r["turn"], r["policy"], r["curve"], r["chunk_size"]
        least[curve] = min(r["kv_footprint"], least.get(curve, math.inf))

    def size(r):
        return r["kv_footprint"] if r["status"] == "ok" else least[
            r["task"], r["turn"], r["policy"], r["params"], r["chunk_size"]]

    wanted = {}
    for r in critical:
        if r["status"] != "never":
            better = sum(size(o) < size(r) for o in critical if o["status"] != "never" and
                         (o["task"], o["turn"]) == (r["task"], r["turn"]))
            wanted[r["task"], r["turn"], r["label"], r["chunk_size"]] = better + 1
    found = {(r["task"], r["turn"], r["label"], r["chunk_size"]): r["rank"]
             for r in rows(database, "SELECT * FROM critical_rank") if r["rank"] is not None}
    check("ranks", found == wanted and len(found) > 20, (found, wanted))
    whole = {(r["task"], r["label"]): r["kv_footprint"] for r in critical
             if r["turn"] is None and r["chunk_size"] is None and r["status"] == "ok"}
    wanted = sorted(whole[r["task"], r["label"]] - r["kv_footprint"] for r in critical
                    if r["turn"] is None and r["chunk_size"] and r["status"] == "ok" and
                    (r["task"], r["label"]) in whole)
    check("savings", wanted == sorted(r["saved"] for r in rows(database, "SELECT * FROM chunk_effect")))
    reached = {}
    for r in critical:
        if r["turn"] is not None:
            reached.setdefault((r["task"], r["label"], r["chunk_size"]), []).append(r)
    found = rows(database, "SELECT * FROM turn_effect")
    check("turns", len(found) == len(reached) > 5 and all(
        f["reached"] == sum(r["status"] != "never" for r in group) and
        f["worst_turn"] == (None if f["reached"] < len(group) else max(map(size, group)))
        for f in found for group in [reached[f["task"], f["label"], f["chunk_size"]]]), found)


def test_serving(database):
    points = {r["number"]: r for r in rows(database, "SELECT * FROM serving_point")}
    found = rows(database, "SELECT * FROM server")
    check("servers", len(found) == len(points) and all(
        f["device"] == json.loads(points[f["number"]]["settings"])["device"] and
        f["tok_s_per_device"] == points[f["number"]]["throughput_tok_s"] for f in found), found)
    slow = rows(database, "SELECT * FROM slow_request WHERE point_id = 1 AND rank = 1")
    most = rows(database, "SELECT max(ttft_s) AS most FROM request_result WHERE point_id = 1")
    check("the slowest request", slow[0]["ttft_s"] == most[0]["most"], slow)
    tiers = rows(database, "SELECT t.*, s.duration_s FROM tier_stat t JOIN serving_point s ON s.id = "
                 "point_id")
    check("how full tiers are", [r["fill"] for r in rows(database, "SELECT * FROM tier_traffic")] ==
          [t["mean_bytes"] / t["capacity_bytes"] for t in tiers])
    answer = rows(database, "SELECT * FROM plan_answer")[0]
    check("the plan's answer", answer["limits"] ==
          "accuracy >= 0.9 of full; ttft_p99 <= 2s; tpot_p99 <= 50ms" and answer["next_cost"] >=
          answer["cost_per_hour"], answer)


def test_datasette(database):
    metadata = json.loads(said("schema", "--datasette", "all"))
    known = {name for name, in database.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")}
    tables = metadata["databases"]["all"]["tables"]
    check("datasette: every table and view", set(tables) == known, set(tables) ^ known)
    bad = [(name, set(table["columns"]) ^ columns) for name, table in tables.items() for columns in
           [{r[1] for r in database.execute(f"PRAGMA table_info({name})")}] if set(table["columns"]) != columns]
    check("and every column, of views too", not bad, bad)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "all.db")
        said("run", os.path.join(EXAMPLES, "quick.yaml"), "-q", "-o", path)
        said("run", os.path.join(EXAMPLES, "serving-chunk-size.yaml"), "-q", "-o", path, "--set",
              "serving.request_results=true")
        said("plan", os.path.join(EXAMPLES, "plan.yaml"), "-q", "-o", path)
        said("plan", os.path.join(EXAMPLES, "plan.yaml"), "-q", "-o", path, "--set",
              "plan.limits=[ttft_p99 <= 400ms]")
        test_tables(path)
        test_round_trip(folder, path)
        database = sqlite3.connect(path)
        test_page(database)
        test_two_plans(database)
        test_critical(database)
        test_serving(database)
        database.row_factory = None
        test_datasette(database)
        database.close()
    finish()


main()
