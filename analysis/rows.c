/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/rows.h"

#include "analysis/run.h"
#include "analysis/schema.h"
#include "analysis/sql.h"

#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FOOTPRINT_POINT, EXAMPLE_POINT, RETAINED_SET, CRITICAL_FOOTPRINT, INSERTS };

static const char *const insert_tables[INSERTS] = {"footprint_point", "example_point",
                                                   "retained_set", "critical_footprint"};

struct kv_rows {
    kv_run *run;
    kv_results *results;
    const kv_plan *plan;
    sqlite3_stmt *insert[INSERTS];
    sqlite3_stmt *sets; /* reads attention_set */
};

kv_err kv__rows_open(kv_run *run, const kv_plan *plan, kv_rows **out, kv_diag *diag)
{
    kv_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return kv_fail_memory(diag);
    *rows = (kv_rows){.run = run, .results = kv__run_results(run), .plan = plan};
    kv_err err = kv__sql_prepare(rows->results,
                                 "SELECT sets FROM attention_set WHERE run_id = ? AND point = ? "
                                 "AND example = ?",
                                 &rows->sets, diag);
    for (int i = 0; i < INSERTS && err == KV_OK; i++) {
        char *sql = kv_schema_insert(kv_schema_find(insert_tables[i]));
        err = sql ? kv__sql_prepare(rows->results, sql, &rows->insert[i], diag)
                  : kv_fail_memory(diag);
        free(sql);
    }
    if (err == KV_OK)
        *out = rows;
    else
        kv__rows_close(rows);
    return err;
}

void kv__rows_close(kv_rows *rows)
{
    if (rows == NULL)
        return;
    for (int i = 0; i < INSERTS; i++)
        sqlite3_finalize(rows->insert[i]);
    sqlite3_finalize(rows->sets);
    free(rows);
}

static int bind_measures(sqlite3_stmt *insert, int at, const kv_record *record)
{
    for (int m = 0; m < KV_MEASURES; m++)
        at = kv__sql_bind(insert, at, "d", record->value[m]);
    return at;
}

static const char *interval_text(const kv_accuracy_type *type, const kv_slot *slot)
{
    if (!slot->measured)
        return type->interval;
    return slot->measured_n >= 1 ? "sampling of the measured answers (binomial)" : "none";
}

static kv_err put_slot(kv_rows *rows, const kv_task_set *set, const kv_accuracy_type *type,
                       const kv_summary *summary, int s, long long id, kv_diag *diag)
{
    const kv_point_info *point = &rows->plan->info.point[summary->point];
    const kv_slot *slot = &summary->slot[s];
    sqlite3_stmt *insert = rows->insert[FOOTPRINT_POINT];
    int at = kv__sql_bind(insert, 1, "iitotttttodi", id, kv_run_id(rows->run), set->name,
                          (long long)s, point->policy, point->params_json, point->curve_json,
                          point->label, point->saves ? point->saves : "entries",
                          point->chunk_tokens, point->keep, (long long)slot->examples);
    at = bind_measures(insert, at, &slot->mean);
    kv__sql_bind(insert, at, "dddtt", slot->accuracy, slot->lo, slot->hi,
                 slot->measured ? "measured" : type->source, interval_text(type, slot));
    return kv__sql_run(rows->results, insert, diag);
}

static kv_err put_examples(kv_rows *rows, const kv_task_set *set, const kv_summary *summary, int s,
                           long long id, kv_diag *diag)
{
    sqlite3_stmt *insert = rows->insert[EXAMPLE_POINT];
    kv_err err = KV_OK;
    for (int i = 0; i < set->examples && err == KV_OK; i++) {
        int e = set->example[i], cell = i * set->stride + s;
        if (rows->plan->info.example[e].turns < s)
            continue;
        int at = kv__sql_bind(insert, 1, "ito", id, rows->plan->example_name[e], (long long)s);
        at = bind_measures(insert, at, &summary->record[cell]);
        kv__sql_bind(insert, at, "d", summary->slot[s].measured ? NAN : summary->accuracy[cell]);
        err = kv__sql_run(rows->results, insert, diag);
    }
    return err;
}

/* --- retained sets ----------------------------------------------------------------- */

/* Words of attention_set.sets; they may lie anywhere in memory. */
typedef struct word_list {
    const unsigned char *bytes;
    size_t words;
} word_list;

static uint32_t word_at(const word_list *list, size_t i)
{
    uint32_t word;
    memcpy(&word, list->bytes + i * sizeof word, sizeof word);
    return le32toh(word);
}

/* Writes the positions of the set that starts at a word as JSON. Answers the word after the set, 0
 * if it is damaged. A set is layer, KV head, count and positions. */
static size_t write_positions(FILE *out, const word_list *list, size_t at)
{
    size_t left = list->words - at;
    size_t count = left >= 3 ? word_at(list, at + 2) : 0;
    if (left < 3 || count > left - 3)
        return 0;
    fputc('[', out);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%u", i ? "," : "", (unsigned)word_at(list, at + 3 + i));
    fputc(']', out);
    return at + 3 + count;
}

static kv_err put_set(kv_rows *rows, long long id, int example, const word_list *list, size_t at,
                      size_t *next, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(rows->results), 0, 0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return kv_fail_memory(diag);
    *next = write_positions(out, list, at);
    kv_err err = fclose(out) == 0 ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK && *next == 0)
        err =
            kv_fail(diag, KV_ERR_INPUT, &mark, "the stored retained sets of example %s are damaged",
                    rows->plan->example_name[example]);
    if (err == KV_OK) {
        sqlite3_stmt *insert = rows->insert[RETAINED_SET];
        kv__sql_bind(insert, 1, "itiit", id, rows->plan->example_name[example],
                     (long long)word_at(list, at), (long long)word_at(list, at + 1), text);
        err = kv__sql_run(rows->results, insert, diag);
    }
    free(text);
    return err;
}

static kv_err put_sets(kv_rows *rows, const kv_task_set *set, int point, long long id,
                       kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < set->examples && err == KV_OK; i++) {
        kv__sql_bind(rows->sets, 1, "iii", kv_run_id(rows->run), (long long)point,
                     (long long)set->example[i]);
        err = kv__sql_step(rows->results, rows->sets, diag);
        if (err == KV_OK) {
            word_list list = {sqlite3_column_blob(rows->sets, 0),
                              (size_t)sqlite3_column_bytes(rows->sets, 0) / sizeof(uint32_t)};
            for (size_t at = 0; at < list.words && err == KV_OK;)
                err = put_set(rows, id, set->example[i], &list, at, &at, diag);
        }
        err = err == KV_END ? KV_OK : err;
        sqlite3_reset(rows->sets);
    }
    return err;
}

/* --- points and critical footprints ------------------------------------------------ */

kv_err kv__rows_put_point(kv_rows *rows, const kv_task_set *set, const kv_accuracy_type *type,
                          const kv_summary *summary, kv_diag *diag)
{
    long long id = kv__plan_point_id(rows->plan, summary->point, set->task), there = 0;
    kv_err err = kv__sql_number(rows->results, 0, &there, diag,
                                "SELECT count(*) FROM footprint_point WHERE id = ?", "i", id);
    if (err != KV_OK || there)
        return err;
    err = kv__sql_begin(rows->results, diag);
    if (err != KV_OK)
        return err;
    for (int s = 0; s < set->slots && err == KV_OK; s++) {
        err = put_slot(rows, set, type, summary, s, id + s, diag);
        if (err == KV_OK)
            err = put_examples(rows, set, summary, s, id + s, diag);
    }
    if (err == KV_OK)
        err = put_sets(rows, set, summary->point, id, diag);
    return kv__sql_end(rows->results, err, diag);
}

kv_err kv__rows_put_critical(kv_rows *rows, const kv_critical_row *row, kv_diag *diag)
{
    const kv_point_info *point = &rows->plan->info.point[row->point];
    const kv_critical *critical = &row->entries.critical, *bytes = &row->bytes.critical;
    sqlite3_stmt *insert = rows->insert[CRITICAL_FOOTPRINT];
    kv__sql_bind(insert, 1,
                 "itotttodddddd"
                 "tdddtit",
                 kv_run_id(rows->run), rows->plan->task[row->task], (long long)row->turn,
                 point->policy, point->curve_json, point->label, point->chunk_tokens,
                 rows->plan->info.critical.threshold, row->full_accuracy, critical->last_crossing,
                 critical->first_crossing, row->entries.lo, row->entries.hi,
                 kv_critical_status_name(critical->status), bytes->last_crossing, row->bytes.lo,
                 row->bytes.hi, row->bytes.known ? kv_critical_status_name(bytes->status) : NULL,
                 (long long)row->points, row->source);
    return kv__sql_run(rows->results, insert, diag);
}
