/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/request_info.h"

#include "sim/base/map.h"
#include "traces/cache_survey.h"
#include "traces/histogram.h"

#include <math.h>
#include <string.h>

#include <gsl/gsl_rstat.h>

/* What grows while a trace is read. */
typedef struct survey {
    kv_request_info *info;
    kv__histogram prompt, output;
    gsl_rstat_workspace *gaps;
    kv__map sessions, blocks; /* blocks: what marks_of says, and 1 if named more than once */
    kv__cache_survey caches;
    int64_t first_ns, last_ns;
} survey;

static kv_err survey_init(survey *s, const kv_request_question *question, kv_request_info *info,
                          kv_diag *diag)
{
    memset(s, 0, sizeof *s);
    memset(info, 0, sizeof *info);
    s->info = info;
    info->caches = question->policies;
    for (int c = 0; c < question->policies; c++)
        info->cache[c].policy = question->policy[c];
    s->gaps = gsl_rstat_alloc();
    if (s->gaps == NULL)
        return kv_fail_memory(diag);
    return kv__cache_survey_init(&s->caches, info->cache, info->caches, question->blocks, diag);
}

static void survey_fini(survey *s)
{
    kv__histogram_fini(&s->prompt);
    kv__histogram_fini(&s->output);
    kv__map_fini(&s->sessions);
    kv__map_fini(&s->blocks);
    kv__cache_survey_fini(&s->caches);
    if (s->gaps != NULL)
        gsl_rstat_free(s->gaps);
}

static int64_t tokens_of(const kv_request *r, int32_t blocks)
{
    int64_t tokens = (int64_t)blocks * r->block_tokens;
    return tokens < r->prompt_tokens ? tokens : r->prompt_tokens;
}

/* Where a block stands and how much it covers, in 31 bits above one that is 0: the same wherever
 * its name is, or names do not mean what they should. */
static uint32_t marks_of(const kv_request *r, int32_t i)
{
    int64_t rest = r->prompt_tokens - (int64_t)i * r->block_tokens;
    uint64_t covers = (uint64_t)(rest < r->block_tokens ? rest : r->block_tokens);
    uint64_t before = i > 0 ? r->blocks[i - 1] : UINT64_MAX;
    uint64_t x = (before ^ (uint64_t)i << 40 ^ covers << 20) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)((x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9) >> 33) << 1;
}

static void note_contradiction(survey *s, const kv_request_reader *reader, const kv_request *r,
                               int32_t i)
{
    kv_mark mark = kv_request_mark(reader);
    if (s->info->contradictions++ > 0)
        return;
    (void)kv_fail(&s->info->contradiction, KV_ERR_INPUT, &mark,
                  "block %llu stands at another place, behind another block or for another "
                  "number of tokens than before (here it is number %d of %d): equal ids "
                  "have to mean equal prefixes",
                  (unsigned long long)r->blocks[i], i + 1, r->block_count);
}

/* An unlimited cache: every block that was named before is there. */
static kv_err survey_blocks(survey *s, const kv_request_reader *reader, const kv_request *r)
{
    int32_t hits = 0;
    while (hits < r->block_count && kv__map_get(&s->blocks, r->blocks[hits]) != KV_MAP_ABSENT)
        hits++;
    s->info->ideal_hit_tokens += tokens_of(r, hits);
    for (int32_t i = 0; i < r->block_count; i++) {
        uint32_t *named = kv__map_find(&s->blocks, r->blocks[i]), marks = marks_of(r, i);
        if (named != NULL) {
            s->info->reused_blocks += (*named & 1) == 0;
            if ((*named & ~1U) != marks)
                note_contradiction(s, reader, r, i);
            *named |= 1;
            continue;
        }
        kv_err err = kv__map_add(&s->blocks, r->blocks[i], marks);
        if (err != KV_OK)
            return err;
    }
    s->info->blocks += r->block_count;
    return KV_OK;
}

static kv_err survey_sharing(survey *s, const kv_request_reader *reader, const kv_request *r,
                             kv_diag *diag)
{
    if (s->info->block_tokens != 0 && s->info->block_tokens != r->block_tokens)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "blocks of %d and of %d tokens in one trace: their sharing cannot be told",
                       s->info->block_tokens, r->block_tokens);
    s->info->block_tokens = r->block_tokens;
    if (survey_blocks(s, reader, r) != KV_OK)
        return kv_fail_memory(diag);
    return kv__cache_survey_add(&s->caches, r, diag);
}

static kv_err survey_request(survey *s, const kv_request_reader *reader, const kv_request *r,
                             kv_diag *diag)
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
    s->info->unnamed += r->block_count == 0;
    return r->block_count > 0 ? survey_sharing(s, reader, r, diag) : KV_OK;
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
    double all = info->blocks > 0 ? (double)prompts : NAN;
    info->ideal_hit_ratio = (double)info->ideal_hit_tokens / all;
    for (int c = 0; c < info->caches; c++)
        info->cache[c].hit_ratio = (double)info->cache[c].hit_tokens / all;
}

kv_err kv_request_info_read(kv_request_reader *reader, const kv_request_question *question,
                            kv_request_info *out, kv_diag *diag)
{
    survey s;
    kv_request request;
    kv_err err = survey_init(&s, question, out, diag);
    while (err == KV_OK && (err = kv_request_next(reader, &request, diag)) == KV_OK) {
        err = survey_request(&s, reader, &request, diag);
        kv_request_completed(reader, request.session, request.turn, request.arrival_ns);
    }
    if (err == KV_END)
        err = kv__cache_survey_end(&s.caches, diag);
    if (err == KV_OK)
        survey_conclude(&s, reader);
    survey_fini(&s);
    return err;
}
