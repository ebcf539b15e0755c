/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/accuracy_fit.h"

#include "sim/measured.h"
#include "sim/sweep_plan.h"

#include <stdlib.h>
#include <string.h>

struct kv_accuracy_fit {
    kv_measured *measured;
    kv_sweep_plan sweep_plan;
    kv_points_plan plan;
    char *spec, *skipped;
    int *place;         /* [points] among the points of its task */
    kv_record **record; /* [examples] those of its task's points, turns + 1 each */
    kv_calibration *calibration;
};

/* --- Records ---------------------------------------------------------------------------------- */

static bool is_task(const kv_accuracy_fit *fit, int point, const char *task)
{
    return strcmp(fit->plan.point[point].task, task) == 0;
}

/* Every point has one task, so an example needs room for those of its own only. */
static kv_err place_points(kv_accuracy_fit *fit, kv_diag *diag)
{
    fit->place = calloc((size_t)fit->plan.points + 1, sizeof *fit->place);
    fit->record = calloc((size_t)fit->plan.examples + 1, sizeof *fit->record);
    if (fit->place == NULL || fit->record == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < fit->plan.points; p++)
        for (int before = 0; before < p; before++)
            fit->place[p] += is_task(fit, before, fit->plan.point[p].task);
    return KV_OK;
}

static kv_err keep_records(void *closure, int example, const kv_record *record,
                           const kv_retained_set *sets, int set_count, kv_diag *diag)
{
    kv_accuracy_fit *fit = closure;
    const kv_example_info *info = &fit->plan.example[example];
    size_t slots = (size_t)info->turns + 1, points = 0;
    for (int p = 0; p < fit->plan.points; p++)
        points += is_task(fit, p, info->task);
    kv_record *kept = malloc(points * slots * sizeof *kept + 1);
    if (kept == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < fit->plan.points; p++)
        if (is_task(fit, p, info->task))
            memcpy(kept + (size_t)fit->place[p] * slots, record + (size_t)p * slots,
                   slots * sizeof *kept);
    fit->record[example] = kept;
    return KV_OK;
}

static kv_err read_records(void *closure, int point, int example, kv_record *records, kv_diag *diag)
{
    const kv_accuracy_fit *fit = closure;
    size_t slots = (size_t)fit->plan.example[example].turns + 1;
    memcpy(records, fit->record[example] + (size_t)fit->place[point] * slots,
           slots * sizeof *records);
    return KV_OK;
}

/* --- The fit ---------------------------------------------------------------------------------- */

static kv_err make_plan(kv_accuracy_fit *fit, const kv_accuracy_fit_options *options, kv_diag *diag)
{
    const kv_texts all = {0};
    kv_sweep_plan *plan = &fit->sweep_plan;
    kv_err err = kv_measured_read(options->measured, &fit->measured, diag);
    for (int t = 0; t < options->trace_count && err == KV_OK; t++) {
        int trace;
        err = kv_sweep_plan_trace(plan, options->traces[t], options->traces[t], &trace, diag);
        if (err == KV_OK)
            err = kv_sweep_plan_examples(plan, trace, &all, true, diag);
    }
    if (err == KV_OK)
        err = kv_measured_plan(fit->measured, &all, plan, &fit->spec, &fit->skipped, diag);
    return err;
}

static kv_err replay(kv_accuracy_fit *fit, const kv_accuracy_fit_options *options, kv_diag *diag)
{
    const kv_attention_config attention = {.page_tokens = 1};
    kv_sweep sweep =
        kv_sweep_plan_sweep(&fit->sweep_plan, &attention, options->seed, NULL, options->threads);
    fit->plan.critical = options->critical;
    kv_err err = kv_sweep_list(&sweep, &fit->plan, diag);
    if (err == KV_OK)
        err = kv_sweep_check(&sweep, diag);
    if (err == KV_OK)
        err = place_points(fit, diag);
    if (err == KV_OK)
        err = kv_sweep_run(&sweep, NULL, keep_records, fit, options->progress,
                           options->progress_closure, diag);
    return err;
}

static kv_err calibrate(kv_accuracy_fit *fit, long long seed, kv_diag *diag)
{
    kv_measurements measurements;
    kv_record_source source = {&fit->plan, read_records, fit};
    kv_err err = kv_measurements_parse(fit->spec, fit->plan.points, &measurements, diag);
    if (err != KV_OK)
        return err;
    err = kv_calibration_new(&source, &measurements, seed, &fit->calibration, diag);
    kv_measurements_fini(&measurements);
    return err;
}

kv_err kv_accuracy_fit_new(const kv_accuracy_fit_options *options, kv_accuracy_fit **out,
                           kv_diag *diag)
{
    kv_accuracy_fit *fit = calloc(1, sizeof *fit);
    if (fit == NULL)
        return kv_fail_memory(diag);
    kv_err err = make_plan(fit, options, diag);
    if (err == KV_OK)
        err = replay(fit, options, diag);
    if (err == KV_OK)
        err = calibrate(fit, options->seed, diag);
    if (err == KV_OK)
        *out = fit;
    else
        kv_accuracy_fit_free(fit);
    return err;
}

void kv_accuracy_fit_free(kv_accuracy_fit *fit)
{
    if (fit == NULL)
        return;
    kv_calibration_free(fit->calibration);
    for (int e = 0; fit->record != NULL && e < fit->plan.examples; e++)
        free(fit->record[e]);
    free(fit->record);
    free(fit->place);
    free(fit->spec);
    free(fit->skipped);
    free((kv_point_info *)fit->plan.point);
    free((kv_example_info *)fit->plan.example);
    kv_sweep_plan_fini(&fit->sweep_plan);
    kv_measured_free(fit->measured);
    free(fit);
}

const kv_calibration *kv_accuracy_fit_calibration(const kv_accuracy_fit *fit)
{
    return fit->calibration;
}

const kv_points_plan *kv_accuracy_fit_plan(const kv_accuracy_fit *fit)
{
    return &fit->plan;
}

const char *kv_accuracy_fit_skipped(const kv_accuracy_fit *fit)
{
    return fit->skipped;
}
