/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How long one step of a server takes.
 *
 * Two models, one interface: `roofline` (from the shapes of the model and the peaks of the device)
 * and `table` (from kernel times that were measured). A step is described by what its cost depends
 * on, kv_step_batch. Durations are fine time: integers of 2^-KV_FINE_BITS nanoseconds.
 *
 * While nothing but decoding happens, every sequence grows by one token per step, and the duration
 * of a step is linear in the step's number up to the next kink of the model. kv_step_time_ramp says
 * the line and how far it holds; kv_step_time_step gives the same integer for one step. So the sum
 * over many steps is exact: jumping and stepping agree to the bit. */
#ifndef KVSIM_MODELS_STEP_TIME_H
#define KVSIM_MODELS_STEP_TIME_H

#include "models/device.h"
#include "models/model.h"
#include "sim/base/param.h"

#include <stdint.h>

enum { KV_FINE_BITS = 20 };

/* Fine time. 63 bits of it are 2.4 hours, so it has more. */
typedef __int128 kv_fine;

/* What one step does, on all devices of a replica together. An entry is the key and value of one
 * token in one KV head of one layer. */
typedef struct kv_step_batch {
    int64_t tokens;         /* that go through the model: prefill_tokens + decodes */
    int64_t sequences;      /* that are in the batch */
    int64_t prefill_tokens; /* of all chunks */
    double prefill_square;  /* sum over chunks of tokens^2 */
    double prefill_history; /* sum over chunks of tokens * tokens computed before, per mean layer */
    int64_t decodes;        /* sequences that compute one token */
    int64_t decode_entries; /* entries that they read, their new token's included */
    int64_t decode_longest; /* entries of the one that reads most */
    int64_t decode_growth;  /* by which decode_entries grows from one step to the next */
    int64_t longest_growth; /* by which decode_longest grows */
} kv_step_batch;

/* Durations of the steps that follow one another while only decoding happens: step j (from 0) takes
 * first + j * slope, for j < steps. */
typedef struct kv_step_ramp {
    kv_fine first;
    kv_fine slope; /* less than 2^62 either way, so that sums over 2^31 steps fit */
    int64_t steps; /* >= 1 */
} kv_step_ramp;

/* How long the first `steps` steps of a ramp take. */
static inline kv_fine kv_step_ramp_time(const kv_step_ramp *ramp, int64_t steps)
{
    kv_fine pairs = (kv_fine)(int64_t)ramp->slope * steps * (steps - 1) / 2;
    int64_t first = (int64_t)ramp->first; /* as a rule that is all of it */
    return (first == ramp->first ? (kv_fine)first * steps : ramp->first * steps) + pairs;
}

/* What `step_time: {...}` of an experiment says. */
typedef struct kv_step_time_config {
    int model;                   /* index into kv_step_time_names */
    char *path;                  /* table: folder with dense.csv, per_sequence.csv, attention.csv */
    long long step_overhead_ns;  /* of the host, added to every step; a fit may try one below 0 */
    double kernel_scale;         /* table: times in the server over times in the table */
    double compute_efficiency;   /* roofline: of peak arithmetic reached by matrix products */
    double attention_efficiency; /* roofline: of peak arithmetic reached by prefill attention */
    double memory_efficiency;    /* roofline: of peak memory bandwidth reached */
    long long layer_overhead_ns; /* roofline: launches and small kernels, per layer */
} kv_step_time_config;

extern const kv_param kv_step_time_params[];

/* The hardware that runs a step. */
typedef struct kv_step_hardware {
    const kv_model *model;
    const kv_device *device;
    kv_cache_format format;
    int tensor_parallel;
    kv_link link; /* between the devices of a group */
} kv_step_hardware;

typedef struct kv_step_time kv_step_time;

kv_err kv_step_time_new(const kv_step_time_config *config, const kv_step_hardware *hardware,
                        kv_step_time **out, kv_diag *diag) KV_MUST_USE;
void kv_step_time_free(kv_step_time *time);
/* The duration of one step. */
kv_fine kv_step_time_step(const kv_step_time *time, const kv_step_batch *batch);
/* The same for a step that only decodes, and for those that follow it. */
void kv_step_time_ramp(const kv_step_time *time, const kv_step_batch *batch, kv_step_ramp *out);
/* What was asked for outside the measured grid, as text for one warning; "" if nothing was. */
const char *kv_step_time_warning(const kv_step_time *time);

/* --- What a model provides --------------------------------------------------------- */

/* A model of step times. Durations without step_overhead, in nanoseconds and fine time. */
typedef struct kv_step_time_type {
    const char *name;
    kv_err (*open)(const kv_step_time_config *config, const kv_step_hardware *hardware,
                   void **state, kv_diag *diag);
    void (*close)(void *state);
    /* A step that prefills, in nanoseconds. */
    double (*mixed)(const void *state, const kv_step_batch *batch);
    /* Steps that only decode. */
    void (*ramp)(const void *state, const kv_step_batch *batch, kv_step_ramp *out);
    /* May be NULL: there is nothing to warn of. */
    const char *(*warning)(const void *state);
} kv_step_time_type;

extern const kv_step_time_type kv__step_time_roofline, kv__step_time_table;

/* Fine time of nanoseconds, rounded to the nearest; of more than 2^63 ns, 2^63. */
kv_fine kv__fine(double nanoseconds);
/* Nanoseconds of one all-reduce of that many bytes over a ring of devices. */
double kv__all_reduce_ns(const kv_step_hardware *hardware, double bytes);
/* Routed experts of a layer that a step of so many tokens is expected to touch, when every token
 * chooses its experts at random. */
double kv__touched_experts(const kv_model *model, double tokens);
/* KV entries that one token adds to what attention reads below all windows: a cache that several
 * layers share is read by each. */
int64_t kv__entries_per_token(const kv_model *model);

#endif
