/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/session.h"

#include <stdlib.h>
#include <string.h>

void kv__session_fini(kv__session *session)
{
    for (int32_t i = 0; i < session->lines; i++)
        free(session->line[i].block);
    free(session->line);
    free(session->turn);
    free(session->id);
    *session = (kv__session){0};
}

/* Grows an array to hold `wanted` items, by doubling. */
static kv_err grow(void *array, size_t *allocated, size_t wanted, size_t item_bytes)
{
    void **pointer = array;
    if (wanted <= *allocated)
        return KV_OK;
    size_t larger = 2 * wanted;
    void *moved = realloc(*pointer, larger * item_bytes);
    if (moved == NULL)
        return KV_ERR_MEMORY;
    *pointer = moved;
    *allocated = larger;
    return KV_OK;
}

static kv_err have_line(kv__session *session, int32_t agent)
{
    if (agent < session->lines)
        return KV_OK;
    kv__line *larger = realloc(session->line, (size_t)(agent + 1) * sizeof *larger);
    if (larger == NULL)
        return KV_ERR_MEMORY;
    session->line = larger;
    memset(larger + session->lines, 0, (size_t)(agent + 1 - session->lines) * sizeof *larger);
    session->lines = agent + 1;
    return KV_OK;
}

static kv_err have_blocks(kv__line *line, int32_t count)
{
    size_t allocated = (size_t)line->allocated;
    kv_err err = grow(&line->block, &allocated, (size_t)count, sizeof *line->block);
    line->allocated = (int32_t)allocated;
    return err;
}

/* Stores what a prompt adds to the agent's prompt before. */
static kv_err store_prompt(kv__session *session, kv__turn *turn, const uint64_t *ids, int32_t count)
{
    kv_err err = have_line(session, turn->agent);
    kv__line *line = err == KV_OK ? &session->line[turn->agent] : NULL;
    if (err == KV_OK)
        err = have_blocks(line, count);
    int32_t kept = 0;
    while (err == KV_OK && kept < count && kept < line->count && line->block[kept] == ids[kept])
        kept++;
    turn->kept_blocks = kept;
    turn->new_blocks = count - kept;
    turn->first_id = session->ids;
    if (err == KV_OK)
        err = grow(&session->id, &session->ids_allocated, session->ids + (size_t)(count - kept),
                   sizeof *session->id);
    if (err != KV_OK)
        return err;
    size_t added = (size_t)(count - kept);
    if (added > 0) {
        memcpy(session->id + session->ids, ids + kept, added * sizeof *ids);
        memcpy(line->block + kept, ids + kept, added * sizeof *ids);
    }
    session->ids += added;
    line->count = count;
    return KV_OK;
}

kv_err kv__session_add(kv__session *session, const kv__turn *turn, const uint64_t *ids,
                       int32_t id_count)
{
    kv__turn added = *turn;
    size_t allocated = (size_t)session->turns_allocated;
    kv_err err =
        grow(&session->turn, &allocated, (size_t)session->turns + 1, sizeof *session->turn);
    session->turns_allocated = (int32_t)allocated;
    if (err == KV_OK)
        err = store_prompt(session, &added, ids, id_count);
    if (err != KV_OK)
        return err;
    added.first_follower = added.next_follower = -1;
    if (added.after >= 0) {
        kv__turn *before = &session->turn[added.after];
        added.next_follower = before->first_follower;
        before->first_follower = session->turns;
    }
    session->turn[session->turns++] = added;
    return KV_OK;
}
