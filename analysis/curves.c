/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/curves.h"

#include "analysis/run.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kv_chunk_text(long long chunk_tokens, char out[24])
{
    if (chunk_tokens)
        snprintf(out, 24, "%lld", chunk_tokens);
    else
        strcpy(out, "whole");
}

bool kv_chunk_parse(const char *text, long long *chunk_tokens)
{
    char *end;
    *chunk_tokens = 0;
    if (strcmp(text, "whole") == 0)
        return true;
    *chunk_tokens = strtoll(text, &end, 10);
    return *chunk_tokens > 0 && *end == '\0';
}

const char *kv_accuracy_source_text(const char *source)
{
    if (strcmp(source, "measured") == 0)
        return "measured accuracy, as given";
    if (strcmp(source, "calibrated") == 0)
        return "predicted by a model fitted to measured accuracy";
    return "a proxy: a rule on recorded attention, no accuracy was measured";
}

static const struct {
    const char *name, *title, *critical;
} axes[KV_AXES] = {
    [KV_AXIS_ENTRIES] = {"entries", "KV footprint (% of full causal attention)\tKV footprint (%)",
                         "critical footprint (%)\tcritical (%)"},
    [KV_AXIS_BYTES] = {"bytes", "KV footprint in bytes (% of the full cache's)\tKV bytes (%)",
                       "critical footprint in bytes (%)\tcritical bytes (%)\tcritical (%)"},
    [KV_AXIS_READS] = {"reads", "KV entries read (% of the full cache)\tKV read (%)",
                       "critical reads (%)\tcritical (%)"},
    [KV_AXIS_PREFILL] = {"prefill", "scores computed in prefill (%)\tprefill (%)",
                         "critical prefill (%)\tcritical (%)"},
};

const char *kv_axis_name(kv_axis axis)
{
    return axes[axis].name;
}

const char *kv_axis_title(kv_axis axis)
{
    return axes[axis].title;
}

const char *kv_axis_critical(kv_axis axis)
{
    return axes[axis].critical;
}

bool kv_axis_parse(const char *text, kv_axis *axis)
{
    for (int a = 0; a < KV_AXES; a++)
        if (strcmp(axes[a].name, text) == 0) {
            *axis = (kv_axis)a;
            return true;
        }
    return false;
}

void kv_curves_free(kv_curves *curves)
{
    if (curves == NULL)
        return;
    for (int c = 0; c < curves->curves; c++) {
        kv_curve *curve = &curves->curve[c];
        free(curve->task);
        free(curve->policy);
        free(curve->label);
        free(curve->title);
        free(curve->source);
        free(curve->point);
    }
    free(curves->curve);
    free(curves->name);
    free(curves->experiment);
    free(curves->version);
    free(curves->started_at);
    free(curves->finished_at);
    free(curves->interval);
    free(curves);
}

/* --- run --------------------------------------------------------------------------- */

static kv_err load_run(kv_results *results, long long run_id, kv_curves *out, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__run_row(results,
                             "SELECT id, seed, confidence, name, experiment, version, "
                             "started_at, finished_at, "
                             "(SELECT accuracy_interval FROM footprint_point WHERE run_id = "
                             "run.id ORDER BY accuracy_interval = 'none', accuracy_source = "
                             "'measured', id LIMIT 1) "
                             "FROM run LEFT JOIN attention_run ON run_id = id WHERE " KV__RUN_IS,
                             run_id, &row, diag);
    char **const text[] = {&out->name,       &out->experiment,  &out->version,
                           &out->started_at, &out->finished_at, &out->interval};
    for (int i = 0; i < 6 && err == KV_OK; i++)
        err = kv__sql_text(row, 3 + i, text[i], diag);
    if (err == KV_OK) {
        out->run_id = sqlite3_column_int64(row, 0);
        out->seed = sqlite3_column_int64(row, 1);
        out->confidence = kv__sql_double(row, 2);
    }
    sqlite3_finalize(row);
    return err;
}

/* --- filters ----------------------------------------------------------------------- */

static bool is_among(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return names == NULL;
}

static bool is_wanted(const kv_curve_filter *filter, const kv_curve *curve)
{
    bool reference = strcmp(curve->policy, "full") == 0;
    bool chunk = filter->chunks == NULL || reference;
    for (int i = 0; i < filter->chunk_count; i++)
        chunk = chunk || filter->chunks[i] == curve->chunk_tokens;
    return chunk && is_among(curve->task, filter->tasks, filter->task_count) &&
           (reference || is_among(curve->policy, filter->policies, filter->policy_count) ||
            is_among(curve->label, filter->policies, filter->policy_count));
}

/* Every name of a filter must be one of a column of the run's points. */
static kv_err check_names(kv_results *results, long long run_id, const char *what, const char *sql,
                          const char *const *names, int count, kv_diag *diag)
{
    enum { MOST = 256 };
    kv_mark mark = {kv_results_path(results), 0, 0};
    char *known[MOST];
    int knowns = 0;
    sqlite3_stmt *rows = NULL;
    kv_err err = count ? kv__sql_prepare(results, sql, &rows, diag) : KV_OK;
    if (err == KV_OK && count)
        kv__sql_bind(rows, 1, "i", run_id);
    while (count && err == KV_OK && knowns < MOST &&
           (err = kv__sql_step(results, rows, diag)) == KV_OK)
        err = kv__sql_text(rows, 0, &known[knowns++], diag);
    err = err == KV_END ? KV_OK : err;
    for (int i = 0; i < count && err == KV_OK && knowns < MOST; i++) {
        const char *const *list = (const char *const *)known;
        if (is_among(names[i], list, knowns))
            continue;
        const char *near = kv_nearest(names[i], list, knowns);
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "there is no %s '%s' in run %lld%s%s%s", what,
                      names[i], run_id, near ? ", did you mean '" : "", near ? near : "",
                      near ? "'?" : "");
    }
    for (int i = 0; i < knowns; i++)
        free(known[i]);
    sqlite3_finalize(rows);
    return err;
}

static kv_err check_filter(kv_results *results, long long run_id, const kv_curve_filter *filter,
                           kv_diag *diag)
{
    kv_err err =
        check_names(results, run_id, "task",
                    "SELECT DISTINCT task FROM footprint_point WHERE run_id = ? ORDER BY 1",
                    filter->tasks, filter->task_count, diag);
    if (err == KV_OK)
        err = check_names(results, run_id, "policy",
                          "SELECT DISTINCT policy FROM footprint_point WHERE run_id = ?1 UNION "
                          "SELECT DISTINCT label FROM footprint_point WHERE run_id = ?1 ORDER BY 1",
                          filter->policies, filter->policy_count, diag);
    return err;
}

/* --- curves ------------------------------------------------------------------------ */

bool kv_policy_is_oracle(const char *policy)
{
    size_t bytes = strlen(KV_ORACLE_POLICY);
    for (const char *part = policy; part != NULL; part = strchr(part, '+')) {
        part += *part == '+';
        if (strncmp(part, KV_ORACLE_POLICY, bytes) == 0 && (part[bytes] == '+' || !part[bytes]))
            return true;
    }
    return false;
}

/* Fills a curve from a row that has it; see curve_sql. */
static kv_err load_curve(sqlite3_stmt *row, kv_axis axis, kv_curve *curve, kv_diag *diag)
{
    char *status = NULL;
    int at = axis == KV_AXIS_BYTES ? 16 : 4; /* where the axis' critical footprint stands */
    const char *saves = (const char *)sqlite3_column_text(row, 15);
    if (saves != NULL)
        kv_axis_parse(saves, &curve->saves);
    kv_err err = kv__sql_text(row, 0, &curve->task, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 1, &curve->policy, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 2, &curve->label, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 3, &curve->source, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, axis >= KV_AXIS_READS ? 20 : at, &status, diag);
    if (err != KV_OK)
        return err;
    curve->oracle = kv_policy_is_oracle(curve->policy);
    curve->chunk_tokens = sqlite3_column_int64(row, 5);
    curve->examples = sqlite3_column_int(row, 6);
    curve->points = sqlite3_column_int(row, 7);
    curve->has_critical = status != NULL;
    if (status != NULL)
        curve->status = strcmp(status, "ok") == 0       ? KV_CRITICAL_OK
                        : strcmp(status, "always") == 0 ? KV_CRITICAL_ALWAYS
                                                        : KV_CRITICAL_NEVER;
    double *const number[] = {&curve->threshold,    &curve->full_accuracy,
                              &curve->kv_footprint, &curve->first_crossing,
                              &curve->lo,           &curve->hi};
    for (int i = 0; i < 6; i++)
        *number[i] = kv__sql_double(row, 8 + i);
    if (axis == KV_AXIS_BYTES) {
        curve->kv_footprint = kv__sql_double(row, 17);
        curve->first_crossing = NAN;
        curve->lo = kv__sql_double(row, 18);
        curve->hi = kv__sql_double(row, 19);
    }
    free(status);
    return KV_OK;
}

static kv_err load_curve_points(kv_results *results, sqlite3_stmt *rows, kv_axis axis,
                                kv_curve *curve, kv_diag *diag)
{
    int count = 0;
    kv_err err = KV_OK;
    curve->point = calloc((size_t)curve->points + 1, sizeof *curve->point);
    if (curve->point == NULL)
        return kv_fail_memory(diag);
    while (count < curve->points && (err = kv__sql_step(results, rows, diag)) == KV_OK)
        curve->point[count++] =
            (kv_curve_point){.keep = kv__sql_double(rows, 0),
                             .kv_footprint = kv__sql_double(rows, 1 + (int)axis),
                             .amount = {kv__sql_double(rows, 1), kv__sql_double(rows, 2),
                                        kv__sql_double(rows, 3), kv__sql_double(rows, 4)},
                             .accuracy = kv__sql_double(rows, 5),
                             .lo = kv__sql_double(rows, 6),
                             .hi = kv__sql_double(rows, 7)};
    sqlite3_reset(rows);
    curve->points = count;
    return err == KV_END ? KV_OK : err;
}

/* Results hold critical footprints in entries and bytes; those in reads are found from the points,
 * without intervals. */
static kv_err find_critical(kv_curve *curve, kv_diag *diag)
{
    kv_critical found;
    kv_sample *sample = calloc((size_t)curve->points + 1, sizeof *sample);
    if (sample == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < curve->points; p++)
        sample[p] = (kv_sample){curve->point[p].kv_footprint, curve->point[p].accuracy};
    curve->has_critical =
        !isnan(curve->threshold) &&
        kv_critical_find(sample, curve->points, curve->threshold * curve->full_accuracy, &found);
    if (curve->has_critical) {
        curve->status = found.status;
        curve->kv_footprint = found.last_crossing;
        curve->first_crossing = found.first_crossing;
    }
    curve->lo = curve->hi = NAN;
    free(sample);
    return KV_OK;
}

/* One row per curve of a run and turn. The weakest source is the greatest but measured. */
static const char curve_sql[] =
    "SELECT p.task, p.policy, p.label, "
    "coalesce(max(CASE WHEN p.accuracy_source <> 'measured' THEN p.accuracy_source END), "
    "'measured'), c.status, p.chunk_size, max(p.n_examples), count(*), c.threshold, "
    "c.full_accuracy, c.kv_footprint, c.first_crossing, c.lo, c.hi, p.curve, p.saves, "
    "c.bytes_status, c.kv_footprint_bytes, c.bytes_lo, c.bytes_hi, NULL "
    "FROM footprint_point p LEFT JOIN critical_footprint c ON c.run_id = p.run_id AND "
    "c.task = p.task AND c.turn IS p.turn AND c.policy = p.policy AND c.params = p.curve AND "
    "c.chunk_size IS p.chunk_size "
    "WHERE p.run_id = ?1 AND p.turn IS nullif(?2, 0) "
    "GROUP BY p.task, p.policy, p.curve, p.chunk_size ORDER BY p.task, min(p.id)";

static const char point_sql[] =
    "SELECT keep, kv_footprint, kv_footprint_bytes, kv_reads, kv_reads_prefill, accuracy, "
    "accuracy_lo, accuracy_hi "
    "FROM footprint_point "
    "WHERE run_id = ?1 AND turn IS nullif(?2, 0) AND task = ?3 AND policy = ?4 AND curve = ?5 AND "
    "chunk_size IS nullif(?6, 0) ORDER BY CASE ?7 WHEN 1 THEN kv_footprint_bytes WHEN 2 THEN "
    "kv_reads WHEN 3 THEN kv_reads_prefill ELSE kv_footprint END, id";

static kv_err grow(kv_curves *out, kv_diag *diag)
{
    if (out->curves & (out->curves - 1)) /* room is the next power of two */
        return KV_OK;
    size_t room = out->curves ? 2 * (size_t)out->curves : 1;
    kv_curve *grown = realloc(out->curve, room * sizeof *grown);
    if (grown == NULL)
        return kv_fail_memory(diag);
    out->curve = grown;
    return KV_OK;
}

static void drop_last(kv_curves *out)
{
    kv_curve *curve = &out->curve[--out->curves];
    free(curve->task);
    free(curve->policy);
    free(curve->label);
    free(curve->source);
}

static kv_err load_curves(kv_results *results, const kv_curve_filter *filter, kv_curves *out,
                          kv_diag *diag)
{
    sqlite3_stmt *rows = NULL, *points = NULL;
    kv_err err = kv__sql_prepare(results, curve_sql, &rows, diag);
    if (err == KV_OK)
        err = kv__sql_prepare(results, point_sql, &points, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "ii", out->run_id, (long long)filter->turn);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        if ((err = grow(out, diag)) != KV_OK)
            break;
        kv_curve *curve = &out->curve[out->curves++];
        *curve = (kv_curve){0};
        err = load_curve(rows, filter->axis, curve, diag);
        if (err == KV_OK && !is_wanted(filter, curve)) {
            drop_last(out);
            continue;
        }
        kv__sql_bind(points, 1, "iitttii", out->run_id, (long long)filter->turn, curve->task,
                     curve->policy, (const char *)sqlite3_column_text(rows, 14),
                     curve->chunk_tokens, (long long)filter->axis);
        if (err == KV_OK)
            err = load_curve_points(results, points, filter->axis, curve, diag);
        if (err == KV_OK && filter->axis >= KV_AXIS_READS)
            err = find_critical(curve, diag);
    }
    sqlite3_finalize(rows);
    sqlite3_finalize(points);
    return err == KV_END ? KV_OK : err;
}

/* --- sources ---------------------------------------------------------------------------------- */

/* Where some curves are predicted, those that were measured say so in their labels. */
static kv_err label_measured(kv_curves *curves, kv_diag *diag)
{
    int measured = 0;
    for (int c = 0; c < curves->curves; c++)
        measured += strcmp(curves->curve[c].source, "measured") == 0;
    for (int c = 0; c < curves->curves && measured < curves->curves; c++) {
        kv_curve *curve = &curves->curve[c];
        if (strcmp(curve->source, "measured") != 0 || strcmp(curve->policy, "full") == 0)
            continue;
        const char *between = strcmp(curve->label, curve->policy) == 0 ? " " : ", ";
        char *label = malloc(strlen(curve->label) + sizeof ", measured");
        if (label == NULL)
            return kv_fail_memory(diag);
        sprintf(label, "%s%smeasured", curve->label, between);
        free(curve->label);
        curve->label = label;
    }
    return KV_OK;
}

/* --- titles ----------------------------------------------------------------------------------- */

/* A label is the policy's name, a space and its settings, with ", " between them. */
typedef struct label_part {
    const char *start;
    int bytes;
} label_part;

/* The next setting of a label; false at its end. *at starts as the text after the policy's name. */
static bool next_part(const char **at, label_part *out)
{
    *at += strspn(*at, ", ");
    const char *end = strstr(*at, ", ");
    *out = (label_part){*at, end ? (int)(end - *at) : (int)strlen(*at)};
    *at += out->bytes;
    return out->bytes > 0;
}

/* What follows the policy's name in its label. */
static const char *settings_of(const kv_curve *curve)
{
    size_t bytes = strlen(curve->policy);
    return strncmp(curve->label, curve->policy, bytes) == 0 ? curve->label + bytes : "";
}

static bool has_part(const kv_curve *curve, const label_part *wanted)
{
    const char *at = settings_of(curve);
    for (label_part part; next_part(&at, &part);)
        if (part.bytes == wanted->bytes &&
            memcmp(part.start, wanted->start, (size_t)part.bytes) == 0)
            return true;
    return false;
}

/* True if every curve of the policy has the setting and one differs in another. */
static bool is_shared(const kv_curves *curves, const kv_curve *curve, const label_part *part)
{
    bool differ = false;
    for (int c = 0; c < curves->curves; c++) {
        const kv_curve *other = &curves->curve[c];
        if (strcmp(other->policy, curve->policy) != 0)
            continue;
        if (!has_part(other, part))
            return false;
        differ = differ || strcmp(other->label, curve->label) != 0;
    }
    return differ;
}

static char *make_title(const kv_curves *curves, const kv_curve *curve)
{
    enum { LONG = 32 };
    char *title = malloc(strlen(curve->label) + 1);
    const char *at = settings_of(curve);
    size_t bytes = strlen(curve->policy), parts = 0;
    if (title == NULL || *at == '\0' || strlen(curve->label) <= LONG)
        return title ? strcpy(title, curve->label) : NULL;
    strcpy(title, curve->policy);
    for (label_part part; next_part(&at, &part);) {
        if (is_shared(curves, curve, &part))
            continue;
        bytes +=
            (size_t)sprintf(title + bytes, "%s%.*s", parts++ ? ", " : " ", part.bytes, part.start);
    }
    return title;
}

static kv_err make_titles(kv_curves *curves, kv_diag *diag)
{
    for (int c = 0; c < curves->curves; c++) {
        curves->curve[c].title = make_title(curves, &curves->curve[c]);
        if (curves->curve[c].title == NULL)
            return kv_fail_memory(diag);
    }
    return KV_OK;
}

/* --- loading ---------------------------------------------------------------------------------- */

/* The full policy alone is something only if the filter leaves policies and chunk sizes open. */
static bool is_nothing(const kv_curve_filter *filter, const kv_curves *curves)
{
    bool open = filter->chunks == NULL && is_among("full", filter->policies, filter->policy_count);
    for (int c = 0; c < curves->curves; c++)
        if (open || strcmp(curves->curve[c].policy, "full") != 0)
            return false;
    return true;
}

/* What filters might have asked for. */
static kv_err explain_filter(kv_results *results, long long run_id, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(
        results, &row, diag,
        "SELECT group_concat(c, ', '), (SELECT max(turn) FROM footprint_point WHERE run_id = ?1) "
        "FROM (SELECT DISTINCT coalesce(chunk_size, 'whole') AS c FROM footprint_point WHERE "
        "run_id = ?1 ORDER BY chunk_size IS NULL, chunk_size)",
        "i", run_id);
    if (err == KV_OK) {
        char turns[48] = "no turns of their own";
        if (sqlite3_column_int(row, 1) > 0)
            snprintf(turns, sizeof turns, "turns up to %d", sqlite3_column_int(row, 1));
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "run %lld has no curve of the given task, policy, chunk size and turn "
                      "together; there are the chunk sizes %.400s and %s",
                      run_id, sqlite3_column_text(row, 0), turns);
    }
    sqlite3_finalize(row);
    return err;
}

static kv_err explain_nothing(kv_results *results, const kv_curve_filter *filter, kv_curves *curves,
                              kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    long long points = 0;
    kv_err err = kv__sql_number(results, 0, &points, diag,
                                "SELECT count(*) FROM footprint_point WHERE run_id = ?", "i",
                                curves->run_id);
    if (err != KV_OK)
        return err;
    if (points == 0 && curves->finished_at == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "run %lld has no points yet; finish it with `kvsim run --resume`",
                       curves->run_id);
    if (points > 0)
        return explain_filter(results, curves->run_id, diag);
    err = kv__sql_number(results, 0, &points, diag, "SELECT max(run_id) FROM footprint_point", "");
    if (err != KV_OK)
        return err;
    char other[64] = "";
    if (points > 0)
        snprintf(other, sizeof other, "; run %lld has: --run %lld", points, points);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "run %lld has no footprint points%s", curves->run_id,
                   other);
}

static kv_err count_turns(kv_results *results, kv_curves *curves, kv_diag *diag)
{
    long long turns = 0;
    kv_err err = kv__sql_number(results, 0, &turns, diag,
                                "SELECT max(turn) FROM footprint_point WHERE run_id = ?", "i",
                                curves->run_id);
    curves->turns = (int)turns;
    return err;
}

kv_err kv_curves_load(kv_results *results, const kv_curve_filter *filter, kv_curves **out,
                      kv_diag *diag)
{
    kv_curves *curves = calloc(1, sizeof *curves);
    if (curves == NULL)
        return kv_fail_memory(diag);
    curves->axis = filter->axis;
    curves->chunks_given = filter->chunk_count > 1;
    kv_err err = load_run(results, filter->run_id, curves, diag);
    if (err == KV_OK)
        err = check_filter(results, curves->run_id, filter, diag);
    if (err == KV_OK)
        err = load_curves(results, filter, curves, diag);
    if (err == KV_OK && is_nothing(filter, curves))
        err = explain_nothing(results, filter, curves, diag);
    if (err == KV_OK)
        err = count_turns(results, curves, diag);
    if (err == KV_OK)
        err = label_measured(curves, diag);
    if (err == KV_OK)
        err = make_titles(curves, diag);
    if (err == KV_OK)
        *out = curves;
    else
        kv_curves_free(curves);
    return err;
}
