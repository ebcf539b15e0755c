/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* From stored examples to result tables: task by task, curve by curve, point by point. Points are
 * written one transaction each and skipped if they are there already, so that a killed finish goes
 * on where it was; everything that depends on several points goes into the last transaction,
 * together with the end of the work tables. */
#include "config.h"

#include "analysis/finish.h"

#include "analysis/critical.h"
#include "analysis/rows.h"
#include "analysis/run.h"
#include "analysis/sql.h"
#include "analysis/summarise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What critical footprints are measured against: the full policy, or the recorded scores. */
typedef struct reference {
    kv_summary summary; /* of the full policy, if the plan has it */
    bool has_summary;
    double score;   /* mean full_score of the examples */
    double *sample; /* [resamples] of it */
} reference;

typedef struct finisher {
    kv_run *run;
    kv_results *results;
    const kv_plan *plan;
    kv_predictor predictor;
    kv_units *units;
    kv_rows *rows;
    int *curve;                /* [points] the first point of the point's curve; -1: none */
    kv_critical_row *critical; /* [criticals] */
    int criticals, room;
} finisher;

/* --- curves ------------------------------------------------------------------------ */

static kv_err find_curves(finisher *f, kv_diag *diag)
{
    const kv_points_plan *plan = &f->plan->info;
    f->curve = malloc((size_t)plan->points * sizeof *f->curve + 1);
    if (f->curve == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < plan->points; p++) {
        f->curve[p] = plan->point[p].calibration_only ? -1 : p;
        for (int first = 0; first < p && f->curve[p] == p; first++)
            if (f->curve[first] == first && kv__same_curve(&plan->point[first], &plan->point[p]))
                f->curve[p] = first;
    }
    return KV_OK;
}

/* The full policy on a task: with the whole prompt at once if there is a choice, and rather a point
 * of the results than one of the calibration. -1: there is none. */
static int find_full(const kv_points_plan *plan, const char *task)
{
    int best = -1, best_rank = 0;
    for (int p = 0; p < plan->points; p++) {
        const kv_point_info *point = &plan->point[p];
        if (strcmp(point->policy, "full") != 0 ||
            (point->task != NULL && strcmp(point->task, task) != 0))
            continue;
        int rank = 1 + (point->chunk_tokens == 0) + 2 * !point->calibration_only;
        if (rank > best_rank) {
            best = p;
            best_rank = rank;
        }
    }
    return best;
}

static void reference_fini(reference *full)
{
    if (full->has_summary)
        kv__summary_fini(&full->summary);
    free(full->sample);
}

static kv_err reference_init(finisher *f, const kv_task_set *set, reference *out, kv_diag *diag)
{
    int resamples = set->bootstrap.resamples, point = find_full(&f->plan->info, set->name);
    double *scores = malloc((size_t)set->examples * sizeof *scores + 1);
    *out = (reference){.sample = malloc((size_t)resamples * sizeof *out->sample + 1)};
    kv_err err = scores && out->sample ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK) {
        for (int i = 0; i < set->examples; i++)
            scores[i] = f->plan->info.example[set->example[i]].full_score;
        out->score = kv_mean(scores, set->examples);
        for (int r = 0; r < resamples; r++)
            out->sample[r] = kv_bootstrap_mean(&set->bootstrap, r, scores);
    }
    if (err == KV_OK && point >= 0) {
        err = kv__summary_make(set, &f->predictor, f->units, point, &out->summary, diag);
        out->has_summary = err == KV_OK;
    }
    free(scores);
    if (err != KV_OK)
        reference_fini(out);
    return err;
}

/* --- critical footprints ----------------------------------------------------------- */

/* An end of an interval of footprints; infinite where resamples never (or always) cross. As a bound
 * of the curve's own kind it becomes the footprint it is known to lie below or above, else it is
 * open. */
static double close_end(double end, bool is_hi, const kv_critical *critical)
{
    if (!isinf(end))
        return end;
    if (is_hi)
        return end < 0 ? critical->smallest : NAN;
    return end > 0 ? critical->largest : NAN;
}

/* The axis on which a curve may cross its target. */
typedef enum axis { ENTRIES, BYTES } axis;

static double footprint_of(const kv_slot *slot, axis along)
{
    return slot->mean.value[along == BYTES ? KV_M_FOOTPRINT_BYTES : KV_M_FOOTPRINT];
}

static const double *samples_of(const kv_slot *slot, axis along)
{
    return along == BYTES ? slot->bytes_sample : slot->footprint_sample;
}

/* A curve of one slot, to be searched. */
typedef struct search {
    const kv_task_set *set;
    const reference *full;
    const kv_summary *point; /* [points] */
    int points, slot;
    kv_sample *scratch; /* [points] */
    double *crossing;   /* [resamples] */
} search;

static void resample_crossing(const search *c, axis along)
{
    double threshold = c->set->plan->info.critical.threshold;
    const double *target =
        c->full->has_summary ? c->full->summary.slot[c->slot].accuracy_sample : c->full->sample;
    for (int r = 0; r < c->set->bootstrap.resamples; r++) {
        kv_critical critical;
        for (int p = 0; p < c->points; p++) {
            const kv_slot *slot = &c->point[p].slot[c->slot];
            c->scratch[p] = (kv_sample){samples_of(slot, along)[r], slot->accuracy_sample[r]};
        }
        c->crossing[r] = NAN;
        if (isnan(target[r]) ||
            !kv_critical_find(c->scratch, c->points, threshold * target[r], &critical))
            continue;
        c->crossing[r] = critical.status == KV_CRITICAL_OK       ? critical.last_crossing
                         : critical.status == KV_CRITICAL_ALWAYS ? -INFINITY
                                                                 : INFINITY;
    }
}

/* Where the curve crosses threshold x the reference accuracy on an axis, and the interval of it. */
static kv_crossing find_crossing(const search *c, axis along, double reference_accuracy)
{
    const kv_critical_info *info = &c->set->plan->info.critical;
    kv_crossing out = {
        .critical = {.last_crossing = NAN, .first_crossing = NAN}, .lo = NAN, .hi = NAN};
    double lo, hi;
    for (int p = 0; p < c->points; p++) {
        const kv_slot *slot = &c->point[p].slot[c->slot];
        c->scratch[p] = (kv_sample){footprint_of(slot, along), slot->accuracy};
    }
    out.known = !isnan(reference_accuracy) &&
                kv_critical_find(c->scratch, c->points, info->threshold * reference_accuracy,
                                 &out.critical);
    if (!out.known)
        return out;
    resample_crossing(c, along);
    kv_interval(c->crossing, c->set->bootstrap.resamples, info->confidence, &lo, &hi);
    out.lo = close_end(lo, false, &out.critical);
    out.hi = close_end(hi, true, &out.critical);
    return out;
}

static kv_critical_row *new_critical(finisher *f, kv_diag *diag)
{
    if (f->criticals == f->room) {
        int room = f->room ? 2 * f->room : 64;
        kv_critical_row *grown = realloc(f->critical, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            kv_fail_memory(diag);
            return NULL;
        }
        f->critical = grown;
        f->room = room;
    }
    return &f->critical[f->criticals++];
}

/* The weakest of the points' sources: a predicted point makes a predicted curve. */
static const char *weakest_source(const finisher *f, const kv_summary *point, int points, int s)
{
    for (int p = 0; p < points; p++)
        if (!point[p].slot[s].measured)
            return f->predictor.rule->source;
    return "measured";
}

/* Adds the row of one curve and slot, unless nothing is known of it. */
static kv_err add_critical(finisher *f, const kv_task_set *set, const reference *full,
                           const kv_summary *point, int points, int s, kv_diag *diag)
{
    search c = {set,
                full,
                point,
                points,
                s,
                malloc((size_t)points * sizeof *c.scratch + 1),
                malloc((size_t)set->bootstrap.resamples * sizeof *c.crossing + 1)};
    kv_err err = c.scratch && c.crossing ? KV_OK : kv_fail_memory(diag);
    double reference_accuracy = full->has_summary ? full->summary.slot[s].accuracy : full->score;
    kv_crossing entries = {.known = false};
    if (err == KV_OK)
        entries = find_crossing(&c, ENTRIES, reference_accuracy);
    if (err == KV_OK && entries.known) {
        kv_critical_row *row = new_critical(f, diag);
        err = row ? KV_OK : KV_ERR_MEMORY;
        if (row != NULL)
            *row = (kv_critical_row){.task = set->task,
                                     .turn = s,
                                     .point = point[0].point,
                                     .full_accuracy = reference_accuracy,
                                     .entries = entries,
                                     .bytes = find_crossing(&c, BYTES, reference_accuracy),
                                     .points = points,
                                     .source = weakest_source(f, point, points, s)};
    }
    free(c.scratch);
    free(c.crossing);
    return err;
}

/* --- one curve, one task ----------------------------------------------------------- */

static kv_err finish_point(finisher *f, const kv_task_set *set, int point, kv_summary *out,
                           kv_diag *diag)
{
    kv_err err = kv__summary_make(set, &f->predictor, f->units, point, out, diag);
    if (err != KV_OK)
        return err;
    err = kv__rows_put_point(f->rows, set, f->predictor.rule, out, diag);
    if (err != KV_OK)
        kv__summary_fini(out);
    return err;
}

static kv_err finish_curve(finisher *f, const kv_task_set *set, const reference *full, int first,
                           kv_diag *diag)
{
    int count = 0;
    kv_summary *point = calloc((size_t)f->plan->info.points, sizeof *point);
    kv_err err = point ? KV_OK : kv_fail_memory(diag);
    for (int p = first; p < f->plan->info.points && err == KV_OK; p++) {
        if (f->curve[p] != first || !kv__plan_has(f->plan, p, set->task))
            continue;
        err = finish_point(f, set, p, &point[count], diag);
        count += err == KV_OK;
    }
    for (int s = 0; s < set->slots && count > 0 && err == KV_OK; s++)
        err = add_critical(f, set, full, point, count, s, diag);
    for (int i = 0; i < count; i++)
        kv__summary_fini(&point[i]);
    free(point);
    return err;
}

/* Chooses what predicts a task. */
static void choose_rule(kv_predictor *predictor, const char *task)
{
    bool covered =
        predictor->type->covers == NULL || predictor->type->covers(predictor->model, task);
    predictor->rule = covered ? predictor->type : kv_accuracy_find(NULL);
    predictor->draws =
        predictor->rule->draws != NULL ? predictor->rule->draws(predictor->model) : 0;
}

static kv_err finish_task(finisher *f, int task, kv_diag *diag)
{
    kv_task_set set;
    reference full;
    choose_rule(&f->predictor, f->plan->task[task]);
    kv_err err = kv__task_set_init(&set, f->plan, task, f->predictor.seed, diag);
    if (err == KV_OK && (err = reference_init(f, &set, &full, diag)) == KV_OK) {
        for (int p = 0; p < f->plan->info.points && err == KV_OK; p++)
            if (f->curve[p] == p)
                err = finish_curve(f, &set, &full, p, diag);
        reference_fini(&full);
    }
    kv__task_set_fini(&set);
    return err;
}

/* --- all of it --------------------------------------------------------------------- */

static kv_err read_record(void *closure, int point, int example, kv_record *records, kv_diag *diag)
{
    return kv__units_read(closure, point, example, records, diag);
}

static kv_err predictor_init(finisher *f, kv_diag *diag)
{
    kv_predictor *predictor = &f->predictor;
    kv_record_source source = {&f->plan->info, read_record, f->units};
    kv_err err = KV_OK;
    predictor->type = kv_accuracy_find(f->plan->info.accuracy_model);
    predictor->seed = kv__run_info(f->run)->seed;
    if (predictor->type == NULL)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, NULL, "this kvsim has no accuracy model '%s'",
                       f->plan->info.accuracy_model);
    if (predictor->type->make != NULL)
        err = predictor->type->make(&f->plan->info, predictor->seed, &predictor->model, diag);
    if (err == KV_OK && predictor->type->fit != NULL)
        err = predictor->type->fit(predictor->model, &source, diag);
    return err;
}

static kv_err drop_work(finisher *f, kv_diag *diag)
{
    static const char *const statements[] = {"DELETE FROM attention_unit WHERE run_id = ?",
                                             "DELETE FROM attention_set WHERE run_id = ?",
                                             "DELETE FROM attention_point WHERE run_id = ?",
                                             "UPDATE attention_run SET done = 1 WHERE run_id = ?"};
    kv_err err = KV_OK;
    for (size_t i = 0; i < sizeof statements / sizeof statements[0] && err == KV_OK; i++)
        err = kv__sql_do(f->results, diag, statements[i], "i", kv_run_id(f->run));
    return err;
}

static kv_err finish_last(finisher *f, kv_diag *diag)
{
    kv_err err = kv__sql_begin(f->results, diag);
    if (err != KV_OK)
        return err;
    for (int i = 0; i < f->criticals && err == KV_OK; i++)
        err = kv__rows_put_critical(f->rows, &f->critical[i], diag);
    if (err == KV_OK && f->predictor.type->store != NULL)
        err = f->predictor.type->store(f->predictor.model, f->run, diag);
    if (err == KV_OK)
        err = drop_work(f, diag);
    return kv__sql_end(f->results, err, diag);
}

static void finisher_fini(finisher *f)
{
    if (f->predictor.model != NULL && f->predictor.type->release != NULL)
        f->predictor.type->release(f->predictor.model);
    kv__units_close(f->units);
    kv__rows_close(f->rows);
    free(f->curve);
    free(f->critical);
}

kv_err kv__finish(kv_run *run, const kv_plan *plan, kv_diag *diag)
{
    finisher f = {.run = run, .results = kv__run_results(run), .plan = plan};
    kv_err err = kv__units_open(run, plan, &f.units, diag);
    if (err == KV_OK)
        err = kv__rows_open(run, plan, &f.rows, diag);
    if (err == KV_OK)
        err = find_curves(&f, diag);
    if (err == KV_OK)
        err = predictor_init(&f, diag);
    for (int t = 0; t < plan->tasks && err == KV_OK; t++)
        err = finish_task(&f, t, diag);
    kv__units_close(f.units); /* its reader must not hold the work tables that go now */
    f.units = NULL;
    if (err == KV_OK)
        err = finish_last(&f, diag);
    finisher_fini(&f);
    return err;
}
