/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The main path of the attention replay: layer by layer, position by position, all lanes at once.
 */
#include "config.h"

#include "sim/base/kernels.h"
#include "sim/replay/lane.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const float *kv_view_row(const kv_view *view, int query_head, int position)
{
    int row = kv_example_row(view->example, position);
    return row < 0 ? NULL : kv_layer_row(view->source, query_head, row, view->row_scratch);
}

const float *kv_view_query(const kv_view *view, int query_head, int position)
{
    int row = kv_example_row(view->example, position);
    return row < 0 ? NULL : kv_layer_query(view->source, query_head, row);
}

/* FNV-1a over the seed and what names the example, so that a draw depends on nothing else. */
static uint64_t stream_of(uint64_t seed, const kv_example *example)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (int byte = 0; byte < 8; byte++)
        hash = (hash ^ (seed >> (8 * byte) & 255)) * UINT64_C(1099511628211);
    for (const char *c = example->task; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    for (const char *c = example->name; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    return hash;
}

/* --- Setting up ----------------------------------------------------------------------------------
 */

enum { LINE_FLOATS = 16 }; /* of a cache line: rows that begin on one are written faster */

static kv_err stage_buffers(kv__stage *stage, kv_diag *diag)
{
    const kv_shape *shape = &stage->replay->shape;
    size_t heads = (size_t)shape->heads, tokens = (size_t)stage->example->total_tokens;
    size_t samples =
        (size_t)(stage->answers / stage->sample_stride + 1) * heads * (size_t)shape->layers;
    stage->row = calloc(heads, sizeof *stage->row);
    stage->row_stride = (tokens + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    stage->row_scratch =
        aligned_alloc(LINE_FLOATS * sizeof(float), heads * stage->row_stride * sizeof(float));
    stage->view.row_scratch = malloc(tokens * sizeof(float));
    stage->view.work =
        malloc(KV_WORK_DOUBLES * (tokens + (size_t)shape->head_dim) * sizeof(double));
    stage->value = calloc((size_t)shape->kv_heads, sizeof *stage->value);
    stage->full_output = calloc(heads * (size_t)shape->head_dim, sizeof(double));
    stage->full_norm = calloc(heads, sizeof(double));
    stage->full_mass = calloc(heads, sizeof(double));
    stage->full_sinks = calloc(heads, sizeof(double));
    stage->head_evidence = calloc(heads, sizeof(double));
    stage->head_weight = calloc(heads, sizeof(double));
    stage->value_mean = calloc((size_t)shape->kv_heads * (size_t)shape->head_dim, sizeof(double));
    stage->square = calloc(heads, sizeof *stage->square);
    stage->squares = malloc(heads * tokens * sizeof(float));
    for (size_t h = 0; stage->square && stage->squares && h < heads; h++)
        stage->square[h] = stage->squares + h * tokens;
    stage->watched = malloc((tokens + 1) * sizeof *stage->watched);
    stage->view.anchor =
        calloc((3 + (size_t)shape->head_dim) * (size_t)shape->head_dim, sizeof(double));
    stage->alive_output = calloc((size_t)shape->head_dim, sizeof(double));
    stage->samples = malloc(samples * sizeof(double));
    if (!stage->row || !stage->row_scratch || !stage->view.row_scratch || !stage->view.work ||
        !stage->value || !stage->full_output || !stage->full_norm || !stage->full_mass ||
        !stage->full_sinks || !stage->alive_output || !stage->samples || !stage->head_evidence ||
        !stage->head_weight || !stage->value_mean || !stage->square || !stage->squares ||
        !stage->view.anchor || !stage->watched)
        return kv_fail_memory(diag);
    return kv__scratch_new(shape->kv_heads, stage->example->total_tokens, &stage->scratch, diag);
}

/* Chooses the prompt's rows at which lanes that read sparsely in prefill are measured: all that are
 * recorded, or evenly spaced ones. */
static kv_err probe_rows(kv__stage *stage, kv_diag *diag)
{
    enum { MOST_PROBES = 64 };
    const kv_example *example = stage->example;
    bool wants = false;
    for (int g = 0; g < stage->replay->groups; g++)
        wants = wants || kv__parts_read_prefill(&stage->replay->group[g]);
    if (!wants)
        return KV_OK;
    stage->probed = calloc((size_t)example->rows + 1, 1);
    if (stage->probed == NULL)
        return kv_fail_memory(diag);
    int rows = 0;
    while (rows < example->rows && example->query_pos[rows] < example->prompt_tokens)
        rows++;
    for (int i = 0; i < MOST_PROBES && i < rows; i++) {
        int row = rows <= MOST_PROBES ? i : (int)((long long)(i + 1) * rows / MOST_PROBES) - 1;
        stage->probed[row] = stage->wanted[row] = 1;
    }
    return KV_OK;
}

/* seen: of the example, as kv__shared_example has it. */
static kv_err stage_init(kv__stage *stage, const kv_replay *replay, kv_attention *trace,
                         int example, const kv_example *seen, kv_diag *diag)
{
    memset(stage, 0, sizeof *stage);
    stage->replay = replay;
    stage->seen = *seen;
    stage->example = &stage->seen;
    stage->path = kv_attention_path(trace);
    stage->trace = trace;
    stage->example_index = example;
    stage->view.shape = &replay->shape;
    stage->view.example = stage->example;
    stage->view.stream = stream_of(replay->options.seed, stage->example);
    stage->wanted = calloc((size_t)stage->example->rows + 1, 1);
    if (stage->wanted == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__replay_wanted(replay, trace, stage->example, stage->wanted, diag);
    if (err == KV_OK)
        err = probe_rows(stage, diag);
    if (err == KV_OK)
        err = kv__stage_answers(stage, diag);
    if (err == KV_OK)
        err = stage_buffers(stage, diag);
    if (err == KV_OK)
        err = kv_layer_new(trace, example, &stage->source, diag);
    stage->view.source = stage->source;
    return err;
}

static void stage_fini(kv__stage *stage)
{
    kv_layer_free(stage->source);
    kv__scratch_free(stage->scratch);
    free(stage->wanted);
    free(stage->probed);
    free(stage->row);
    free(stage->row_scratch);
    free(stage->view.row_scratch);
    free(stage->view.work);
    free(stage->value);
    free(stage->full_output);
    free(stage->full_norm);
    free(stage->full_mass);
    free(stage->full_sinks);
    free(stage->alive_output);
    free(stage->samples);
    free(stage->head_evidence);
    free(stage->head_weight);
    free(stage->value_mean);
    free(stage->square);
    free(stage->squares);
    free(stage->view.anchor);
    free(stage->watched);
    free(stage->evidence_output);
    free(stage->answer);
    free(stage->evidence_full);
    free(stage->evidence_first);
    free(stage->span_mass);
}

static kv_err result_init(const kv_replay *replay, const kv_example *example, bool keep_sets,
                          kv_replay_result *result, kv_diag *diag)
{
    size_t points = (size_t)replay->points;
    size_t sets = points * (size_t)replay->shape.layers * (size_t)replay->shape.kv_heads;
    memset(result, 0, sizeof *result);
    result->points = replay->points;
    result->turns = example->turns;
    result->layers = replay->shape.layers;
    result->kv_heads = replay->shape.kv_heads;
    result->record = calloc(points * (size_t)(1 + example->turns), sizeof *result->record);
    if (keep_sets)
        result->retained = calloc(sets, sizeof *result->retained);
    if (result->record == NULL || (keep_sets && result->retained == NULL))
        return kv_fail_memory(diag);
    return KV_OK;
}

void kv_replay_result_fini(kv_replay_result *result)
{
    size_t sets = (size_t)result->points * (size_t)result->layers * (size_t)result->kv_heads;
    for (size_t i = 0; result->retained != NULL && i < sets; i++)
        free(result->retained[i].position);
    free(result->retained);
    free(result->record);
    memset(result, 0, sizeof *result);
}

/* --- One layer --------------------------------------------------------------------- */

static unsigned wants(const kv_replay *replay, const kv_example *example)
{
    unsigned want = KV_WANT_ROWS | (example->has_v ? KV_WANT_VALUES : 0);
    for (int g = 0; g < replay->groups; g++) {
        unsigned needs = kv__group_needs(&replay->group[g]);
        want |= needs & KV_NEEDS_KEYS ? KV_WANT_KEYS : 0;
        want |= needs & KV_NEEDS_QUERIES ? KV_WANT_QUERIES : 0;
        for (int id = 0; id < KV_EXTRAS; id++)
            want |= needs & KV_NEEDS_EXTRA << id ? KV_WANT_EXTRA << id : 0;
    }
    return want;
}

/* The first number below 0 of a row; -0 is none. */
static int first_negative(const float *row, int keys)
{
    int j = 0;
    while (j < keys && row[j] >= 0)
        j++;
    return j;
}

/* A recorded row must be a softmax: one that is not would end in plausible numbers. */
static kv_err check_row(const kv__stage *stage, int head, int row, const kv_row_check *check,
                        kv_diag *diag)
{
    int position = stage->example->query_pos[row];
    bool is_one = fabs((double)check->sum - 1) <= 0.02; /* NaN is not */
    int negative = check->signs ? first_negative(stage->row[head], position + 1) : position + 1;
    kv_mark mark = {.path = stage->path};
    if (is_one && negative > position)
        return KV_OK;
    if (is_one)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "/examples/%s[layer %d, head %d, row of position %d, key %d]: the "
                       "probability is %g, expected 0 to 1",
                       stage->example->name, stage->view.layer, head, position, negative,
                       (double)stage->row[head][negative]);
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "/examples/%s[layer %d, head %d, row of position %d]: probabilities sum to %g, "
                   "expected 1; `kvsim trace verify` finds the first wrong number",
                   stage->example->name, stage->view.layer, head, position, (double)check->sum);
}

static kv_err fetch_rows(kv__stage *stage, int row, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int h = 0; h < stage->replay->shape.heads && err == KV_OK; h++) {
        float *scratch = stage->row_scratch + (size_t)h * stage->row_stride;
        kv_row_check check;
        stage->row[h] = kv_layer_row_checked(stage->source, h, row, scratch, &check);
        err = check_row(stage, h, row, &check, diag);
    }
    return err;
}

/* The answer row at a position: answers ascend, so the caller's cursor only moves forward. */
static int next_answer(const kv__stage *stage, int position, int *cursor)
{
    while (*cursor < stage->answers && stage->answer[*cursor].position < position)
        (*cursor)++;
    bool here = *cursor < stage->answers && stage->answer[*cursor].position == position;
    return here ? *cursor : -1;
}

static int compare_positions(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* What a head holds at a budget once all tokens before `end` are in, ascending. out holds N. */
static int list_present(const kv__lane_head *head, int budget, int end, int32_t *out)
{
    int n = 0;
    for (int level = 0; level <= budget; level++)
        for (int i = 0; i < head->level[level].count; i++)
            if (head->level[level].at[i] < end) /* a compressed prompt is listed a step ahead */
                out[n++] = head->level[level].at[i];
    for (int p = head->tail_first; p < end; p++)
        out[n++] = p;
    qsort(out, (size_t)n, sizeof *out, compare_positions);
    return n;
}

static kv_err copy_retained(const kv__lane_head *head, int budget, int prompt, kv_retained *out,
                            kv_diag *diag)
{
    size_t n = (size_t)kv__lane_past(head, budget, prompt);
    out->position = malloc((n + 1) * sizeof *out->position);
    if (out->position == NULL)
        return kv_fail_memory(diag);
    out->count = list_present(head, budget, prompt, out->position);
    return KV_OK;
}

static kv_err capture(const kv__lane *lane, const kv__stage *stage, kv_replay_result *result,
                      kv_diag *diag)
{
    kv_err err = KV_OK;
    if (!stage->prompt_only && !stage->replay->options.keep_sets &&
        (lane->group->policy->claims & KV_COUNTS_FIXED) != 0)
        return KV_OK;
    for (int b = 0; b < lane->group->budgets; b++)
        for (int h = 0; h < result->kv_heads && err == KV_OK; h++) {
            size_t at = ((size_t)lane->group->point[b] * (size_t)result->layers +
                         (size_t)stage->view.layer) *
                            (size_t)result->kv_heads +
                        (size_t)h;
            err = copy_retained(&lane->head[h], b, stage->example->prompt_tokens,
                                &result->retained[at], diag);
        }
    return err;
}

static void watch(const kv__lane *lane, kv__stage *stage, int start, int end)
{
    const kv_replay_options *options = &stage->replay->options;
    int32_t *present = stage->watched;
    for (int b = 0; b < lane->group->budgets; b++)
        for (int h = 0; h < stage->replay->shape.kv_heads; h++) {
            kv_replay_watch event = {.point = lane->group->point[b],
                                     .layer = stage->view.layer,
                                     .kv_head = h,
                                     .step_start = start,
                                     .step_end = end,
                                     .present = present};
            event.presents = list_present(&lane->head[h], b, end, present);
            options->watch(options->watch_closure, &event);
        }
}

static kv_err end_steps(kv__lane *lanes, kv__stage *stage, int position, kv_replay_result *result,
                        kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int g = 0; g < stage->replay->groups && err == KV_OK; g++) {
        if (lanes[g].step_end != position + 1)
            continue;
        int start = lanes[g].step_start;
        err = kv__lane_step_end(&lanes[g], stage, diag);
        if (err == KV_OK && stage->replay->options.watch != NULL)
            watch(&lanes[g], stage, start, position + 1);
        if (err == KV_OK && result->retained && position + 1 == stage->example->prompt_tokens)
            err = capture(&lanes[g], stage, result, diag);
    }
    return err;
}

static void probe(kv__lane *lanes, kv__stage *stage, int position)
{
    for (int g = 0; g < stage->replay->groups; g++)
        if (kv__parts_read_prefill(&stage->replay->group[g]))
            kv__parts_probe(&lanes[g], stage, position);
}

static kv_err run_layer(kv__lane *lanes, kv__stage *stage, int layer, kv_replay_result *result,
                        kv_diag *diag)
{
    const kv_replay *replay = stage->replay;
    kv_err err =
        kv_layer_load(stage->source, layer, wants(replay, stage->example), stage->wanted, diag);
    stage->view.layer = layer;
    for (int h = 0; h < replay->shape.kv_heads; h++)
        stage->value[h] = err == KV_OK ? kv_layer_values(stage->source, h) : NULL;
    if (err == KV_OK)
        kv__measure_layer(stage);
    for (int g = 0; g < replay->groups && err == KV_OK; g++)
        err = kv__lane_start_layer(&lanes[g], stage, diag);
    int cursor = 0;
    int tokens = stage->prompt_only ? stage->example->prompt_tokens : stage->example->total_tokens;
    for (int p = 0; p < tokens && err == KV_OK; p++) {
        int row = kv_example_row(stage->example, p), answer = next_answer(stage, p, &cursor);
        if (row >= 0 && stage->wanted[row])
            err = fetch_rows(stage, row, diag);
        if (err != KV_OK)
            break;
        if (answer >= 0)
            kv__measure_full(stage, answer);
        for (int g = 0; g < replay->groups; g++)
            if (answer >= 0 || (p >= lanes[g].observe_first && p < lanes[g].observe_end))
                kv__lane_row(&lanes[g], stage, p, answer);
        if (row >= 0 && stage->probed != NULL && stage->probed[row])
            probe(lanes, stage, p);
        err = end_steps(lanes, stage, p, result, diag);
    }
    return err;
}

/* --- One example ------------------------------------------------------------------- */

static kv_err run_lanes(kv__lane *lanes, kv__stage *stage, kv_replay_result *result, kv_diag *diag)
{
    const kv_replay *replay = stage->replay;
    kv_err err = KV_OK;
    for (int g = 0; g < replay->groups && err == KV_OK; g++)
        err = kv__lane_init(&lanes[g], &replay->group[g], stage, diag);
    for (int layer = 0; layer < replay->shape.layers && err == KV_OK; layer++)
        err = run_layer(lanes, stage, layer, result, diag);
    for (int g = 0; g < replay->groups && err == KV_OK && !stage->prompt_only; g++)
        for (int b = 0; b < replay->group[g].budgets && err == KV_OK; b++)
            err = kv__measure_finish(&lanes[g], b, stage,
                                     result->record + (size_t)replay->group[g].point[b] *
                                                          (size_t)(1 + result->turns),
                                     diag);
    return err;
}

/* One example, or the prompt of one: then only its sets are of use. given: see kv__stage. */
static kv_err run_example(const kv_replay *replay, kv_attention *trace, int example,
                          const kv_example *seen, const kv_replay_result *given, bool prompt_only,
                          kv_replay_result *out, kv_diag *diag)
{
    kv__stage stage;
    kv_replay_result result = {0};
    kv_err err = stage_init(&stage, replay, trace, example, seen, diag);
    stage.given = given;
    stage.prompt_only = prompt_only;
    kv__lane *lanes = calloc((size_t)replay->groups + 1, sizeof *lanes);
    if (err == KV_OK && lanes == NULL)
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        err = result_init(replay, stage.example,
                          prompt_only || replay->options.keep_sets || replay->options.keep_profiles,
                          &result, diag);
    if (err == KV_OK)
        err = run_lanes(lanes, &stage, &result, diag);
    for (int g = 0; lanes != NULL && g < replay->groups; g++)
        kv__lane_fini(&lanes[g], &replay->shape);
    free(lanes);
    stage_fini(&stage);
    if (err != KV_OK) {
        kv_replay_result_fini(&result);
        return err;
    }
    *out = result;
    return KV_OK;
}

kv_err kv_replay_example(const kv_replay *replay, kv_attention *trace, int example,
                         kv_replay_result *out, kv_diag *diag)
{
    kv_example seen;
    kv_replay_result given = {0};
    int leader;
    kv_err err = kv__shared_example(replay, trace, example, &seen, &leader, diag);
    bool shares = err == KV_OK && leader != example;
    if (shares)
        err = run_example(replay, trace, leader, kv_attention_example(trace, leader), NULL, true,
                          &given, diag);
    if (err == KV_OK)
        err = run_example(replay, trace, example, &seen, shares ? &given : NULL, false, out, diag);
    kv_replay_result_fini(&given);
    return err;
}
