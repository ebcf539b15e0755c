/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Tables of `kvsim plan`. */
#include "config.h"

#include "analysis/plan_results.h"

#include <stddef.h>

static const kv_column limit_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "in the order of the experiment, from 0"},
    {"text", "TEXT NOT NULL", "", "the limit"},
    {"metric", "TEXT NOT NULL", "", "what is limited"},
    {"relation", "TEXT NOT NULL", "", "<= or >="},
    {"value", "REAL NOT NULL", "s, 1/s or fraction", "the bound"},
    {"nearest_text", "TEXT", "",
     "the nearest limit that could be kept; NULL: this one can be, or see why_none"},
    {"nearest", "REAL", "s, 1/s or fraction", "its bound"},
    {"nearest_choice_id", "INTEGER REFERENCES plan_choice(id)", "", "which configuration keeps it"},
    {"nearest_replicas", "INTEGER", "", "with so many replicas"},
    {"alone", "INTEGER", "",
     "1: relaxing this limit is enough; 0: all that have a nearest must be relaxed together"},
    {"why_none", "TEXT", "", "why no value of this limit could be kept; NULL: one can"},
    {.name = NULL}};

static const kv_column choice_columns[] = {
    {"id", "INTEGER PRIMARY KEY", "", "number of the configuration in this file"},
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "place in the grid of the experiment, from 0"},
    {"policy", "TEXT NOT NULL", "", "name of the retention policy"},
    {"params", "TEXT NOT NULL", "", "all its settings, canonical JSON"},
    {"settings", "TEXT NOT NULL", "", "all other settings of the server, JSON"},
    {"chunk_size", "INTEGER", "tokens", "tokens of one request in one step; NULL: no limit"},
    {"label", "TEXT NOT NULL", "", "what sets it apart from the others"},
    {"device", "TEXT NOT NULL", "", "name of the device"},
    {"rank", "INTEGER", "", "1 is the answer; NULL: limits are missed"},
    {"verdict", "TEXT NOT NULL CHECK (verdict IN ('chosen', 'dearer', 'infeasible'))", "",
     "what became of it"},
    {"binding", "TEXT", "",
     "the limit that is missed most: with a replica less or, if infeasible, at all; or why it "
     "cannot "
     "be run or judged: its model does not fit, its accuracy is not known; NULL: none"},
    {"replicas", "INTEGER NOT NULL", "",
     "least that keep the limits, of one that is not accurate enough or too dear the other limits; "
     "if none do, the most that were tried; 0: none can be run"},
    {"devices", "INTEGER NOT NULL", "", "of all replicas"},
    {"cost_per_hour", "REAL", "", "of all devices; NULL: no price is known"},
    {"rate_req_s", "REAL", "1/s", "requests of the trace per second; NULL: they come at once"},
    {"max_rate_req_s", "REAL", "1/s",
     "largest rate at which so many replicas keep the limits, whatever accuracy and price; NULL: "
     "none"},
    {"max_rate_open", "INTEGER NOT NULL", "", "1 if no rate that was tried missed a limit"},
    {"accuracy", "REAL", "fraction", "least of all tasks; NULL: not known"},
    {"accuracy_of_full", "REAL", "fraction",
     "least of all tasks of the same over the full cache's"},
    {"accuracy_lo", "REAL", "fraction", "least of all tasks of the lower end of its interval"},
    {"accuracy_hi", "REAL", "fraction", "the same of the upper end"},
    {"accuracy_source", "TEXT", "", "as in footprint_point"},
    {"accuracy_task", "TEXT", "", "the task with the least accuracy_of_full"},
    {"ttft_p99", "REAL", "s", "with these replicas at the trace's rate"},
    {"tpot_p99", "REAL", "s", "likewise"},
    {"e2e_p99", "REAL", "s", "likewise"},
    {"goodput", "REAL", "1/s", "likewise"},
    {"throughput_tok_s", "REAL", "tokens/s", "likewise"},
    {"replicas_fewer_blocks", "INTEGER", "", "replicas with less KV capacity; NULL: infeasible"},
    {"replicas_more_blocks", "INTEGER", "", "the same with more"},
    {.name = NULL}};

static const kv_column point_columns[] = {
    {"choice_id", "INTEGER NOT NULL REFERENCES plan_choice(id)", "", "the configuration"},
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"replicas", "INTEGER NOT NULL", "", "copies of the server"},
    {"rate_factor", "REAL NOT NULL", "", "rate over the trace's"},
    {"blocks_factor", "REAL NOT NULL", "", "KV blocks over those computed or measured"},
    {"devices", "INTEGER NOT NULL", "", "of all replicas"},
    {"rate_req_s", "REAL", "1/s", "requests per second; NULL: they come at once"},
    {"cost_per_hour", "REAL", "", "of all devices; NULL: no price is known"},
    {"accuracy_of_full", "REAL", "fraction", "as in plan_choice"},
    {"ttft_p99", "REAL", "s", "99th percentile of the time to the first token"},
    {"tpot_p99", "REAL", "s", "99th percentile of the time per further token"},
    {"e2e_p99", "REAL", "s", "99th percentile of the time to the last token"},
    {"goodput", "REAL", "1/s", "as in serving_point"},
    {"throughput_tok_s", "REAL", "tokens/s", "as in serving_point"},
    {"gpu_busy", "REAL", "fraction", "as in serving_point"},
    {"requests", "INTEGER NOT NULL", "", "of the trace"},
    {"rejected_too_long", "INTEGER NOT NULL", "",
     "of these, longer than the context: no limit counts them"},
    {"feasible", "INTEGER NOT NULL", "", "1 if all limits are kept"},
    {"binding", "TEXT", "", "the limit that is missed most, or nearest to it"},
    {"excess", "REAL", "fraction", "by how much of it; NULL: it cannot be kept"},
    {"latency", "REAL", "fraction or s",
     "of the front: of the limited latencies the one nearest to its limit, as a share of that; if "
     "none is limited, ttft_p99"},
    {"pareto", "INTEGER NOT NULL", "",
     "1 if all limits are kept at the trace's rate and nothing else that keeps them is at least as "
     "accurate, as cheap and as fast, and better in one; of each configuration with its least "
     "replicas to twice as many, at most 8 more"},
    {.name = NULL}};

static const kv_column case_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "from 0, the case that plan_choice shows"},
    {"name", "TEXT NOT NULL", "", "what is different"},
    {"choice_id", "INTEGER REFERENCES plan_choice(id)", "", "the cheapest then; NULL: none is"},
    {"replicas", "INTEGER", "", "that it takes"},
    {"devices", "INTEGER", "", "of all replicas"},
    {"cost_per_hour", "REAL", "", "of all devices"},
    {.name = NULL}};

const kv_table kv__plan_tables[] = {
    {.name = "plan_choice",
     .help = "The configurations of a plan: what each takes and why it is, or is not, the answer.",
     .column = choice_columns,
     .rest = "UNIQUE (run_id, number)"},
    {.name = "plan_limit",
     .help = "What a plan must keep, and what could be kept where nothing keeps all.",
     .column = limit_columns,
     .rest = "PRIMARY KEY (run_id, number)"},
    {.name = "plan_point",
     .help = "Every simulation that a plan made.",
     .column = point_columns,
     .rest = "PRIMARY KEY (choice_id, replicas, rate_factor, blocks_factor)"},
    {.name = "plan_case",
     .help = "How the answer changes with what is not known exactly.",
     .column = case_columns,
     .rest = "PRIMARY KEY (run_id, number)"},
    {.name = NULL}};
