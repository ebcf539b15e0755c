/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Views: the questions that people ask of a results database. */
#include "config.h"

#include "analysis/views.h"

#include <stddef.h>

static const kv_column rank_columns[] = {
    {"run_id, task, turn", "", "", "as in critical_footprint"},
    {"rank", "", "",
     "1 is the smallest, of curves that always reach the target by the least footprint seen; those "
     "that never do have none"},
    {"policy, label, chunk_size", "", "", "the curve"},
    {"kv_footprint, lo, hi", "", "fraction", "its critical footprint and interval"},
    {"status, accuracy_source", "", "", "as in critical_footprint"},
    {.name = NULL}};

static const kv_column chunk_columns[] = {
    {"run_id, task, policy, label, chunk_size", "", "", "a curve, all turns together"},
    {"kv_footprint", "", "fraction", "its critical footprint"},
    {"whole", "", "fraction", "that of the same policy with the whole prompt at once"},
    {"saved", "", "fraction", "whole less kv_footprint"},
    {.name = NULL}};

static const kv_column turn_columns[] = {
    {"run_id, task, policy, label, chunk_size", "", "", "a curve"},
    {"turns", "", "", "of the task"},
    {"reached", "", "", "turns that reach the target at some budget"},
    {"first_turn, worst_turn", "", "fraction",
     "critical footprint of turn 1, and the largest (a turn that always reaches the target: the "
     "least footprint seen); NULL: a turn never reaches it"},
    {.name = NULL}};

static const kv_column server_columns[] = {
    {"run_id, number, policy, params, chunk_size", "", "", "a serving point"},
    {"device, replicas, tensor_parallel", "", "", "what it runs on"},
    {"devices", "", "", "of all replicas"},
    {"throughput_tok_s, goodput", "", "tokens/s, 1/s", "as in serving_point"},
    {"ttft_p99, tpot_p99, e2e_p99", "", "s", "as in serving_point"},
    {"prefix_hit_ratio", "", "fraction", "as in serving_point"},
    {"tok_s_per_device", "", "tokens/s", "throughput over devices"},
    {"cost_per_million", "", "", "of a million answer tokens; NULL: no price is known"},
    {.name = NULL}};

static const kv_column traffic_columns[] = {
    {"run_id", "", "", "of the point"},
    {"point_id, tier", "", "", "as in tier_stat"},
    {"fill", "", "fraction", "mean of what is in use over the capacity"},
    {"in_bytes_s, out_bytes_s", "", "bytes/s", "moved, over the whole run"},
    {"busy", "", "fraction", "of the time that its link was in use; of the gpu: spent in steps"},
    {"hit_share", "", "fraction", "of all prompt tokens found in any tier, those found here"},
    {.name = NULL}};

static const kv_column slow_columns[] = {
    {"run_id", "", "", "of the point"},
    {"(as request_result)", "", "", "completed requests"},
    {"rank", "", "", "within its point, 1 waited longest for its first token"},
    {"queued", "", "fraction", "of that time, spent before admission"},
    {.name = NULL}};

static const kv_column answer_columns[] = {
    {"run_id, label, device, replicas, devices, cost_per_hour", "", "", "what to run"},
    {"rate_req_s, max_rate_req_s", "", "1/s", "the trace's rate, and the largest"},
    {"accuracy_of_full, ttft_p99, tpot_p99", "", "", "what it gives"},
    {"limits", "", "", "all of them, as text"},
    {"next_label, next_cost", "", "", "the runner-up"},
    {.name = NULL}};

static const kv_column front_columns[] = {
    {"run_id, choice_id, label, device", "", "", "a configuration of a plan"},
    {"replicas, devices", "", "", "how many of it"},
    {"cost_per_hour", "", "", "of all devices; NULL: no price is known, devices are compared"},
    {"accuracy_of_full", "", "fraction", "as in plan_choice"},
    {"latency", "", "", "as in plan_point"},
    {"ttft_p99, tpot_p99", "", "s", "likewise"},
    {"answer", "", "", "1: this is what plan_answer says to run"},
    {.name = NULL}};

/* What a row of critical_footprint c needs at most: where its curve always reaches the target the
 * smallest footprint seen, for `hi` there is the end of an interval and may be open. */
#define NEED                                                                                       \
    "CASE c.status WHEN 'always' THEN (SELECT min(p.kv_footprint) FROM footprint_point p WHERE "   \
    "p.run_id = c.run_id AND p.task = c.task AND p.turn IS c.turn AND p.policy = c.policy AND "    \
    "p.curve = c.params AND p.chunk_size IS c.chunk_size) ELSE c.kv_footprint END"

const kv_table kv__view_tables[] = {
    {.name = "critical_rank",
     .help = "Which policy needs the least, per task; full and oracles, which are no choice, are "
             "left out.",
     .column = rank_columns,
     .rest =
         "SELECT run_id, task, turn, CASE status WHEN 'never' THEN NULL ELSE rank() OVER "
         "(PARTITION BY run_id, task, turn ORDER BY status = 'never', need) END AS rank, policy, "
         "label, chunk_size, kv_footprint, lo, hi, status, accuracy_source FROM (SELECT c.*, " NEED
         " AS need FROM critical_footprint c) WHERE policy <> 'full' AND label NOT "
         "LIKE '% oracle%' ORDER BY "
         "run_id, task, turn, status = 'never', rank",
     .is_view = true},
    {.name = "chunk_effect",
     .help = "What a chunk size saves against the whole prompt at once.",
     .column = chunk_columns,
     .rest =
         "SELECT c.run_id, c.task, c.policy, c.label, c.chunk_size, c.kv_footprint, "
         "w.kv_footprint AS whole, w.kv_footprint - c.kv_footprint AS saved FROM "
         "critical_footprint c JOIN critical_footprint w ON w.run_id = c.run_id AND w.task = "
         "c.task AND w.turn IS NULL AND w.policy = c.policy AND w.params = c.params AND "
         "w.chunk_size IS NULL WHERE c.turn IS NULL AND c.chunk_size IS NOT NULL AND c.status = "
         "'ok' AND w.status = 'ok' ORDER BY c.run_id, c.task, c.label, c.chunk_size",
     .is_view = true},
    {.name = "turn_effect",
     .help = "How a policy stands later turns of a conversation.",
     .column = turn_columns,
     .rest =
         "SELECT run_id, task, policy, label, chunk_size, max(turn) AS turns, sum(status <> "
         "'never') AS reached, max(CASE WHEN turn = 1 THEN need END) AS "
         "first_turn, CASE WHEN sum(status = 'never') = 0 THEN max(need) END AS worst_turn FROM "
         "(SELECT c.*, " NEED " AS need FROM critical_footprint c) WHERE "
         "turn IS NOT NULL AND policy <> 'full' AND label NOT LIKE '% oracle%' GROUP BY run_id, "
         "task, policy, params, "
         "chunk_size ORDER BY run_id, task, worst_turn IS NULL, worst_turn",
     .is_view = true},
    {.name = "server",
     .help = "Serving points in few columns, with what a device and a token take.",
     .column = server_columns,
     .rest =
         "SELECT run_id, number, policy, params, chunk_size, device, replicas, tensor_parallel, "
         "replicas * tensor_parallel AS devices, throughput_tok_s, goodput, ttft_p99, tpot_p99, "
         "e2e_p99, prefix_hit_ratio, throughput_tok_s / (replicas * tensor_parallel) AS "
         "tok_s_per_device, 1e6 * cost / output_tokens AS cost_per_million FROM (SELECT *, "
         "json_extract(settings, '$.device') AS device, json_extract(settings, "
         "'$.serving.replicas') AS replicas, json_extract(settings, "
         "'$.serving.tensor_parallel') AS tensor_parallel FROM serving_point) ORDER BY run_id, "
         "number",
     .is_view = true},
    {.name = "tier_traffic",
     .help = "How full and how busy each level of memory was.",
     .column = traffic_columns,
     .rest =
         "SELECT run_id, point_id, tier, mean_bytes / capacity_bytes AS fill, bytes_in / "
         "duration_s AS "
         "in_bytes_s, bytes_out / duration_s AS out_bytes_s, busy_s / duration_s AS busy, 1.0 * "
         "hits / nullif(sum(hits) OVER (PARTITION BY point_id), 0) AS hit_share FROM tier_stat "
         "JOIN serving_point ON id = point_id ORDER BY point_id, tier <> 'gpu', tier",
     .is_view = true},
    {.name = "slow_request",
     .help = "Requests in the order of their time to the first token.",
     .column = slow_columns,
     .rest =
         "SELECT s.run_id, r.*, rank() OVER (PARTITION BY point_id ORDER BY ttft_s DESC) AS rank, "
         "queue_s / nullif(ttft_s, 0) AS queued FROM request_result r JOIN serving_point s ON s.id "
         "= point_id WHERE ttft_s IS NOT NULL ORDER BY point_id, rank",
     .is_view = true},
    {.name = "plan_answer",
     .help = "What a plan says to run, and the runner-up.",
     .column = answer_columns,
     .rest =
         "SELECT c.run_id, c.label, c.device, c.replicas, c.devices, c.cost_per_hour, "
         "c.rate_req_s, c.max_rate_req_s, c.accuracy_of_full, c.ttft_p99, c.tpot_p99, (SELECT "
         "group_concat(text, '; ') FROM (SELECT text FROM plan_limit l WHERE l.run_id = c.run_id "
         "ORDER BY number)) AS limits, n.label AS next_label, n.cost_per_hour AS next_cost FROM "
         "plan_choice c LEFT JOIN plan_choice n ON n.run_id = c.run_id AND n.rank = 2 WHERE "
         "c.rank = 1 ORDER BY c.run_id",
     .is_view = true},
    {.name = "plan_front",
     .help = "What keeps all limits of a plan and is beaten by nothing in accuracy, cost and "
             "latency together.",
     .column = front_columns,
     .rest = "SELECT p.run_id, p.choice_id, c.label, c.device, p.replicas, p.devices, "
             "p.cost_per_hour, p.accuracy_of_full, p.latency, p.ttft_p99, p.tpot_p99, c.rank = 1 "
             "AND p.replicas = c.replicas AS answer FROM "
             "plan_point p JOIN plan_choice c ON c.id = p.choice_id WHERE p.pareto ORDER BY "
             "p.run_id, coalesce(p.cost_per_hour, p.devices), p.accuracy_of_full DESC, p.latency, "
             "c.number",
     .is_view = true},
    {.name = NULL}};
