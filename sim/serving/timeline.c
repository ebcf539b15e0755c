/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/timeline.h"

#include <stdio.h>
#include <stdlib.h>

void kv__timeline_fini(kv__timeline *timeline)
{
    free(timeline->sample);
    *timeline = (kv__timeline){0};
}

/* Keeps what lies on a coarser grid. */
static void thin_out(kv__timeline *timeline, int64_t interval_ns)
{
    int kept = 0;
    for (int i = 0; i < timeline->count; i++)
        if ((timeline->sample[i].time_ns - timeline->sample[0].time_ns) % interval_ns == 0)
            timeline->sample[kept++] = timeline->sample[i];
    timeline->count = kept;
}

kv_err kv__timeline_add(kv__timeline *timeline, const kv_serving_sample *sample, kv_diag *diag)
{
    int n = timeline->count;
    if (n > 0 && timeline->sample[n - 1].interval_ns != sample->interval_ns)
        thin_out(timeline, sample->interval_ns);
    if (timeline->count == timeline->room) {
        int room = timeline->room > 0 ? 2 * timeline->room : 1024;
        kv_serving_sample *grown = realloc(timeline->sample, (size_t)room * sizeof *grown);
        if (grown == NULL)
            return kv_fail_memory(diag);
        timeline->sample = grown;
        timeline->room = room;
    }
    timeline->sample[timeline->count++] = *sample;
    return KV_OK;
}

kv_err kv__timeline_write(const kv__timeline *timeline, const kv_serving_settings *settings,
                          kv__output *out, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < timeline->count; i++) {
        const kv_serving_sample *s = &timeline->sample[i];
        kv__timeline_row row = {.time_s = (double)s->time_ns * 1e-9,
                                .tier = "gpu",
                                .used_bytes = s->used_bytes,
                                .running = s->running,
                                .waiting = s->waiting};
        err = kv__output_put(out, KV__OUTPUT_SAMPLE, &row, diag);
        for (int t = 0; t < settings->tiers && err == KV_OK; t++) {
            row.tier = settings->tier[t].name;
            row.used_bytes = s->tier_bytes[t];
            err = kv__output_put(out, KV__OUTPUT_SAMPLE, &row, diag);
        }
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

void kv__timeline_warning(const kv__timeline *timeline, const kv_serving_settings *settings,
                          char *out, size_t out_bytes)
{
    *out = '\0';
    if (timeline->count == 0)
        return;
    int64_t interval_ns = timeline->sample[timeline->count - 1].interval_ns;
    if (interval_ns != settings->timeline_ns)
        snprintf(out, out_bytes,
                 "timeline: an interval of %.9g s would give more than %d samples; they were taken "
                 "every %.9g s",
                 (double)settings->timeline_ns * 1e-9, KV_MOST_SAMPLES, (double)interval_ns * 1e-9);
}
