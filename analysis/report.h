/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The report: one self-contained HTML page about a run. A section is one file in analysis/report/
 * that ends in KV_SECTION_DEFINE(name) = {...}, and one line in analysis/analysis.am. */
#ifndef KVSIM_ANALYSIS_REPORT_H
#define KVSIM_ANALYSIS_REPORT_H

#include "analysis/results.h"

#include <stdio.h>

/* The run that a report is about. */
typedef struct kv_report {
    kv_results *results;
    long long run_id;
    bool finished;
} kv_report;

typedef struct kv_section {
    const char *name; /* the anchor */
    const char *title;
    /* Writes what follows the title, or answers KV_END, having written nothing, if the run holds
     * nothing for this section. */
    kv_err (*write)(const kv_report *report, FILE *out, kv_diag *diag);
} kv_section;

#define KV_SECTION_DEFINE(id) const kv_section kv__section_##id

/* Writes the page about a run (0: the latest) into a file, which appears only when it is complete;
 * path NULL: to standard output. */
kv_err kv_report_write(kv_results *results, long long run_id, const char *path,
                       kv_diag *diag) KV_MUST_USE;

typedef enum kv_export_format { KV_EXPORT_CSV, KV_EXPORT_JSON } kv_export_format;

/* Writes a table or view of the database: CSV with a header line (RFC 4180; NULL is empty, an empty
 * text is "") or JSON (an array of objects). Numbers have as many digits as read back equal;
 * infinity is 9e999. */
kv_err kv_export_table(kv_results *results, const char *table, kv_export_format format,
                       const char *path, kv_diag *diag) KV_MUST_USE;

#endif
