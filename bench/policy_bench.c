/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What each retention policy costs in the replay.
 *
 *     policy_bench TRACE.h5 [CHUNK]
 *
 * Replays every example of a recording under each policy alone, with its defaults but for a window
 * of 16, the size of plain values, a rotary base where the file has none, and 0.3 of the prompt
 * kept (where it takes a share), prefilled in chunks of CHUNK tokens (64), and prints processor
 * milliseconds per example and how many times those of `full`, which are reading and measuring,
 * they are. Policies that the recording cannot serve are named with what it lacks. */
#include "config.h"

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

static kv_err configure(const kv_retention *policy, void *config, kv_diag *diag)
{
    static const struct {
        const char *name, *value;
    } set[] = {{"keep", "0.3"}, {"window", "16"}, {"norm", "value"}, {"rope_theta", "1000000"}};
    kv_err err = kv_params_default(policy->params, config, diag);
    for (size_t i = 0; i < sizeof set / sizeof *set && err == KV_OK; i++) {
        const kv_param *row = kv_param_find(policy->params, set[i].name);
        if (row != NULL)
            err = kv_param_set(row, config, set[i].value, NULL, diag);
    }
    return err;
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
static kv_err time_policy(const kv_retention *policy, kv_attention *trace, long long chunk,
                          double *seconds, kv_diag *diag)
{
    void *config = calloc(1, policy->config_bytes);
    kv_replay *replay = NULL;
    kv_replay_options options = {.page_tokens = 16, .prefill_token_s = 1, .decode_step_s = 1};
    kv_err err = config != NULL ? configure(policy, config, diag) : kv_fail_memory(diag);
    kv_replay_point point = {
        .policy = policy, .config = config, .directory = "", .chunk_tokens = chunk};
    if (err == KV_OK)
        err = kv_replay_new(&point, 1, kv_attention_shape(trace), &options, &replay, diag);
    for (int r = 0; r < REPEATS && err == KV_OK; r++) {
        double start = now_s();
        err = replay_all(replay, trace, diag);
        double took = now_s() - start;
        *seconds = r == 0 || took < *seconds ? took : *seconds;
    }
    kv_replay_free(replay);
    if (config != NULL)
        kv_params_fini(policy->params, config);
    free(config);
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
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++) {
        double seconds = 0;
        diag = (kv_diag){0};
        if (time_policy(*p, trace, chunk, &seconds, &diag) != KV_OK) {
            kv_diag_format(&diag, words, sizeof words);
            printf("%-20s not run: %s\n", (*p)->name, words);
            continue;
        }
        full = p == kv_retention_all() ? seconds : full; /* the table starts with `full` */
        printf("%-20s %12.3f %8.2f\n", (*p)->name, 1e3 * seconds / kv_attention_examples(trace),
               seconds / full);
    }
    kv_attention_close(trace);
    return 0;
}
