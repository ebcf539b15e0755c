/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/report.h"

#include "analysis/html.h"
#include "analysis/output.h"
#include "analysis/run.h"
#include "analysis/sql.h"

#include <stdlib.h>
#include <string.h>

#define KV_SECTION(id) extern const kv_section kv__section_##id;
#include "analysis/section_registry.inc"
#undef KV_SECTION

static const kv_section *const section_table[] = {
#define KV_SECTION(id) &kv__section_##id,
#include "analysis/section_registry.inc"
#undef KV_SECTION
    NULL};

static const char style[] =
#include "analysis/report_css.inc"
    ;
static const char script[] =
#include "analysis/report_js.inc"
    ;

/* What the head of the page says of the run. */
typedef struct page {
    kv_report report;
    char *name, *version, *finished_at;
} page;

static kv_err find_run(kv_results *results, long long run_id, page *out, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err =
        kv__run_row(results, "SELECT id, name, version, finished_at FROM run WHERE " KV__RUN_IS,
                    run_id, &row, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 1, &out->name, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 2, &out->version, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 3, &out->finished_at, diag);
    if (err == KV_OK)
        out->report = (kv_report){results, sqlite3_column_int64(row, 0), out->finished_at != NULL};
    sqlite3_finalize(row);
    return err;
}

/* Nothing on the page may be loaded from elsewhere, and its policy says so. */
static void write_head(const page *p, FILE *out)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
          "<meta name=\"generator\" content=\"kvsim " PACKAGE_VERSION "\">\n<title>",
          out);
    kv__html_text(out, p->name);
    fprintf(out, " - kvsim report</title>\n<style>\n%s</style>\n</head>\n<body>\n<header>\n<h1>",
            style);
    kv__html_text(out, p->name);
    fprintf(out, "</h1>\n<p class=\"soft\">kvsim ");
    kv__html_text(out, p->version);
    fprintf(out, ", run %lld", p->report.run_id);
    if (p->finished_at != NULL) {
        fputs(", finished ", out);
        kv__html_text(out, p->finished_at);
    }
    fputs("</p>\n", out);
    if (p->finished_at == NULL)
        fputs("<p class=\"note\">This run is not complete: finish it with "
              "<code>kvsim run --resume</code>.</p>\n",
              out);
}

/* What the run warned of. */
static kv_err write_warnings(const page *p, FILE *out, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err =
        kv__sql_prepare(p->report.results,
                        "SELECT text FROM warning WHERE run_id = ? ORDER BY number", &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", p->report.run_id);
    while (err == KV_OK && (err = kv__sql_step(p->report.results, rows, diag)) == KV_OK) {
        fputs("<p class=\"note\">", out);
        kv__html_text(out, (const char *)sqlite3_column_text(rows, 0));
        fputs("</p>\n", out);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

/* A section is written aside first: its title is there only if it is. */
static kv_err write_section(const page *p, const kv_section *section, FILE *out, kv_diag *diag)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *aside = open_memstream(&text, &bytes);
    if (aside == NULL)
        return kv_fail_memory(diag);
    kv_err err = section->write(&p->report, aside, diag);
    if (fclose(aside) != 0 && err == KV_OK)
        err = kv_fail_memory(diag);
    if (err == KV_OK) {
        fprintf(out, "<section id=\"%s\">\n<h2>%s</h2>\n", section->name, section->title);
        fwrite(text, 1, bytes, out);
        fputs("</section>\n", out);
    }
    free(text);
    return err == KV_END ? KV_OK : err;
}

static kv_err write_page(const page *p, FILE *out, kv_diag *diag)
{
    write_head(p, out);
    kv_err err = write_warnings(p, out, diag);
    fputs("</header>\n<main>\n", out);
    for (const kv_section *const *section = section_table; *section != NULL && err == KV_OK;
         section++)
        err = write_section(p, *section, out, diag);
    fprintf(out, "</main>\n<script>\n%s</script>\n</body>\n</html>\n", script);
    return err;
}

kv_err kv_report_write(kv_results *results, long long run_id, const char *path, kv_diag *diag)
{
    page p = {.name = NULL};
    kv_output output;
    kv_err err = find_run(results, run_id, &p, diag);
    if (err == KV_OK)
        err = kv__output_open(path, &output, diag);
    if (err == KV_OK) {
        err = write_page(&p, output.file, diag);
        err = kv__output_close(&output, err, diag);
    }
    free(p.name);
    free(p.version);
    free(p.finished_at);
    return err;
}
