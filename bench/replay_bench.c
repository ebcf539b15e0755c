/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How fast recorded scores are replayed, against what this machine can copy.
 *
 *     replay_bench [TOKENS [THREADS]]
 *
 * Writes a file of contiguous f16 probabilities (4 examples of one layer, 8 query heads, 2 KV
 * heads) into $TMPDIR or /tmp, and prints, all measured in this one run:
 *
 * - copy: bytes per second of memcpy between two large buffers, one core;
 * - replay: bytes per second of recorded causal scores that one rank-based policy consumes which
 *   reads every row (observed_attention after the prompt), one core;
 * - budgets: the time of a curve of 16 budgets over the time of one budget;
 * - threads: the time of one thread over that of N, on as many examples.
 */
#include "config.h"

#include "sim/sweep.h"
#include "policies/retention_params.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HEADS = 8, KV_HEADS = 2, WIDTH = 16, EXAMPLES = 4, REPEATS = 3, BUDGETS = 16, ANSWER = 8 };

/* Seconds of a clock. One core is timed by its processor time, so that other work on the machine
 * counts less; threads are timed by the wall. */
static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const kv_diag *diag)
{
    char words[2048];
    kv_diag_format(diag, words, sizeof words);
    fprintf(stderr, "replay_bench: %s\n", words);
    exit(1);
}

/* --- The recording ----------------------------------------------------------------- */

static void put_int(hid_t object, const char *name, int value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, H5T_NATIVE_INT, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT, &value);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_text(hid_t object, const char *name, const char *value)
{
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value));
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, type, value);
    H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
}

static void put_real(hid_t object, const char *name, double value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_DOUBLE, &value);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_table(hid_t group, const char *name, int rows, int columns, const int32_t *value)
{
    hsize_t shape[2] = {(hsize_t)rows, (hsize_t)columns};
    hid_t space = H5Screate_simple(columns > 1 ? 2 : 1, shape, NULL);
    hid_t set =
        H5Dcreate2(group, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, value);
    H5Dclose(set);
    H5Sclose(space);
}

/* IEEE binary16 of a power of two, 2^-24 .. 1. */
static uint16_t half_of_power(int exponent)
{
    return exponent >= -14 ? (uint16_t)((exponent + 15) << 10) : (uint16_t)(1 << (exponent + 24));
}

static hid_t half_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

/* Row i gives 1/2 to itself, 1/4 to the key before, and so on: exact in binary16. */
static void fill_row(uint16_t *row, int i)
{
    int last = i < 12 ? i : 12;
    for (int back = 0; back <= last; back++)
        row[i - back] = half_of_power(back < last ? -back - 1 : -back);
}

/* Written many rows at a time, as recorders do: the system then caches the file in large pieces. */
static void put_probs(hid_t group, int tokens)
{
    int band = tokens < 512 ? tokens : 512;
    hsize_t shape[4] = {1, HEADS, (hsize_t)tokens, (hsize_t)tokens};
    hid_t space = H5Screate_simple(4, shape, NULL), type = half_type();
    hid_t set = H5Dcreate2(group, "probs", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    uint16_t *rows = malloc((size_t)band * (size_t)tokens * sizeof *rows);
    for (int h = 0; h < HEADS; h++)
        for (int first = 0; first < tokens; first += band) {
            int count = tokens - first < band ? tokens - first : band;
            hsize_t start[4] = {0, (hsize_t)h, (hsize_t)first, 0};
            hsize_t size[4] = {1, 1, (hsize_t)count, (hsize_t)tokens};
            memset(rows, 0, (size_t)band * (size_t)tokens * sizeof *rows);
            for (int i = 0; i < count; i++)
                fill_row(rows + (size_t)i * (size_t)tokens, first + i);
            hid_t memory = H5Screate_simple(4, size, NULL);
            H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL);
            H5Dwrite(set, type, memory, space, H5P_DEFAULT, rows);
            H5Sclose(memory);
        }
    free(rows);
    H5Dclose(set);
    H5Tclose(type);
    H5Sclose(space);
}

static void put_example(hid_t examples, const char *name, int tokens)
{
    hid_t group = H5Gcreate2(examples, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    int prompt = tokens - ANSWER;
    int32_t turn[3] = {prompt - 4, prompt, tokens}, evidence[3] = {0, 8, 16};
    int32_t *position = malloc((size_t)tokens * sizeof *position);
    for (int i = 0; i < tokens; i++)
        position[i] = i;
    put_text(group, "task", "bench");
    put_text(group, "mode", "single");
    put_int(group, "context_len", prompt - 4);
    put_int(group, "prompt_len", prompt);
    put_int(group, "total_len", tokens);
    put_real(group, "full_score", 1);
    put_table(group, "tokens", tokens, 1, position);
    put_table(group, "query_pos", tokens, 1, position);
    put_table(group, "turns", 1, 3, turn);
    put_table(group, "evidence", 1, 3, evidence);
    put_probs(group, tokens);
    free(position);
    H5Gclose(group);
}

static void write_recording(const char *path, int tokens)
{
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    put_text(file, "format", "kvsim.attention");
    put_int(file, "version", 1);
    put_text(file, "model", "bench");
    put_int(file, "num_layers", 1);
    put_int(file, "num_heads", HEADS);
    put_int(file, "num_kv_heads", KV_HEADS);
    put_int(file, "head_dim", WIDTH);
    hid_t examples = H5Gcreate2(file, "examples", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int e = 0; e < EXAMPLES; e++)
        put_example(examples, (char[]){'0', (char)('0' + e), 0}, tokens);
    H5Gclose(examples);
    H5Fclose(file);
}

/* --- What is timed ----------------------------------------------------------------- */

static double copy_bytes_per_s(void)
{
    size_t bytes = (size_t)256 << 20;
    char *from = malloc(bytes), *to = malloc(bytes);
    double best = 1e9;
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (int r = 0; r < 2 * REPEATS; r++) {
        double start = now_s(CLOCK_PROCESS_CPUTIME_ID);
        memcpy(to, from, bytes);
        double took = now_s(CLOCK_PROCESS_CPUTIME_ID) - start;
        best = took < best ? took : best;
        from[r] = to[bytes - 1];
    }
    free(from);
    free(to);
    return (double)bytes / best;
}

static kv_err ignore(void *closure, int example, const kv_record *record,
                     const kv_retained_set *sets, int set_count, kv_diag *diag)
{
    return KV_OK;
}

/* Least seconds of a sweep of `budgets` budgets over `examples` examples. */
static double sweep_s(kv_attention *trace, int budgets, int examples, int threads, clockid_t clock)
{
    const kv_retention *policy = kv_retention_find("observed_attention");
    kv_retention_config config[BUDGETS];
    kv_sweep_point point[BUDGETS];
    kv_sweep_example example[EXAMPLES];
    kv_diag diag = {0};
    memset(config, 0, sizeof config);
    memset(point, 0, sizeof point);
    for (int b = 0; b < budgets; b++) {
        if (kv_params_default(policy->params, &config[b], &diag) != KV_OK)
            die(&diag);
        config[b].keep = (b + 1.0) / (BUDGETS + 1);
        point[b].replay =
            (kv_replay_point){.policy = policy, .config = &config[b], .directory = ""};
    }
    for (int e = 0; e < examples; e++)
        example[e] = (kv_sweep_example){.index = e, .info = {.task = "bench", .turns = 1}};
    kv_sweep sweep = {.trace = &trace,
                      .traces = 1,
                      .point = point,
                      .points = budgets,
                      .example = example,
                      .examples = examples,
                      .threads = threads,
                      .options = {.page_tokens = 16, .prefill_token_s = 1, .decode_step_s = 1}};
    double best = 1e9;
    for (int r = 0; r < REPEATS; r++) {
        double start = now_s(clock);
        if (kv_sweep_run(&sweep, NULL, ignore, NULL, NULL, NULL, &diag) != KV_OK)
            die(&diag);
        double took = now_s(clock) - start;
        best = took < best ? took : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    int tokens = argc > 1 ? atoi(argv[1]) : 4096;
    int threads = argc > 2 ? atoi(argv[2]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    const char *folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char path[4096];
    kv_attention *trace;
    kv_diag diag = {0};
    if (tokens < 64 || tokens > 32768 || threads < 1) {
        fprintf(stderr, "Usage: replay_bench [TOKENS (64 to 32768) [THREADS]]\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/replay_bench_%ld.h5", folder, (long)getpid());
    write_recording(path, tokens);
    if (kv_attention_open(path, &trace, &diag) != KV_OK) {
        unlink(path);
        die(&diag);
    }
    unlink(path);
    double scores = 2.0 * HEADS * ((double)tokens * (tokens + 1) / 2);
    double one = sweep_s(trace, 1, 1, 1, CLOCK_PROCESS_CPUTIME_ID),
           curve = sweep_s(trace, BUDGETS, 1, 1, CLOCK_PROCESS_CPUTIME_ID);
    double copy = copy_bytes_per_s();
    printf("recording  %d tokens, %d heads, %.0f MB of causal scores per example\n", tokens, HEADS,
           scores / 1e6);
    printf("copy       %.2f GB/s per core\n", copy / 1e9);
    printf("replay     %.2f GB/s per core, %.2f of copy\n", scores / one / 1e9,
           scores / one / copy);
    printf("budgets    %d budgets take %.2f x the time of one\n", BUDGETS, curve / one);
    double alone = sweep_s(trace, 1, EXAMPLES, 1, CLOCK_MONOTONIC);
    for (int t = 2; t <= threads && t <= EXAMPLES; t *= 2)
        printf("threads    %d threads: %.2f x as fast as one\n", t,
               alone / sweep_s(trace, 1, EXAMPLES, t, CLOCK_MONOTONIC));
    kv_attention_close(trace);
    return 0;
}
