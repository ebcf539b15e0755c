/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/report_curves.h"

#include "analysis/sql.h"

kv_err kv__report_curves(const kv_report *report, kv_curves **out, kv_diag *diag)
{
    long long points = 0;
    kv_curve_filter filter = {.run_id = report->run_id};
    kv_err err = kv__sql_number(report->results, 0, &points, diag,
                                "SELECT count(*) FROM footprint_point WHERE run_id = ?", "i",
                                report->run_id);
    if (err == KV_OK && points == 0)
        return KV_END;
    return err == KV_OK ? kv_curves_load(report->results, &filter, out, diag) : err;
}
