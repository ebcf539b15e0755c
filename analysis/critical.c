/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/critical.h"

#include <math.h>
#include <stdlib.h>

/* A mean of accuracies may miss the target by rounding alone. */
static const double rounding = 1e-12;

const char *kv_critical_status_name(kv_critical_status status)
{
    static const char *const names[] = {"ok", "always", "never"};
    return names[status];
}

static int compare_samples(const void *a, const void *b)
{
    const kv_sample *x = a, *y = b;
    if (x->footprint != y->footprint)
        return x->footprint < y->footprint ? -1 : 1;
    return (x->accuracy > y->accuracy) - (x->accuracy < y->accuracy);
}

/* Drops what has a NaN, sorts, merges ties; answers how many are left. */
static int tidy(kv_sample *samples, int count)
{
    int kept = 0, merged = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(samples[i].footprint) && !isnan(samples[i].accuracy))
            samples[kept++] = samples[i];
    qsort(samples, (size_t)kept, sizeof *samples, compare_samples);
    for (int i = 0, end; i < kept; i = end) {
        double sum = 0;
        for (end = i; end < kept && samples[end].footprint == samples[i].footprint; end++)
            sum += samples[end].accuracy;
        samples[merged++] = (kv_sample){samples[i].footprint, sum / (end - i)};
    }
    return merged;
}

static double crossing(const kv_sample *a, const kv_sample *b, double target)
{
    double share = (target - a->accuracy) / (b->accuracy - a->accuracy);
    return a->footprint + fmin(1.0, fmax(0.0, share)) * (b->footprint - a->footprint);
}

bool kv_critical_find(kv_sample *samples, int count, double target, kv_critical *out)
{
    count = tidy(samples, count);
    if (count == 0)
        return false;
    double line = target - rounding;
    *out =
        (kv_critical){KV_CRITICAL_OK, NAN, NAN, samples[0].footprint, samples[count - 1].footprint};
    for (int i = 1; i < count; i++) {
        if ((samples[i - 1].accuracy >= line) == (samples[i].accuracy >= line))
            continue;
        out->first_crossing = crossing(&samples[i - 1], &samples[i], target);
        if (isnan(out->last_crossing))
            out->last_crossing = out->first_crossing;
    }
    if (isnan(out->last_crossing))
        out->status = samples[0].accuracy >= line ? KV_CRITICAL_ALWAYS : KV_CRITICAL_NEVER;
    return true;
}
