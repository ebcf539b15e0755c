/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Lanes with transforms or a read policy. Such a lane has one budget. It keeps the keys and values
 * as stored, lets transforms rewrite them after each step, and at each measured row lets the read
 * policy choose among what is present; the measures count what was read. */
#include "config.h"

#include "sim/base/kernels.h"
#include "sim/replay/lane.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One KV head's keys and values as stored, and what the transforms remember. */
typedef struct stored {
    float *key, *value;  /* [N][head_dim]; NULL where nothing rewrites or records them */
    double **state;      /* [parts] NULL where a transform has none */
    double **head_state; /* [parts] likewise */
} stored;

struct kv__parts {
    kv_read_head *head; /* [kv_heads] for the read policy, present in `before` */
    stored *stored;     /* [kv_heads] NULL: no transform rewrites anything */
    uint8_t *study;     /* [heads][study_bytes * N]; NULL: none */
    bool new_keys;      /* attention is recomputed from the stored keys */
    int32_t *before;    /* [kv_heads][N] present before the eviction; of rows, what heads hold */
    int *befores;       /* [kv_heads] */
    int32_t *present;   /* [N] */
    int32_t *dropped;   /* [N] */
    int32_t *chosen;    /* [N] */
    int32_t *order;     /* [N] */
    uint8_t *is_read;   /* [N] by some query head of the group */
    uint8_t *is_chosen; /* [N] by the query head at hand */
    float *weight;      /* [N] recomputed attention */
    double *out;        /* [head_dim] */
    int32_t *channel;   /* [head_dim] */
    double *work;       /* what the most demanding transform asks for */
    kv_layer *partner;  /* another layer of the example; NULL: nobody wants one */
    int partner_layer;  /* that it holds, -1: none */
};

static const kv_read *read_of(const kv__group *group)
{
    const kv_part *last = group->parts > 0 ? &group->part[group->parts - 1] : NULL;
    return last != NULL && last->method.family == KV_FAMILY_READ ? last->method.read : NULL;
}

static const void *read_config(const kv__group *group)
{
    return group->part[group->parts - 1].config;
}

static const kv_transform *transform_of(const kv__group *group, int i)
{
    return group->part[i].method.transform; /* NULL of a read policy */
}

static unsigned changes_of(const kv__group *group)
{
    unsigned changes = 0;
    for (int i = 0; i < group->parts; i++)
        if (transform_of(group, i) != NULL)
            changes |= transform_of(group, i)->changes;
    return changes;
}

unsigned kv__parts_needs(const kv__group *group)
{
    unsigned needs = 0, changes = changes_of(group);
    for (int i = 0; i < group->parts; i++) {
        const kv_method *method = &group->part[i].method;
        needs |= method->read ? method->read->needs : method->transform->needs;
        unsigned (*needs_of)(const void *) =
            method->read ? method->read->needs_of : method->transform->needs_of;
        if (needs_of != NULL)
            needs |= needs_of(group->part[i].config);
    }
    if (changes & KV_CHANGES_KEYS)
        needs |= KV_NEEDS_KEYS | KV_NEEDS_QUERIES;
    return changes & KV_CHANGES_VALUES ? needs | KV_NEEDS_VALUES : needs;
}

const kv_part *kv__parts_needing(const kv__group *group, unsigned need)
{
    for (int i = group->parts - 1; i >= 0; i--) {
        const kv_method *method = &group->part[i].method;
        unsigned (*needs_of)(const void *) =
            method->read ? method->read->needs_of : method->transform->needs_of;
        unsigned more = needs_of != NULL ? needs_of(group->part[i].config) : 0;
        if ((method->needs | more) & need)
            return &group->part[i];
    }
    return NULL;
}

long long kv__parts_observers(const kv__group *group, const kv_part **observer)
{
    long long most = 0;
    *observer = NULL;
    for (int i = 0; i < group->parts; i++) {
        const kv_part *part = &group->part[i];
        const kv_method *method = &part->method;
        long long (*observers)(const void *) =
            method->read ? method->read->observers : method->transform->observers;
        long long rows = observers ? observers(part->config) : 0;
        if (rows > most) {
            most = rows;
            *observer = part;
        }
    }
    return most;
}

bool kv__parts_read_prefill(const kv__group *group)
{
    const kv_read *read = read_of(group);
    return read != NULL && (read->phases & KV_READS_PREFILL);
}

/* --- Making and starting -------------------------------------------------------------------------
 */

static size_t head_doubles(const kv__group *group, int i, const kv_shape *shape)
{
    const kv_transform *t = transform_of(group, i);
    return t != NULL && t->head_doubles != NULL ? t->head_doubles(group->part[i].config, shape) : 0;
}

static size_t state_doubles(const kv__group *group, int i, size_t tokens)
{
    const kv_transform *t = transform_of(group, i);
    return t != NULL ? t->state_doubles * tokens : 0;
}

static size_t work_doubles(const kv__group *group, const kv_shape *shape, int tokens)
{
    size_t most = 4 * (size_t)tokens;
    for (int i = 0; i < group->parts; i++) {
        const kv_transform *t = transform_of(group, i);
        size_t doubles = t != NULL && t->work_doubles != NULL
                             ? t->work_doubles(group->part[i].config, shape, tokens)
                             : 0;
        most = doubles > most ? doubles : most;
    }
    return most;
}

static kv_err stored_init(stored *s, const kv__group *group, const kv_shape *shape, size_t tokens,
                          kv_diag *diag)
{
    size_t numbers = tokens * (size_t)shape->head_dim;
    s->state = calloc((size_t)group->parts, sizeof *s->state);
    s->head_state = calloc((size_t)group->parts, sizeof *s->head_state);
    bool good = s->state != NULL && s->head_state != NULL;
    if (good && changes_of(group) != 0) {
        s->key = malloc(numbers * sizeof(float));
        s->value = malloc(numbers * sizeof(float));
        good = s->key != NULL && s->value != NULL;
    }
    for (int i = 0; i < group->parts && good; i++) {
        size_t per_token = state_doubles(group, i, tokens),
               per_head = head_doubles(group, i, shape);
        s->state[i] = per_token > 0 ? malloc(per_token * sizeof(double)) : NULL;
        s->head_state[i] = per_head > 0 ? malloc(per_head * sizeof(double)) : NULL;
        good = (per_token == 0 || s->state[i]) && (per_head == 0 || s->head_state[i]);
    }
    return good ? KV_OK : kv_fail_memory(diag);
}

static bool wants_partner(const kv__group *group)
{
    for (int i = 0; i < group->parts; i++)
        if (transform_of(group, i) != NULL && transform_of(group, i)->partner != NULL)
            return true;
    return false;
}

static kv_err buffers_init(kv__parts *p, const kv__group *group, const kv__stage *stage,
                           kv_diag *diag)
{
    const kv_shape *shape = &stage->replay->shape;
    size_t n = (size_t)stage->example->total_tokens + 1, heads = (size_t)shape->kv_heads;
    const kv_read *read = read_of(group);
    p->head = calloc(heads, sizeof *p->head);
    p->before = malloc(heads * n * sizeof *p->before);
    p->befores = calloc(heads, sizeof *p->befores);
    p->present = malloc(n * sizeof *p->present);
    p->dropped = malloc(n * sizeof *p->dropped);
    p->chosen = malloc(n * sizeof *p->chosen);
    p->order = malloc(n * sizeof *p->order);
    p->is_read = calloc(n, 1);
    p->is_chosen = calloc(n, 1);
    p->weight = malloc(n * sizeof *p->weight);
    p->out = malloc(((size_t)shape->head_dim + 1) * sizeof *p->out);
    p->channel = malloc(((size_t)shape->head_dim + 1) * sizeof *p->channel);
    p->work = malloc(work_doubles(group, shape, stage->example->total_tokens) * sizeof *p->work);
    if (read != NULL && read->study_bytes > 0)
        p->study = malloc(read->study_bytes * n * (size_t)shape->heads);
    bool good = p->head && p->before && p->befores && p->present && p->dropped && p->chosen &&
                p->order && p->is_read && p->is_chosen && p->weight && p->out && p->channel &&
                p->work && (p->study || read == NULL || read->study_bytes == 0);
    return good ? KV_OK : kv_fail_memory(diag);
}

kv_err kv__parts_new(const kv__group *group, const kv__stage *stage, kv__parts **out, kv_diag *diag)
{
    const kv_shape *shape = &stage->replay->shape;
    size_t tokens = (size_t)stage->example->total_tokens;
    unsigned changes = changes_of(group);
    kv__parts *p = calloc(1, sizeof *p);
    *out = p;
    if (p == NULL)
        return kv_fail_memory(diag);
    p->new_keys = changes & KV_CHANGES_KEYS;
    p->partner_layer = -1;
    p->stored = calloc((size_t)shape->kv_heads, sizeof *p->stored);
    kv_err err = p->stored ? buffers_init(p, group, stage, diag) : kv_fail_memory(diag);
    for (int h = 0; h < shape->kv_heads && err == KV_OK; h++)
        err = stored_init(&p->stored[h], group, shape, tokens, diag);
    if (err == KV_OK && wants_partner(group))
        err = kv_layer_new(stage->trace, stage->example_index, &p->partner, diag);
    return err;
}

void kv__parts_free(kv__parts *p, const kv__group *group, int kv_heads)
{
    if (p == NULL)
        return;
    for (int h = 0; p->stored != NULL && h < kv_heads; h++) {
        for (int i = 0; p->stored[h].state != NULL && i < group->parts; i++)
            free(p->stored[h].state[i]);
        for (int i = 0; p->stored[h].head_state != NULL && i < group->parts; i++)
            free(p->stored[h].head_state[i]);
        free(p->stored[h].state);
        free(p->stored[h].head_state);
        free(p->stored[h].key);
        free(p->stored[h].value);
    }
    kv_layer_free(p->partner);
    free(p->stored);
    free(p->study);
    free(p->head);
    free(p->before);
    free(p->befores);
    free(p->present);
    free(p->dropped);
    free(p->chosen);
    free(p->order);
    free(p->is_read);
    free(p->is_chosen);
    free(p->weight);
    free(p->out);
    free(p->channel);
    free(p->work);
    free(p);
}

static void start_head(kv__lane *lane, const kv__stage *stage, int kv_head)
{
    const kv__group *group = lane->group;
    stored *s = &lane->parts->stored[kv_head];
    size_t tokens = (size_t)stage->example->total_tokens;
    size_t bytes = tokens * (size_t)stage->replay->shape.head_dim * sizeof(float);
    const float *key = kv_layer_keys(stage->source, kv_head), *value = stage->value[kv_head];
    if (s->key != NULL && key != NULL)
        memcpy(s->key, key, bytes);
    if (s->value != NULL && value != NULL)
        memcpy(s->value, value, bytes);
    for (int i = 0; i < group->parts; i++) {
        if (s->state[i] != NULL)
            memset(s->state[i], 0, state_doubles(group, i, tokens) * sizeof(double));
        if (s->head_state[i] != NULL)
            memset(s->head_state[i], 0,
                   head_doubles(group, i, &stage->replay->shape) * sizeof(double));
    }
}

kv_err kv__parts_start_layer(kv__lane *lane, kv__stage *stage, kv_diag *diag)
{
    const kv_shape *shape = &stage->replay->shape;
    const kv_read *read = read_of(lane->group);
    kv__parts *p = lane->parts;
    for (int h = 0; h < shape->kv_heads; h++)
        start_head(lane, stage, h);
    for (int h = 0; h < shape->heads && p->study != NULL; h++) {
        size_t bytes = read->study_bytes * (size_t)stage->example->total_tokens;
        kv_read_study study = {.view = &stage->view,
                               .config = read_config(lane->group),
                               .kv_head = h / (shape->heads / shape->kv_heads),
                               .query_head = h,
                               .work = stage->view.work};
        memset(p->study + (size_t)h * bytes, 0, bytes);
        if (read->study != NULL)
            read->study(&study, p->study + (size_t)h * bytes);
    }
    int want = -1;
    for (int i = 0; i < lane->group->parts && p->partner != NULL; i++) {
        const kv_transform *t = transform_of(lane->group, i);
        if (t != NULL && t->partner != NULL)
            want = t->partner(lane->group->part[i].config, shape, stage->view.layer);
    }
    p->partner_layer = want >= 0 && want < shape->layers ? want : -1;
    if (p->partner_layer < 0)
        return KV_OK;
    return kv_layer_load(p->partner, want, KV_WANT_KEYS | KV_WANT_VALUES, NULL, diag);
}

void kv__parts_prior(const kv__group *group, const kv_event *event, double *score)
{
    for (int i = 0; i < group->parts; i++) {
        const kv_transform *t = transform_of(group, i);
        if (t != NULL && t->prior != NULL)
            t->prior(group->part[i].config, event, score);
    }
}

bool kv__parts_has_prior(const kv__group *group)
{
    for (int i = 0; i < group->parts; i++)
        if (transform_of(group, i) != NULL && transform_of(group, i)->prior != NULL)
            return true;
    return false;
}

/* --- The end of a step ---------------------------------------------------------------------------
 */

/* What a head holds once all tokens before `end` are in, ascending: lanes with parts have one
 * budget, whose kept list ascends. */
static int list_present(const kv__lane_head *head, int end, int32_t *out)
{
    int n = head->level[0].count;
    for (int i = 0; i < n; i++)
        out[i] = head->level[0].at[i];
    for (int p = head->tail_first; p < end; p++)
        out[n++] = p;
    return n;
}

void kv__parts_before_evict(kv__lane *lane, const kv__stage *stage)
{
    kv__parts *p = lane->parts;
    size_t n = (size_t)stage->example->total_tokens + 1;
    for (int h = 0; h < stage->replay->shape.kv_heads; h++)
        p->befores[h] = list_present(&lane->head[h], lane->step_end, p->before + (size_t)h * n);
}

/* Entries of before[] that are not in present[]; both ascend. */
static int list_dropped(const int32_t *before, int befores, const int32_t *present, int presents,
                        int32_t *out)
{
    int n = 0;
    for (int i = 0, j = 0; i < befores; i++) {
        while (j < presents && present[j] < before[i])
            j++;
        if (j == presents || present[j] != before[i])
            out[n++] = before[i];
    }
    return n;
}

void kv__parts_after_evict(kv__lane *lane, kv__stage *stage)
{
    kv__parts *p = lane->parts;
    size_t n = (size_t)stage->example->total_tokens + 1;
    bool has_partner = p->partner_layer >= 0;
    for (int h = 0; h < stage->replay->shape.kv_heads; h++) {
        kv_transform_step step = {
            .view = &stage->view,
            .kv_head = h,
            .step_start = lane->step_start,
            .step_end = lane->step_end,
            .prefill = lane->step_start < stage->example->prompt_tokens,
            .present = p->present,
            .presents = list_present(&lane->head[h], lane->step_end, p->present),
            .dropped = p->dropped,
            .recorded_key = kv_layer_keys(stage->source, h),
            .recorded_value = stage->value[h],
            .partner_key = has_partner ? kv_layer_keys(p->partner, h) : NULL,
            .partner_value = has_partner ? kv_layer_values(p->partner, h) : NULL,
            .work = p->work,
            .order = p->order};
        step.key = step.recorded_key ? p->stored[h].key : NULL;
        step.value = step.recorded_value ? p->stored[h].value : NULL;
        step.droppeds = list_dropped(p->before + (size_t)h * n, p->befores[h], p->present,
                                     step.presents, p->dropped);
        for (int i = 0; i < lane->group->parts; i++) {
            const kv_transform *t = transform_of(lane->group, i);
            if (t == NULL || t->apply == NULL)
                continue;
            step.config = lane->group->part[i].config;
            step.state = p->stored[h].state[i];
            step.head_state = p->stored[h].head_state[i];
            t->apply(&step);
        }
    }
}

/* --- Bytes ---------------------------------------------------------------------------------------
 */

/* Bytes of the entries that earlier steps left, as a share of plain ones'. */
double kv__parts_share(const kv__group *group, const kv__stage *stage, double entries, bool prefill)
{
    double share = 1;
    kv_transform_size size = {.shape = &stage->replay->shape,
                              .layer = stage->view.layer,
                              .entries = entries,
                              .prefill = prefill};
    for (int i = 0; i < group->parts && entries > 0; i++) {
        const kv_transform *t = transform_of(group, i);
        if (t != NULL && t->bytes != NULL)
            share *= t->bytes(group->part[i].config, &size);
    }
    return share;
}

static kv_read_size read_size(const kv__stage *stage, double entries, bool prefill)
{
    return (kv_read_size){.shape = &stage->replay->shape,
                          .layer = stage->view.layer,
                          .entries = entries,
                          .prefill = prefill};
}

double kv__parts_metadata(const kv__group *group, const kv__stage *stage, double entries,
                          bool prefill)
{
    const kv_read *read = read_of(group);
    const kv_read_size size = read_size(stage, entries, prefill);
    return read && read->metadata ? read->metadata(read_config(group), &size) : 0;
}

double kv__parts_device_share(const kv__group *group, double entries)
{
    const kv_read *read = read_of(group);
    if (read == NULL || read->home == NULL)
        return 1;
    kv_read_home home = read->home(read_config(group));
    return fmin(1, (double)(home.first + home.last) / entries);
}

/* --- Rows ----------------------------------------------------------------------------------------
 */

/* What one KV head's rows at one position have in common. */
typedef struct row_head {
    int kv_head, position, presents;
    bool prefill;
    const float *key, *value; /* as stored */
} row_head;

static row_head row_head_of(kv__lane *lane, const kv__stage *stage, int kv_head, int position,
                            bool prefill)
{
    const stored *s = &lane->parts->stored[kv_head];
    const float *key = kv_layer_keys(stage->source, kv_head), *value = stage->value[kv_head];
    return (row_head){.kv_head = kv_head,
                      .position = position,
                      .presents =
                          list_present(&lane->head[kv_head], position + 1, lane->parts->present),
                      .prefill = prefill,
                      .key = key != NULL && s->key != NULL ? s->key : key,
                      .value = value != NULL && s->value != NULL ? s->value : value};
}

static void tell(const kv__lane *lane, const kv__stage *stage, const kv_read_row *row, int count)
{
    const kv_replay_options *options = &stage->replay->options;
    const kv_replay_read event = {.point = lane->group->point[0],
                                  .layer = stage->view.layer,
                                  .query_head = row->query_head,
                                  .position = row->position,
                                  .prefill = row->prefill,
                                  .present = row->present,
                                  .presents = row->presents,
                                  .chosen = lane->parts->chosen,
                                  .count = count,
                                  .row = stage->row[row->query_head]};
    if (options->watch_read != NULL)
        options->watch_read(options->watch_closure, &event);
}

/* Attention over n of the present entries from the stored keys, into p->weight at their positions.
 */
static void recompute(const kv__lane *lane, const kv__stage *stage, const row_head *at,
                      int query_head, const int32_t *entry, int n)
{
    const kv_shape *shape = &stage->replay->shape;
    kv__parts *p = lane->parts;
    const float *query = kv_view_query(&stage->view, query_head, at->position);
    double *logit = stage->view.work, most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        const float *key = at->key + (size_t)entry[i] * (size_t)shape->head_dim;
        double dot = 0;
        for (int d = 0; d < shape->head_dim; d++)
            dot += (double)query[d] * key[d];
        logit[i] = dot * shape->scale;
        most = fmax(most, logit[i]);
    }
    for (int i = 0; i < n; i++)
        sum += logit[i] = exp(logit[i] - most);
    for (int i = 0; i < n; i++)
        p->weight[entry[i]] = (float)(logit[i] / sum);
}

/* Shows a read policy that asks for it what all KV heads hold for the row. */
static void list_heads(kv__lane *lane, const kv__stage *stage, int position)
{
    kv__parts *p = lane->parts;
    const kv_read *read = read_of(lane->group);
    size_t n = (size_t)stage->example->total_tokens + 1;
    for (int h = 0; read && read->whole_layer && h < stage->replay->shape.kv_heads; h++) {
        int32_t *present = p->before + (size_t)h * n;
        const float *key = kv_layer_keys(stage->source, h);
        p->head[h] =
            (kv_read_head){.key = key != NULL && p->stored[h].key ? p->stored[h].key : key,
                           .present = present,
                           .presents = list_present(&lane->head[h], position + 1, present)};
    }
}

/* Fills p->chosen and returns how many. */
static int choose(const kv__lane *lane, const kv__stage *stage, const row_head *at, int query_head)
{
    kv__parts *p = lane->parts;
    const kv_read *read = read_of(lane->group);
    size_t study = read ? read->study_bytes * (size_t)stage->example->total_tokens : 0;
    unsigned phase = at->prefill ? KV_READS_PREFILL : KV_READS_DECODE;
    kv_read_row row = {.view = &stage->view,
                       .study = p->study ? p->study + (size_t)query_head * study : NULL,
                       .kv_head = at->kv_head,
                       .query_head = query_head,
                       .position = at->position,
                       .prefill = at->prefill,
                       .present = p->present,
                       .presents = at->presents,
                       .row = p->new_keys ? p->weight : stage->row[query_head],
                       .head = p->head,
                       .query = kv_view_query(&stage->view, query_head, at->position),
                       .key = at->key,
                       .work = stage->view.work,
                       .order = p->order,
                       .channel = p->channel};
    int count;
    if (read == NULL || !(read->phases & phase)) {
        count = kv_read_everything(&row, p->chosen);
    } else {
        row.config = read_config(lane->group);
        if (p->new_keys)
            recompute(lane, stage, at, query_head, p->present, at->presents);
        count = read->select(&row, p->chosen);
    }
    tell(lane, stage, &row, count);
    return count;
}

/* One query head of an answer row. Returns the squared probabilities that are read. */
static double measure_head(kv__lane *lane, kv__stage *stage, int answer, const row_head *at,
                           int query_head)
{
    const kv_kernels *k = kv__kernels();
    kv__parts *p = lane->parts;
    size_t width = (size_t)stage->replay->shape.head_dim;
    int n = choose(lane, stage, at, query_head);
    const float *weight = stage->row[query_head];
    for (int i = 0; i < n; i++)
        p->is_read[p->chosen[i]] = p->is_chosen[p->chosen[i]] = 1;
    kv__row_measure m = {.mass = k->sum_at(weight, p->chosen, (size_t)n), .out = p->out};
    m.out_mass = m.mass;
    kv__measure_alive(stage, answer, query_head, p->is_chosen, &m);
    if (p->new_keys) {
        recompute(lane, stage, at, query_head, p->chosen, n);
        weight = p->weight;
        m.out_mass = k->sum_at(weight, p->chosen, (size_t)n);
    }
    memset(p->out, 0, width * sizeof *p->out);
    if (at->value != NULL)
        k->mix_at(p->out, weight, at->value, p->chosen, (size_t)n, width);
    kv__measure_head(lane, stage, answer, query_head, 0, &m);
    for (int i = 0; i < n; i++)
        p->is_chosen[p->chosen[i]] = 0;
    return k->sum_at(stage->square[query_head], p->chosen, (size_t)n);
}

/* Counts what a KV head read and fetched, and forgets it. */
static void count_reads(kv__lane *lane, const kv__stage *stage, int answer, const row_head *at)
{
    kv__parts *p = lane->parts;
    kv__tally *tally = &lane->tally[0];
    int prompt = stage->example->prompt_tokens;
    const kv_read *read = read_of(lane->group);
    const void *config = read ? read_config(lane->group) : NULL;
    kv_read_home home = read && read->home ? read->home(config) : (kv_read_home){at->presents, 0};
    bool in_prompt = lane->step_start < prompt;
    kv_read_size size = read_size(stage, at->presents, in_prompt);
    double scan = kv__parts_metadata(lane->group, stage, at->presents, in_prompt);
    double past = (double)kv__lane_found(lane, at->kv_head, 0);
    double share = kv__parts_share(lane->group, stage, past, in_prompt);
    bool chooses = read && (read->phases & (at->prefill ? KV_READS_PREFILL : KV_READS_DECODE));
    if (read != NULL && read->scan != NULL)
        scan = read->scan(config, &size);
    for (int i = 0; i < at->presents; i++) {
        int position = p->present[i];
        double bytes = p->is_read[position] ? position < lane->step_start ? share : 1 : 0;
        tally->row_reads[answer] += p->is_read[position];
        tally->row_read_bytes[answer] += bytes;
        tally->row_fetched[answer] += i >= home.first && i < at->presents - home.last ? bytes : 0;
        p->is_read[position] = 0;
    }
    tally->row_read_bytes[answer] += chooses ? scan : 0;
}

void kv__parts_row(kv__lane *lane, kv__stage *stage, int answer, double *squares)
{
    const kv_shape *shape = &stage->replay->shape;
    int group = shape->heads / shape->kv_heads;
    const kv__answer_row *a = &stage->answer[answer];
    list_heads(lane, stage, a->position);
    for (int h = 0; h < shape->kv_heads; h++) {
        row_head at = row_head_of(lane, stage, h, a->position, a->first_of_turn);
        for (int g = 0; g < group; g++)
            *squares += measure_head(lane, stage, answer, &at, h * group + g);
        count_reads(lane, stage, answer, &at);
    }
}

void kv__parts_probe(kv__lane *lane, kv__stage *stage, int position)
{
    const kv_shape *shape = &stage->replay->shape;
    int group = shape->heads / shape->kv_heads;
    kv__tally *tally = &lane->tally[0];
    list_heads(lane, stage, position);
    for (int h = 0; h < shape->kv_heads; h++) {
        row_head at = row_head_of(lane, stage, h, position, true);
        for (int g = 0; g < group; g++) {
            const float *row = stage->row[h * group + g];
            int n = choose(lane, stage, &at, h * group + g);
            tally->probe_reads += n;
            tally->probe_recall += kv__kernels()->sum_at(row, lane->parts->chosen, (size_t)n);
            tally->probe_full += position + 1;
            tally->probes++;
        }
    }
}
