#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks the JSON Schema of experiment files: it is what `kvsim schema` prints, it names every
# parameter of every policy with its default, it is itself valid, and it accepts and refuses files
# as the contract says, which kvsim does too. Judged by python's jsonschema, which is not ours.
if test -z "$PYTHON3"; then
    echo "1..0 # SKIP python3 was not found"
    exit 0
fi
exec "$PYTHON3" - "$KVSIM" "$builddir/sim/experiment.schema.json" "$srcdir/examples" \
    "$srcdir/tests/data/tiny.h5" <<'END'
import glob, json, os, shutil, subprocess, sys, tempfile

kvsim, installed, examples, recording = sys.argv[1:]
number = 0


def check(good, what, why=""):
    global number
    number += 1
    print("%s %d - %s" % ("ok" if good else "not ok", number, what))
    if not good and why:
        print("# " + str(why))


def skip(what, why):
    global number
    number += 1
    print("ok %d - %s # SKIP %s" % (number, what, why))


def output(*words):
    return subprocess.run([kvsim, *words], check=True, capture_output=True, text=True).stdout


schema = json.loads(output("schema"))
with open(installed) as file:
    check(json.load(file) == schema, "the built file is what the program prints")

listed = [p for p in json.loads(output("list", "policies", "--json")) if p["group"] not in ("replacement", "reuse", "load")]
policies = schema["$defs"]["part"]["anyOf"][1]["properties"]
check(sorted(policies) == sorted({p["name"] for p in listed}), "every policy is in the schema")
roles = {}
for policy in listed:
    of_name = policies[policy["name"]]
    of_name = of_name.get("anyOf", [of_name])  # a name may stand in two families
    role = roles[policy["name"]] = roles.get(policy["name"], -1) + 1
    rows = of_name[role]["properties"]
    wanted = {p["name"]: p["default"] for p in policy["parameters"]}
    got = {name: row.get("default") for name, row in rows.items() if name != "chunk_size"}
    check(got == wanted and "chunk_size" in rows, policy["name"] + " has every parameter", got)

BASE = {"traces": ["a.h5"], "policies": ["full"]}
SERVE = {"requests": {"file": "t.csv"}, "device": "h200"}
good = {
    "the least": {"attention": BASE},
    "single items": {"attention": {"traces": "a.h5", "policies": "full", "chunk_size": 64}},
    "everything": {"name": "x", "seed": 3, "model": {"layers": 2}, "attention": {
        **BASE, "tasks": ["t"], "chunk_size": [32, "whole"], "keep_sets": True, "page_size": 8,
        "footprint_model": "analytic", "oracle": True,
        "critical": {"threshold": 0.9, "confidence": 0.5, "resamples": 10},
        "calibration": {"file": "a.csv", "traces": "a.h5"},
        "step_time": {"prefill_token": "0.1ms", "decode": "20 ms"}}},
    "a policy with a chunk size": {"attention": {**BASE, "policies": [
        {"full": {"chunk_size": [1, "whole"]}}]}},
    "a combination": {"attention": {**BASE, "policies": [
        "full", [{"snapkv": {"keep": [0.1, 0.2]}}, {"topk": {"read": 64}}]]}},
    "scorers": {"attention": {**BASE, "policies": [
        {"adakv": {"keep": 0.3, "scorer": ["knorm", {"expected_attention": {"epsilon": 0.01}}]}},
        {"adakv": {"keep": 0.3, "scorer": {"criticalkv": {"scorer": {"h2o": None}}}}}]}},
    "the least server": {"model": "llama-3.1-8b", "serving": SERVE},
    "a whole server": {"serving": {
        "requests": {"format": "csv", "file": "t.csv", "columns": {"arrival": "at"}, "speedup": 2,
                     "time_unit": "ms", "on_error": "skip"},
        "device": ["h200", "own/card.yaml", {
            "name": "mine", "memory": "24GiB", "bandwidth": "1TB/s", "fp16_tflops": 100,
            "bf16_tflops": 100, "host_link": {"bandwidth": "64GB/s"},
            "tensor_parallel_link": {"bandwidth": "64GB/s"}}], "kv_blocks": [2588, 4000],
        "memory_utilization": 0.9, "runtime_reserve": "1GiB", "chunk_size": [512, "whole"],
        "policies": ["full", {"snapkv": {"keep": 0.5}}],
        "scheduler": {"max_seqs": [64, 256], "queue": "sjf", "reserve_full_input": False},
        "prefix_cache": {"replacement": ["lru", "arc"]}, "goodput": {"ttft": "1s"},
        "step_time": {"model": "table", "path": "p", "step_overhead": "0.5ms"},
        "tensor_parallel_link": {"bandwidth": "900GB/s"}, "load": "both-ends", "timeline": "10s",
        "tiers": {"cpu": {"capacity": ["1GiB", "4GiB"], "latency": "10us"},
                  "disk": {"capacity": "1TiB", "bandwidth": "6GB/s", "write": "through"}}}},
    "a policy with nothing": {"attention": {**BASE, "policies": [{"full": None}]}},
}
bad = {
    "a scorer without scores": {"attention": {**BASE, "policies": [{"adakv": {"keep": 0.3, "scorer": "full"}}]}},
    "a scorer's budget": {"attention": {**BASE, "policies": [
        {"adakv": {"keep": 0.3, "scorer": {"knorm": {"keep": 0.3}}}}]}},
    "a scorer's grid": {"attention": {**BASE, "policies": [
        {"adakv": {"keep": 0.3, "scorer": {"knorm": {"sinks": [1, 2]}}}}]}},
    "no section's key": {"atention": BASE},
    "no traces": {"attention": {"policies": ["full"]}},
    "no policies": {"attention": {"traces": ["a.h5"]}},
    "an empty list": {"attention": {**BASE, "policies": []}},
    "an unknown policy": {"attention": {**BASE, "policies": ["ful"]}},
    "an unknown parameter": {"attention": {**BASE, "policies": [{"full": {"kep": 1}}]}},
    "two policies in one item": {"attention": {**BASE, "policies": [{"full": None, "x": None}]}},
    "an empty combination": {"attention": {**BASE, "policies": ["full", []]}},
    "a combination in a combination": {"attention": {**BASE, "policies": ["full", [["full"]]]}},
    "an unknown key": {"attention": {**BASE, "chunksize": 1}},
    "a chunk size of 0": {"attention": {**BASE, "chunk_size": [0]}},
    "a chunk size in words": {"attention": {**BASE, "chunk_size": "half"}},
    "a threshold of 0": {"attention": {**BASE, "critical": {"threshold": 0}}},
    "a threshold above 1": {"attention": {**BASE, "critical": {"threshold": 1.5}}},
    "a page size in quotes": {"attention": {**BASE, "page_size": "16"}},
    "a list where one value goes": {"attention": {**BASE, "page_size": [16]}},
    "a time without a unit": {"attention": {
        **BASE, "step_time": {"prefill_token": 1, "decode": "20ms"}}},
    "a time with a wrong unit": {"attention": {
        **BASE, "step_time": {"prefill_token": "1m", "decode": "20ms"}}},
    "half a step time": {"attention": {**BASE, "step_time": {"decode": "20ms"}}},
    "calibration without a file": {"attention": {**BASE, "calibration": {}}},
    "a choice that is none": {"attention": {**BASE, "footprint_model": "real"}},
    "a switch in words": {"attention": {**BASE, "keep_sets": "yes"}},
    "a server without requests": {"serving": {"device": "h200"}},
    "a server without a device": {"serving": {"requests": {"file": "t.csv"}}},
    "an unknown setting of a server": {"serving": {**SERVE, "replica": 2}},
    "an unknown setting of its scheduler": {"serving": {**SERVE, "scheduler": {"seqs": 2}}},
    "an unknown setting of its trace": {"serving": {**SERVE, "requests": {"fiel": "t.csv"}}},
    "an unknown format": {"serving": {**SERVE, "requests": {"file": "t", "format": "xml"}}},
    "an unknown column": {"serving": {**SERVE, "requests": {"columns": {"arival": "t"}}}},
    "a tier without a capacity": {"serving": {**SERVE, "tiers": {"cpu": {"latency": "1us"}}}},
    "a fifth tier": {"serving": {**SERVE, "tiers": {str(i): {"capacity": "1GiB"} for i in range(5)}}},
    "a capacity without a unit": {"serving": {**SERVE, "tiers": {"cpu": {"capacity": 5}}}},
    "an efficiency above 1": {"serving": {**SERVE, "step_time": {"memory_efficiency": 1.1}}},
    "a negative number of blocks": {"serving": {**SERVE, "kv_blocks": -1}},
    "a negative seed": {"seed": -1, "attention": BASE},
    "an unknown device": {"serving": {**SERVE, "device": "h2000"}},
    "an unknown device in a list": {"serving": {**SERVE, "device": ["h200", "h2000"]}},
    "a device without memory": {"serving": {**SERVE, "device": {"name": "x", "bandwidth": "1TB/s"}}},
    "an unknown model": {"serving": SERVE, "model": "llama-9"},
    "an unknown model in a list": {"serving": {**SERVE, "model": ["llama-2-7b", "llama-9"]}},
    "an unknown queue": {"serving": {**SERVE, "scheduler": {"queue": "lifo"}}},
    "an unknown routing": {"serving": {**SERVE, "scheduler": {"routing": ["round-robin", "x"]}}},
    "an unknown replacement": {"serving": {**SERVE, "prefix_cache": {"replacement": "mru"}}},
    "an unknown replacement of a tier": {"serving": {**SERVE, "tiers": {
        "cpu": {"capacity": "1GiB", "replacement": "mru"}}}},
    "a tier that is the device": {"serving": {**SERVE, "tiers": {"gpu": {"capacity": "1GiB"}}}},
    "a tier of nothing": {"serving": {**SERVE, "tiers": {"cpu": {"capacity": "0GiB"}}}},
    "a timeline of 0s": {"serving": {**SERVE, "timeline": "0s"}},
    "a limit of 0 ms": {"serving": {**SERVE, "goodput": {"ttft": "0.0 ms"}}},
    "a list where one value goes in a server": {"serving": {**SERVE, "timeline": ["1s", "2s"]}},
    "a list of switches": {"serving": {**SERVE, "request_results": [True, False]}},
    "a rate without arrivals": {"serving": {**SERVE, "requests": {"file": "t.csv", "rate": 2}}},
    "drawn arrivals without a rate": {"serving": {**SERVE, "requests": {
        "file": "t.csv", "arrivals": "poisson"}}},
    "a speedup of 0": {"serving": {**SERVE, "requests": {"file": "t.csv", "speedup": [1, 0]}}},
    "a setting of another format": {"serving": {**SERVE, "requests": {
        "file": "t.csv", "format": "csv", "turns": 3}}},
    "a format without its file": {"serving": {**SERVE, "requests": {"format": "csv"}}},
    "standard input of no format": {"serving": {**SERVE, "requests": {"file": "-"}}},
    "requests of nothing": {"serving": {**SERVE, "requests": {"speedup": 2}}},
    "an even kernel": {"attention": {**BASE, "policies": [{"snapkv": {"keep": 0.5, "kernel": 4}}]}},
    "neither keep nor budget": {"attention": {**BASE, "policies": [{"snapkv": {"window": 4}}]}},
    "keep and budget": {"attention": {**BASE, "policies": [{"snapkv": {"keep": 0.5, "budget": 64}}]}},
    "a name that does not say how much": {"attention": {**BASE, "policies": ["snapkv"]}},
    "nothing that says how much": {"attention": {**BASE, "policies": [{"snapkv": None}]}},
    "a keep of text": {"attention": {**BASE, "policies": [{"snapkv": {"keep": "half"}}]}},
}
try:
    import jsonschema
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
except ImportError:
    skip("files are accepted and refused", "python's jsonschema was not found")
else:
    for name, document in good.items():
        check(validator.is_valid(document), "accepts " + name,
              list(validator.iter_errors(document)))
    for name, document in bad.items():
        check(not validator.is_valid(document), "refuses " + name)
    folder = tempfile.mkdtemp()
    shutil.copy(recording, os.path.join(folder, "a.h5"))
    with open(os.path.join(folder, "t.csv"), "w") as file:
        file.write("arrival,prompt,output\n0,5,5\n")
    for name, document in bad.items():
        if "serving" in document and "model" not in document:
            document = {"model": "llama-2-7b", **document}
        path = os.path.join(folder, "bad.yaml")
        with open(path, "w") as file:
            json.dump(document, file)
        done = subprocess.run([kvsim, "run", "-q", path, "-o", os.path.join(folder, "x.db")],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        check(done.returncode == 2 and ": " in done.stderr, "so does kvsim run: " + name, done.stderr)
        check("bad.yaml" in done.stderr, "and says where: " + name, done.stderr)
    shutil.rmtree(folder)
    try:
        import yaml
    except ImportError:
        skip("examples are accepted", "python's yaml was not found")
    else:
        for path in sorted(glob.glob(examples + "/*.yaml")):
            with open(path) as file:
                check(validator.is_valid(yaml.safe_load(file)), "accepts " + path)
print("1..%d" % number)
END
