/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How well held-out policies are predicted, and the intervals that follow from it. */
#include "config.h"

#include "analysis/bootstrap.h"
#include "analysis/calibration_private.h"
#include "analysis/critical.h"
#include "analysis/plan.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_linalg.h>
#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Draws ------------------------------------------------------------------------------------ */

/* Normal draws with the fit's covariance; all equal to the fit where that is singular. */
static void draw_links(const kv_link_fit *fit, gsl_rng *random, gsl_matrix *root,
                       kv_link link[KV_CALIBRATION_DRAWS])
{
    int k = fit->parameters;
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++)
            gsl_matrix_set(root, (size_t)i, (size_t)j, fit->covariance[i][j]);
    bool positive = gsl_linalg_cholesky_decomp1(root) == GSL_SUCCESS;
    for (int d = 0; d < KV_CALIBRATION_DRAWS; d++) {
        double theta[KV_LINK_PARAMETERS], normal[KV_LINK_PARAMETERS];
        memcpy(theta, fit->theta, sizeof theta);
        for (int i = 0; i < k; i++)
            normal[i] = gsl_ran_ugaussian(random);
        for (int i = 0; positive && i < k; i++)
            for (int j = 0; j <= i; j++)
                theta[i] += gsl_matrix_get(root, (size_t)i, (size_t)j) * normal[j];
        kv_link_init(&link[d], theta, k);
    }
}

/* The error of a policy follows Student's t with as many degrees of freedom as there are policies
 * that its size was estimated from. Its quantiles, evenly spaced and shuffled, serve as draws. */
kv_err kv__calibration_draw(const kv_link_fit *fit, int freedom, unsigned long stream,
                            kv_calibration_draws *out, kv_diag *diag)
{
    gsl_rng *random = gsl_rng_alloc(gsl_rng_mt19937);
    gsl_matrix *root = gsl_matrix_alloc((size_t)fit->parameters, (size_t)fit->parameters);
    bool memory = random != NULL && root != NULL;
    if (memory) {
        gsl_rng_set(random, stream);
        draw_links(fit, random, root, out->link);
        for (int d = 0; d < KV_CALIBRATION_DRAWS; d++)
            out->shift[d] = gsl_cdf_tdist_Pinv((d + 0.5) / KV_CALIBRATION_DRAWS, freedom);
        gsl_ran_shuffle(random, out->shift, KV_CALIBRATION_DRAWS, sizeof *out->shift);
    }
    gsl_rng_free(random);
    gsl_matrix_free(root);
    return memory ? KV_OK : kv_fail_memory(diag);
}

double kv__calibration_shift(const kv_calibration_task *task, double spread, double shift,
                             double accuracy)
{
    double error = spread * shift * kv_calibration_scale(task, accuracy);
    return fmin(1, fmax(0, accuracy + error));
}

/* --- Errors ----------------------------------------------------------------------------------- */

double kv__calibration_spread(const kv_calibration *c, const kv_calibration_pool *pool, bool turns,
                              int except, int *policies)
{
    double sum = 0;
    *policies = 0;
    for (int f = 0; f < pool->folds; f++) {
        double squares = 0;
        int count = 0;
        for (int i = 0; i < c->points; i++) {
            const kv_calibration_point *point = &c->point[i];
            if (c->policy_of[i] != pool->fold[f].policy || c->policy_of[i] == except ||
                (point->turn > 0) != turns || isnan(pool->held_out[i]))
                continue;
            double error = (point->accuracy - pool->held_out[i]) /
                           kv_calibration_scale(&c->task[point->task], pool->held_out[i]);
            squares += error * error;
            count++;
        }
        if (count == 0)
            continue;
        sum += squares / count;
        ++*policies;
    }
    return *policies > 0 ? sqrt(sum / *policies) : NAN;
}

static void measure_errors(const kv_calibration *c, kv_calibration_task *out, int task)
{
    double sum = 0, bias = 0, squares = 0, turn_sum = 0;
    int count = 0, turns = 0;
    out->max = 0;
    for (int i = 0; i < c->points; i++) {
        const kv_calibration_point *point = &c->point[i];
        if (point->task != task || point->full || isnan(point->held_out))
            continue;
        double error = point->held_out - point->accuracy;
        if (!point->fitted_to) {
            turn_sum += fabs(error);
            turns++;
            continue;
        }
        sum += fabs(error);
        bias += error;
        squares += error * error;
        out->max = fmax(out->max, fabs(error));
        count++;
    }
    out->mae = sum / count;
    out->bias = bias / count;
    out->rms = sqrt(squares / count);
    out->turn_mae = turns ? turn_sum / turns : NAN;
}

/* --- Intervals -------------------------------------------------------------------------------- */

/* Means of a row's examples under each draw: [draws][examples], NaN for an example not in the row.
 */
static void draw_examples(const kv_link_row *row, const kv_calibration_draws *draws, int examples,
                          double *out)
{
    for (int i = 0; i < KV_CALIBRATION_DRAWS * examples; i++)
        out[i] = NAN;
    for (int d = 0; d < KV_CALIBRATION_DRAWS; d++) {
        double *mean = out + (size_t)d * (size_t)examples;
        for (int k = 0; k < row->cells; k++) {
            const kv_link_cell *cell = &row->cell[k];
            double pass = cell->weight * kv_link_pass(&draws->link[d], cell->x, cell->q, NULL);
            mean[cell->example] = pass + (isnan(mean[cell->example]) ? 0 : mean[cell->example]);
        }
    }
}

static int count_examples(const double *mean, int examples)
{
    int count = 0;
    for (int e = 0; e < examples; e++)
        count += !isnan(mean[e]);
    return count;
}

/* What intervals of a task's held-out points are made with. */
typedef struct checker {
    const kv_calibration_task *task;
    kv_bootstrap bootstrap;
    kv_calibration_draws draws;
    double *mean;   /* [draws][examples] */
    double *sample; /* [resamples] */
    double confidence;
} checker;

static void hold_interval(checker *k, const kv_link_row *row, double spread,
                          kv_calibration_point *point)
{
    int examples = k->task->examples;
    draw_examples(row, &k->draws, examples, k->mean);
    int count = count_examples(k->mean, examples);
    for (int r = 0; r < k->bootstrap.resamples; r++) {
        int d = r % KV_CALIBRATION_DRAWS;
        double *mean = k->mean + (size_t)d * (size_t)examples;
        double accuracy = count * kv_bootstrap_mean(&k->bootstrap, r, mean);
        k->sample[r] = kv__calibration_shift(k->task, spread, k->draws.shift[d], accuracy);
    }
    kv_interval(k->sample, k->bootstrap.resamples, k->confidence, &point->held_out_lo,
                &point->held_out_hi);
}

/* The interval of a policy's points as it would be if the policy had not been measured: neither the
 * fit nor the spread has seen it. */
static kv_err hold_policy(kv_calibration *c, const kv_calibration_pool *pool, int task,
                          const kv_calibration_fold *fold, checker *k, kv_diag *diag)
{
    char purpose[256];
    int policies;
    double spread = kv__calibration_spread(c, pool, false, fold->policy, &policies);
    snprintf(purpose, sizeof purpose, "held-out policy %s of %s",
             c->plan->point[c->point[fold->policy].point].policy, c->task[task].name);
    if (policies == 0)
        return KV_OK;
    kv_err err = kv__calibration_draw(&fold->fit, policies, kv_stream_seed(c->seed, purpose),
                                      &k->draws, diag);
    for (int i = 0; i < c->points && err == KV_OK; i++)
        if (c->point[i].task == task && c->policy_of[i] == fold->policy && c->point[i].fitted_to)
            hold_interval(k, &c->row[i], spread, &c->point[i]);
    return err;
}

static void measure_coverage(const kv_calibration *c, kv_calibration_task *out, int task)
{
    static const double rounding = 1e-9; /* accuracies are often written with few digits */
    int count = 0, inside = 0;
    for (int i = 0; i < c->points; i++) {
        const kv_calibration_point *point = &c->point[i];
        if (point->task != task || isnan(point->held_out_lo))
            continue;
        count++;
        inside += point->accuracy >= point->held_out_lo - rounding &&
                  point->accuracy <= point->held_out_hi + rounding;
    }
    out->coverage = count ? (double)inside / count : NAN;
}

static kv_err check_intervals(kv_calibration *c, const kv_calibration_pool *pool, int task,
                              kv_diag *diag)
{
    char purpose[256];
    size_t examples = (size_t)c->task[task].examples;
    const kv_critical_info *info = &c->plan->critical;
    checker *k = calloc(1, sizeof *k);
    if (k == NULL)
        return kv_fail_memory(diag);
    k->task = &c->task[task];
    k->confidence = info->confidence;
    k->mean = malloc(KV_CALIBRATION_DRAWS * examples * sizeof *k->mean + 1);
    k->sample = malloc((size_t)info->resamples * sizeof *k->sample + 1);
    kv_err err = k->mean && k->sample ? KV_OK : kv_fail_memory(diag);
    snprintf(purpose, sizeof purpose, "calibrating examples of %s", c->task[task].name);
    if (err == KV_OK)
        err = kv_bootstrap_init(&k->bootstrap, info->resamples, (int)examples,
                                kv_stream_seed(c->seed, purpose), diag);
    for (int f = 0; f < pool->folds && err == KV_OK; f++)
        err = hold_policy(c, pool, task, &pool->fold[f], k, diag);
    if (err == KV_OK)
        measure_coverage(c, &c->task[task], task);
    kv_bootstrap_fini(&k->bootstrap);
    free(k->mean);
    free(k->sample);
    free(k);
    return err;
}

/* --- Critical footprints ---------------------------------------------------------------------- */

static bool same_curve(const kv_calibration *c, int i, int j)
{
    const kv_point_info *a = &c->plan->point[c->point[i].point];
    const kv_point_info *b = &c->plan->point[c->point[j].point];
    return c->point[i].task == c->point[j].task && kv__same_curve(a, b);
}

static bool on_curve(const kv_calibration *c, int i)
{
    const kv_calibration_point *point = &c->point[i];
    return point->turn == 0 && !point->full && !isnan(point->held_out);
}

/* Where the curve of point i crosses, by its measured and by its held-out accuracies. The full
 * cache closes every curve. */
static void compare_curve(const kv_calibration *c, int i, kv_sample *samples, double threshold,
                          kv_calibration_task *out)
{
    kv_critical measured = {0}, held_out = {0};
    double target = threshold * out->full_accuracy;
    for (int side = 0; side < 2; side++) {
        int count = 0;
        for (int j = i; j < c->points; j++)
            if (on_curve(c, j) && same_curve(c, i, j))
                samples[count++] = (kv_sample){c->point[j].footprint,
                                               side ? c->point[j].held_out : c->point[j].accuracy};
        samples[count++] = (kv_sample){1, out->full_accuracy};
        if (!kv_critical_find(samples, count, target, side ? &held_out : &measured))
            return;
    }
    if (measured.status != held_out.status) {
        out->critical_differ++;
    } else if (measured.status == KV_CRITICAL_OK) {
        out->critical_mae += fabs(held_out.last_crossing - measured.last_crossing);
        out->critical_curves++;
    }
}

static kv_err check_critical(const kv_calibration *c, int task, kv_calibration_task *out,
                             kv_diag *diag)
{
    kv_sample *samples = malloc((size_t)(c->points + 2) * sizeof *samples);
    if (samples == NULL)
        return kv_fail_memory(diag);
    out->critical_mae = 0;
    for (int i = 0; i < c->points; i++) {
        bool first = c->point[i].task == task && on_curve(c, i);
        for (int j = 0; j < i && first; j++)
            first = !(on_curve(c, j) && same_curve(c, i, j));
        if (first)
            compare_curve(c, i, samples, c->plan->critical.threshold, out);
    }
    out->critical_mae = out->critical_curves ? out->critical_mae / out->critical_curves : NAN;
    free(samples);
    return KV_OK;
}

kv_err kv__calibration_check(kv_calibration *c, const kv_calibration_pool *pool, int task,
                             kv_diag *diag)
{
    measure_errors(c, &c->task[task], task);
    kv_err err = check_intervals(c, pool, task, diag);
    if (err == KV_OK)
        err = check_critical(c, task, &c->task[task], diag);
    return err;
}
