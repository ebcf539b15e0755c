/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What an answer row loses: recall, evidence and output error, gathered over layers and heads.
 *
 * Two measures feed the calibrated accuracy (docs/calibration.md). Heads weigh by what the
 * recording says they do for the answer: m, the row's full attention on the turn's evidence, times
 * the size of the output o, counted from the mean value so that a head that reads nothing weighs
 * nothing. evidence_output  1 - sum m min(|o - o'|, |o|) / sum m |o| query_intact     mean over
 * layers, with weights sum_h m |o|, of the least share of squared probabilities that the row keeps
 * in any layer below: a row that has lost what it looked at no longer carries its query to where
 * the evidence is read. */
#include "config.h"

#include "policies/counts.h"
#include "sim/base/kernels.h"
#include "sim/replay/lane.h"

#include <gsl/gsl_statistics_double.h>
#include <gsl/gsl_sort.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- The rows to look at ------------------------------------------------------------------------
 */

static int count_answers(const kv_example *example)
{
    int rows = 0;
    for (int t = 0; t < example->turns; t++)
        rows += example->turn[t].answer_end - example->turn[t].answer_start;
    return rows;
}

static kv_err list_evidence(kv__stage *stage, kv_diag *diag)
{
    const kv_example *example = stage->example;
    size_t heads = (size_t)stage->replay->shape.layers * stage->replay->shape.kv_heads;
    stage->evidence_first = malloc((size_t)(example->evidences + 1) * sizeof(int));
    stage->span_mass = calloc((size_t)example->evidences * heads + 1, sizeof(double));
    if (stage->evidence_first == NULL || stage->span_mass == NULL)
        return kv_fail_memory(diag);
    stage->evidence_tokens = 0;
    for (int e = 0; e < example->evidences; e++) {
        stage->evidence_first[e] = stage->evidence_tokens;
        stage->evidence_tokens += example->evidence[e].end - example->evidence[e].start;
    }
    return KV_OK;
}

kv_err kv__stage_answers(kv__stage *stage, kv_diag *diag)
{
    const kv_example *example = stage->example;
    const kv_shape *shape = &stage->replay->shape;
    stage->answers = 0;
    int rows = count_answers(example);
    stage->answer = malloc((size_t)(rows + 1) * sizeof *stage->answer);
    stage->evidence_full = calloc((size_t)rows + 1, sizeof(double));
    stage->evidence_output = calloc((size_t)rows + 1, sizeof(double));
    if (!stage->answer || !stage->evidence_full || !stage->evidence_output)
        return kv_fail_memory(diag);
    for (int t = 0; t < example->turns; t++) {
        const kv_turn *turn = &example->turn[t];
        for (int p = turn->answer_start; p < turn->answer_end; p++)
            stage->answer[stage->answers++] =
                (kv__answer_row){p - 1, t, p == turn->answer_start, p + 1 == turn->answer_end};
    }
    long long samples = (long long)rows * shape->layers * shape->heads;
    stage->sample_stride = (int)((samples + KV__MAX_SAMPLES - 1) / KV__MAX_SAMPLES);
    if (stage->sample_stride == 0)
        stage->sample_stride = 1;
    return list_evidence(stage, diag);
}

kv_err kv__tally_init(kv__tally *tally, const kv__stage *stage, kv_diag *diag)
{
    const kv_example *example = stage->example;
    const kv_shape *shape = &stage->replay->shape;
    size_t rows = (size_t)stage->answers + 1, heads = (size_t)shape->layers * shape->heads;
    size_t kv_heads = (size_t)shape->layers * shape->kv_heads;
    memset(tally, 0, sizeof *tally);
    tally->row_recall = calloc(rows, sizeof(double));
    tally->row_no_sinks = calloc(rows, sizeof(double));
    tally->row_error = calloc(rows, sizeof(double));
    tally->evidence_mass = calloc(rows, sizeof(double));
    tally->evidence_loss = calloc(rows, sizeof(double));
    tally->query_intact = calloc(rows, sizeof(double));
    tally->least_intact = malloc(rows * sizeof(double));
    tally->head_recall = calloc((size_t)(1 + example->turns) * heads, sizeof(double));
    tally->sample = calloc((rows / (size_t)stage->sample_stride + 1) * heads, sizeof(float));
    tally->evidence_alive = calloc((size_t)example->turns + 1, sizeof(double));
    tally->token_anywhere = calloc((size_t)stage->evidence_tokens + 1, 1);
    tally->span_whole = calloc((size_t)example->evidences * kv_heads + 1, 1);
    tally->row_reads = calloc(rows, sizeof(double));
    tally->row_read_bytes = calloc(rows, sizeof(double));
    tally->row_fetched = calloc(rows, sizeof(double));
    if (!tally->row_recall || !tally->row_no_sinks || !tally->row_error || !tally->evidence_mass ||
        !tally->evidence_loss || !tally->query_intact || !tally->least_intact ||
        !tally->head_recall || !tally->sample || !tally->evidence_alive || !tally->token_anywhere ||
        !tally->span_whole || !tally->row_reads || !tally->row_read_bytes || !tally->row_fetched)
        return kv_fail_memory(diag);
    for (size_t a = 0; a < rows; a++)
        tally->least_intact[a] = 1;
    return KV_OK;
}

void kv__tally_fini(kv__tally *tally)
{
    free(tally->row_recall);
    free(tally->row_no_sinks);
    free(tally->row_error);
    free(tally->evidence_mass);
    free(tally->evidence_loss);
    free(tally->query_intact);
    free(tally->least_intact);
    free(tally->head_recall);
    free(tally->sample);
    free(tally->evidence_alive);
    free(tally->token_anywhere);
    free(tally->span_whole);
    free(tally->row_reads);
    free(tally->row_read_bytes);
    free(tally->row_fetched);
}

/* --- The full row, once for all lanes ------------------------------------------------------------
 */

static double span_sum(const float *row, const kv_evidence *span, int position)
{
    int end = span->end < position + 1 ? span->end : position + 1;
    return end > span->start ? kv__kernels()->sum(row + span->start, (size_t)(end - span->start))
                             : 0;
}

/* Attention of one head on the turn's evidence. */
static double full_evidence(kv__stage *stage, int answer, int head)
{
    const kv_shape *shape = &stage->replay->shape;
    const kv__answer_row *a = &stage->answer[answer];
    int kv_head = head / (shape->heads / shape->kv_heads);
    double sum = 0;
    for (int e = 0; e < stage->example->evidences; e++) {
        const kv_evidence *span = &stage->example->evidence[e];
        if (span->turn != a->turn)
            continue;
        double mass = span_sum(stage->row[head], span, a->position);
        sum += mass;
        stage->span_mass[(e * shape->layers + stage->view.layer) * shape->kv_heads + kv_head] +=
            mass;
    }
    return sum;
}

/* Euclidean length of x - y, y NULL: of x. */
static double distance(const double *x, const double *y, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++) {
        double difference = x[d] - (y ? y[d] : 0);
        sum += difference * difference;
    }
    return sqrt(sum);
}

/* Output of one head over all keys, its length, and its length counted from the mean value. */
static double full_output(kv__stage *stage, int head, const float *value, size_t tokens)
{
    const kv_shape *shape = &stage->replay->shape;
    size_t width = (size_t)shape->head_dim;
    double *out = stage->full_output + (size_t)head * width;
    memset(out, 0, width * sizeof *out);
    kv__kernels()->mix(out, stage->row[head], value, tokens, width);
    for (size_t d = 0; d < width; d++)
        out[d] /= stage->full_mass[head];
    stage->full_norm[head] = distance(out, NULL, (int)width);
    int kv_head = head / (shape->heads / shape->kv_heads);
    return distance(out, stage->value_mean + (size_t)kv_head * width, (int)width);
}

static double square_row(const float *row, float *square, size_t tokens)
{
    for (size_t j = 0; j < tokens; j++)
        square[j] = row[j] * row[j];
    return kv__kernels()->sum(square, tokens);
}

void kv__measure_full(kv__stage *stage, int answer)
{
    const kv_shape *shape = &stage->replay->shape;
    int group = shape->heads / shape->kv_heads;
    size_t tokens = (size_t)stage->answer[answer].position + 1;
    stage->square_sum = 0;
    for (int h = 0; h < shape->heads; h++) {
        const float *row = stage->row[h], *value = stage->value[h / group];
        double evidence = full_evidence(stage, answer, h);
        stage->full_mass[h] = kv__kernels()->sum(row, tokens);
        stage->full_sinks[h] = kv__kernels()->sum(row, tokens < KV__SINKS ? tokens : KV__SINKS);
        stage->square_sum += square_row(row, stage->square[h], tokens);
        double size = value ? full_output(stage, h, value, tokens) : evidence;
        stage->head_evidence[h] = evidence;
        stage->head_weight[h] = evidence * size;
        stage->evidence_full[answer] += evidence;
        stage->evidence_output[answer] += evidence * size;
    }
}

void kv__measure_layer(kv__stage *stage)
{
    const kv_shape *shape = &stage->replay->shape;
    int tokens = stage->example->total_tokens, width = shape->head_dim;
    for (int h = 0; h < shape->kv_heads && stage->value[h] != NULL; h++) {
        double *mean = stage->value_mean + (size_t)h * (size_t)width;
        memset(mean, 0, (size_t)width * sizeof *mean);
        for (int j = 0; j < tokens; j++)
            for (int d = 0; d < width; d++)
                mean[d] += stage->value[h][(size_t)j * (size_t)width + (size_t)d];
        for (int d = 0; d < width; d++)
            mean[d] /= tokens;
    }
}

/* --- One lane's answer row --------------------------------------------------------- */

static bool is_alive(const kv__lane_head *head, int token, int budget)
{
    return token >= head->tail_first || head->level_of[token] <= budget;
}

static double alive_sinks(const kv__lane_head *head, const float *row, int position, int budget)
{
    double mass = 0;
    for (int j = 0; j < KV__SINKS && j <= position; j++)
        mass += is_alive(head, j, budget) ? row[j] : 0;
    return mass;
}

static double alive_evidence(const kv__stage *stage, const kv__lane_head *head, const float *row,
                             int answer, int budget)
{
    const kv_example *example = stage->example;
    double mass = 0;
    for (int e = 0; e < example->evidences; e++) {
        const kv_evidence *span = &example->evidence[e];
        if (span->turn != stage->answer[answer].turn)
            continue;
        for (int j = span->start; j < span->end && j <= stage->answer[answer].position; j++)
            mass += is_alive(head, j, budget) ? row[j] : 0;
    }
    return mass;
}

/* |o' - o| of the output over what is alive; with nothing alive there is no output. */
static double output_distance(const double *alive, double mass, const double *full, int width)
{
    double sum = 0;
    for (int d = 0; d < width; d++) {
        double difference = (mass > 0 ? alive[d] / mass : 0) - full[d];
        sum += difference * difference;
    }
    return sqrt(sum);
}

static void tally_recall(kv__tally *tally, const kv__stage *stage, int answer, int head,
                         double recall, double no_sinks)
{
    const kv_shape *shape = &stage->replay->shape;
    int heads = shape->layers * shape->heads, slot = stage->view.layer * shape->heads + head;
    tally->row_recall[answer] += recall;
    tally->row_no_sinks[answer] += no_sinks;
    tally->head_recall[slot] += recall;
    tally->head_recall[(1 + stage->answer[answer].turn) * heads + slot] += recall;
    if (answer % stage->sample_stride == 0)
        tally->sample[(size_t)(answer / stage->sample_stride) * heads + slot] = (float)recall;
}

void kv__measure_alive(const kv__stage *stage, int answer, int query_head, const uint8_t *alive,
                       kv__row_measure *out)
{
    const kv_example *example = stage->example;
    const kv__answer_row *a = &stage->answer[answer];
    const float *row = stage->row[query_head];
    for (int j = 0; j < KV__SINKS && j <= a->position; j++)
        out->sinks += alive[j] ? row[j] : 0;
    for (int e = 0; e < example->evidences; e++) {
        const kv_evidence *span = &example->evidence[e];
        for (int j = span->start; span->turn == a->turn && j < span->end && j <= a->position; j++)
            out->evidence += alive[j] ? row[j] : 0;
    }
}

void kv__measure_head(const kv__lane *lane, const kv__stage *stage, int answer, int query_head,
                      int budget, const kv__row_measure *m)
{
    const kv_shape *shape = &stage->replay->shape;
    int kv_head = query_head / (shape->heads / shape->kv_heads), width = shape->head_dim;
    kv__tally *tally = &lane->tally[budget];
    double beyond = stage->full_mass[query_head] - stage->full_sinks[query_head];
    double full_evidence = stage->head_evidence[query_head];
    tally_recall(tally, stage, answer, query_head, m->mass,
                 beyond > 0 ? (m->mass - m->sinks) / beyond : 1);
    tally->evidence_mass[answer] += m->evidence;
    if (stage->value[kv_head] == NULL) {
        double kept = m->mass > 0 ? m->evidence / m->mass : 0;
        tally->evidence_loss[answer] += full_evidence * (full_evidence - fmin(kept, full_evidence));
        return;
    }
    double error = output_distance(m->out, m->out_mass,
                                   stage->full_output + (size_t)query_head * width, width);
    double norm = stage->full_norm[query_head], weight = stage->head_weight[query_head];
    tally->row_error[answer] += norm > 0 ? error / norm : 0;
    tally->evidence_loss[answer] += fmin(full_evidence * error, weight);
}

/* One query head of one row at one budget. mass: alive; out: sum of alive values. */
static void measure_budget(const kv__lane *lane, const kv__stage *stage, int answer, int query_head,
                           int budget, double mass, const double *out)
{
    const kv_shape *shape = &stage->replay->shape;
    const kv__lane_head *head = &lane->head[query_head / (shape->heads / shape->kv_heads)];
    const float *row = stage->row[query_head];
    kv__row_measure m = {.mass = mass,
                         .sinks = alive_sinks(head, row, stage->answer[answer].position, budget),
                         .evidence = alive_evidence(stage, head, row, answer, budget),
                         .out = out,
                         .out_mass = mass};
    kv__measure_head(lane, stage, answer, query_head, budget, &m);
}

/* One query head of one row, for all budgets: sums grow from the smallest budget to the largest.
 * squares[b] += the alive squared probabilities. */
static void measure_head(kv__lane *lane, kv__stage *stage, int answer, int query_head,
                         double *squares)
{
    const kv_shape *shape = &stage->replay->shape;
    const kv_kernels *k = kv__kernels();
    int kv_head = query_head / (shape->heads / shape->kv_heads);
    size_t width = (size_t)shape->head_dim, tail = (size_t)lane->head[kv_head].tail_first;
    const float *row = stage->row[query_head], *square = stage->square[query_head];
    const float *value = stage->value[kv_head];
    size_t tail_tokens = (size_t)stage->answer[answer].position + 1 - tail;
    double *out = stage->alive_output;
    double mass = k->sum(row + tail, tail_tokens), square_mass = k->sum(square + tail, tail_tokens);
    memset(out, 0, width * sizeof *out);
    if (value != NULL)
        k->mix(out, row + tail, value + tail * width, tail_tokens, width);
    for (int b = 0; b < lane->group->budgets; b++) {
        const kv__list *kept = &lane->head[kv_head].level[b];
        mass += k->sum_at(row, kept->at, (size_t)kept->count);
        square_mass += k->sum_at(square, kept->at, (size_t)kept->count);
        if (value != NULL)
            k->mix_at(out, row, value, kept->at, (size_t)kept->count, width);
        squares[b] += square_mass;
        measure_budget(lane, stage, answer, query_head, b, mass, out);
    }
}

/* Carries the row's intactness one layer up: this layer's weight counts what is below it. */
static void measure_intact(kv__lane *lane, const kv__stage *stage, int answer,
                           const double *squares)
{
    double weight = 0;
    for (int h = 0; h < stage->replay->shape.heads; h++)
        weight += stage->head_weight[h];
    for (int b = 0; b < lane->group->budgets; b++) {
        kv__tally *tally = &lane->tally[b];
        double share = stage->square_sum > 0 ? squares[b] / stage->square_sum : 1;
        tally->query_intact[answer] += weight * tally->least_intact[answer];
        tally->least_intact[answer] = fmin(tally->least_intact[answer], share);
    }
}

/* Which evidence tokens and spans are left in a KV head when the turn's last answer row attends. */
static void measure_spans(kv__lane *lane, const kv__stage *stage, int turn, int kv_head, int budget)
{
    const kv_shape *shape = &stage->replay->shape;
    kv__tally *tally = &lane->tally[budget];
    for (int e = 0; e < stage->example->evidences; e++) {
        const kv_evidence *span = &stage->example->evidence[e];
        if (span->turn != turn)
            continue;
        int alive = 0;
        for (int j = span->start; j < span->end; j++) {
            if (!is_alive(&lane->head[kv_head], j, budget))
                continue;
            alive++;
            tally->token_anywhere[stage->evidence_first[e] + j - span->start] = 1;
        }
        tally->evidence_alive[turn] += alive;
        tally->span_whole[(e * shape->layers + stage->view.layer) * shape->kv_heads + kv_head] =
            alive == span->end - span->start;
    }
}

/* All query heads of one row, which read all that is present. */
static void measure_rows(kv__lane *lane, kv__stage *stage, int answer, double *squares)
{
    const kv_shape *shape = &stage->replay->shape;
    int position = stage->answer[answer].position;
    for (int h = 0; h < shape->heads; h++)
        measure_head(lane, stage, answer, h, squares);
    for (int b = 0; b < lane->group->budgets; b++)
        for (int h = 0; h < shape->kv_heads; h++)
            lane->tally[b].row_reads[answer] +=
                (double)kv__lane_past(&lane->head[h], b, position + 1);
}

void kv__measure_row(kv__lane *lane, kv__stage *stage, int answer)
{
    const kv_shape *shape = &stage->replay->shape;
    double squares[KV__MAX_BUDGETS] = {0};
    if (lane->parts != NULL)
        kv__parts_row(lane, stage, answer, squares);
    else
        measure_rows(lane, stage, answer, squares);
    measure_intact(lane, stage, answer, squares);
    if (!stage->answer[answer].last_of_turn)
        return;
    for (int h = 0; h < shape->kv_heads; h++)
        for (int b = 0; b < lane->group->budgets; b++)
            measure_spans(lane, stage, stage->answer[answer].turn, h, b);
}

/* --- From tallies to records ------------------------------------------------------- */

/* The rows of one turn, or of all (turn < 0). */
static bool in_turn(const kv__stage *stage, int answer, int turn)
{
    return turn < 0 || stage->answer[answer].turn == turn;
}

static void finish_rows(const kv__tally *tally, const kv__stage *stage, int turn, kv_record *record)
{
    const kv_shape *shape = &stage->replay->shape;
    double heads = (double)shape->layers * shape->heads, recall = 0, no_sinks = 0, error = 0;
    double worst_error = 0;
    int rows = 0;
    for (int a = 0; a < stage->answers; a++) {
        if (!in_turn(stage, a, turn))
            continue;
        rows++;
        recall += tally->row_recall[a] / heads;
        no_sinks += tally->row_no_sinks[a] / heads;
        error += tally->row_error[a] / heads;
        worst_error = fmax(worst_error, tally->row_error[a] / heads);
    }
    if (rows == 0)
        return;
    record->value[KV_M_RECALL] = recall / rows;
    record->value[KV_M_RECALL_NO_SINKS] = no_sinks / rows;
    double worst = INFINITY;
    for (int h = 0; h < shape->layers * shape->heads; h++)
        worst = fmin(worst, tally->head_recall[(1 + turn) * shape->layers * shape->heads + h]);
    record->value[KV_M_RECALL_WORST_HEAD] = worst / rows;
    if (!stage->example->has_v)
        return;
    record->value[KV_M_OUTPUT_ERROR] = error / rows;
    record->value[KV_M_OUTPUT_WORST] = worst_error;
}

static void finish_percentile(const kv__tally *tally, const kv__stage *stage, int turn,
                              double *work, kv_record *record)
{
    size_t heads = (size_t)stage->replay->shape.layers * stage->replay->shape.heads, n = 0;
    for (int a = 0; a < stage->answers; a += stage->sample_stride) {
        const float *sample = tally->sample + (size_t)(a / stage->sample_stride) * heads;
        for (size_t h = 0; h < heads && in_turn(stage, a, turn); h++)
            work[n++] = sample[h];
    }
    if (n == 0)
        return;
    gsl_sort(work, 1, n);
    record->value[KV_M_RECALL_P5] = gsl_stats_quantile_from_sorted_data(work, 1, n, 0.05);
}

static void finish_evidence_mass(const kv__tally *tally, const kv__stage *stage, int turn,
                                 kv_record *record)
{
    double alive = 0, full = 0, worst = INFINITY;
    for (int a = 0; a < stage->answers; a++) {
        if (!in_turn(stage, a, turn) || stage->evidence_full[a] <= 0)
            continue;
        alive += tally->evidence_mass[a];
        full += stage->evidence_full[a];
        worst = fmin(worst, tally->evidence_mass[a] / stage->evidence_full[a]);
    }
    if (full <= 0)
        return;
    record->value[KV_M_EVIDENCE_RECALL] = alive / full;
    record->value[KV_M_EVIDENCE_WORST] = worst;
}

/* Both measures of the calibrated accuracy, each of the answer row where it is least. */
static void finish_calibrated(const kv__tally *tally, const kv__stage *stage, int turn,
                              kv_record *record)
{
    double least_output = INFINITY, least_intact = INFINITY;
    for (int a = 0; a < stage->answers; a++) {
        double full = stage->evidence_output[a];
        if (!in_turn(stage, a, turn) || full <= 0)
            continue;
        least_output = fmin(least_output, 1 - tally->evidence_loss[a] / full);
        least_intact = fmin(least_intact, tally->query_intact[a] / full);
    }
    if (isinf(least_output))
        return;
    record->value[KV_M_EVIDENCE_OUTPUT] = least_output;
    record->value[KV_M_QUERY_INTACT] = least_intact;
}

/* A span counts as whole if some KV head holds all of it that gives it at least half of the
 * attention that the head most attentive to it does. */
static bool span_is_whole(const kv__tally *tally, const kv__stage *stage, int e)
{
    int heads = stage->replay->shape.layers * stage->replay->shape.kv_heads;
    const double *mass = stage->span_mass + (size_t)e * heads;
    double most = 0;
    for (int h = 0; h < heads; h++)
        most = fmax(most, mass[h]);
    for (int h = 0; h < heads; h++)
        if (tally->span_whole[(size_t)e * heads + h] && mass[h] >= 0.5 * most)
            return true;
    return false;
}

static void finish_spans(const kv__tally *tally, const kv__stage *stage, int turn,
                         kv_record *record)
{
    const kv_example *example = stage->example;
    int spans = 0, whole = 0, tokens = 0, nowhere = 0;
    for (int e = 0; e < example->evidences; e++) {
        const kv_evidence *span = &example->evidence[e];
        if (span->turn != turn)
            continue;
        spans++;
        whole += span_is_whole(tally, stage, e);
        for (int j = span->start; j < span->end; j++, tokens++)
            nowhere += !tally->token_anywhere[stage->evidence_first[e] + j - span->start];
    }
    if (tokens == 0)
        return;
    double heads = (double)stage->replay->shape.layers * stage->replay->shape.kv_heads;
    record->value[KV_M_EVIDENCE_ALIVE] = tally->evidence_alive[turn] / (heads * tokens);
    record->value[KV_M_SPAN_COMPLETE] = (double)whole / spans;
    record->value[KV_M_SPAN_ANY] = whole > 0;
    record->value[KV_M_EVICTED_EVERYWHERE] = (double)nowhere / tokens;
}

/* All turns together: the mean over turns of what has a value per turn. */
static void average_turns(kv_record *record, int turns, kv_measure measure)
{
    double sum = 0;
    int n = 0;
    for (int t = 1; t <= turns; t++) {
        if (isnan(record[t].value[measure]))
            continue;
        sum += record[t].value[measure];
        n++;
    }
    if (n > 0)
        record[0].value[measure] = sum / n;
}

/* What decode steps read, over what full attention would; prefill rows where they were probed. */
static void finish_reads(const kv__lane *lane, const kv__tally *tally, const kv__stage *stage,
                         int turn, kv_record *record)
{
    const kv_shape *shape = &stage->replay->shape;
    const double *stored = lane->parts ? tally->row_read_bytes : tally->row_reads;
    double bytes = kv__bytes_entry(stage);
    double reads = 0, read_bytes = 0, fetched = 0, full = 0;
    int rows = 0;
    for (int a = 0; a < stage->answers; a++) {
        if (!in_turn(stage, a, turn) || stage->answer[a].first_of_turn)
            continue;
        rows++;
        reads += tally->row_reads[a];
        read_bytes += stored[a];
        fetched += tally->row_fetched[a];
        full += (stage->answer[a].position + 1.0) * shape->layers * shape->kv_heads;
    }
    if (rows > 0) {
        record->value[KV_M_READS] = reads / full;
        record->value[KV_M_READS_BYTES] = read_bytes / full;
        record->value[KV_M_FETCHED] = fetched * bytes / rows;
    }
    if (tally->probes > 0) {
        record->value[KV_M_READS_PREFILL] = tally->probe_reads / tally->probe_full;
        record->value[KV_M_PREFILL_RECALL] = tally->probe_recall / (double)tally->probes;
    }
}

static void finish_occupancy(const kv__occupancy *o, const kv__stage *stage, kv_record *record)
{
    static const kv_measure footprint[] = {KV_M_FOOTPRINT, KV_M_FOOTPRINT_HEAD,
                                           KV_M_FOOTPRINT_PAGE};
    static const kv_measure peak[] = {KV_M_PEAK, KV_M_PEAK_HEAD, KV_M_PEAK_PAGE};
    const kv_shape *shape = &stage->replay->shape;
    double n = stage->example->total_tokens, heads = (double)shape->layers * shape->kv_heads;
    for (int kind = 0; kind < KV__KINDS; kind++) {
        int64_t most = 0;
        for (int s = 0; s < o->steps; s++)
            most = o->at_step[kind][s] > most ? o->at_step[kind][s] : most;
        double area = (double)(o->prefill[kind] + o->decode[kind]);
        record->value[footprint[kind]] = area / (heads * n * (n + 1) / 2);
        record->value[peak[kind]] = (double)most / (heads * n);
    }
    kv__bytes_finish(o, stage, record);
}

/* The plan that quotas go by; without its file a policy has an empty one. */
static const void *plan_of(const kv__group *group, int budget)
{
    bool empty = group->policy->counts_only && group->policy->counts_only(group->config[budget]);
    return empty ? NULL : group->plan;
}

static kv_counts_rule counts_rule(const kv__group *group, int budget, const kv__stage *stage)
{
    const kv_shape *shape = &stage->replay->shape;
    return (kv_counts_rule){.policy = group->policy,
                            .config = group->config[budget],
                            .plan = plan_of(group, budget),
                            .layers = shape->layers,
                            .kv_heads = shape->kv_heads,
                            .prompt_tokens = stage->example->prompt_tokens,
                            .published = true};
}

/* Bytes by the same formulas, where the model's layers differ: entry steps and peak of what they
 * cache. Transforms scale what the replay stored by the formula's footprint over the replayed. */
static kv_err analytic_bytes(const kv__lane *lane, int budget, const kv__stage *stage,
                             double replayed, kv_record *record, kv_diag *diag)
{
    const kv_replay_cache *cache = &stage->replay->options.cache;
    const kv_example *example = stage->example;
    kv_counts_rule rule = counts_rule(lane->group, budget, stage);
    kv_counts_sum sum;
    if (lane->group->parts > 0 || !kv__bytes_differ(lane->group, cache)) {
        double scale = record->value[KV_M_FOOTPRINT] / replayed;
        record->value[KV_M_FOOTPRINT_BYTES] *= scale;
        record->value[KV_M_FOOTPRINT_DEVICE] *= scale;
        return KV_OK;
    }
    rule.kv_heads = cache->latent ? 1 : rule.kv_heads;
    kv_err err = kv_counts_replay(&rule, cache->layer, lane->group->chunk_tokens,
                                  example->total_tokens - example->prompt_tokens, &sum, diag);
    if (err == KV_OK)
        kv__bytes_set(sum.entry_steps, sum.entry_steps, sum.peak_entries, stage, record);
    return err;
}

/* footprint_model: analytic. The published formulas in place of what the replay counted. */
static kv_err finish_analytic(const kv__lane *lane, int budget, const kv__stage *stage,
                              kv_record *record, kv_diag *diag)
{
    const kv_shape *shape = &stage->replay->shape;
    const kv_example *example = stage->example;
    kv_counts_rule rule = counts_rule(lane->group, budget, stage);
    kv_counts_sum sum;
    kv_err err = kv_counts_replay(&rule, NULL, lane->group->chunk_tokens,
                                  example->total_tokens - example->prompt_tokens, &sum, diag);
    if (err != KV_OK)
        return err;
    double n = example->total_tokens, heads = (double)shape->layers * shape->kv_heads;
    double bytes = record->value[KV_M_PEAK_BYTES] / record->value[KV_M_PEAK];
    double replayed = record->value[KV_M_FOOTPRINT];
    record->value[KV_M_FOOTPRINT] = sum.entry_steps / (heads * n * (n + 1) / 2);
    record->value[KV_M_PEAK] = sum.peak_entries / (heads * n);
    record->value[KV_M_PEAK_BYTES] = bytes * record->value[KV_M_PEAK];
    return analytic_bytes(lane, budget, stage, replayed, record, diag);
}

kv_err kv__measure_finish(const kv__lane *lane, int budget, kv__stage *stage, kv_record *record,
                          kv_diag *diag)
{
    static const kv_measure per_turn[] = {
        KV_M_EVIDENCE_WORST,     KV_M_EVIDENCE_ALIVE, KV_M_SPAN_COMPLETE,   KV_M_SPAN_ANY,
        KV_M_EVICTED_EVERYWHERE, KV_M_OUTPUT_WORST,   KV_M_EVIDENCE_OUTPUT, KV_M_QUERY_INTACT};
    const kv__tally *tally = &lane->tally[budget];
    int turns = stage->example->turns;
    for (int slot = 0; slot <= turns; slot++) {
        for (int m = 0; m < KV_MEASURES; m++)
            record[slot].value[m] = NAN;
        finish_occupancy(&lane->occupancy[budget], stage, &record[slot]);
        if (stage->replay->options.analytic) {
            kv_err err = finish_analytic(lane, budget, stage, &record[slot], diag);
            if (err != KV_OK)
                return err;
        }
        if (kv_retention_counts_only(lane->group->policy, lane->group->config[budget]))
            continue;
        finish_rows(tally, stage, slot - 1, &record[slot]);
        finish_percentile(tally, stage, slot - 1, stage->samples, &record[slot]);
        finish_evidence_mass(tally, stage, slot - 1, &record[slot]);
        finish_calibrated(tally, stage, slot - 1, &record[slot]);
        finish_spans(tally, stage, slot - 1, &record[slot]);
        finish_reads(lane, tally, stage, slot - 1, &record[slot]);
    }
    for (size_t m = 0; m < sizeof per_turn / sizeof *per_turn; m++)
        average_turns(record, turns, per_turn[m]);
    return KV_OK;
}
