#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: serving experiments end to end, from YAML to SQLite.

Tables against facts of the trace, --stepwise against jumps on every example, resume, and wrong input:
each must end with its exit status and a message that names the place, never hang.
"""
import json
import math
import os
import sqlite3
import tempfile

from tap import check, finish, kvsim, rows, write

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "examples")
POINT = "SELECT * FROM serving_point ORDER BY number"


def experiment(folder, name="e.yaml", trace="t.csv", extra=""):
    return write(folder, name, "model: llama-3.1-8b\nserving:\n  requests: {file: %s, format: csv}\n"
                 "  device: rtx-4090\n  kv_blocks: 2588\n%s" % (trace, extra))


def test_examples(folder):
    for example in sorted(os.listdir(EXAMPLES)):
        if not example.startswith("serving-"):
            continue
        path = os.path.join(EXAMPLES, example)
        tables = []
        for option in ([], ["--stepwise"]):
            out = os.path.join(folder, example + "".join(option) + ".db")
            done = kvsim("run", path, "-q", "-o", out, *option)
            if done.returncode != 0:
                check(example, False, done.stderr)
                return
            tables.append([rows(out, POINT), rows(out, "SELECT * FROM tier_stat"),
                           rows(out, "SELECT * FROM timeline")])
        check(example + ": jumps equal steps", tables[0] == tables[1])
        check(example + ": all requests end", all(
            p["completed"] + p["rejected"] == p["requests"] == requests_of(path) for p in tables[0][0]))


def requests_of(path):
    """Requests of the trace that an example names: its lines, less the header of a CSV file; or made."""
    with open(path) as file:
        text = file.read()
    if "{format: synth, requests: " in text:
        return int(text.split("{format: synth, requests: ")[-1].split(",")[0])
    name = text.split("file: ")[-1].split(",")[0]
    with open(os.path.join(EXAMPLES, name)) as trace:
        return sum(1 for _ in trace) - name.endswith(".csv")


def test_hours(folder):
    """Steps whose host's work takes 5 hours: a request alone has an answer after each, the first after
    one. 5 million of them are 2,850 years."""
    write(folder, "hours.csv", "arrival,prompt,output\n0,100,5\n")
    write(folder, "ages.csv", "arrival,prompt,output\n0,100,5000000\n")
    end = []
    for option in ([], ["--stepwise"]):
        path = experiment(folder, "hours.yaml", "hours.csv", "  request_results: true\n  timeline: 5h\n"
                          "  step_time: {model: roofline, step_overhead: 5h}\n")
        out = os.path.join(folder, "hours%d.db" % len(option))
        done = kvsim("run", path, "-q", "-o", out, *option)
        check("a step of hours", done.returncode == 0, done.stderr)
        request = rows(out, "SELECT ttft_s, tpot_s, e2e_s FROM request_result")[0]
        check("hours add up", 5 * 3600 < request["ttft_s"] < 5 * 3600 + 1
              and 5 * 3600 < request["tpot_s"] < 5 * 3600 + 1
              and 25 * 3600 < request["e2e_s"] < 25 * 3600 + 5, request)
        end.append([rows(out, POINT), rows(out, "SELECT * FROM timeline")])
    check("hours: jumps equal steps", end[0] == end[1])
    path = experiment(folder, "ages.yaml", "ages.csv", "  max_context: 10000000\n"
                      "  step_time: {model: roofline, step_overhead: 5h}\n")
    done = kvsim("run", path, "-q", "-o", os.path.join(folder, "ages.db"), "--set",
                 "serving.kv_blocks=1000000")
    check("ages are refused", done.returncode == 2 and "292 years" in done.stderr, done.stderr)


def test_sample_at_end(folder):
    """After 13 answers to a prompt of 100 tokens 112 are stored: 7 blocks of 16 are full and the next step
    holds an eighth. A sample at the very end of that step sees it, as 8 x 16 x 131,072 bytes."""
    write(folder, "end13.csv", "arrival,prompt,output\n0,100,13\n")
    write(folder, "end40.csv", "arrival,prompt,output\n0,100,40\n")
    out = os.path.join(folder, "end13.db")
    kvsim("run", experiment(folder, "end13.yaml", "end13.csv", "  request_results: true\n"), "-q", "-o", out)
    end_ns = round(rows(out, "SELECT e2e_s FROM request_result")[0]["e2e_s"] * 1e9)
    for option in ([], ["--stepwise"]):
        path = experiment(folder, "end40.yaml", "end40.csv", "  timeline: %dns\n" % end_ns)
        out = os.path.join(folder, "end40%d.db" % len(option))
        done = kvsim("run", path, "-q", "-o", out, *option)
        used = [r["used_bytes"] for r in rows(out, "SELECT used_bytes FROM timeline ORDER BY time_s")]
        check("a sample at the end of a step sees the next" + "".join(option),
              done.returncode == 0 and used[1] == 8 * 16 * 131072, (done.stderr, used))


def test_host_links(folder):
    """Written through, 100 blocks of 16 tokens of 131,072 bytes go over PCIe 4.0 x16, 31.5 GB/s, of each
    device: with 4 devices in a quarter of the time; 16 devices hold each of the 8 KV heads twice, so in an
    eighth. A bandwidth that is written is as it is."""
    write(folder, "links.csv", "arrival,prompt,output,blocks\n0,1600,2,%s\n" % " ".join(map(str, range(1, 101))))
    path = write(folder, "links.yaml", "model: llama-3.1-8b\nserving:\n"
                 "  requests: {file: links.csv, format: csv, block_tokens: 16}\n  device: rtx-4090\n"
                 "  kv_blocks: 200\n  tensor_parallel: [1, 4, 16]\n"
                 "  tiers: {cpu: {capacity: 8GiB, write: through, latency: 0s}}\n")
    for given, times in ((None, (1, 4, 8)), ("31.5GB/s", (1, 1, 1))):
        out = os.path.join(folder, "links%d.db" % times[1])
        more = ["--set", "serving.tiers={cpu: {capacity: 8GiB, write: through, bandwidth: %s}}" % given]
        done = kvsim("run", path, "-q", "-o", out, *(more if given else []))
        busy = [r["busy_s"] for r in rows(out, "SELECT busy_s FROM tier_stat WHERE tier = 'cpu' ORDER BY point_id")]
        want = [100 * 16 * 131072 / 31.5e9 / n for n in times]
        check("host links of all devices" if given is None else "a link as written",
              len(busy) == 3 and all(abs(b / w - 1) < 1e-3 for b, w in zip(busy, want)),
              (done.stderr, busy, want))
    done = kvsim("run", path, "-o", os.path.join(folder, "formats.db"), "--set",
                 "serving.kv_dtype=[bf16, fp8]")
    check("one kv_blocks for several formats is warned of", "every kv_dtype" in done.stderr, done.stderr)


def test_tiers(folder):
    """A larger tier means more hits and a shorter wait for the first token; bytes and times agree."""
    out = os.path.join(folder, "tiers.db")
    done = kvsim("run", os.path.join(EXAMPLES, "serving-tiers.yaml"), "-q", "-o", out,
                 "--set", "serving.load=always", "--set", "serving.tiers={cpu: {capacity: [1GiB, 4GiB, "
                 "16GiB], bandwidth: 2GB/s, latency: 0s}}", "--set", "serving.timeline=1s")
    check("tiers run", done.returncode == 0, done.stderr)
    points, cpu = rows(out, POINT), rows(out, "SELECT * FROM tier_stat WHERE tier = 'cpu' "
                                              "ORDER BY point_id")
    for name, better in (("prefix_hit_ratio", 1), ("ttft_mean", -1), ("e2e_mean", -1)):
        values = [better * p[name] for p in points]
        check("a larger tier: " + name, values == sorted(set(values)), values)
    held = {r["point_id"]: r for r in rows(
        out, "SELECT point_id, count(*) AS n, max(used_bytes) AS most, sum(tier = 'cpu') AS cpu "
             "FROM timeline GROUP BY point_id")}
    for tier in cpu:
        sums = rows(out, "SELECT sum(hits) AS hits FROM tier_stat WHERE point_id = %d" % tier["point_id"])
        point = points[tier["point_id"] - 1]
        check("hits are cached tokens", sums[0]["hits"] ==
              round(point["prefix_hit_ratio"] * point["prompt_tokens"]), (sums, point))
        moments = held[tier["point_id"]]
        check("the tier over time", 100 < moments["n"] == 2 * moments["cpu"] and
              0 < moments["most"] <= max(tier["peak_bytes"], point["kv_peak_bytes"]), moments)
        check("every byte takes time", abs(tier["busy_s"] - (tier["bytes_in"] + tier["bytes_out"]) /
                                           2e9) < 1e-4, tier)
        check("capacity holds", 0 < tier["mean_bytes"] <= tier["peak_bytes"] <= tier["capacity_bytes"],
              tier)


def test_swap(folder):
    """Twelve requests that grow beyond the cache: swapped, nothing is computed twice, and every byte that
    went down came up over the link."""
    write(folder, "t.csv", "arrival,prompt,output\n" + "0,300,700\n" * 12)
    path = experiment(folder, extra="  prefix_cache: {enabled: false}\n  tiers: {cpu: {capacity: 8GiB}}\n"
                      "  scheduler: {preemption: [recompute, swap]}\n")
    out = os.path.join(folder, "swap.db")
    shown = os.path.join(folder, "swap.json")
    done = kvsim("run", path, "-q", "-o", out, "--trace-events", shown, "--set", "serving.kv_blocks=300", "--set",
                 "serving.trace_events={duration: 1h}", "--set", "serving.request_results=true")
    check("swap runs", done.returncode == 0, done.stderr)
    recompute, swap = rows(out, POINT)
    told = rows(out, "SELECT request, preemptions AS n, 1e6 * (arrival_s + queue_s) AS admitted, 1e6 * (arrival_s "
                "+ e2e_s) AS ended FROM request_result WHERE point_id = (SELECT min(id) FROM serving_point)")
    with open(shown) as file:
        away = [e for e in json.load(file)["traceEvents"] if e["name"] == "preempted"]
    check("a trace of events has each preemption, from when its memory was lost until it is back", all(
        len([e for e in away if e["id"] == r["request"] and e["ph"] == "b"]) == r["n"] and
        all(r["admitted"] < e["ts"] < r["ended"] for e in away if e["id"] == r["request"]) for r in told) and
        len(away) == 2 * recompute["preemptions"] and
        all(b["ph"] == "b" and e["ph"] == "e" and b["id"] == e["id"] and b["ts"] < e["ts"]
            for b, e in zip(away[::2], away[1::2])), (away, told))
    cpu = rows(out, "SELECT * FROM tier_stat WHERE tier = 'cpu' ORDER BY point_id")
    check("both preempt", recompute["preemptions"] > 0 and swap["preemptions"] > 0)
    check("recomputed or moved", recompute["recomputed_tokens"] > 0 == swap["recomputed_tokens"] and
          cpu[0]["bytes_in"] == 0 < cpu[1]["bytes_in"] == cpu[1]["bytes_out"], cpu)
    # the device's PCIe: 31.5 GB/s and 10 us per load
    moved = (cpu[1]["bytes_in"] + cpu[1]["bytes_out"]) / 31.5e9
    check("over the link", moved < cpu[1]["busy_s"] < moved + 11e-6 * swap["preemptions"], cpu[1])
    check("to other effect", recompute["e2e_mean"] != swap["e2e_mean"])


def test_copies(folder):
    """8 KV heads on 16 devices: each has one of them, 16 KiB a token of Llama 3.1 8B, however many there
    are. What a device has room for is what the calculator says."""
    write(folder, "t.csv", "arrival,prompt,output\n0,100,10\n")
    for devices, heads in ((1, 8), (3, 3), (8, 1), (16, 1)):
        out = os.path.join(folder, "copies%d.db" % devices)
        done = kvsim("run", experiment(folder), "-o", out, "--set", "serving.kv_blocks=0", "--set",
                     "serving.tensor_parallel=%d" % devices)
        sized = json.loads(kvsim("footprint", "--model", "llama-3.1-8b", "--prompt", "100", "--device",
                                 "rtx-4090", "--tensor-parallel", str(devices), "--json", "full").stdout)
        check("%d devices are %swarned of" % (devices, "" if 32 % devices else "not "),
              ("does not divide the 32 query heads" in done.stderr) == (32 % devices != 0), done.stderr)
        blocks = sized["memory_per_device"]["kv_bytes"] // (16 * 16384 * heads) - 1
        check("%d devices" % devices, done.returncode == 0 and
              rows(out, POINT)[0]["kv_capacity_bytes"] == blocks * 16 * 131072, (blocks, done.stderr))


def test_tables(folder):
    """Three requests: the second is too large for the cache, the third has no answer."""
    write(folder, "t.csv", "arrival,prompt,output\n0,100,10\n0.5,50000,10\n1,200,0\n")
    path = experiment(folder, extra="  request_results: true\n  timeline: 100ms\n")
    out = os.path.join(folder, "tables.db")
    done = kvsim("run", path, "-q", "-o", out, "--trace-events", os.path.join(folder, "trace.json"))
    check("runs", done.returncode == 0, done.stderr)
    point = rows(out, POINT)[0]
    check("counts", (point["requests"], point["completed"], point["rejected_too_large"],
                     point["output_tokens"], point["prompt_tokens"]) == (3, 2, 1, 10, 300), point)
    request = rows(out, "SELECT * FROM request_result ORDER BY request")
    check("status", [r["status"] for r in request] == ["completed", "too_large", "completed"], request)
    check("no answer, no first token", request[2]["ttft_s"] is None and request[2]["e2e_s"] > 0)
    check("tpot is the rest over nine", abs(request[0]["tpot_s"] * 9 + request[0]["ttft_s"] -
                                            request[0]["e2e_s"]) < 1e-8, request[0])
    # 109 stored tokens are 7 blocks of 16 tokens of 131,072 bytes; 200 are 13
    check("peak", point["kv_peak_bytes"] == 13 * 16 * 131072, point["kv_peak_bytes"])
    check("timeline", len(rows(out, "SELECT * FROM timeline")) >= 10)
    done = kvsim("run", path, "-o", os.path.join(folder, "fine.db"), "--set",
                 "serving.timeline=1ns")
    fine = rows(os.path.join(folder, "fine.db"), "SELECT count(*) AS n FROM timeline")
    check("a timeline of every nanosecond is bounded", done.returncode == 0 and
          32768 <= fine[0]["n"] <= 65536 and "more than 65536 samples" in done.stderr,
          (fine, done.stderr))
    wrong = kvsim("run", os.path.join(EXAMPLES, "quick.yaml"), "-o", os.path.join(folder, "none.db"), "--trace-events",
                  os.path.join(folder, "none.json"))
    check("no server, no trace of events", wrong.returncode == 2 and "has no section `serving`" in wrong.stderr and
          not os.path.exists(os.path.join(folder, "none.json")), wrong.stderr)
    check("why requests were rejected", "\nRejected: up to 1 of 3 requests are larger than the whole KV cache "
          "of a replica.\n" in done.stdout, done.stdout)
    done = kvsim("run", path, "-o", os.path.join(folder, "short.db"), "--set", "serving.max_context=150")
    check("or were too long", "\nRejected: up to 2 of 3 requests are longer than the context" in done.stdout and
          "KV cache" not in done.stdout, done.stdout)
    with open(os.path.join(folder, "trace.json")) as file:
        events = json.load(file)["traceEvents"]
    steps = sum(e["args"]["steps"] for e in events if e["ph"] == "X")
    check("trace of events has every step", steps == point["steps"], (steps, point["steps"]))
    done = kvsim("run", path, "-q", "-o", os.path.join(folder, "window.db"), "--trace-events",
                 os.path.join(folder, "window.json"), "--set",
                 "serving.trace_events={start: 50ms, duration: 20ms}")
    with open(os.path.join(folder, "window.json")) as file:
        window = json.load(file)["traceEvents"]
    spans = [e for e in window if e["ph"] == "X"]
    # the second request is rejected, the third comes at 1 s: only the first is seen, and whole
    check("a window of the trace", done.returncode == 0 and 0 < len(spans) and
          all(e["ts"] < 70e3 and e["ts"] + e["dur"] >= 50e3 for e in spans) and
          sorted((e["name"], e["ph"]) for e in window if e["ph"] != "X") ==
          sorted((n, p) for n in ("request", "queue", "prefill", "decode") for p in "be"), window)
    again = kvsim("run", path, "-q", "-o", out, "--resume")
    check("resume adds nothing", again.returncode == 0 and len(rows(out, POINT)) == 1, again.stderr)


def dump(path):
    """All tables but what knows a clock."""
    with sqlite3.connect(path) as database:
        names = [n for n, in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        tables = {n: sorted(map(repr, database.execute("SELECT * FROM %s" % n))) for n in names}
        tables["run"] = list(database.execute("SELECT id, name, experiment, seed, version, shard, "
                                              "shards, finished_at IS NULL FROM run"))
    return tables


def test_division(folder):
    """Threads, shards, and a run that was cut off: the tables are those of one thread."""
    requests = "arrival,prompt,output\n" + "".join(
        "%g,%d,%d\n" % (i * 0.05, 50 + i * 37 % 900, 1 + i * 13 % 60) for i in range(60))
    write(folder, "t.csv", requests)
    path = experiment(folder, "division.yaml", extra="  request_results: true\n  timeline: 500ms\n"
                      "  chunk_size: [64, 256, whole]\n  scheduler: {max_seqs: [4, 32]}\n"
                      "  tiers: {cpu: {capacity: [1GiB, 2GiB]}}\n")
    names = ["one", "four", "nine", "part1", "part2", "part3"]
    db = {name: os.path.join(folder, name + ".db") for name in names + ["merged", "cut"]}
    done = [kvsim("run", path, "-q", "-o", db["one"], "-j", "1"),
            kvsim("run", path, "-q", "-o", db["four"], "-j", "4"),
            kvsim("run", path, "-q", "-o", db["nine"], "-j", "9")]
    done += [kvsim("run", path, "-q", "-o", db["part%d" % i], "-j", "2", "--shard", "%d/3" % i)
             for i in (1, 2, 3)]
    parts = [db["part%d" % i] for i in (3, 1, 2)]
    done.append(kvsim("merge", db["merged"], *parts))
    check("threads and shards run", all(d.returncode == 0 for d in done), [d.stderr for d in done])
    whole = dump(db["one"])
    check("12 points", len(whole["serving_point"]) == 12 and len(whole["request_result"]) == 720)
    check("nothing of an incomplete run is left", whole["serving_plan"] == [])
    for name in ("four", "nine", "merged"):
        check("the same tables: " + name, dump(db[name]) == whole)
    check("a shard has a third", len(rows(db["part2"], POINT)) == 4)

    # cut off: what a run killed after its second point leaves behind
    kvsim("run", path, "-q", "-o", db["cut"], "-j", "1")
    with sqlite3.connect(db["cut"]) as database:
        for table in ("tier_stat", "request_result", "timeline"):
            database.execute("DELETE FROM %s WHERE point_id > 2" % table)
        database.execute("DELETE FROM serving_point WHERE id > 2")
        database.execute("UPDATE run SET finished_at = NULL, wall_seconds = NULL")
        database.execute("INSERT INTO serving_plan VALUES (1, 12)")
    resumed = kvsim("run", path, "-q", "-o", db["cut"], "-j", "3", "--resume")
    check("it goes on to the same tables", resumed.returncode == 0 and dump(db["cut"]) == whole,
          resumed.stderr)
    for given, words in ((parts[:2], "point 1 of the serving part is missing; run shard 2/3"),
                         (parts + parts[:1], "point 2 of the serving part is in more than one")):
        merged = kvsim("merge", "-f", db["merged"], *given)
        check("merge: " + words, merged.returncode == 2 and words in merged.stderr, merged.stderr)
    once = kvsim("run", path, "-q", "-o", os.path.join(folder, "x.db"), "--set",
                 "serving.requests={file: '-', format: csv}")
    check("standard input cannot be read twelve times", once.returncode == 2 and
          "'-' can be read once, not for each of 12 combinations" in once.stderr, once.stderr)

    # another trace under the same name: neither resumed nor merged with what the first gave
    write(folder, "t.csv", requests + "9,50,5\n")
    other = os.path.join(folder, "other.db")
    kvsim("run", path, "-q", "-o", other, "--shard", "3/3")
    for done in (kvsim("run", path, "-q", "-o", db["part1"], "--shard", "1/3", "--resume"),
                 kvsim("merge", "-f", db["merged"], db["part1"], db["part2"], other)):
        check("a changed trace is refused", done.returncode == 2 and "SHA-256" in done.stderr,
              done.stderr)


def test_lists(folder):
    """Lists of `requests` and of `model`: each combination is a row that equals that of an experiment
    without lists, and a label that names what differs and nothing else."""
    write(folder, "t.csv", "arrival,prompt,output\n" + "".join(
        "%g,%d,%d\n" % (i * 0.01, 50 + i * 37 % 900, 1 + i * 13 % 60) for i in range(60)))

    def run(name, model, requests, extra):
        path = write(folder, name + ".yaml", "model: %s\nserving:\n  requests: {file: t.csv, format: csv%s}\n"
                     "  device: rtx-4090\n%s" % (model, requests, extra))
        out = os.path.join(folder, name + ".db")
        done = kvsim("run", path, "-q", "-o", out)
        check("lists: " + name + " runs", done.returncode == 0, done.stderr)
        return rows(out, POINT)

    common = "  kv_blocks: 600\n  scheduler: {max_seqs: %s}\n"
    several = run("several", "[llama-3.1-8b, mistral-7b]", ", speedup: [1, 4], limit: [30, 0]",
                  common % "[8, 16]")
    wanted = [(m, s, speed, limit) for m in ("llama-3.1-8b", "mistral-7b") for s in (8, 16)
              for speed in (1, 4) for limit in (30, 0)]
    check("a label says what differs", [p["label"] for p in several] == [
        "full, model %s, max_seqs %d, requests speedup %d, requests limit %d" % w for w in wanted],
        [p["label"] for p in several])
    check("limits are kept", [p["requests"] for p in several] == [30, 60] * 8)
    for number in (0, 5, 10, 15):
        model, seqs, speed, limit = wanted[number]
        alone = run("alone%d" % number, model, ", speedup: %d, limit: %d" % (speed, limit), common % seqs)
        differ = [k for k in alone[0] if k not in ("id", "number", "label") and
                  alone[0][k] != several[number][k]]
        check("row %d as by itself" % number, alone[0]["label"] == "full" and differ == [], differ)
    drawn = run("drawn", "llama-3.1-8b", ", arrivals: poisson, rate: [5, 50], seed: [1, 2]", "")
    check("rates and seeds", len({p["ttft_mean"] for p in drawn}) == 4 and [p["label"] for p in drawn] == [
        "full, requests rate %d, requests seed %d" % w for w in ((5, 1), (5, 2), (50, 1), (50, 2))], drawn)
    policies = run("policies", "llama-3.1-8b", "", "  kv_blocks: [600, 600]\n  chunk_size: [64, whole]\n"
                   "  prefix_cache: {enabled: false}\n  tiers: {cpu: {capacity: [1GiB, 2GiB]}}\n"
                   "  policies: [full, snapkv: {keep: [0.2, 0.5], window: 8}]\n")
    check("policies, tiers and chunks are named, equal values are not", sorted({p["label"] for p in policies}) ==
          sorted("%s, cpu capacity %s, chunk %s" % (p, t, c) for p in ("full", "snapkv keep 0.2",
                                                                      "snapkv keep 0.5")
                 for t in ("1GiB", "2GiB") for c in ("64", "whole")), [p["label"] for p in policies])
    done = kvsim("run", os.path.join(folder, "several.yaml"), "-o", os.path.join(folder, "shown.db"))
    check("the summary shows labels", all(p["label"] in done.stdout for p in several), done.stdout)
    for key, value, words in (("requests.on_error", "[stop, skip]", "requests.on_error: expected one value"),
                              ("request_results", "[true, false]", "request_results: expected one value"),
                              ("requests.file", "[t.csv, u.csv]", "file: expected one value"),
                              ("requests.speedup", "[]", "the list is empty")):
        done = kvsim("run", os.path.join(folder, "several.yaml"), "-q", "-o", os.path.join(folder, "x.db"),
                     "--set", "serving.%s=%s" % (key, value))
        check("refused: " + key, done.returncode == 2 and words in done.stderr, done.stderr)
    done = kvsim("run", write(folder, "both.yaml", "model: [llama-3.1-8b, mistral-7b]\nattention: {traces: %s, "
                              "policies: full}\n" % os.path.join(HERE, "data", "tiny.h5")), "-q", "-o",
                 os.path.join(folder, "x.db"))
    check("attention has one model", done.returncode == 2 and "both.yaml:1:8: model: attention" in
          done.stderr, done.stderr)


def test_blend(folder):
    """The example under threads; what its tables say of each token; what blending is refused with."""
    path, tables = os.path.join(EXAMPLES, "serving-rag.yaml"), []
    for option in (["-j", "1"], ["-j", "4"]):
        out = os.path.join(folder, "rag%s.db" % option[1])
        done = kvsim("run", path, "-q", "-o", out, "--set", "serving.request_results=true", *option)
        check("serving-rag.yaml runs", done.returncode == 0, done.stderr)
        tables.append([rows(out, POINT), rows(out, "SELECT * FROM tier_stat"),
                       rows(out, "SELECT * FROM request_result")])
    check("threads change nothing", tables[0] == tables[1])
    for point in tables[0][0]:
        settings = json.loads(point["settings"])["reuse"]
        tiers = [t for t in tables[0][1] if t["point_id"] == point["id"]]
        requests = [r for r in tables[0][2] if r["point_id"] == point["id"]]
        blended = sum(t["blended_tokens"] for t in tiers)
        what = "%(mode)s at %(recompute)s: " % settings
        check(what + "tiers, requests and point agree", blended == point["blended_tokens"] ==
              sum(r["blended_tokens"] for r in requests) and
              sum(t["hits"] for t in tiers) == sum(r["cached_tokens"] for r in requests))
        check(what + "tokens are blended or not", (blended > 0) == (settings["mode"] == "blend"))
        share = (1 + 31 * settings["recompute"]) / 32  # of 32 layers the first in full
        again = sum(math.ceil(round(r["blended_tokens"] * share, 6)) for r in requests)
        check(what + "the share is computed again", settings["mode"] == "prefix" or
              again == point["blend_recomputed_tokens"], "%d %d" % (again, point["blend_recomputed_tokens"]))
    check("without blending its settings make no points", [json.loads(p["settings"])["reuse"]["mode"] for p in
                                                           tables[0][0]] == ["prefix"] + 4 * ["blend"])
    prefix, blend = tables[0][0][:2]
    check("nor stand in labels", prefix["label"] == "full, reuse mode prefix" and
          blend["label"] == "full, reuse mode blend, reuse recompute 0.05", prefix["label"])
    check("blending answers sooner", blend["ttft_mean"] < 0.5 * prefix["ttft_mean"])
    out = os.path.join(folder, "known.db")
    check("no accuracy is predicted for what is blended", "IS NOT 'blend'" in rows(
        os.path.join(folder, "rag1.db"), "SELECT sql FROM sqlite_master WHERE name = 'serving_accuracy'")[0]["sql"])
    named = '{"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}\n'
    write(folder, "t.jsonl", named)
    for name, extra, words in (
            ("names that are chained", "", "hashes: content"),
            ("a policy that evicts", "  policies: [streaming: {sinks: 4, window: 64}]\n", "kept whole"),
            ("swap", "  scheduler: {preemption: swap}\n  tiers: {cpu: {capacity: 1GiB}}\n", "preemption: swap"),
            ("no prefix cache", "  prefix_cache: {enabled: false}\n", "prefix_cache.enabled"),
            ("belady", "  prefix_cache: {replacement: belady}\n", "belady"),
            ("more layers than there are", "  reuse: {mode: blend, full_layers: 33}\n", "more full_layers"),
            ("a share above 1 that is not used", "  reuse: {recompute: [0.1, 1.1]}\n", "recompute"),
            ("a share above 1", "  reuse: {mode: blend, recompute: 1.1}\n", "recompute"),
            ("another mode", "  reuse: {mode: blended}\n", "did you mean")):
        extra += "" if "reuse" in extra else "  reuse: {mode: blend}\n"
        done = kvsim("run", experiment(folder, extra=extra), "-q", "-o", out, "--set",
                     "serving.requests={file: %s, format: mooncake}" % os.path.join(folder, "t.jsonl"))
        check("blend refuses: " + name, done.returncode == 2 and words in done.stderr, done.stderr)


def test_idle_reuse(folder):
    """A share of nothing: one point, and a warning."""
    out = os.path.join(folder, "idle.db")
    done = kvsim("run", experiment(folder, extra="  reuse: {recompute: [0.1, 0.3]}\n"), "-o", out)
    check("a share without blending is warned of", done.returncode == 0 and
          "warning: reuse: recompute does nothing, as it is for mode: blend" in done.stderr, done.stderr)
    check("and makes one point", len(rows(out, POINT)) == 1)


def test_wrong_input(folder):
    cases = [
        ("a negative length", "arrival,prompt,output\n0,5,5\n1,-5,5\n", "", "t.csv:3"),
        ("unsorted times", "arrival,prompt,output\n5,5,5\n1,5,5\n", "", "t.csv:3"),
        ("no numbers", "arrival,prompt,output\n0,five,5\n", "", "t.csv:2"),
        ("an unknown key", "arrival,prompt,output\n0,5,5\n", "  replica: 2\n", "replicas"),
        ("a tier that is the device", "arrival,prompt,output\n0,5,5\n",
         "  tiers: {gpu: {capacity: 1GiB}}\n", "gpu is the device itself"),
        ("an unknown queue", "arrival,prompt,output\n0,5,5\n", "  scheduler: {queue: lifo}\n", "lifo"),
        ("a model that does not fit", "arrival,prompt,output\n0,5,5\n",
         "  runtime_reserve: 20GiB\n  kv_blocks: 0\n", "tensor_parallel"),
        ("a missing length", "arrival,prompt,output\n0,5,5\n1,5\n", "", "t.csv:3"),
        ("a length that is no number", "arrival,prompt,output\n0,nan,5\n", "", "t.csv:2"),
        ("no prompt", "arrival,prompt,output\n0,0,5\n", "", "t.csv:2"),
        ("an empty file", "", "", "t.csv"),
        ("a header and nothing else", "arrival,prompt,output\n", "", "t.csv: holds no requests"),
        ("a swap to nowhere", "arrival,prompt,output\n0,5,5\n", "  scheduler: {preemption: swap}\n",
         "needs a tier"),
        ("a disk without a bandwidth", "arrival,prompt,output\n0,5,5\n",
         "  tiers: {disk: {capacity: 1GiB}}\n", "disk needs `bandwidth`"),
        ("a swap under retention", "arrival,prompt,output\n0,5,5\n",
         "  scheduler: {preemption: swap}\n  tiers: {cpu: {capacity: 1GiB}}\n"
         "  policies: [{streaming: {window: 64}}]\n", "expected recompute"),
        ("a link of no tier", "arrival,prompt,output\n0,5,5\n",
         "  tiers: {cpu: {capacity: 1GiB, link: disk}}\n", "no tier 'disk' above it"),
        ("tables of no folder", "arrival,prompt,output\n0,5,5\n", "  step_time: {model: table}\n",
         "e.yaml:6:14: step_time: {model: table} needs `path`"),
        ("too few blocks", "arrival,prompt,output\n0,5,5\n", "  reserved_blocks: 2588\n",
         "kv_blocks: 0 blocks are left beside the 2588 reserved"),
        ("an efficiency above 1", "arrival,prompt,output\n0,5,5\n",
         "  step_time: {memory_efficiency: 1.2}\n", "memory_efficiency"),
    ]
    for name, trace, extra, words in cases:
        write(folder, "t.csv", trace)
        text = "" if "kv_blocks" not in extra else None
        path = experiment(folder, extra=extra)
        if text is None:
            with open(path) as file:
                body = file.read().replace("  kv_blocks: 2588\n", "")
            write(folder, "e.yaml", body)
        out = os.path.join(folder, "wrong.db")
        done = kvsim("run", path, "-q", "-o", out)
        check("wrong input: " + name, done.returncode == 2 and words in done.stderr,
              "%d %s" % (done.returncode, done.stderr))
        if os.path.exists(out):
            check("no half point: " + name, rows(out, POINT) == [])
    good = '{"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}\n'
    for name, row in (("bad JSON", '{"timestamp": 1, "input_length": \n'), ("a list", "[1, 2]\n"),
                      ("a negative id", good.replace("[1, 2]", "[1, -2]")),
                      ("more ids than tokens", good.replace("600", "1")),
                      ("a time that goes back", good.replace(": 0,", ": -5,")),
                      ("no ids in one row", good.replace(', "hash_ids": [1, 2]', "")),
                      ("empty ids in one row", good.replace("[1, 2]", "[]")),
                      ("too few ids", good.replace("600", "2000")),
                      ("no time in one row", good.replace('"timestamp": 0, ', "")),
                      ("null for a time", good.replace(": 0,", ": null,")),
                      ("null for a length", good.replace("600", "null")),
                      ("no length", good.replace("input_length", "length"))):
        write(folder, "t.jsonl", good + row)
        done = kvsim("run", experiment(folder), "-q", "-o", os.path.join(folder, "wrong.db"), "--set",
                     "serving.requests={file: %s, format: mooncake}" % os.path.join(folder, "t.jsonl"))
        check("wrong input: " + name, done.returncode == 2 and "t.jsonl:2" in done.stderr,
              "%d %s" % (done.returncode, done.stderr))
    write(folder, "t.jsonl", good + good.replace(', "hash_ids": [1, 2]', "").replace(": 3", ": 0"))
    out = os.path.join(folder, "ids.db")
    done = kvsim("run", experiment(folder), "-q", "-o", out, "--set",
                 "serving.requests={file: %s, format: mooncake}" % os.path.join(folder, "t.jsonl"))
    check("ids that are missing are", done.returncode == 2 and "unnamed_blocks" in done.stderr, done.stderr)
    done = kvsim("run", experiment(folder), "-q", "-o", out, "--set", "serving.requests={file: %s, format: "
                 "mooncake, unnamed_blocks: true}" % os.path.join(folder, "t.jsonl"))
    check("unless it is said; no answer is sound", done.returncode == 0 and
          [(p["requests"], p["completed"]) for p in rows(out, POINT)] == [(2, 2)], done.stderr)
    write(folder, "t.csv", "arrival,prompt,output\n0,5,5\n1,-5,5\n2,7,7\n")
    path = experiment(folder)
    out = os.path.join(folder, "skip.db")
    done = kvsim("run", path, "-q", "-o", out, "--set", "serving.requests.on_error=skip")
    check("on_error: skip counts", done.returncode == 0 and
          [(p["requests"], p["skipped"]) for p in rows(out, POINT)] == [(2, 1)], done.stderr)


SMALL = """
  model: {name: small, layers: 4, hidden_size: 128, vocabulary: 100, dtype: bf16, attention: {heads: 8,
          kv_heads: 4, head_dim: 16}, mlp: {intermediate_size: 512}}
  requests: {file: t.csv, format: csv}
  device: rtx-4090
  kv_blocks: 4000
  block_size: 1
  prefix_cache: {enabled: false}
"""


def profile_experiment(folder, policies, chunk, extra="", attention=True):
    """tests/data/tiny.h5 holds one example of kv_recall: 78 tokens of prompt, 4 layers of 4 KV heads."""
    return write(folder, "p.yaml", ("""seed: 1
attention:
  traces: [%s]
  tasks: [kv_recall]
  policies: [%s]
  chunk_size: [16]
""" % (os.path.join(HERE, "data", "tiny.h5"), policies) if attention else "seed: 1\n") +
                 "serving:%s  chunk_size: %s\n  policies: [%s]\n%s" % (SMALL, chunk, policies, extra))


def read_entries(entries):
    """By hand: a prompt of 78 tokens in chunks of 16 reads 16, 32, 48, 64 and 78 entries in 16 heads;
    the one decode step reads what is kept and the new token's. 64 bytes an entry."""
    return 64 * (16 * (16 + 32 + 48 + 64 + 78) + entries + 16)


def test_profiles(folder):
    """What depends on scores is taken from the replay: to the entry, where lengths are equal."""
    write(folder, "t.csv", "arrival,prompt,output\n0,78,2\n")
    out, policy = os.path.join(folder, "p.db"), "full, {adakv: {keep: 0.3, window: 8}}"
    done = kvsim("run", profile_experiment(folder, policy, 16), "-q", "-o", out)
    check("a profile from the same experiment", done.returncode == 0, done.stderr)
    kept = [len(json.loads(row["positions"])) for row in rows(out, "SELECT positions FROM retained_set")]
    check("sets of the score-dependent policy alone", len(kept) == 16 and len(set(kept)) > 1, kept)
    points = rows(out, POINT)
    check("all is read under full", points[0]["kv_read_bytes"] == read_entries(16 * 78), points[0])
    check("what the replay kept is read", points[1]["kv_read_bytes"] == read_entries(sum(kept)),
          (points[1]["kv_read_bytes"], read_entries(sum(kept))))
    beside = rows(out, "SELECT * FROM serving_accuracy ORDER BY number")
    check("accuracy stands beside it", [b["task"] for b in beside] == ["kv_recall"] * 2 and
          beside[0]["accuracy"] == 1 and beside[1]["accuracy_source"] == "proxy", beside)
    again = os.path.join(folder, "q.db")
    done = kvsim("run", profile_experiment(folder, policy, 16, "  profile: p.db\n", False), "-q", "-o",
                 again)
    check("a profile from other results", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        check("says the same", rows(again, POINT)[1]["kv_read_bytes"] == points[1]["kv_read_bytes"])
    scored = os.path.join(folder, "v.db")
    done = kvsim("run", profile_experiment(folder, policy.replace("window: 8", "scorer: observed_attention"), 16),
                 "-q", "-o", scored)
    check("a profile over another policy's scores", done.returncode == 0, done.stderr)
    others = [len(json.loads(row["positions"])) for row in rows(scored, "SELECT positions FROM retained_set")]
    check("is its own", rows(scored, POINT)[1]["kv_read_bytes"] == read_entries(sum(others)) and others != kept, others)
    for name, extra, words in (("no profile", "", "serving.profile"),
                               ("no such file", "  profile: no.db\n", "no.db")):
        path = profile_experiment(folder, policy, 16, extra, False)
        done = kvsim("run", path, "-q", "-o", os.path.join(folder, "r.db"))
        check("refused: " + name, done.returncode == 2 and words in done.stderr, done.stderr)
    done = kvsim("run", profile_experiment(folder, policy, 32), "-q", "-o", os.path.join(folder, "s.db"))
    check("refused: another chunk size", done.returncode == 2 and "chunk size 32" in done.stderr,
          done.stderr)
    check("before anything was replayed", not os.path.exists(os.path.join(folder, "s.db")))
    done = kvsim("run", profile_experiment(folder, policy, 32, "  profile: p.db\n", False), "-q", "-o",
                 os.path.join(folder, "u.db"))
    check("refused: other results have another chunk size", done.returncode == 2 and
          "chunk size 32" in done.stderr, done.stderr)


def test_stored(folder):
    """Bits of the cache and transforms change bytes and room; a read policy changes what is read."""
    write(folder, "t.csv", "arrival,prompt,output\n0,78,2\n")
    out = os.path.join(folder, "b.db")
    policy = "full, {kivi: {residual: 32}}, [full, topk: {share: 0.25}]"
    done = kvsim("run", profile_experiment(folder, policy, 16), "-q", "-o", out)
    check("transforms and read policies", done.returncode == 0, done.stderr)
    if done.returncode != 0:
        return
    full, kivi, topk = rows(out, POINT)
    # 2-bit numbers with a 16-bit scale and zero per 32 keys or 16 values: 3 and 4 bits of 16, so 14
    # bytes for 64. Plain are 32 values and on average 15.5 keys: 15.5 x 13/32 + 32 x 12/32 = 18.3
    # entries' worth, which is room for 84 as stored, beside the 79 entries of the decode step.
    check("kivi's bytes", kivi["kv_peak_bytes"] == (79 + 84) * 16 * 14, kivi)
    check("kivi's room", abs(kivi["kv_capacity_bytes"] / full["kv_capacity_bytes"] - 1) < 1e-3, kivi)
    share = rows(out, "SELECT kv_reads_bytes FROM footprint_point WHERE policy = 'full+topk' "
                      "AND turn IS NULL")[0]["kv_reads_bytes"]
    check("topk reads the replay's share", topk["kv_peak_bytes"] == full["kv_peak_bytes"] and
          abs(topk["kv_read_bytes"] / full["kv_read_bytes"] - share) < 0.07, (topk, share))
    done = kvsim("run", profile_experiment(folder, "full", 16, "  kv_dtype: int4\n  kv_group: 32\n"),
                 "-q", "-o", os.path.join(folder, "c.db"))
    point = rows(os.path.join(folder, "c.db"), POINT)[0] if done.returncode == 0 else {}
    # 4 bits and 32 bits per 32 numbers: 5 of 16 bits
    check("int4 in groups", point.get("kv_peak_bytes") == full["kv_peak_bytes"] * 5 / 16, done.stderr)


def test_home(folder):
    """Entries in host memory: what the replay read beyond the 20 on the device is fetched each step."""
    write(folder, "t.csv", "arrival,prompt,output\n0,78,5\n")
    out, policy = os.path.join(folder, "h.db"), "{retrieval_attention: {sinks: 4, local: 16, read: 8}}"
    tiers = "  tiers: {cpu: {capacity: 1MiB}, disk: {capacity: 1MiB, bandwidth: 1MB/s}}\n"
    path = profile_experiment(folder, policy, "whole", tiers)
    done = kvsim("run", path, "-q", "-o", out, "--set", "attention.chunk_size=[whole]", "--set",
                 "serving.home=[cpu, disk]")
    check("a policy with entries in host memory", done.returncode == 0, done.stderr)
    if done.returncode != 0:
        return
    read = rows(out, "SELECT kv_reads FROM footprint_point WHERE turn IS NULL")[0]["kv_reads"]
    fetched = math.ceil(read * 78 - 20 - 1e-9)
    check("the replay reads more than the device has", 8 <= fetched <= 2 * 8, (read, fetched))
    points = rows(out, POINT)
    tier = {(t["point_id"], t["tier"]): t for t in rows(out, "SELECT * FROM tier_stat")}
    # 64 bytes an entry, 16 heads, 4 decode steps; 58 entries leave with the prompt and one per step
    for point, home, other in ((1, "cpu", "disk"), (2, "disk", "cpu")):
        t = tier[point, home]
        check("fetched from " + home, t["bytes_out"] == 4 * fetched * 16 * 64, t)
        check("brought down to " + home, t["bytes_in"] == (58 + 4) * 16 * 64 and
              t["peak_bytes"] >= 62 * 16 * 64, t)
        check("nothing in " + other, tier[point, other]["bytes_in"] == 0)
        check("the GPU gets it", tier[point, "gpu"]["bytes_in"] == t["bytes_out"])
    check("a slow link makes a slow answer", points[1]["tpot_mean"] > 4 * points[0]["tpot_mean"] and
          points[1]["tpot_mean"] > fetched * 16 * 64 / 1e6, [p["tpot_mean"] for p in points])
    for name, given, words in (("no tier", "serving.tiers={}", "tiers: {cpu: {capacity"),
                               ("no such tier", "serving.home=remote", "a tier named remote")):
        done = kvsim("run", path, "-q", "-o", os.path.join(folder, "n.db"), "--set",
                     "attention.chunk_size=[whole]", "--set", given)
        check("refused: " + name, done.returncode == 2 and words in done.stderr, done.stderr)
    done = kvsim("run", path, "-q", "-o", os.path.join(folder, "small.db"), "--set",
                 "attention.chunk_size=[whole]", "--set", "serving.tiers={cpu: {capacity: 60KiB}}")
    check("what a tier cannot hold is rejected and counted", done.returncode == 0 and
          [p["rejected_too_large"] for p in rows(os.path.join(folder, "small.db"), POINT)] == [1],
          done.stderr)


with tempfile.TemporaryDirectory() as work:
    test_examples(work)
    test_hours(work)
    test_host_links(work)
    test_sample_at_end(work)
    test_tiers(work)
    test_swap(work)
    test_copies(work)
    test_tables(work)
    test_division(work)
    test_profiles(work)
    test_stored(work)
    test_lists(work)
    test_home(work)
    test_blend(work)
    test_wrong_input(work)
finish()
