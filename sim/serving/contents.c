/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/contents.h"

#include <stdlib.h>

enum { LEAST_ROOM = 1024 };

void kv__contents_fini(kv__contents *contents)
{
    kv__map_fini(&contents->by_key);
    kv__map_fini(&contents->by_content);
    free(contents->block);
    *contents = (kv__contents){0};
}

static kv_err have_room(kv__contents *contents)
{
    if (contents->count < contents->room)
        return KV_OK;
    uint64_t room = contents->room == 0 ? LEAST_ROOM : 2 * (uint64_t)contents->room;
    kv__content_block *larger =
        room < KV_MAP_ABSENT ? realloc(contents->block, room * sizeof *larger) : NULL;
    if (larger == NULL)
        return KV_ERR_MEMORY;
    contents->block = larger;
    contents->room = (uint32_t)room;
    return KV_OK;
}

/* Takes a block out of the list of its content. */
static void leave(kv__contents *contents, uint32_t place)
{
    const kv__content_block *block = &contents->block[place];
    if (block->older != KV_MAP_ABSENT)
        contents->block[block->older].newer = block->newer;
    if (block->newer != KV_MAP_ABSENT)
        contents->block[block->newer].older = block->older;
    else if (block->older != KV_MAP_ABSENT)
        *kv__map_find(&contents->by_content, block->content) = block->older;
    else
        kv__map_remove(&contents->by_content, block->content);
}

/* Puts the block behind the last at the head of the list of its content. */
static kv_err enter(kv__contents *contents, uint64_t key, uint64_t content)
{
    uint32_t place = contents->count, older = KV_MAP_ABSENT;
    uint32_t *newest = kv__map_find(&contents->by_content, content);
    if (newest != NULL) {
        older = *newest;
        *newest = place;
        contents->block[older].newer = place;
    } else if (kv__map_add(&contents->by_content, content, place) != KV_OK) {
        return KV_ERR_MEMORY;
    }
    contents->block[contents->count++] = (kv__content_block){key, content, older, KV_MAP_ABSENT};
    return KV_OK;
}

kv_err kv__contents_add(kv__contents *contents, uint64_t key, uint64_t content)
{
    kv_err err = have_room(contents);
    if (err != KV_OK)
        return err;
    uint32_t *known = kv__map_find(&contents->by_key, key);
    if (known != NULL && contents->block[*known].newer == KV_MAP_ABSENT)
        return KV_OK;
    if (known != NULL) {
        leave(contents, *known);
        *known = contents->count;
    } else {
        err = kv__map_add(&contents->by_key, key, contents->count);
    }
    return err == KV_OK ? enter(contents, key, content) : err;
}

static const kv__content_block *at(const kv__contents *contents, uint32_t place)
{
    return place != KV_MAP_ABSENT ? &contents->block[place] : NULL;
}

const kv__content_block *kv__contents_newest(const kv__contents *contents, uint64_t content)
{
    return at(contents, kv__map_get(&contents->by_content, content));
}

const kv__content_block *kv__contents_older(const kv__contents *contents,
                                            const kv__content_block *block)
{
    return at(contents, block->older);
}

kv_err kv__contents_tidy(kv__contents *contents, bool (*resident)(void *closure, uint64_t key),
                         void *closure)
{
    uint32_t count = contents->count;
    kv_err err = KV_OK;
    if (count < LEAST_ROOM || count < contents->tidy_at)
        return KV_OK;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) { /* in place: the order stays */
        kv__content_block block = contents->block[i];
        if (kv__map_get(&contents->by_key, block.key) == i && resident(closure, block.key))
            contents->block[kept++] = block;
    }
    kv__map_clear(&contents->by_key);
    kv__map_clear(&contents->by_content);
    contents->count = 0;
    for (uint32_t i = 0; i < kept && err == KV_OK; i++)
        err = kv__contents_add(contents, contents->block[i].key, contents->block[i].content);
    contents->tidy_at = 2 * kept;
    return err;
}
