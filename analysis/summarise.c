/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/summarise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

kv_err kv__task_set_init(kv_task_set *set, const kv_plan *plan, int task, long long seed,
                         kv_diag *diag)
{
    char purpose[256];
    *set = (kv_task_set){.plan = plan,
                         .task = task,
                         .name = plan->task[task],
                         .slots = kv__plan_slots(plan, task),
                         .stride = plan->task_turns[task] + 1};
    set->example = calloc((size_t)plan->info.examples + 1, sizeof *set->example);
    if (set->example == NULL)
        return kv_fail_memory(diag);
    for (int e = 0; e < plan->info.examples; e++)
        if (!plan->info.example[e].calibration_only &&
            strcmp(plan->info.example[e].task, set->name) == 0)
            set->example[set->examples++] = e;
    snprintf(purpose, sizeof purpose, "examples of %s", set->name);
    return kv_bootstrap_init(&set->bootstrap, plan->info.critical.resamples, set->examples,
                             kv_stream_seed(seed, purpose), diag);
}

void kv__task_set_fini(kv_task_set *set)
{
    kv_bootstrap_fini(&set->bootstrap);
    free(set->example);
    set->example = NULL;
}

void kv__summary_fini(kv_summary *summary)
{
    free(summary->record);
    free(summary->accuracy);
    free(summary->slot);
    free(summary->samples);
    *summary = (kv_summary){0};
}

static kv_err allocate(const kv_task_set *set, int draws, kv_summary *out, kv_diag *diag)
{
    size_t cells = (size_t)set->examples * (size_t)set->stride;
    size_t resamples = (size_t)set->bootstrap.resamples;
    size_t slots = (size_t)set->slots;
    out->slots = set->slots;
    out->record = malloc(cells * sizeof *out->record);
    out->accuracy = malloc((size_t)(draws + 1) * cells * sizeof *out->accuracy);
    out->slot = calloc(slots, sizeof *out->slot);
    out->samples = malloc(3 * slots * resamples * sizeof *out->samples + 1);
    if (!out->record || !out->accuracy || !out->slot || !out->samples)
        return kv_fail_memory(diag);
    for (size_t i = 0; i < cells * KV_MEASURES; i++)
        out->record[i / KV_MEASURES].value[i % KV_MEASURES] = NAN;
    for (size_t i = 0; i < (size_t)(draws + 1) * cells; i++)
        out->accuracy[i] = NAN;
    for (size_t s = 0; s < slots; s++) {
        out->slot[s].footprint_sample = out->samples + 3 * s * resamples;
        out->slot[s].bytes_sample = out->slot[s].footprint_sample + resamples;
        out->slot[s].accuracy_sample = out->slot[s].bytes_sample + resamples;
    }
    return KV_OK;
}

/* Fills accuracy[stride] of one example: slot 0 is the mean of its turns, NaN if one is. */
static void predict(const kv_predictor *predictor, int draw, int point,
                    const kv_example_info *example, const kv_record *records, double *accuracy)
{
    double sum = 0;
    if (predictor->rule->predict == NULL)
        return;
    predictor->rule->predict(predictor->model, draw, point, example, records, accuracy + 1);
    for (int t = 1; t <= example->turns; t++)
        sum += accuracy[t];
    accuracy[0] = sum / example->turns;
}

static kv_err read_examples(const kv_task_set *set, const kv_predictor *predictor, kv_units *units,
                            kv_summary *out, kv_diag *diag)
{
    size_t stride = (size_t)set->stride, cells = (size_t)set->examples * stride;
    for (int i = 0; i < set->examples; i++) {
        const kv_example_info *example = &set->plan->info.example[set->example[i]];
        size_t at = (size_t)i * stride;
        kv_err err = kv__units_read(units, out->point, set->example[i], out->record + at, diag);
        if (err != KV_OK)
            return err;
        for (int d = 0; d <= predictor->draws; d++)
            predict(predictor, d, out->point, example, out->record + at,
                    out->accuracy + (size_t)d * cells + at);
    }
    return KV_OK;
}

/* Copies one slot of every example into values[examples]. */
static void gather(const kv_task_set *set, const double *first, size_t step, double *values)
{
    for (int i = 0; i < set->examples; i++)
        values[i] = first[(size_t)i * step];
}

static void average_measures(const kv_task_set *set, const kv_summary *summary, int s,
                             kv_slot *slot, double *values)
{
    size_t step = (size_t)set->stride * KV_MEASURES;
    for (int m = 0; m < KV_MEASURES; m++) {
        gather(set, &summary->record[s].value[m], step, values);
        slot->mean.value[m] = kv_mean(values, set->examples);
    }
    for (int i = 0; i < set->examples; i++)
        slot->examples += set->plan->info.example[set->example[i]].turns >= s;
    gather(set, &summary->record[s].value[KV_M_FOOTPRINT], step, values);
    for (int r = 0; r < set->bootstrap.resamples; r++)
        slot->footprint_sample[r] = kv_bootstrap_mean(&set->bootstrap, r, values);
    gather(set, &summary->record[s].value[KV_M_FOOTPRINT_BYTES], step, values);
    for (int r = 0; r < set->bootstrap.resamples; r++)
        slot->bytes_sample[r] = kv_bootstrap_mean(&set->bootstrap, r, values);
}

static void average_predictions(const kv_task_set *set, const kv_predictor *predictor,
                                const kv_summary *summary, int s, kv_slot *slot, double *values)
{
    size_t stride = (size_t)set->stride, cells = (size_t)set->examples * stride;
    gather(set, summary->accuracy + s, stride, values);
    slot->accuracy = kv_mean(values, set->examples);
    for (int d = predictor->draws > 0; d <= predictor->draws; d++) {
        int step = predictor->draws > 0 ? predictor->draws : 1;
        gather(set, summary->accuracy + (size_t)d * cells + s, stride, values);
        for (int r = d > 0 ? d - 1 : 0; r < set->bootstrap.resamples; r += step) {
            double mean = kv_bootstrap_mean(&set->bootstrap, r, values);
            slot->accuracy_sample[r] =
                d > 0 && predictor->rule->disturb != NULL && !isnan(mean)
                    ? predictor->rule->disturb(predictor->model, d, set->name, s, mean)
                    : mean;
        }
    }
}

/* Puts a measured accuracy in the place of the prediction. */
static kv_err take_measured(const kv_task_set *set, const kv_predictor *predictor, int point, int s,
                            kv_slot *slot, kv_diag *diag)
{
    char purpose[320];
    if (predictor->type->measured == NULL ||
        !predictor->type->measured(predictor->model, point, set->name, s, &slot->accuracy,
                                   &slot->measured_n))
        return KV_OK;
    slot->measured = true;
    snprintf(purpose, sizeof purpose, "measured point %d turn %d of %s", point, s, set->name);
    return kv_bootstrap_binomial(slot->accuracy, slot->measured_n,
                                 kv_stream_seed(predictor->seed, purpose), slot->accuracy_sample,
                                 set->bootstrap.resamples, diag);
}

/* The interval of a slot; a measurement of unknown size has none. values: [resamples]. */
static void find_interval(const kv_task_set *set, kv_slot *slot, double *values)
{
    slot->lo = slot->hi = NAN;
    if (slot->measured && slot->measured_n < 1)
        return;
    memcpy(values, slot->accuracy_sample, (size_t)set->bootstrap.resamples * sizeof *values);
    kv_interval(values, set->bootstrap.resamples, set->plan->info.critical.confidence, &slot->lo,
                &slot->hi);
}

kv_err kv__summary_make(const kv_task_set *set, const kv_predictor *predictor, kv_units *units,
                        int point, kv_summary *out, kv_diag *diag)
{
    *out = (kv_summary){.point = point};
    size_t most = (size_t)(set->examples > set->bootstrap.resamples ? set->examples
                                                                    : set->bootstrap.resamples);
    double *values = malloc(most * sizeof *values + 1);
    kv_err err = values ? allocate(set, predictor->draws, out, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        err = read_examples(set, predictor, units, out, diag);
    for (int s = 0; s < set->slots && err == KV_OK; s++) {
        kv_slot *slot = &out->slot[s];
        average_measures(set, out, s, slot, values);
        average_predictions(set, predictor, out, s, slot, values);
        err = take_measured(set, predictor, point, s, slot, diag);
        if (err == KV_OK)
            find_interval(set, slot, values);
    }
    free(values);
    if (err != KV_OK)
        kv__summary_fini(out);
    return err;
}
