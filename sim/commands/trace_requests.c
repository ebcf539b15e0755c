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

static kv_err read_question(const kv_trace_options *o, kv_request_question *question, kv_diag *diag)
{
    *question = (kv_request_question){.lru = o->lru_blocks != NULL};
    if (o->lru_blocks == NULL || strcmp(o->lru_blocks, "unlimited") == 0)
        return KV_OK;
    char *end;
    unsigned long long blocks = strtoull(o->lru_blocks, &end, 10);
    if (o->lru_blocks[0] < '0' || o->lru_blocks[0] > '9' || *end != '\0' || blocks == 0 ||
        blocks >= UINT32_MAX)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "--lru-blocks %s: expected a number of blocks, 1 to %" PRIu32
                       ", or `unlimited`",
                       o->lru_blocks, UINT32_MAX - 1);
    question->lru_blocks = (uint32_t)blocks;
    return KV_OK;
}

/* --- Writing --------------------------------------------------------------------------------- */

static void write_lengths_json(const char *name, const kv_length_info *l, FILE *out)
{
    fprintf(out, ",\"%s\":{\"total\":%" PRId64 ",\"mean\":", name, l->total);
    kv_json_real(l->mean, out);
    fprintf(out,
            ",\"min\":%" PRId32 ",\"p50\":%" PRId32 ",\"p90\":%" PRId32 ",\"p95\":%" PRId32
            ",\"p99\":%" PRId32 ",\"max\":%" PRId32 "}",
            l->min, l->p50, l->p90, l->p95, l->p99, l->max);
}

static void write_real_json(const char *name, double value, FILE *out)
{
    fprintf(out, ",\"%s\":", name);
    kv_json_real(value, out);
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
    write_lengths_json("prompt_tokens", &i->prompt, out);
    write_lengths_json("output_tokens", &i->output, out);
    fprintf(out,
            ",\"sessions\":%" PRId64 ",\"tenants\":%" PRId64 ",\"block_tokens\":%" PRId32
            ",\"blocks\":%" PRId64 ",\"distinct_blocks\":%" PRId64 ",\"reused_blocks\":%" PRId64
            ",\"working_set_tokens\":%" PRId64 ",\"ideal_prefix_hit_tokens\":%" PRId64,
            i->sessions, i->tenants, i->block_tokens, i->blocks, i->distinct_blocks,
            i->reused_blocks, i->working_set_tokens, i->ideal_hit_tokens);
    write_real_json("ideal_prefix_hit_ratio", i->ideal_hit_ratio, out);
    if (question->lru && question->lru_blocks > 0)
        fprintf(out, ",\"lru_blocks\":%" PRIu32, question->lru_blocks);
    if (question->lru) {
        fprintf(out, ",\"lru_hit_tokens\":%" PRId64, i->lru_hit_tokens);
        write_real_json("lru_hit_ratio", i->lru_hit_ratio, out);
    }
    fputs("}\n", out);
}

static void write_lengths(const char *name, const kv_length_info *l, FILE *out)
{
    fprintf(out, "  %-9s %10.1f %9d %9d %9d %9d %9d %9d\n", name, l->mean, l->min, l->p50, l->p90,
            l->p95, l->p99, l->max);
}

static void write_sharing(const kv_request_info *i, const kv_request_question *question, FILE *out)
{
    if (i->blocks == 0) {
        fputs("  names no blocks: prefix sharing is not known\n", out);
        return;
    }
    fprintf(out,
            "  ideal prefix hit ratio %.4f (%" PRId64 " tokens, unlimited cache)\n"
            "  working set %" PRId64 " blocks of %" PRId32 " tokens, %" PRId64
            " of them named more than once\n",
            i->ideal_hit_ratio, i->ideal_hit_tokens, i->distinct_blocks, i->block_tokens,
            i->reused_blocks);
    if (question->lru && question->lru_blocks > 0)
        fprintf(out, "  LRU cache of %" PRIu32 " blocks: ", question->lru_blocks);
    else if (question->lru)
        fputs("  LRU cache without a limit: ", out);
    if (question->lru)
        fprintf(out, "hit ratio %.4f (%" PRId64 " tokens)\n", i->lru_hit_ratio, i->lru_hit_tokens);
}

static void write_text(const kv_request_spec *spec, const kv_request_info *i,
                       const kv_request_question *question, FILE *out)
{
    fprintf(out, "%s: %s, %" PRId64 " requests", spec->path, spec->format->name,
            i->counts.requests);
    if (i->counts.skipped > 0)
        fprintf(out, ", %" PRId64 " malformed rows skipped", i->counts.skipped);
    if (i->duration_s > 0)
        fprintf(out, "\n  %.6g s, %.4g requests/s, burstiness %.3g (1: Poisson)\n", i->duration_s,
                i->rate, i->burstiness);
    else
        fputs("\n  no arrival times, or all the same\n", out);
    if (i->sessions > 0)
        fprintf(out, "  %" PRId64 " sessions, %.4g requests each\n", i->sessions,
                (double)i->counts.requests / (double)i->sessions);
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
