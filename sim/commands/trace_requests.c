/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim trace info and verify of request traces. */
#include "config.h"

#include "sim/base/json.h"
#include "sim/commands/trace.h"
#include "sim/commands/trace_requests.h"
#include "traces/request_info.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What nothing else claims: the reader tells what is wrong with it. */
static bool probe(const char *path)
{
    return true;
}

/* --- Reading --------------------------------------------------------------------------------- */

static kv_err apply_setting(kv_request_spec *spec, const char *setting, kv_diag *diag)
{
    char name[64];
    const char *equals = strchr(setting, '=');
    size_t length = equals == NULL ? 0 : (size_t)(equals - setting);
    if (length == 0 || length >= sizeof name)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "--set %s: expected NAME=VALUE", setting);
    memcpy(name, setting, length);
    name[length] = '\0';
    return kv_request_spec_set(spec, name, equals + 1, &(kv_mark){"--set", 0, 0}, diag);
}

kv_err kv__trace_request_spec(const char *path, const char *format, const kv_trace_options *o,
                              kv_request_spec *spec, kv_diag *diag)
{
    kv_err err = kv_request_spec_init(spec, path, format, diag);
    for (int i = 0; err == KV_OK && i < o->settings; i++)
        err = apply_setting(spec, o->setting[i], diag);
    return err;
}

void kv__trace_warn_of_skips(const kv_request_reader *reader, const char *path,
                             const kv_trace_options *o)
{
    char words[2048];
    const kv_diag *first = kv_request_first_skip(reader);
    if (first == NULL || o->quiet)
        return;
    kv_diag_format(first, words, sizeof words);
    fprintf(stderr, "kvsim: %s: %" PRId64 " malformed rows skipped, the first: %s\n", path,
            kv_request_get_counts(reader)->skipped, words);
}

static kv_err add_policy(kv_request_question *question, const kv_replacement *policy, kv_diag *diag)
{
    for (int c = 0; c < question->policies; c++)
        if (question->policy[c] == policy)
            return KV_OK;
    if (question->policies == KV_CACHES_MOST)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "--replacement: more than %d policies",
                       KV_CACHES_MOST);
    question->policy[question->policies++] = policy;
    return KV_OK;
}

static kv_err unknown_policy(const char *text, kv_diag *diag)
{
    const char *name[KV_CACHES_MOST];
    int names = 0;
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++)
        if (names < KV_CACHES_MOST)
            name[names++] = (*p)->name;
    const char *near = kv_nearest(text, name, names);
    return kv_fail(diag, KV_ERR_INPUT, NULL,
                   "--replacement %s: there is no such policy%s%s%s; `kvsim list policies` names "
                   "them, and `all` is all of them",
                   text, near != NULL ? ", did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
}

/* Adds the policy of that name, or all. */
static kv_err add_policies(kv_request_question *question, const char *text, kv_diag *diag)
{
    const kv_replacement *named = kv_replacement_find(text);
    kv_err err = KV_OK;
    if (named != NULL)
        return add_policy(question, named, diag);
    if (strcmp(text, "all") != 0)
        return unknown_policy(text, diag);
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL && err == KV_OK; p++)
        err = add_policy(question, *p, diag);
    return err;
}

static kv_err read_question(const kv_trace_options *o, kv_request_question *question, kv_diag *diag)
{
    *question = (kv_request_question){.blocks = 0};
    if (o->lru_blocks == NULL && o->replacements > 0)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "--replacement %s: how large is the cache? add --lru-blocks N",
                       o->replacement[0]);
    if (o->lru_blocks == NULL)
        return KV_OK;
    kv_err err = add_policies(question, "lru", diag);
    for (int c = 0; c < o->replacements && err == KV_OK; c++)
        err = add_policies(question, o->replacement[c], diag);
    if (err != KV_OK || strcmp(o->lru_blocks, "unlimited") == 0)
        return err;
    char *end;
    unsigned long long blocks = strtoull(o->lru_blocks, &end, 10);
    if (o->lru_blocks[0] < '0' || o->lru_blocks[0] > '9' || *end != '\0' || blocks == 0 ||
        blocks >= UINT32_MAX)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "--lru-blocks %s: expected a number of blocks, 1 to %" PRIu32
                       ", or `unlimited`",
                       o->lru_blocks, UINT32_MAX - 1);
    question->blocks = (uint32_t)blocks;
    return KV_OK;
}

/* --- Writing --------------------------------------------------------------------------------- */

static void write_real_json(const char *name, double value, FILE *out)
{
    fprintf(out, ",\"%s\":", name);
    kv_json_real(value, out);
}

/* any: there is a request. */
static void write_lengths_json(const char *name, const kv_length_info *l, bool any, FILE *out)
{
    fprintf(out, ",\"%s\":{\"total\":%" PRId64, name, l->total);
    write_real_json("mean", l->mean, out);
    if (!any)
        fputs(",\"min\":null,\"p50\":null,\"p90\":null,\"p95\":null,\"p99\":null,\"max\":null}",
              out);
    else
        fprintf(out,
                ",\"min\":%" PRId32 ",\"p50\":%" PRId32 ",\"p90\":%" PRId32 ",\"p95\":%" PRId32
                ",\"p99\":%" PRId32 ",\"max\":%" PRId32 "}",
                l->min, l->p50, l->p90, l->p95, l->p99, l->max);
}

/* A count that means something only where requests name blocks. */
static void write_shared_json(const char *name, int64_t value, const kv_request_info *i, FILE *out)
{
    fprintf(out, i->blocks > 0 ? ",\"%s\":%" PRId64 : ",\"%s\":null", name, value);
}

/* lru under names of its own; all under `caches` if others were asked for. */
static void write_caches_json(const kv_request_info *i, const kv_request_question *question,
                              FILE *out)
{
    if (i->caches == 0)
        return;
    if (question->blocks > 0)
        fprintf(out, ",\"lru_blocks\":%" PRIu32, question->blocks);
    write_shared_json("lru_hit_tokens", i->cache[0].hit_tokens, i, out);
    write_real_json("lru_hit_ratio", i->cache[0].hit_ratio, out);
    for (int c = 0; c < i->caches && i->caches > 1; c++) {
        fprintf(out, "%s{\"replacement\":\"%s\"", c == 0 ? ",\"caches\":[" : ",",
                i->cache[c].policy->name);
        write_shared_json("hit_tokens", i->cache[c].hit_tokens, i, out);
        write_real_json("hit_ratio", i->cache[c].hit_ratio, out);
        write_shared_json("resident_blocks", i->cache[c].resident_blocks, i, out);
        fputs(c == i->caches - 1 ? "}]" : "}", out);
    }
}

static void write_sharing_json(const kv_request_info *i, FILE *out)
{
    write_shared_json("block_tokens", i->block_tokens, i, out);
    fprintf(out,
            ",\"without_blocks\":%" PRId64 ",\"blocks\":%" PRId64 ",\"distinct_blocks\":%" PRId64
            ",\"reused_blocks\":%" PRId64 ",\"contradicting_blocks\":%" PRId64,
            i->unnamed, i->blocks, i->distinct_blocks, i->reused_blocks, i->contradictions);
    write_shared_json("working_set_tokens", i->working_set_tokens, i, out);
    write_shared_json("ideal_prefix_hit_tokens", i->ideal_hit_tokens, i, out);
    write_real_json("ideal_prefix_hit_ratio", i->ideal_hit_ratio, out);
}

static void write_json(const kv_request_spec *spec, const kv_request_info *i,
                       const kv_request_question *question, FILE *out)
{
    fputs("{\"file\":", out);
    kv_json_string(spec->path, out);
    fprintf(out,
            ",\"kind\":\"requests\",\"format\":\"%s\",\"requests\":%" PRId64 ",\"skipped\":%" PRId64
            ",\"zero_output\":%" PRId64 ",\"reordered\":%" PRId64 ",\"assumed\":%" PRId64,
            spec->format->name, i->counts.requests, i->counts.skipped, i->counts.zero_output,
            i->counts.reordered, i->counts.assumed);
    write_real_json("duration_s", i->duration_s, out);
    write_real_json("rate", i->rate, out);
    write_real_json("burstiness", i->burstiness, out);
    write_lengths_json("prompt_tokens", &i->prompt, i->counts.requests > 0, out);
    write_lengths_json("output_tokens", &i->output, i->counts.requests > 0, out);
    fprintf(out, ",\"sessions\":%" PRId64 ",\"tenants\":%" PRId64, i->sessions, i->tenants);
    write_sharing_json(i, out);
    write_caches_json(i, question, out);
    fputs("}\n", out);
}

static void write_lengths(const char *name, const kv_length_info *l, FILE *out)
{
    fprintf(out, "  %-9s %10.1f %9d %9d %9d %9d %9d %9d\n", name, l->mean, l->min, l->p50, l->p90,
            l->p95, l->p99, l->max);
}

static void write_cache(const kv_cache_hits *cache, const kv_request_question *question, FILE *out)
{
    const char *name = strcmp(cache->policy->name, "lru") == 0 ? "LRU" : cache->policy->name;
    if (question->blocks > 0)
        fprintf(out, "  %s cache of %" PRIu32 " blocks: ", name, question->blocks);
    else
        fprintf(out, "  %s cache without a limit: ", name);
    fprintf(out, "hit ratio %.4f (%" PRId64 " tokens)", cache->hit_ratio, cache->hit_tokens);
    if (question->policies > 1)
        fprintf(out, ", %" PRId64 " uses of resident blocks", cache->resident_blocks);
    fputc('\n', out);
}

static void write_sharing(const kv_request_info *i, const kv_request_question *question, FILE *out)
{
    if (i->blocks == 0) {
        fputs("  names no blocks: prefix sharing is not known\n", out);
        return;
    }
    if (i->unnamed > 0)
        fprintf(out, "  %" PRId64 " requests name no block: they share nothing\n", i->unnamed);
    if (i->contradictions > 0)
        fprintf(out,
                "  %" PRId64
                " uses of blocks contradict others (`kvsim trace verify` says where): their "
                "sharing is not real\n",
                i->contradictions);
    fprintf(out,
            "  ideal prefix hit ratio %.4f (%" PRId64 " tokens, unlimited cache)\n"
            "  working set %" PRId64 " blocks of %" PRId32 " tokens, %" PRId64
            " of them named more than once\n",
            i->ideal_hit_ratio, i->ideal_hit_tokens, i->distinct_blocks, i->block_tokens,
            i->reused_blocks);
    for (int c = 0; c < i->caches; c++)
        write_cache(&i->cache[c], question, out);
}

static void write_text(const kv_request_spec *spec, const kv_request_info *i,
                       const kv_request_question *question, FILE *out)
{
    fprintf(out, "%s: %s, %" PRId64 " requests", spec->path, spec->format->name,
            i->counts.requests);
    if (i->counts.skipped > 0)
        fprintf(out, ", %" PRId64 " malformed rows skipped", i->counts.skipped);
    if (i->counts.requests == 0) {
        fputs("\n", out);
        return;
    }
    if (i->duration_s > 0)
        fprintf(out, "\n  %.6g s, %.4g requests/s, burstiness %.3g (1: Poisson)\n", i->duration_s,
                i->rate, i->burstiness);
    else
        fputs("\n  no arrival times, or all the same\n", out);
    if (i->sessions > 0)
        fprintf(out, "  %" PRId64 " session%s, %.4g requests each\n", i->sessions,
                i->sessions == 1 ? "" : "s", (double)i->counts.requests / (double)i->sessions);
    if (i->counts.zero_output > 0)
        fprintf(out, "  %" PRId64 " requests without output\n", i->counts.zero_output);
    fprintf(out, "  %-9s %10s %9s %9s %9s %9s %9s %9s\n", "tokens", "mean", "min", "p50", "p90",
            "p95", "p99", "max");
    write_lengths("prompt", &i->prompt, out);
    write_lengths("output", &i->output, out);
    write_sharing(i, question, out);
}

static kv_err read_info(const char *path, const kv_trace_options *o, kv_request_spec *spec,
                        const kv_request_question *question, kv_request_info *out, kv_diag *diag)
{
    kv_request_reader *reader = NULL;
    kv_err err = kv__trace_request_spec(path, o->format, o, spec, diag);
    if (err == KV_OK && spec->options.arrivals == KV_ARRIVALS_RECORDED)
        spec->options.arrivals = KV_ARRIVALS_IF_RECORDED;
    if (err == KV_OK)
        err = kv_request_open(spec, &reader, diag);
    if (err == KV_OK)
        err = kv_request_info_read(reader, question, out, diag);
    if (err == KV_OK)
        kv__trace_warn_of_skips(reader, path, o);
    kv_request_close(reader);
    return err;
}

static kv_err info(const char *path, const kv_trace_options *o, FILE *out, kv_diag *diag)
{
    kv_request_spec spec = {0};
    kv_request_question question;
    kv_request_info found;
    kv_err err = read_question(o, &question, diag);
    if (err == KV_OK)
        err = read_info(path, o, &spec, &question, &found, diag);
    if (err == KV_OK)
        (o->json ? write_json : write_text)(&spec, &found, &question, out);
    kv_request_spec_fini(&spec);
    return err;
}

static kv_err verify(const char *path, const kv_trace_options *o, FILE *out, kv_diag *diag)
{
    kv_request_spec spec = {0};
    kv_request_question question = {0};
    kv_request_info found;
    kv_err err = read_info(path, o, &spec, &question, &found, diag);
    if (err == KV_OK && found.counts.requests == 0)
        err = kv_fail(diag, KV_ERR_INPUT, &(kv_mark){path, 0, 0}, "holds no requests");
    if (err == KV_OK && found.contradictions > 0) {
        *diag = found.contradiction;
        err = KV_ERR_INPUT;
    }
    if (err == KV_OK)
        fprintf(out, "%s: sound, %" PRId64 " requests\n", path, found.counts.requests);
    kv_request_spec_fini(&spec);
    return err;
}

const kv_trace_kind kv__trace_requests = {
    .name = "requests",
    .probe = probe,
    .info = info,
    .verify = verify,
};
