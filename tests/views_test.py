#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: the queries of docs/results.md on a file that holds all kinds of runs, views against what
Python makes of the tables, and the metadata for datasette."""
import json
import os
import re
import sqlite3
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "examples")
KVSIM = os.environ["KVSIM"]
RESULTS = []


def check(name, ok, why=""):
    RESULTS.append(ok)
    print("%sok %d - %s" % ("" if ok else "not ", len(RESULTS), name))
    if not ok:
        print("# " + str(why).replace("\n", "\n# "))


def kvsim(*arguments):
    return subprocess.run([KVSIM, *arguments], check=True, capture_output=True, text=True,
                          timeout=300).stdout


def rows(database, sql):
    database.row_factory = sqlite3.Row
    return [dict(row) for row in database.execute(sql)]


def test_page(database):
    """Every query of the page has an answer."""
    page = open(os.path.join(HERE, "..", "docs", "results.md"), encoding="utf-8").read()
    queries = [q.strip() for block in re.findall(r"```sql\n(.*?)```", page, re.S)
               for q in block.split(";") if q.strip()]
    for query in queries:
        found = rows(database, query)
        check("the page's " + re.search(r"FROM (\w+)", query).group(1), found, query)
    check("all views are on the page", {re.search(r"FROM (\w+)", q).group(1) for q in queries} == {
        "critical_rank", "chunk_effect", "turn_effect", "server", "serving_accuracy", "slow_request",
        "tier_traffic", "plan_answer"})


def test_critical(database):
    critical = [r for r in rows(database, "SELECT * FROM critical_footprint") if r["policy"] != "full"
                and " oracle" not in r["label"]]

    def size(r):
        return r["kv_footprint"] if r["kv_footprint"] is not None else r["hi"]

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
    metadata = json.loads(kvsim("schema", "--datasette", "all"))
    known = {name for name, in database.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")}
    tables = metadata["databases"]["all"]["tables"]
    check("datasette: every table and view", set(tables) == known, set(tables) ^ known)
    bad = [(name, column) for name, table in tables.items() for column in table.get("columns", {})
           if column not in {r[1] for r in database.execute(f"PRAGMA table_info({name})")}]
    check("and columns that there are", not bad and any("columns" in t for t in tables.values()), bad)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "all.db")
        kvsim("run", os.path.join(EXAMPLES, "quick.yaml"), "-q", "-o", path)
        kvsim("run", os.path.join(EXAMPLES, "serving-chunk-size.yaml"), "-q", "-o", path, "--set",
              "serving.request_results=true")
        kvsim("plan", os.path.join(EXAMPLES, "plan.yaml"), "-q", "-o", path)
        database = sqlite3.connect(path)
        test_page(database)
        test_critical(database)
        test_serving(database)
        database.row_factory = None
        test_datasette(database)
        database.close()
    print("1..%d" % len(RESULTS))


main()
