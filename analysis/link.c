/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/link.h"

#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <string.h>

/* Usual values and bounds, from measured accuracies of three tasks (docs/calibration.md). The
 * query's steepness is fixed: the rows do not tell it. */
static const double usual[KV_LINK_PARAMETERS] = {2.3, 0.42, -0.1, -3.0};
static const double least[KV_LINK_PARAMETERS] = {0.0, 0.0, -1.0, -12.0};
static const double most[KV_LINK_PARAMETERS] = {3.5, 1.0, 1.0, 4.0};
static const double query_steepness = 5.0;
static const double pull = 0.02;

/* --- The link --------------------------------------------------------------------------------- */

static double logistic(double z)
{
    return 1.0 / (1.0 + exp(-z));
}

static double within(double value, double low, double high)
{
    return fmin(high, fmax(low, value));
}

bool kv_link_features(const kv_record *record, double *x, double *q)
{
    const double *value = record->value;
    *x = value[KV_M_EVIDENCE_OUTPUT];
    *q = value[KV_M_QUERY_INTACT];
    if (isnan(*x) || isnan(*q)) {
        *x = isnan(value[KV_M_OUTPUT_ERROR]) ? value[KV_M_RECALL] : 1 - value[KV_M_OUTPUT_ERROR];
        *q = 1;
    }
    if (isnan(*x))
        return false;
    *x = within(*x, 0, 1);
    *q = within(*q, 0, 1);
    return true;
}

static void curve_init(kv_link_curve *curve, double b, double m)
{
    double low = logistic(-b * m), high = logistic(b * (1 - m));
    double low_slope = low * (1 - low), high_slope = high * (1 - high);
    *curve = (kv_link_curve){.b = b,
                             .m = m,
                             .low = low,
                             .range = high - low,
                             .low_db = -m * low_slope,
                             .low_dm = -b * low_slope,
                             .range_db = (1 - m) * high_slope + m * low_slope,
                             .range_dm = -b * high_slope + b * low_slope};
}

/* n(z), and its derivatives by b and m. */
static double curve_at(const kv_link_curve *curve, double z, double *db, double *dm)
{
    double s = logistic(curve->b * (z - curve->m)), slope = s * (1 - s);
    double n = (s - curve->low) / curve->range;
    *db = ((z - curve->m) * slope - curve->low_db - n * curve->range_db) / curve->range;
    *dm = (-curve->b * slope - curve->low_dm - n * curve->range_dm) / curve->range;
    return n;
}

void kv_link_init(kv_link *link, const double theta[KV_LINK_PARAMETERS], int parameters)
{
    double at[KV_LINK_PARAMETERS];
    for (int i = 0; i < KV_LINK_PARAMETERS; i++) {
        at[i] = within(theta[i], least[i], most[i]);
        link->free[i] = i < parameters && at[i] == theta[i];
    }
    curve_init(&link->output, exp(at[KV_LINK_STEEPNESS]), at[KV_LINK_MIDPOINT]);
    curve_init(&link->query, query_steepness, at[KV_LINK_QUERY_MIDPOINT]);
    link->guess = parameters > KV_LINK_GUESS ? logistic(at[KV_LINK_GUESS]) : 0;
}

double kv_link_pass(const kv_link *link, double x, double q, double gradient[KV_LINK_PARAMETERS])
{
    double output_db, output_dm, query_db, query_dm;
    double output = curve_at(&link->output, x, &output_db, &output_dm);
    double query = curve_at(&link->query, q, &query_db, &query_dm);
    double rest = 1 - link->guess;
    if (gradient != NULL) {
        gradient[KV_LINK_STEEPNESS] = rest * query * output_db * link->output.b;
        gradient[KV_LINK_MIDPOINT] = rest * query * output_dm;
        gradient[KV_LINK_QUERY_MIDPOINT] = rest * output * query_dm;
        gradient[KV_LINK_GUESS] = rest * link->guess * (1 - output * query);
        for (int i = 0; i < KV_LINK_PARAMETERS; i++)
            gradient[i] = link->free[i] ? gradient[i] : 0;
    }
    return link->guess + rest * output * query;
}

double kv_link_predict(const kv_link *link, const kv_link_row *row)
{
    double sum = 0;
    for (int i = 0; i < row->cells; i++)
        sum += row->cell[i].weight * kv_link_pass(link, row->cell[i].x, row->cell[i].q, NULL);
    return sum;
}

/* --- The fit ---------------------------------------------------------------------------------- */

typedef struct problem {
    const kv_link_row *const *rows;
    int count, parameters;
} problem;

static void read_theta(const gsl_vector *at, int parameters, double theta[KV_LINK_PARAMETERS])
{
    memcpy(theta, usual, sizeof usual);
    for (int i = 0; i < parameters; i++)
        theta[i] = gsl_vector_get(at, (size_t)i);
}

static int residuals(const gsl_vector *at, void *data, gsl_vector *out)
{
    const problem *p = data;
    double theta[KV_LINK_PARAMETERS];
    kv_link link;
    read_theta(at, p->parameters, theta);
    kv_link_init(&link, theta, p->parameters);
    for (int r = 0; r < p->count; r++)
        gsl_vector_set(out, (size_t)r, kv_link_predict(&link, p->rows[r]) - p->rows[r]->accuracy);
    for (int i = 0; i < p->parameters; i++)
        gsl_vector_set(out, (size_t)(p->count + i), pull * (theta[i] - usual[i]));
    return GSL_SUCCESS;
}

static int jacobian(const gsl_vector *at, void *data, gsl_matrix *out)
{
    const problem *p = data;
    double theta[KV_LINK_PARAMETERS];
    kv_link link;
    read_theta(at, p->parameters, theta);
    kv_link_init(&link, theta, p->parameters);
    gsl_matrix_set_zero(out);
    for (int r = 0; r < p->count; r++) {
        const kv_link_row *row = p->rows[r];
        double sum[KV_LINK_PARAMETERS] = {0}, gradient[KV_LINK_PARAMETERS];
        for (int c = 0; c < row->cells; c++) {
            kv_link_pass(&link, row->cell[c].x, row->cell[c].q, gradient);
            for (int i = 0; i < p->parameters; i++)
                sum[i] += row->cell[c].weight * gradient[i];
        }
        for (int i = 0; i < p->parameters; i++)
            gsl_matrix_set(out, (size_t)r, (size_t)i, sum[i]);
    }
    for (int i = 0; i < p->parameters; i++)
        gsl_matrix_set(out, (size_t)(p->count + i), (size_t)i, pull);
    return GSL_SUCCESS;
}

/* Parameters, residuals and covariance of a solver at its end. A parameter beyond its bound is put
 * on it, where the rows again tell how sure it is. */
static void read_solution(gsl_multifit_nlinear_workspace *solver, problem *p,
                          gsl_matrix *covariance, kv_link_fit *out)
{
    const gsl_vector *left = gsl_multifit_nlinear_residual(solver);
    gsl_vector *at = gsl_multifit_nlinear_position(solver);
    gsl_matrix *slopes = gsl_multifit_nlinear_jac(solver);
    double squares = 0;
    *out = (kv_link_fit){.parameters = p->parameters};
    read_theta(at, p->parameters, out->theta);
    for (int i = 0; i < p->parameters; i++) {
        out->theta[i] = within(out->theta[i], least[i], most[i]);
        gsl_vector_set(at, (size_t)i, out->theta[i]);
    }
    jacobian(at, p, slopes);
    for (int r = 0; r < p->count; r++)
        squares += gsl_vector_get(left, (size_t)r) * gsl_vector_get(left, (size_t)r);
    out->residual_rms = sqrt(squares / p->count);
    int freedom = p->count > p->parameters ? p->count - p->parameters : 1;
    if (gsl_multifit_nlinear_covar(slopes, 0, covariance) != GSL_SUCCESS)
        return;
    for (int i = 0; i < p->parameters; i++)
        for (int j = 0; j < p->parameters; j++)
            out->covariance[i][j] =
                gsl_matrix_get(covariance, (size_t)i, (size_t)j) * squares / freedom;
}

kv_err kv_link_fit_rows(const kv_link_row *const *rows, int count, int parameters, kv_link_fit *out,
                        kv_diag *diag)
{
    problem p = {rows, count, parameters};
    size_t n = (size_t)(count + parameters), k = (size_t)parameters;
    gsl_multifit_nlinear_fdf function = {
        .f = residuals, .df = jacobian, .n = n, .p = k, .params = &p};
    gsl_multifit_nlinear_parameters settings = gsl_multifit_nlinear_default_parameters();
    gsl_vector_const_view start = gsl_vector_const_view_array(usual, k);
    gsl_matrix *covariance = gsl_matrix_alloc(k, k);
    gsl_multifit_nlinear_workspace *solver =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &settings, n, k);
    bool memory = covariance != NULL && solver != NULL;
    if (memory) {
        int info;
        /* Short of convergence the best point found still stands; its residuals are stored. */
        (void)gsl_multifit_nlinear_init(&start.vector, &function, solver);
        (void)gsl_multifit_nlinear_driver(200, 1e-9, 1e-9, 0, NULL, NULL, &info, solver);
        read_solution(solver, &p, covariance, out);
    }
    gsl_multifit_nlinear_free(solver);
    gsl_matrix_free(covariance);
    return memory ? KV_OK : kv_fail_memory(diag);
}
