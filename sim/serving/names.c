/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/names.h"

kv_err kv__named_blocks(const kv_serving_settings *settings, const kv_request *request,
                        int32_t *out, kv_diag *diag)
{
    int32_t size = settings->block_tokens, named = request->block_tokens;
    *out = 0;
    if (request->block_count == 0 || !settings->prefix_cache)
        return KV_OK;
    if (named <= 0 || (named % size != 0 && size % named != 0))
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "block_size is %d tokens, but the trace names blocks of %d: one must be a "
                       "multiple of the other",
                       size, named);
    int64_t covered = (int64_t)request->block_count * named;
    covered = covered < request->prompt_tokens ? covered : request->prompt_tokens;
    *out = (int32_t)(covered / size);
    return KV_OK;
}

uint64_t kv__block_name(const kv_request *request, int32_t block_tokens, int32_t i)
{
    int32_t last_token = (i + 1) * block_tokens - 1, block = last_token / request->block_tokens;
    uint64_t part = (uint64_t)(last_token % request->block_tokens) + 1;
    uint64_t name = request->blocks[block] + part * 0x9e3779b97f4a7c15u;
    return part == (uint64_t)request->block_tokens ? request->blocks[block] : name ^ (name >> 29);
}
