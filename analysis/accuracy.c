/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The accuracy models that need no fitting. */
#include "config.h"

#include "analysis/accuracy.h"

#include "analysis/calibration.h"
#include "analysis/link.h"
#include "analysis/measurements.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- proxy ---------------------------------------------------------------------------
 * A turn is right as often as under the full cache, times a share. With evidence the share is the
 * link of docs/calibration.md, with the parameters that one fit to all tasks of the small model
 * behind examples/sample.h5 has found: for another model a guess, and called a proxy for that
 * reason. Where a turn names no evidence it is the share of the attention output's energy that is
 * undisturbed, 1 / (1 + error^2), and where there are no values to tell it, of all attention. */

static const double proxy_theta[KV_LINK_PARAMETERS] = {
    [KV_LINK_STEEPNESS] = 2.332, [KV_LINK_MIDPOINT] = 0.383, [KV_LINK_QUERY_MIDPOINT] = -0.357};

static double proxy_share(const kv_link *link, const double *value)
{
    double error = value[KV_M_OUTPUT_ERROR];
    if (!isnan(value[KV_M_EVIDENCE_OUTPUT]))
        return kv_link_pass(link, value[KV_M_EVIDENCE_OUTPUT], value[KV_M_QUERY_INTACT], NULL);
    return isnan(error) ? value[KV_M_RECALL] : 1 / (1 + error * error);
}

static void proxy_predict(const void *model, int draw, int point, const kv_example_info *example,
                          const kv_record *records, double *accuracy)
{
    kv_link link;
    kv_link_init(&link, proxy_theta, KV_LINK_GUESS); /* all parameters before the guess */
    for (int t = 1; t <= example->turns; t++) {
        double share = proxy_share(&link, records[t].value);
        accuracy[t - 1] = isnan(share) ? NAN : example->full_score * fmin(1.0, fmax(0.0, share));
    }
}

/* --- measured ------------------------------------------------------------------------------------
 * Points that were not measured have no accuracy. */

static void measured_release(void *model)
{
    kv_measurements_fini(model);
    free(model);
}

static kv_err measured_make(const kv_points_plan *plan, long long seed, void **out, kv_diag *diag)
{
    kv_measurements *model = malloc(sizeof *model);
    if (model == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv_measurements_parse(plan->accuracy_spec, plan->points, model, diag);
    if (err == KV_OK)
        *out = model;
    else
        free(model);
    return err;
}

static bool measured_find(const void *model, int point, const char *task, int turn,
                          double *accuracy, double *n)
{
    const kv_measurement *row = kv_measurements_find(model, point, task, turn);
    if (row == NULL)
        return false;
    *accuracy = row->accuracy;
    *n = row->n;
    return true;
}

static const kv_accuracy_type proxy = {.name = "proxy",
                                       .source = "proxy",
                                       .interval = "resampling of the examples",
                                       .predict = proxy_predict};
static const kv_accuracy_type measured = {.name = "measured",
                                          .source = "measured",
                                          .interval = "none",
                                          .make = measured_make,
                                          .release = measured_release,
                                          .measured = measured_find};
static const kv_accuracy_type *const types[] = {&proxy, &measured, &kv__accuracy_calibrated};

const kv_accuracy_type *kv_accuracy_find(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (name == NULL || strcmp(types[i]->name, name) == 0)
            return types[i];
    return NULL;
}
