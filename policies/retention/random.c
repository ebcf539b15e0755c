/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"

static const kv_param params[] = {
    KV_ROW_KEEP,        KV_ROW_BUDGET,          KV_ROW_EVICT("postfill"),
    KV_ROW_WINDOW("0"), KV_ROW_SINKS("0"),      KV_ROW_WINDOW_IN_BUDGET("true"),
    KV_ROW_SEED(NULL),  KV_ROW_INTERVAL("512"), KV_ROW_ROUNDING("half_up"),
    KV_ROW_END};

/* The finaliser of splitmix64 (Steele et al. 2014): a bijection of 64 bits that mixes well. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* A draw per (seed, example, layer, KV head, token): the same whatever else is replayed. */
static void score(const kv_event *event, double *out)
{
    const kv_retention_config *config = event->config;
    uint64_t key = mix(event->view->stream + (uint64_t)config->seed);
    key = mix(key ^ (uint64_t)event->view->layer << 32 ^ (uint64_t)event->kv_head);
    for (int k = 0; k < event->scored; k++)
        out[k] = (double)(mix(key +
                              UINT64_C(0x9e3779b97f4a7c15) * ((uint64_t)event->candidate[k] + 1)) >>
                          11) *
                 0x1p-53;
}

/* The floor that any score has to beat. */
KV_RETENTION_DEFINE(random) = {
    .name = "random",
    .brief = "keeps entries drawn at random in each KV head",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = score,
};
