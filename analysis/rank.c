/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/rank.h"

#include "analysis/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One policy under one chunk size, all tasks together. */
typedef struct line {
    const kv_curve *curve;             /* of the first task */
    double accuracy, amount, critical; /* means over tasks; NaN: not known in one of them */
    double least;                      /* least amount of its curve, mean over tasks */
    kv_axis axis;                      /* what it is compared by */
    bool beyond, reads_beyond;         /* in some task its curve begins beyond the limit */
    int tasks, order;
    bool beaten; /* other settings of the policy do better */
} line;

/* Full, which the others are measured against, and the oracle, which bounds them, have no rank. */
static bool is_reference(const kv_curve *curve)
{
    return curve->oracle || strcmp(curve->policy, "full") == 0;
}

/* A curve along what its policy saves. */
typedef struct track {
    kv_sample *sample; /* [points], ascending */
    int points;
} track;

static int by_amount(const void *a, const void *b)
{
    const kv_sample *x = a, *y = b;
    return (x->footprint > y->footprint) - (x->footprint < y->footprint);
}

static kv_err track_init(track *out, const kv_curve *curve, kv_axis axis, kv_diag *diag)
{
    *out = (track){calloc((size_t)curve->points + 1, sizeof *out->sample), 0};
    if (out->sample == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < curve->points; p++)
        if (!isnan(curve->point[p].amount[axis]))
            out->sample[out->points++] =
                (kv_sample){curve->point[p].amount[axis], curve->point[p].accuracy};
    qsort(out->sample, (size_t)out->points, sizeof *out->sample, by_amount);
    return KV_OK;
}

kv_ranked kv_rank_at(const kv_sample *sample, int samples, double limit)
{
    if (samples == 0 || sample[0].footprint > limit)
        return (kv_ranked){NAN, NAN};
    for (int i = 0; i + 1 < samples; i++)
        if (sample[i + 1].footprint > limit) {
            const kv_sample *p = &sample[i];
            double along = (limit - p[0].footprint) / (p[1].footprint - p[0].footprint);
            return (kv_ranked){p[0].accuracy + along * (p[1].accuracy - p[0].accuracy), limit};
        }
    return (kv_ranked){sample[samples - 1].accuracy, sample[samples - 1].footprint};
}

/* The least amount at which accuracy still is the threshold times the full one. */
static double critical_of(const kv_curve *curve, track *along)
{
    kv_critical found;
    if (!curve->has_critical ||
        !kv_critical_find(along->sample, along->points, curve->threshold * curve->full_accuracy,
                          &found) ||
        found.status == KV_CRITICAL_NEVER)
        return NAN;
    return found.status == KV_CRITICAL_ALWAYS ? found.smallest : found.last_crossing;
}

static line *find_line(line *lines, int *count, const kv_curve *curve)
{
    for (int i = 0; i < *count; i++)
        if (strcmp(lines[i].curve->label, curve->label) == 0 &&
            lines[i].curve->chunk_tokens == curve->chunk_tokens)
            return &lines[i];
    lines[*count] = (line){.curve = curve, .axis = curve->saves, .order = *count};
    return &lines[(*count)++];
}

static kv_err add_curve(const kv_curve *curve, double limit, line *l, kv_diag *diag)
{
    track along;
    kv_err err = track_init(&along, curve, l->axis, diag);
    if (err != KV_OK)
        return err;
    bool is_full = strcmp(curve->policy, "full") == 0;
    kv_ranked at = kv_rank_at(along.sample, along.points, is_full ? INFINITY : limit);
    l->accuracy += at.accuracy;
    l->amount += at.amount;
    l->least += along.points > 0 ? along.sample[0].footprint : NAN;
    l->critical += is_full ? NAN : critical_of(curve, &along);
    l->tasks++;
    free(along.sample);
    return KV_OK;
}

/* Whether no point of the curve is within the limit. */
static bool is_beyond(const kv_curve *curve, kv_axis axis, double limit)
{
    for (int p = 0; p < curve->points; p++)
        if (curve->point[p].amount[axis] <= limit)
            return false;
    return true;
}

/* What evicts only after the prompt holds all of it until then: over the run its entries never come
 * down to the limit, though those that decode steps hold, and read, may. */
static void choose_axes(const kv_curves *curves, double limit, line *lines, int *count)
{
    for (int c = 0; c < curves->curves; c++) {
        line *l = find_line(lines, count, &curves->curve[c]);
        l->beyond |= is_beyond(&curves->curve[c], l->axis, limit);
        l->reads_beyond |= is_beyond(&curves->curve[c], KV_AXIS_READS, limit);
    }
    for (int i = 0; i < *count; i++)
        if (lines[i].axis == KV_AXIS_ENTRIES && lines[i].beyond && !lines[i].reads_beyond)
            lines[i].axis = KV_AXIS_READS;
}

static kv_err gather(const kv_curves *curves, double limit, line *lines, int *count, kv_diag *diag)
{
    kv_err err = KV_OK;
    *count = 0;
    choose_axes(curves, limit, lines, count);
    for (int c = 0; c < curves->curves && err == KV_OK; c++)
        err = add_curve(&curves->curve[c], limit, find_line(lines, count, &curves->curve[c]), diag);
    for (int i = 0; i < *count; i++) {
        lines[i].accuracy /= lines[i].tasks;
        lines[i].amount /= lines[i].tasks;
        lines[i].critical /= lines[i].tasks;
        lines[i].least /= lines[i].tasks;
    }
    return err;
}

/* NaN after every number; larger first if descending. */
static int compare_numbers(double x, double y, bool descending)
{
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return descending ? (x < y) - (x > y) : (x > y) - (x < y);
}

static int compare_lines(const void *a, const void *b)
{
    const line *x = a, *y = b;
    bool x_full = strcmp(x->curve->policy, "full") == 0;
    bool y_full = strcmp(y->curve->policy, "full") == 0;
    if (x_full != y_full)
        return y_full - x_full;
    int by_accuracy = compare_numbers(x->accuracy, y->accuracy, true);
    int by_critical = compare_numbers(x->critical, y->critical, false);
    return by_accuracy ? by_accuracy : by_critical ? by_critical : x->order - y->order;
}

static void write_number(double value, double scale, int width, int digits, FILE *out)
{
    if (isnan(value))
        fprintf(out, "%*s", width, "-");
    else
        fprintf(out, "%*.*f", width, digits, scale * value);
}

/* How little a policy reads, or how small it stores, is in settings that make no curve: of those
 * that were listed the best within the limit stands for the policy. */
static void mark_beaten(line *lines, int count)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i && !lines[i].beaten; j++) {
            const kv_curve *a = lines[i].curve, *b = lines[j].curve;
            lines[i].beaten = !lines[j].beaten && a->saves == b->saves &&
                              a->saves != KV_AXIS_ENTRIES && a->oracle == b->oracle &&
                              a->chunk_tokens == b->chunk_tokens &&
                              strcmp(a->policy, b->policy) == 0;
        }
}

static void write_line(const line *l, int rank, bool many_chunks, FILE *out)
{
    char chunk[24];
    if (rank > 0)
        fprintf(out, "%4d", rank);
    else
        fprintf(out, "%4s", "-");
    write_number(l->accuracy, 1, 10, 3, out);
    fprintf(out, "%9s", kv_axis_name(l->axis));
    write_number(isnan(l->accuracy) ? l->least : l->amount, 100, 8, 1, out);
    write_number(l->critical, 100, 10, 1, out);
    fputs("  ", out);
    kv__plain_write(l->curve->label, (int)strlen(l->curve->label), out);
    kv_chunk_text(l->curve->chunk_tokens, chunk);
    if (many_chunks)
        fprintf(out, ", chunk %s", chunk);
    fputc('\n', out);
}

static bool has_many_chunks(const kv_curves *curves)
{
    for (int c = 1; c < curves->curves; c++)
        if (curves->curve[c].chunk_tokens != curves->curve[0].chunk_tokens)
            return true;
    return false;
}

static void write_head(const kv_curves *curves, double limit, FILE *out)
{
    const char *source = curves->curves > 0 ? curves->curve[0].source : "proxy";
    fprintf(
        out,
        "At %g %% of full causal attention, by accuracy (the mean over tasks).\n"
        "Accuracy is %s.\n"
        "Saves: what is compared: the entries in memory, their bytes where they are stored in\n"
        "fewer, the entries that decode steps read (also of what evicts only after the prompt\n"
        "and so holds more until then), or the scores of prefill. At: how much of that, in %%,\n"
        "the accuracy is for; or where a curve begins that does not come down to the limit.\n"
        "Critical: the least of it that keeps %g x full accuracy; - : nothing tried does.\n"
        "Oracles know what is yet to come. Without a rank (-): full, oracles, and what does not\n"
        "come down to the limit by itself and so stands in combinations.\n\n"
        "%4s%10s%9s%8s%10s  %s\n",
        100 * limit, kv_accuracy_source_text(source),
        curves->curves > 0 && curves->curve[0].has_critical ? curves->curve[0].threshold : 0.9,
        "rank", "accuracy", "saves", "at", "critical", "policy");
}

kv_err kv_rank_write(const kv_curves *curves, double limit, FILE *out, kv_diag *diag)
{
    line *lines = calloc((size_t)curves->curves + 1, sizeof *lines);
    if (lines == NULL)
        return kv_fail_memory(diag);
    int count, rank = 0;
    bool many_chunks = has_many_chunks(curves);
    kv_err err = gather(curves, limit, lines, &count, diag);
    if (err == KV_OK) {
        qsort(lines, (size_t)count, sizeof *lines, compare_lines);
        mark_beaten(lines, count);
        write_head(curves, limit, out);
    }
    for (int i = 0; i < count && err == KV_OK; i++) {
        bool ranked = !isnan(lines[i].accuracy) && !is_reference(lines[i].curve);
        if (!lines[i].beaten)
            write_line(&lines[i], ranked ? ++rank : 0, many_chunks, out);
    }
    free(lines);
    return err;
}
