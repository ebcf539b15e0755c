/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Section `attention` of an experiment. */
#include "config.h"

#include "sim/experiment.h"
#include "sim/grid.h"
#include "sim/oracle.h"
#include "sim/replay/replay.h"

#include <math.h>
#include <stdlib.h>

#define AT(field) offsetof(kv_attention_config, field)

static const kv_param critical_params[] = {
    {"threshold", KV_REAL, AT(critical.threshold) - AT(critical), "0.9", 0, 1, NULL,
     KV_PARAM_OPEN_MIN, "fraction", "share of the full accuracy that must remain"},
    {"confidence", KV_REAL, AT(critical.confidence) - AT(critical), "0.95", 0, 0.9999, NULL,
     KV_PARAM_OPEN_MIN, "fraction", "confidence of the intervals"},
    {"resamples", KV_INT, AT(critical.resamples) - AT(critical), "1000", 1, 1000000, NULL, 0, "",
     "bootstrap resamples of the examples"},
    {.name = NULL}};
static const kv_section critical = {
    .name = "critical",
    .help = "How critical footprints and their intervals are found",
    .offset = AT(critical),
    .params = critical_params,
};

static const kv_param calibration_params[] = {
    {"file", KV_PATH, AT(calibration.file) - AT(calibration), NULL, 0, 0, NULL, KV_PARAM_REQUIRED,
     "", "CSV with the columns task, policy, chunk_size, accuracy; turn and n are optional"},
    {.name = NULL}};
static const kv_field calibration_fields[] = {
    {"traces", KV_FIELD_FILES, AT(calibration.traces) - AT(calibration), false,
     "recorded attention of the measured tasks; the experiment's traces if not given"},
    {.name = NULL}};
static const kv_section calibration = {
    .name = "calibration",
    .help = "Measured accuracy that predictions are fitted to",
    .offset = AT(calibration),
    .params = calibration_params,
    .fields = calibration_fields,
};

static const kv_param step_time_params[] = {
    {"prefill_token", KV_DURATION, AT(step_time.prefill_token_ns) - AT(step_time), NULL, 0,
     INFINITY, NULL, KV_PARAM_REQUIRED | KV_PARAM_OPEN_MIN, "", "time that one prompt token takes"},
    {"decode", KV_DURATION, AT(step_time.decode_ns) - AT(step_time), NULL, 0, INFINITY, NULL,
     KV_PARAM_REQUIRED | KV_PARAM_OPEN_MIN, "", "time that one decode step takes"},
    {.name = NULL}};
static const kv_section step_time = {
    .name = "step_time",
    .help = "Times for byte-seconds; a second per token if not given",
    .offset = AT(step_time),
    .params = step_time_params,
};

static const kv_param rank_params[] = {
    {"footprint", KV_REAL, AT(rank.kv_footprint) - AT(rank), NULL, 0, 1, NULL,
     KV_PARAM_REQUIRED | KV_PARAM_OPEN_MIN, "fraction",
     "KV footprint at which the run's policies are ranked by accuracy, in place of the summary"},
    {.name = NULL}};
static const kv_section rank = {
    .name = "rank",
    .help = "One table of all policies at the same footprint at the end of a run",
    .offset = AT(rank),
    .params = rank_params,
};

static const char *const footprint_models[] = {"simulated", "analytic", NULL};
static const char *const compress_with[] = {[KV_COMPRESS_WITH_FIRST_QUESTION] = "first_question",
                                            [KV_COMPRESS_WITH_CONTEXT] = "context",
                                            NULL};
static const kv_param params[] = {
    {"compress_with", KV_CHOICE, AT(compress_with), "first_question", 0, 0, compress_with, 0, "",
     "what a policy sees when it compresses a shared context: its first question, or none"},
    {"footprint_model", KV_CHOICE, AT(footprint_model), "simulated", 0, 0, footprint_models, 0, "",
     "whether footprints are counted in the replay or computed from lengths"},
    {"keep_sets", KV_BOOL, AT(keep_sets), "false", 0, 0, NULL, 0, "",
     "whether to record which entries are retained after the prompt"},
    {"oracle", KV_BOOL, AT(oracle), "true", 0, 0, NULL, 0, "",
     "whether to add exact top-k at the amounts of the others, the bound to read their curves by"},
    {"page_size", KV_INT, AT(page_tokens), "16", 1, 1 << 20, NULL, 0, "tokens",
     "page of the page-granular measures"},
    {"skip_refused", KV_BOOL, AT(skip_refused), "false", 0, 0, NULL, 0, "",
     "whether to leave out, and name, the policies that the traces lack something for"},
    {.name = NULL}};
static const kv_field fields[] = {
    {"traces", KV_FIELD_FILES, AT(traces), true, "files of recorded attention; globs work"},
    {"tasks", KV_FIELD_TEXTS, AT(tasks), false, "tasks to replay; all if not given"},
    {"policies", KV_FIELD_POLICIES, AT(points), true,
     "retention policies; lists of values make a grid"},
    {"chunk_size", KV_FIELD_CHUNKS, AT(chunk_sizes), false,
     "tokens prefilled in one step, or whole; a policy may give its own"},
    {.name = NULL}};
static const kv_section *const sections[] = {&critical, &calibration, &step_time, &rank, NULL};

/* The policies' grid times the chunk sizes, for those that do not give their own. */
static kv_err cross(const kv_point_list *policies, const kv_chunks *chunks, kv_point_list *out,
                    kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int p = 0; p < policies->count && err == KV_OK; p++) {
        const kv_point_spec *point = &policies->point[p];
        if (out->count > KV_GRID_MOST)
            return kv_fail(diag, KV_ERR_INPUT, &point->mark,
                           "policies times chunk sizes are more than %d points; expected fewer",
                           KV_GRID_MOST);
        if (point->chunk_tokens != KV_CHUNK_NOT_GIVEN)
            err = kv_point_list_add(out, point, point->chunk_tokens, diag);
        else
            for (int c = 0; c < chunks->count && err == KV_OK; c++)
                err = kv_point_list_add(out, point, chunks->tokens[c], diag);
    }
    return err;
}

static kv_err finish(void *config, const kv_node *map, kv_diag *diag)
{
    kv_attention_config *attention = config;
    if (attention->chunk_sizes.count == 0) {
        attention->chunk_sizes.tokens = calloc(1, sizeof(long long));
        if (attention->chunk_sizes.tokens == NULL)
            return kv_fail_memory(diag);
        attention->chunk_sizes.count = 1;
    }
    kv_point_list points = {0};
    kv_err err = cross(&attention->points, &attention->chunk_sizes, &points, diag);
    if (err == KV_OK && attention->oracle)
        err = kv_oracle_add(&points, kv_node_find(map, "oracle") != NULL, diag);
    if (err == KV_OK)
        err = kv_point_list_unique(&points, diag);
    if (err != KV_OK) {
        kv_point_list_fini(&points);
        return err;
    }
    kv_point_list_fini(&attention->points);
    attention->points = points;
    return KV_OK;
}

const kv_section kv__section_attention = {
    .name = "attention",
    .help = "Replay of recorded attention: footprint against accuracy",
    .offset = offsetof(kv_experiment, attention),
    .given_offset = offsetof(kv_experiment, has_attention),
    .params = params,
    .fields = fields,
    .sections = sections,
    .finish = finish,
};
