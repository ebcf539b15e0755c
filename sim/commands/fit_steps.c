/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/commands/fit.h"
#include "sim/command.h"
#include "sim/experiment.h"
#include "sim/serving/step_fit.h"

#include <stdio.h>
#include <string.h>

static void print_residual(const char *name, const char *worst, const kv_fit_residual *r)
{
    if (r->shapes == 0)
        return;
    printf("  %-8s  %6d  %6.2f  %+7.2f   ", name, r->shapes, 100 * r->rms, 100 * r->worst);
    printf(worst, r->tokens, r->history);
    putchar('\n');
}

static void print_roofline(const kv_serving_point *point, const kv_roofline_fit *fit)
{
    printf("Roofline of %s on %s, fitted to the tables in %s\n", point->model->name,
           point->device->name, point->config.step_time.path);
    printf("  step_time: {model: roofline, compute_efficiency: %.4f, attention_efficiency: %.4f, "
           "memory_efficiency: %.4f, layer_overhead: %.2fus}\n",
           fit->compute_efficiency, fit->attention_efficiency, fit->memory_efficiency,
           fit->layer_overhead_ns * 1e-3);
    puts("  steps     shapes   rms %  worst %");
    print_residual("prefill", "chunk of %lld after %lld", &fit->residual[KV_FIT_PREFILL]);
    print_residual("decode", "%lld sequences of %lld", &fit->residual[KV_FIT_DECODE]);
}

static void print_figure(const char *name, double measured, double before, double after)
{
    printf("  %-9s  %11.1f  %11.1f  %+8.2f  %11.1f  %+8.2f\n", name, measured * 1e-6, before * 1e-6,
           100 * (before / measured - 1), after * 1e-6, 100 * (after / measured - 1));
}

static void print_overhead(const kv_overhead_fit *fit)
{
    const kv_run_figures *m = &fit->measured, *b = &fit->before, *a = &fit->after;
    printf("\nHost work per step, with which the mean latency of %d measured requests is met\n",
           fit->requests);
    printf("  step_overhead: %.3fms +- %.3fms\n", fit->overhead_ns * 1e-6, fit->error_ns * 1e-6);
    if (fit->overhead_ns < 0)
        puts("  (below 0: the server is faster than the tables even without it; 0 is the best "
             "setting, or a kernel_scale below 1)");
    puts("                measured    simulated         %       fitted         %");
    print_figure("TTFT mean", m->ttft_mean, b->ttft_mean, a->ttft_mean);
    print_figure("TTFT p99", m->ttft_p99, b->ttft_p99, a->ttft_p99);
    print_figure("TPOT mean", m->tpot_mean, b->tpot_mean, a->tpot_mean);
    print_figure("TPOT p99", m->tpot_p99, b->tpot_p99, a->tpot_p99);
    print_figure("E2E mean", m->e2e_mean, b->e2e_mean, a->e2e_mean);
    print_figure("E2E p99", m->e2e_p99, b->e2e_p99, a->e2e_p99);
}

static kv_err fit_point(const kv_serving_plan *plan, const kv_serving_point *point, bool quiet,
                        kv_diag *diag)
{
    kv_roofline_fit roofline;
    kv_overhead_fit overhead;
    bool tables = point->config.step_time.path != NULL;
    bool measured = strcmp(plan->requests.format->name, "vllm-bench") == 0;
    kv_err err = KV_OK;
    if (tables || !measured) {
        err = kv_roofline_fit_tables(point, &roofline, diag);
        if (err == KV_OK && roofline.outside && !quiet)
            fputs("kvsim: warning: some of these steps lie outside of what the tables measured\n",
                  stderr);
        if (err == KV_OK)
            print_roofline(point, &roofline);
    }
    if (err == KV_OK && measured) {
        err = kv_overhead_fit_run(plan, point, &overhead, diag);
        if (err == KV_OK)
            print_overhead(&overhead);
    }
    return err;
}

static kv_err fit_experiment(const kv_experiment *experiment, bool quiet, kv_diag *diag)
{
    kv_serving_plan plan;
    kv_serving_point point;
    if (experiment->serving == NULL)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "a fit of step times needs an experiment with a section `serving`");
    kv_err err =
        kv_serving_plan_init(&plan, experiment->serving, experiment->model, experiment->seed, diag);
    if (err != KV_OK)
        return err;
    if (plan.combinations > 1)
        err =
            kv_fail(diag, KV_ERR_INPUT, NULL,
                    "a fit of step times needs one server, not %d combinations", plan.combinations);
    if (err == KV_OK)
        err = kv_serving_plan_point(&plan, 0, &point, diag);
    if (err == KV_OK) {
        err = fit_point(&plan, &point, quiet, diag);
        kv_serving_point_fini(&point);
    }
    kv_serving_plan_fini(&plan);
    return err;
}

int kv__fit_steps(const char *path, const char *const *sets, int count, bool quiet)
{
    kv_diag diag = {0};
    kv_experiment *experiment;
    kv_err err = kv_experiment_read(path, sets, count, &experiment, &diag);
    if (err == KV_OK) {
        err = fit_experiment(experiment, quiet, &diag);
        kv_experiment_free(experiment);
    }
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}
