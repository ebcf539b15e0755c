/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/request_info.h"

#include "sim/base/map.h"
#include "sim/cache/block_cache.h"
#include "traces/histogram.h"

#include <math.h>
#include <string.h>

#include <gsl/gsl_rstat.h>

/* What grows while a trace is read. */
typedef struct survey {
    kv_request_info *info;
    kv__histogram prompt, output;
    gsl_rstat_workspace *gaps;
    kv__map sessions, blocks; /* blocks: 1 if named once, 2 if more often */
    kv_block_cache *lru;
    int64_t first_ns, last_ns, accesses;
} survey;

static kv_err survey_init(survey *s, const kv_request_question *question, kv_request_info *info,
                          kv_diag *diag)
{
    memset(s, 0, sizeof *s);
    memset(info, 0, sizeof *info);
    s->info = info;
    info->has_lru = question->lru;
    s->gaps = gsl_rstat_alloc();
    if (s->gaps == NULL)
        return kv_fail_memory(diag);
    if (!question->lru)
        return KV_OK;
    return kv_block_cache_new(kv_replacement_find("lru"), NULL, question->lru_blocks, 0, &s->lru,
                              diag);
}

static void survey_fini(survey *s)
{
    kv__histogram_fini(&s->prompt);
    kv__histogram_fini(&s->output);
    kv__map_fini(&s->sessions);
    kv__map_fini(&s->blocks);
    kv_block_cache_free(s->lru);
    if (s->gaps != NULL)
        gsl_rstat_free(s->gaps);
}

static int64_t tokens_of(const kv_request *r, int32_t blocks)
{
    int64_t tokens = (int64_t)blocks * r->block_tokens;
    return tokens < r->prompt_tokens ? tokens : r->prompt_tokens;
}

/* An unlimited cache: every block that was named before is there. */
static kv_err survey_blocks(survey *s, const kv_request *r)
{
    int32_t hits = 0;
    while (hits < r->block_count && kv__map_get(&s->blocks, r->blocks[hits]) != KV_MAP_ABSENT)
        hits++;
    s->info->ideal_hit_tokens += tokens_of(r, hits);
    for (int32_t i = 0; i < r->block_count; i++) {
        uint32_t *named = kv__map_find(&s->blocks, r->blocks[i]);
        if (named != NULL) {
            s->info->reused_blocks += *named == 1;
            *named = 2;
            continue;
        }
        kv_err err = kv__map_add(&s->blocks, r->blocks[i], 1);
        if (err != KV_OK)
            return err;
    }
    s->info->blocks += r->block_count;
    return KV_OK;
}

static kv_err survey_lru(survey *s, const kv_request *r)
{
    int32_t hits = kv_block_cache_prefix(s->lru, r->blocks, r->block_count);
    s->info->lru_hit_tokens += tokens_of(r, hits);
    for (int32_t i = 0; i < r->block_count; i++) {
        kv_access access = {.key = r->blocks[i],
                            .time = s->accesses++,
                            .next_use = KV_NEVER,
                            .position = i,
                            .prompt_blocks = r->block_count};
        kv_err err = kv_block_cache_use(s->lru, &access, NULL, NULL);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static kv_err survey_sharing(survey *s, const kv_request *r, kv_diag *diag)
{
    if (s->info->block_tokens != 0 && s->info->block_tokens != r->block_tokens)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "blocks of %d and of %d tokens in one trace: their sharing cannot be told",
                       s->info->block_tokens, r->block_tokens);
    s->info->block_tokens = r->block_tokens;
    kv_err err = survey_blocks(s, r);
    if (err == KV_OK && s->lru != NULL)
        err = survey_lru(s, r);
    return err == KV_OK ? KV_OK : kv_fail_memory(diag);
}

static kv_err survey_request(survey *s, const kv_request *r, kv_diag *diag)
{
    if (r->number == 0)
        s->first_ns = r->arrival_ns;
    else
        gsl_rstat_add((double)(r->arrival_ns - s->last_ns), s->gaps);
    s->last_ns = r->arrival_ns;
    kv_err err = kv__histogram_add(&s->prompt, r->prompt_tokens);
    if (err == KV_OK)
        err = kv__histogram_add(&s->output, r->output_tokens);
    if (err == KV_OK && r->session != KV_NO_SESSION &&
        kv__map_get(&s->sessions, r->session) == KV_MAP_ABSENT)
        err = kv__map_add(&s->sessions, r->session, 0);
    if (err != KV_OK)
        return kv_fail_memory(diag);
    return r->block_count > 0 ? survey_sharing(s, r, diag) : KV_OK;
}

static void set_lengths(kv_length_info *out, kv__histogram *histogram)
{
    kv__histogram_sort(histogram);
    *out = (kv_length_info){
        .total = histogram->total,
        .mean = histogram->count == 0 ? NAN : (double)histogram->total / (double)histogram->count,
        .min = kv__histogram_percentile(histogram, 0),
        .p50 = kv__histogram_percentile(histogram, 0.5),
        .p90 = kv__histogram_percentile(histogram, 0.9),
        .p95 = kv__histogram_percentile(histogram, 0.95),
        .p99 = kv__histogram_percentile(histogram, 0.99),
        .max = kv__histogram_percentile(histogram, 1),
    };
}

static void survey_conclude(survey *s, const kv_request_reader *reader)
{
    kv_request_info *info = s->info;
    int64_t prompts = s->prompt.total;
    info->counts = *kv_request_get_counts(reader);
    info->duration_s = (double)(s->last_ns - s->first_ns) / 1e9;
    info->rate =
        info->duration_s > 0 ? (double)(info->counts.requests - 1) / info->duration_s : NAN;
    double mean_gap = gsl_rstat_mean(s->gaps);
    info->burstiness =
        gsl_rstat_n(s->gaps) >= 2 && mean_gap > 0 ? gsl_rstat_sd(s->gaps) / mean_gap : NAN;
    set_lengths(&info->prompt, &s->prompt);
    set_lengths(&info->output, &s->output);
    info->sessions = (int64_t)s->sessions.count;
    const char *tenant;
    for (int32_t i = 0; (tenant = kv_request_tenant(reader, i)) != NULL; i++)
        info->tenants += *tenant != '\0';
    info->distinct_blocks = (int64_t)s->blocks.count;
    info->working_set_tokens = info->distinct_blocks * info->block_tokens;
    info->ideal_hit_ratio = prompts > 0 ? (double)info->ideal_hit_tokens / (double)prompts : 0;
    info->lru_hit_ratio = prompts > 0 ? (double)info->lru_hit_tokens / (double)prompts : 0;
}

kv_err kv_request_info_read(kv_request_reader *reader, const kv_request_question *question,
                            kv_request_info *out, kv_diag *diag)
{
    survey s;
    kv_request request;
    kv_err err = survey_init(&s, question, out, diag);
    while (err == KV_OK && (err = kv_request_next(reader, &request, diag)) == KV_OK) {
        err = survey_request(&s, &request, diag);
        kv_request_completed(reader, request.session, request.turn, request.arrival_ns);
    }
    if (err == KV_END) {
        survey_conclude(&s, reader);
        err = KV_OK;
    }
    survey_fini(&s);
    return err;
}
