/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* LOOK-M: text stays before images do, and what leaves is merged into the nearest entry. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/transform/merge.h"

#include <math.h>

typedef struct look_m_config {
    int merge; /* index into merge_names */
    bool text_prior;
} look_m_config;

static const char *const merge_names[] = {"averaged", "pivotal", "weighted", "none", NULL};
enum { MERGE_NONE = 3 };

static const kv_param params[] = {
    KV_ROW_OF_CHOICE(
        look_m_config, "merge", merge, "pivotal", merge_names,
        "how an entry and what it takes become one: their mean, the mean of the entry and the "
        "midpoints to it, or the mean with each at the cosine of its key"),
    KV_ROW_OF_SWITCH(look_m_config, "text_prior", text_prior, "true",
                     "whether text tokens score above all images, so that images go first"),
    KV_ROW_END};

/* Least and highest of the scores that are finite; a range of 1 where they are all alike. */
static void score_range(const double *score, int n, double *low, double *range)
{
    double high = -INFINITY;
    *low = INFINITY;
    for (int k = 0; k < n; k++)
        if (isfinite(score[k])) {
            *low = fmin(*low, score[k]);
            high = fmax(high, score[k]);
        }
    *low = high < *low ? 0 : *low;
    *range = high > *low ? high - *low : 1;
}

/* Text first: whatever the scores, no image token beats a text token, and each kind keeps its own
 * order. Policies pin by infinite scores; those become the ends of the range. */
static void prior(const void *opaque, const kv_event *event, double *score)
{
    const look_m_config *config = opaque;
    double low, range;
    if (!config->text_prior)
        return;
    score_range(score, event->scored, &low, &range);
    for (int k = 0; k < event->scored; k++) {
        if (isinf(score[k]))
            score[k] = score[k] > 0 ? low + 2 * range : low - range;
        if (event->view->example->modality[event->candidate[k]] == 0)
            score[k] += 4 * range;
    }
}

/* Whether anything is ranked by the prior. */
static bool ranks(const void *config)
{
    return ((const look_m_config *)config)->text_prior;
}

static void apply(const kv_transform_step *step)
{
    static const kv_blend_rule rule[] = {kv_merge_averaged, kv_merge_pivotal, kv_merge_by_cosine};
    const look_m_config *config = step->config;
    if (step->droppeds == 0 || config->merge == MERGE_NONE)
        return;
    kv_merge_find_nearest(step);
    kv_merge(step, rule[config->merge], KV_CHANGES_KEYS | KV_CHANGES_VALUES);
}

KV_TRANSFORM_DEFINE(look_m) = {
    .name = "look_m",
    .brief = "lets images leave before text, and merges what leaves into the nearest entry",
    .cite = "LOOK-M (Wan et al. 2024, arXiv 2406.18139)",
    .stage = "compression",
    .config_bytes = sizeof(look_m_config),
    .params = params,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES | KV_NEEDS_MODALITY,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .evicted = true,
    .prior = prior,
    .ranks = ranks,
    .work_doubles = kv_merge_work,
    .apply = apply,
};
