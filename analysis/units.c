/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/units.h"

#include "analysis/run.h"
#include "analysis/sql.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

struct kv_units {
    kv_results *results;
    const kv_plan *plan;
    sqlite3_int64 *rowid; /* [examples]; 0: not stored */
    sqlite3_blob *blob;   /* of the example read last */
    int example;
};

static kv_err find_rows(kv_units *units, long long run_id, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(
        units->results, "SELECT number, rowid FROM attention_unit WHERE run_id = ?", &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", run_id);
    while (err == KV_OK && (err = kv__sql_step(units->results, rows, diag)) == KV_OK) {
        int e = sqlite3_column_int(rows, 0);
        if (e >= 0 && e < units->plan->info.examples)
            units->rowid[e] = sqlite3_column_int64(rows, 1);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

kv_err kv__units_open(kv_run *run, const kv_plan *plan, kv_units **out, kv_diag *diag)
{
    kv_units *units = calloc(1, sizeof *units);
    if (units == NULL)
        return kv_fail_memory(diag);
    *units = (kv_units){.results = kv__run_results(run), .plan = plan, .example = -1};
    units->rowid = calloc((size_t)plan->info.examples + 1, sizeof *units->rowid);
    kv_err err = units->rowid ? find_rows(units, kv_run_id(run), diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        *out = units;
    else
        kv__units_close(units);
    return err;
}

void kv__units_close(kv_units *units)
{
    if (units == NULL)
        return;
    sqlite3_blob_close(units->blob);
    free(units->rowid);
    free(units);
}

/* Makes an example's blob the current one. */
static kv_err seek(kv_units *units, int example, kv_diag *diag)
{
    if (units->example == example)
        return KV_OK;
    units->example = -1;
    int code = units->blob != NULL
                   ? sqlite3_blob_reopen(units->blob, units->rowid[example])
                   : sqlite3_blob_open(kv_results_handle(units->results), "main", "attention_unit",
                                       "records", units->rowid[example], 0, &units->blob);
    if (code != SQLITE_OK)
        return kv__sql_fail(units->results, diag);
    units->example = example;
    return KV_OK;
}

kv_err kv__units_read(kv_units *units, int point, int example, kv_record *records, kv_diag *diag)
{
    size_t slots = (size_t)units->plan->info.example[example].turns + 1;
    size_t bytes = slots * sizeof *records;
    kv_mark mark = {kv_results_path(units->results), 0, 0};
    kv_err err = seek(units, example, diag);
    if (err != KV_OK)
        return err;
    if ((size_t)sqlite3_blob_bytes(units->blob) != bytes * (size_t)units->plan->info.points)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "the stored records of example %d are damaged",
                       example);
    if (sqlite3_blob_read(units->blob, records, (int)bytes, (int)(bytes * (size_t)point)) !=
        SQLITE_OK)
        return kv__sql_fail(units->results, diag);
    for (size_t i = 0; i < slots * KV_MEASURES; i++) {
        uint64_t bits;
        double *value = &records[i / KV_MEASURES].value[i % KV_MEASURES];
        memcpy(&bits, value, sizeof bits);
        bits = le64toh(bits);
        memcpy(value, &bits, sizeof bits);
    }
    return KV_OK;
}
