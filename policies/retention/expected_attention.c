/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/rotary.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

typedef struct expected_attention_config {
    kv_retention_config base;
    long long future_positions; /* over which the rotation is averaged */
    bool covariance, vnorm;
    double epsilon;
    double rope_theta; /* 0: the recording's rotary embedding */
} expected_attention_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress",
     "future=512 sinks=4 covariance=true vnorm=true epsilon=0 evict=postfill rounding=kvpress "
     "ratio_arithmetic=true",
     "ExpectedAttentionPress"},
    {.name = NULL}};

#define OWN expected_attention_config
static const kv_param params[] = {
    KV_ROWS_AMOUNT("4"),
    KV_ROW_OF_COUNT(OWN, "future", future_positions, "512", 1, "tokens",
                    "positions to come over which the rotary embedding is averaged"),
    KV_ROW_OF_SWITCH(OWN, "covariance", covariance, "true",
                     "whether the spread of the queries counts beside their mean"),
    KV_ROW_OF_SWITCH(OWN, "vnorm", vnorm, "true",
                     "whether the score is multiplied by the value's length"),
    KV_ROW_OF_REAL(OWN, "epsilon", epsilon, "0", 0, INFINITY, "", "added before that"),
    KV_ROW_OF_REAL(OWN, "rope_theta", rope_theta, "0", 0, INFINITY, "",
                   "base of the rotary embedding; 0: the recording says"),
    KV_ROWS_WHEN("postfill"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

static unsigned needs_of(const void *config)
{
    const OWN *c = config;
    return c->rope_theta > 0 ? 0 : KV_NEEDS_ROPE;
}

/* What the queries of one head are like before position embedding. */
typedef struct statistics {
    double *mean;       /* [width] */
    double *covariance; /* [width][width] */
    double *x;          /* [width] scratch */
    int width;
} statistics;

/* The recorded query of a row as it was before position embedding. */
static void plain_query(const float *query, const kv_rotation *r, int position, double *x)
{
    for (int d = 0; d < r->width; d++)
        x[d] = query[d];
    kv_rotation_move(r, -position, x);
}

/* One pass over the recorded rows of the prompt so far, sinks left out; answers how many. add is
 * called with each plain query in s->x. */
static int for_queries(const kv_event *event, int query_head, const kv_rotation *r, statistics *s,
                       void (*add)(statistics *s))
{
    const kv_example *e = event->view->example;
    const OWN *c = event->config;
    int end = event->chunk_end < e->prompt_tokens ? event->chunk_end : e->prompt_tokens, n = 0;
    for (int row = 0; row < e->rows && e->query_pos[row] < end; row++) {
        const float *query = kv_layer_query(event->view->source, query_head, row);
        if (query == NULL || e->query_pos[row] < c->base.sinks_tokens)
            continue;
        plain_query(query, r, e->query_pos[row], s->x);
        add(s);
        n++;
    }
    return n;
}

static void add_mean(statistics *s)
{
    for (int d = 0; d < s->width; d++)
        s->mean[d] += s->x[d];
}

static void add_covariance(statistics *s)
{
    for (int d = 0; d < s->width; d++)
        s->x[d] -= s->mean[d];
    for (int d = 0; d < s->width; d++)
        for (int e = 0; e < s->width; e++)
            s->covariance[(size_t)d * (size_t)s->width + (size_t)e] += s->x[d] * s->x[e];
}

static void gather(const kv_event *event, int query_head, const kv_rotation *r, statistics *s)
{
    const OWN *c = event->config;
    size_t cells = (size_t)s->width * (size_t)s->width;
    memset(s->mean, 0, (size_t)s->width * sizeof *s->mean);
    memset(s->covariance, 0, cells * sizeof *s->covariance);
    int n = for_queries(event, query_head, r, s, add_mean);
    for (int d = 0; d < s->width && n > 0; d++)
        s->mean[d] /= n;
    if (c->covariance && n > 0)
        for_queries(event, query_head, r, s, add_covariance);
    for (size_t i = 0; i < cells && n > 0; i++)
        s->covariance[i] /= n;
}

/* k.R.mu scale + (k.R.S.R'.k) scale^2 / 2 for the mean rotation R of the positions to come: x holds
 * R'.k already. */
static double logit(const statistics *s, double scale, bool covariance)
{
    double linear = 0, square = 0;
    for (int d = 0; d < s->width; d++) {
        linear += s->x[d] * s->mean[d];
        const double *row = s->covariance + (size_t)d * (size_t)s->width;
        double dot = 0;
        for (int e = 0; e < s->width && covariance; e++)
            dot += row[e] * s->x[e];
        square += s->x[d] * dot;
    }
    return linear * scale + square * scale * scale / 2;
}

/* Mean cosine and sine of each pair over the positions to come, after each other. */
static void mean_rotation(const kv_event *event, const kv_rotation *r, double *cosine)
{
    const OWN *c = event->config;
    double *sine = cosine + kv_rotation_pairs(r);
    for (int pair = 0; pair < kv_rotation_pairs(r); pair++) {
        double step = kv_rotation_frequency(r, pair);
        cosine[pair] = sine[pair] = 0;
        for (long long i = 0; i < c->future_positions; i++) {
            cosine[pair] += cos((double)(event->chunk_end + i) * step);
            sine[pair] += sin((double)(event->chunk_end + i) * step);
        }
        cosine[pair] /= (double)c->future_positions;
        sine[pair] /= (double)c->future_positions;
    }
}

/* out[k] += weight times the softmax over the candidates from `first` on of one head's logits. */
static void add_head(const kv_event *event, int first, const kv_rotation *r, statistics *s,
                     const double *cosine, double *out)
{
    const OWN *c = event->config;
    const kv_shape *shape = event->view->shape;
    const float *keys = kv_layer_keys(event->view->source, event->kv_head);
    double *logits = event->view->work, most = -INFINITY, sum = 0;
    int group = shape->heads / shape->kv_heads;
    for (int k = first; k < event->candidates; k++) {
        const float *key = keys + (size_t)event->candidate[k] * (size_t)s->width;
        for (int d = 0; d < s->width; d++)
            s->x[d] = key[d];
        for (int pair = 0; pair < kv_rotation_pairs(r); pair++)
            kv_rotation_turn(r, pair, cosine[pair], -cosine[kv_rotation_pairs(r) + pair], s->x);
        logits[k] = logit(s, shape->scale, c->covariance);
        most = fmax(most, logits[k]);
    }
    for (int k = first; k < event->candidates; k++)
        sum += exp(logits[k] - most);
    for (int k = first; k < event->scored; k++)
        out[k] += exp(logits[k] - most) / sum / group;
}

static void score(const kv_event *event, double *out)
{
    const OWN *c = event->config;
    const kv_shape *shape = event->view->shape;
    int width = shape->head_dim, group = shape->heads / shape->kv_heads;
    int first = kv_score_sinks(event);
    kv_rotation r = {kv_layer_rope(event->view->source), c->rope_theta, width};
    double *room = event->view->anchor, *cosine = room + width;
    statistics s = {room, room + 3 * (size_t)width, room + 2 * (size_t)width, width};
    const float *values = kv_layer_values(event->view->source, event->kv_head);
    memset(out, 0, (size_t)event->scored * sizeof *out);
    mean_rotation(event, &r, cosine);
    for (int g = 0; g < group; g++) {
        gather(event, event->kv_head * group + g, &r, &s);
        add_head(event, first, &r, &s, cosine, out);
    }
    for (int k = first; k < event->scored && c->vnorm; k++)
        out[k] = (out[k] + c->epsilon) *
                 kv_score_norm(values + (size_t)event->candidate[k] * (size_t)width, width);
}

static const kv_condition conditions[] = {{"epsilon", "vnorm", "true", false}, {.setting = NULL}};

/* What queries to come will attend to, if they are like those of the prompt. */
KV_RETENTION_DEFINE(expected_attention) = {
    .name = "expected_attention",
    .brief = "keeps what queries like the prompt's would attend to at the positions to come",
    .cite = "Expected Attention (Devoto et al. 2025, arXiv 2510.00636; kvpress)",
    .stage = "compression",
    .config_bytes = sizeof(expected_attention_config),
    .params = params,
    .presets = presets,
    .conditions = conditions,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES | KV_NEEDS_QUERIES,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .least_prompt_rows = 32, /* kvpress takes all; fewer make no mean, let alone a covariance */
    .needs_of = needs_of,
    .score = score,
};
