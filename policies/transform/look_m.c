/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* LOOK-M: text stays before images do, and what leaves is merged into the nearest entry. */
#include "config.h"

#include "policies/transform/merge.h"

#include <math.h>

typedef struct look_m_config {
    int merge; /* index into merge_names */
    bool text_prior;
} look_m_config;

static const char *const merge_names[] = {"averaged", "pivotal", "weighted", "none", NULL};
enum { MERGE_NONE = 3 };

static const kv_param params[] = {
    {.name = "merge",
     .type = KV_CHOICE,
     .offset = offsetof(look_m_config, merge),
     .fallback = "pivotal",
     .choices = merge_names,
     .flags = KV_PARAM_SWEEP,
     .unit = "",
     .help = "how an entry and what it takes become one: their mean, the mean of the entry and the "
             "midpoints to it, or the mean with each at the cosine of its key"},
    {.name = "text_prior",
     .type = KV_BOOL,
     .offset = offsetof(look_m_config, text_prior),
     .fallback = "true",
     .flags = KV_PARAM_SWEEP,
     .unit = "",
     .help = "whether the highest score is added to those of text tokens, so that images go first"},
    {.name = NULL}};

/* Text first: whatever the score, no image token beats a text token (equal scores aside). */
static void prior(const void *opaque, const kv_event *event, double *score)
{
    const look_m_config *config = opaque;
    double most = 0;
    for (int k = 0; k < event->scored; k++)
        most = fmax(most, score[k]);
    for (int k = 0; k < event->scored && config->text_prior; k++)
        if (event->view->example->modality[event->candidate[k]] == 0)
            score[k] += most;
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
    .prior = prior,
    .apply = apply,
};
