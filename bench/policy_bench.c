/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What each policy costs in the replay.
 *
 *     policy_bench TRACE.h5 [CHUNK]
 *
 * Replays every example of a recording under each policy alone, transforms beside snapkv (or
 * `full`, where they need it), with its defaults but for a window of 16, the size of plain values,
 * a rotary base where the file has none, and 0.3 of the prompt kept or 64 entries read (where it
 * takes such numbers), prefilled in chunks of CHUNK tokens (64), and prints processor milliseconds
 * per example and how many times those of `full`, which are reading and measuring, they are.
 * Policies that the recording cannot serve are named with what it lacks. */
#include "config.h"

#include "sim/policy_spec.h"
#include "sim/replay/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REPEATS = 3 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The policy as a user writes it. */
static void describe(const kv_method *method, char *out, size_t out_bytes)
{
    static const struct {
        const char *name, *value;
    } set[] = {{"keep", "0.3"},           {"window", "16"},     {"norm", "value"},
               {"rope_theta", "1000000"}, {"compression", "4"}, {"read", "64"}};
    bool full = method->needs & KV_NEEDS_FULL, transform = method->family == KV_FAMILY_TRANSFORM;
    const char *beside = !transform ? "" : full ? "full, " : "{snapkv: {keep: 0.3, window: 16}}, ";
    const char *between = "";
    int used = snprintf(out, out_bytes, "[%s{%s: {", beside, method->name);
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) {
        const kv_param *row = kv_param_find(method->params, set[i].name);
        bool instead = i == 1 && row != NULL && row->flags & KV_PARAM_BUDGET; /* of keep */
        if (row == NULL || instead)
            continue;
        used += snprintf(out + used, out_bytes - (size_t)used, "%s%s: %s", between, set[i].name,
                         set[i].value);
        between = ", ";
    }
    snprintf(out + used, out_bytes - (size_t)used, "}}]");
}

static kv_err replay_all(const kv_replay *replay, kv_attention *trace, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int e = 0; e < kv_attention_examples(trace) && err == KV_OK; e++) {
        kv_replay_result result;
        err = kv_replay_example(replay, trace, e, &result, diag);
        if (err == KV_OK)
            kv_replay_result_fini(&result);
    }
    return err;
}

/* Least seconds of all examples under one policy. */
static kv_err time_point(const kv_point_spec *spec, kv_attention *trace, long long chunk,
                         double *seconds, kv_diag *diag)
{
    kv_replay *replay = NULL;
    kv_replay_options options = {.page_tokens = 16, .prefill_token_s = 1, .decode_step_s = 1};
    kv_replay_point point = {.policy = spec->policy,
                             .config = spec->config,
                             .part = spec->part,
                             .parts = spec->parts,
                             .directory = "",
                             .chunk_tokens = chunk};
    kv_err err = kv_replay_new(&point, 1, kv_attention_shape(trace), &options, &replay, diag);
    for (int r = 0; r < REPEATS && err == KV_OK; r++) {
        double start = now_s();
        err = replay_all(replay, trace, diag);
        double took = now_s() - start;
        *seconds = r == 0 || took < *seconds ? took : *seconds;
    }
    kv_replay_free(replay);
    return err;
}

static kv_err time_method(const kv_method *method, kv_attention *trace, long long chunk,
                          double *seconds, kv_diag *diag)
{
    char text[512];
    kv_point_list list = {0};
    kv_mark mark = {"policy_bench", 0, 0};
    describe(method, text, sizeof text);
    kv_err err = kv_policy_parse_text(text, &mark, "", &list, diag);
    if (err == KV_OK)
        err = time_point(&list.point[0], trace, chunk, seconds, diag);
    kv_point_list_fini(&list);
    return err;
}

int main(int argc, char **argv)
{
    kv_attention *trace;
    kv_diag diag = {0};
    char words[2048];
    double full = 0;
    long long chunk = argc > 2 ? atoll(argv[2]) : 64;
    if (argc < 2 || argc > 3 || chunk < 0) {
        fprintf(stderr, "Usage: policy_bench TRACE.h5 [CHUNK]\n");
        return 2;
    }
    if (kv_attention_open(argv[1], &trace, &diag) != KV_OK) {
        kv_diag_format(&diag, words, sizeof words);
        fprintf(stderr, "policy_bench: %s\n", words);
        return 2;
    }
    printf("%-20s %12s %8s\n", "policy", "ms/example", "x full");
    for (int m = 0; m < kv_methods(); m++) {
        kv_method method = kv_method_get(m);
        double seconds = 0;
        diag = (kv_diag){0};
        if (time_method(&method, trace, chunk, &seconds, &diag) != KV_OK) {
            kv_diag_format(&diag, words, sizeof words);
            printf("%-20s not run: %s\n", method.name, words);
            continue;
        }
        full = m == 0 ? seconds : full; /* the table starts with `full` */
        printf("%-20s %12.3f %8.2f\n", method.name, 1e3 * seconds / kv_attention_examples(trace),
               seconds / full);
    }
    kv_attention_close(trace);
    return 0;
}
