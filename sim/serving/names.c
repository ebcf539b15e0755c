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

/* One of `names`, that of the block of `named` tokens in which the block of `size` tokens ends, or,
 * before its end, a name made of it. */
static uint64_t part_name(const uint64_t *names, int32_t named, int32_t size, int32_t i)
{
    int32_t last_token = (i + 1) * size - 1, block = last_token / named;
    uint64_t part = (uint64_t)(last_token % named) + 1;
    uint64_t name = names[block] + part * 0x9e3779b97f4a7c15u;
    return part == (uint64_t)named ? names[block] : name ^ (name >> 29);
}

uint64_t kv__block_name(const kv_request *request, int32_t block_tokens, int32_t i)
{
    return part_name(request->blocks, request->block_tokens, block_tokens, i);
}

uint64_t kv__block_content(const kv_request *request, int32_t block_tokens, int32_t i)
{
    if (block_tokens <= request->block_tokens)
        return part_name(request->contents, request->block_tokens, block_tokens, i);
    int32_t count = block_tokens / request->block_tokens;
    uint64_t name = 0;
    for (int32_t b = i * count; b < (i + 1) * count; b++)
        name = kv__spread_name(name + request->contents[b]);
    return name;
}
