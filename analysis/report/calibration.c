/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Calibration: how well the accuracy model predicts policies that it was not fitted to. */
#include "config.h"

#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/sql.h"

static kv_err write_calibration(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(calibration) = {
    .name = "calibration",
    .title = "How far to trust the accuracy",
    .write = write_calibration,
};

static const char error_sql[] =
    "SELECT task, points, policies, residual_rms, held_out_mae, held_out_max, held_out_bias, "
    "coverage, critical_mae, critical_curves FROM calibration WHERE run_id = ? ORDER BY task";

static const kv_html_column error_columns[] = {
    {"task", NULL, 't'},
    {"measured points", "behind the fit", 'i'},
    {"policies", "that were measured", 'i'},
    {"misfit", "root mean square of what the fit misses", 'p'},
    {"error on unseen policies",
     "mean absolute error of points of a policy that the fit had not seen", 'p'},
    {"largest", "the largest of these errors", 'p'},
    {"bias", "their mean: above 0 the prediction is too good", 'p'},
    {"in interval", "share of unseen points that lie within their interval", 'p'},
    {"error of critical footprint", "mean absolute, on unseen policies, where both curves cross",
     'p'},
    {"curves", "behind that", 'i'},
};

static const char policy_sql[] = "SELECT task, policy, points, mae, max, bias FROM "
                                 "calibration_policy WHERE run_id = ? ORDER BY task, policy";

static const kv_html_column policy_columns[] = {
    {"task", NULL, 't'},    {"policy left out", NULL, 't'},
    {"points", NULL, 'i'},  {"mean absolute error", NULL, 'p'},
    {"largest", NULL, 'p'}, {"bias", "above 0 the prediction is too good", 'p'},
};

static kv_err write_calibration(const kv_report *report, FILE *out, kv_diag *diag)
{
    long long tasks = 0, rows;
    kv_err err =
        kv__sql_number(report->results, 0, &tasks, diag,
                       "SELECT count(*) FROM calibration WHERE run_id = ?", "i", report->run_id);
    if (err != KV_OK || tasks == 0)
        return err == KV_OK ? KV_END : err;
    fputs(
        "<p class=\"soft\">Errors of predicted accuracy in points: each policy was predicted by a "
        "fit to the others.</p>\n",
        out);
    err = kv__html_table(report->results, error_sql, report->run_id, error_columns,
                         sizeof error_columns / sizeof error_columns[0], out, &rows, diag);
    if (err != KV_OK)
        return err;
    fputs("<details><summary>Policy by policy</summary>\n", out);
    err = kv__html_table(report->results, policy_sql, report->run_id, policy_columns,
                         sizeof policy_columns / sizeof policy_columns[0], out, &rows, diag);
    fputs("</details>\n", out);
    return err;
}
