/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/serving_tables.h"

#include <stddef.h>

#define REAL(name, unit, help)                                                                     \
    {                                                                                              \
        name, "REAL", unit, help                                                                   \
    }
#define COUNT(name, unit, help)                                                                    \
    {                                                                                              \
        name, "INTEGER NOT NULL", unit, help                                                       \
    }
#define FIVE(name, help)                                                                           \
    REAL(name "_mean", "s", help ", mean"), REAL(name "_p50", "s", help ", median"),               \
        REAL(name "_p90", "s", help ", 90th percentile"),                                          \
        REAL(name "_p95", "s", help ", 95th percentile"),                                          \
        REAL(name "_p99", "s", help ", 99th percentile")

static const kv_column point_columns[] = {
    {"id", "INTEGER PRIMARY KEY", "", "number of the point"},
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    COUNT("number", "", "place in the sweep of the run, from 0"),
    {"policy", "TEXT NOT NULL", "", "name of the retention policy"},
    {"params", "TEXT NOT NULL", "", "all its settings, canonical JSON"},
    {"label", "TEXT NOT NULL", "",
     "policy, and every setting that differs between the points of the run"},
    {"keep", "REAL", "fraction", "what the policy is told to keep; NULL: it is told otherwise"},
    {"settings", "TEXT NOT NULL", "", "all other settings of the server, JSON"},
    {"chunk_size", "INTEGER", "tokens", "tokens of one request in one step; NULL: no limit"},
    COUNT("requests", "", "requests that arrived"),
    COUNT("completed", "", "requests that got all their answer"),
    COUNT("rejected", "", "requests that could never be served"),
    COUNT("rejected_too_long", "", "of these, longer than max_context"),
    COUNT("rejected_too_large", "", "of these, larger than the whole cache"),
    COUNT("skipped", "", "malformed rows of the trace that were passed over"),
    COUNT("preemptions", "", "times that a running request lost its memory"),
    COUNT("recomputed_tokens", "tokens", "computed again after preemptions"),
    COUNT("prompt_tokens", "tokens", "in prompts of completed requests"),
    COUNT("blended_tokens", "tokens",
          "of these, that stand behind the cached prefix and whose content was cached elsewhere "
          "(reuse.mode: blend); the rest, which is in no tier's hits either, was computed"),
    COUNT("blend_recomputed_tokens", "tokens",
          "as many as were computed again of blended_tokens, mean over the layers"),
    COUNT("output_tokens", "tokens", "in answers of completed requests"),
    COUNT("steps", "", "steps of all replicas"),
    REAL("duration_s", "s", "from the first arrival to the end of the last step"),
    REAL("throughput_tok_s", "tokens/s", "answer tokens of completed requests over duration_s"),
    REAL("throughput_req_s", "1/s", "completed requests over duration_s"),
    FIVE("ttft", "arrival to first answer token"),
    FIVE("tpot", "first to last answer token, per further token"),
    FIVE("itl", "between two answer tokens, all gaps pooled"),
    FIVE("e2e", "arrival to last answer token"),
    FIVE("queue", "arrival to admission"),
    REAL("goodput", "1/s", "completed requests within the limits of `goodput`, over duration_s"),
    REAL("prefix_hit_ratio", "fraction",
         "prompt tokens of completed requests that were found in the cache"),
    REAL("kv_capacity_bytes", "bytes", "of the GPU's cache, all replicas"),
    REAL("kv_peak_bytes", "bytes", "most in use by running requests, in pages"),
    REAL("kv_ideal_peak_bytes", "bytes", "the same, of entries: as if no page were part empty"),
    REAL("gpu_bytes_seconds", "bytes s", "in use by running requests, over time, in pages"),
    REAL("ideal_bytes_seconds", "bytes s", "the same, of entries"),
    REAL("kv_read_bytes", "bytes", "read by attention, all steps"),
    COUNT("running_peak", "", "most requests in a batch, summed over replicas"),
    REAL("running_mean", "", "requests in batches, mean over duration_s, all replicas"),
    REAL("cpu_bytes_seconds", "bytes s", "the same of the cpu tier; 0: there is none"),
    REAL("gpu_busy", "fraction", "of duration_s spent in steps, mean of the replicas"),
    REAL("cost", "", "devices times their price times duration_s; NULL: no price is known"),
    {.name = NULL}};

/* Rows of a point are written before the point itself is, so their reference is checked at the end.
 */
#define POINT_ID                                                                                   \
    {                                                                                              \
        "point_id", "INTEGER NOT NULL REFERENCES serving_point(id) DEFERRABLE INITIALLY DEFERRED", \
            "", "the point"                                                                        \
    }

static const kv_column tier_columns[] = {
    POINT_ID,
    {"tier", "TEXT NOT NULL", "", "gpu, or the name of a tier below it"},
    REAL("capacity_bytes", "bytes", "of all replicas"),
    REAL("peak_bytes", "bytes", "most in use"),
    REAL("mean_bytes", "bytes", "in use, mean over duration_s"),
    REAL("bytes_in", "bytes", "moved into the tier"),
    REAL("bytes_out", "bytes", "moved out of it to a higher one"),
    COUNT("hits", "tokens",
          "of prompts of completed requests: found there when the request was first admitted, and "
          "used; all tiers together, what request_result has as cached_tokens"),
    COUNT("blended_tokens", "tokens", "the same, found there as what stood elsewhere"),
    COUNT("evictions", "blocks", "blocks that left it for others"),
    REAL("busy_s", "s", "that its link was in use; of the gpu: spent in steps"),
    {.name = NULL}};

static const kv_column accuracy_columns[] = {
    {"point_id, run_id, number, policy, params, label, chunk_size, keep", "", "",
     "which point, as in serving_point"},
    {"task", "", "", "of footprint_point; NULL: the attention part has no such point"},
    {"accuracy, accuracy_lo, accuracy_hi, accuracy_source", "", "fraction",
     "of footprint_point, all turns together"},
    {"kv_footprint, attention_recall", "", "fraction", "likewise"},
    {"throughput_tok_s, ttft_mean, tpot_mean, e2e_p99, running_mean, kv_peak_bytes, cost", "", "",
     "as in serving_point"},
    {.name = NULL}};

static const kv_column request_columns[] = {
    POINT_ID,
    COUNT("request", "", "number in the trace, from 0"),
    REAL("arrival_s", "s", "when it arrived, from the first arrival of the trace"),
    REAL("ttft_s", "s", "arrival to first answer token; NULL: there is none"),
    REAL("tpot_s", "s", "per further answer token; NULL: there are fewer than two"),
    REAL("e2e_s", "s", "arrival to last answer token; NULL: rejected"),
    REAL("queue_s", "s", "arrival to admission; NULL: rejected"),
    COUNT("cached_tokens", "tokens", "of its prompt that were found in the cache"),
    COUNT("blended_tokens", "tokens", "of its prompt, found in the cache where it stood elsewhere"),
    COUNT("preemptions", "", "times that it lost its memory"),
    {"status", "TEXT NOT NULL", "", "completed, too_long or too_large"},
    {.name = NULL}};

static const kv_column timeline_columns[] = {
    POINT_ID,
    REAL("time_s", "s", "when the sample was taken"),
    {"tier", "TEXT NOT NULL", "", "the tier"},
    COUNT("used_bytes", "bytes", "of the gpu: in use by running requests; of others: held"),
    COUNT("running", "", "requests in the batch, whatever the tier"),
    COUNT("waiting", "", "requests in the queues"),
    {.name = NULL}};

static const kv_column plan_columns[] = {
    {"run_id", "INTEGER PRIMARY KEY REFERENCES run(id)", "", "the run"},
    COUNT("points", "", "points of the whole experiment"),
    {.name = NULL}};

static const kv_column trace_columns[] = {
    {"run_id", "INTEGER PRIMARY KEY REFERENCES run(id)", "", "the run"},
    {"path", "TEXT", "", "file, pattern or folder, as seen from where kvsim ran; NULL: none"},
    {"format", "TEXT NOT NULL", "", "how it was read"},
    {"digest", "TEXT", "", "SHA-256 of the file; NULL: it is not one file"},
    {.name = NULL}};

const kv_table kv__serving_tables[] = {
    {.name = "serving_point",
     .help = "What one configuration of a server does on a trace of requests.",
     .column = point_columns,
     .rest = "UNIQUE (run_id, number)"},
    {.name = "tier_stat",
     .help = "What each level of memory did.",
     .column = tier_columns,
     .rest = "PRIMARY KEY (point_id, tier)",
     .without_rowid = true},
    {.name = "request_result",
     .help =
         "What became of each request; filled when the experiment says `request_results: true`.",
     .column = request_columns,
     .rest = "PRIMARY KEY (point_id, request)",
     .without_rowid = true},
    {.name = "timeline",
     .help = "The server over time, at most 65536 moments with a row per tier; filled when the "
             "experiment gives `timeline`.",
     .column = timeline_columns,
     .rest = "PRIMARY KEY (point_id, time_s, tier)",
     .without_rowid = true},
    {.name = "serving_plan",
     .help = "Work table: how many points the serving part of a run that is not complete has.",
     .column = plan_columns},
    {.name = "serving_accuracy",
     .help = "What a point of serving buys, beside what it costs: predicted accuracy of the same "
             "policy, settings and chunk size in the attention part of the run, a row per task. "
             "Of points that blend it is not known.",
     .column = accuracy_columns,
     .rest = "SELECT s.id AS point_id, s.run_id, s.number, s.policy, s.params, s.label, "
             "s.chunk_size, s.keep, f.task, f.accuracy, f.accuracy_lo, f.accuracy_hi, "
             "f.accuracy_source, f.kv_footprint, f.attention_recall, s.throughput_tok_s, "
             "s.ttft_mean, s.tpot_mean, s.e2e_p99, s.running_mean, s.kv_peak_bytes, s.cost "
             "FROM serving_point AS s LEFT JOIN footprint_point AS f ON f.run_id = s.run_id "
             "AND f.turn IS NULL AND f.policy = s.policy AND f.params = s.params "
             "AND f.chunk_size IS s.chunk_size "
             "AND json_extract(s.settings, '$.reuse.mode') IS NOT 'blend'",
     .is_view = true},
    {.name = "request_trace", .help = "The requests that a run replays.", .column = trace_columns},
    {.name = NULL}};
