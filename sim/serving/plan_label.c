/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/plan_label.h"
#include "sim/serving/plan_reuse.h"

#include <stdlib.h>
#include <string.h>

/* A list whose items are not all written alike. */
static bool varies(const kv_node *value)
{
    if (value == NULL || kv_node_get_kind(value) != KV_NODE_LIST)
        return false;
    for (int i = 1; i < kv_node_count(value); i++) {
        const char *first = kv_node_text(kv_node_at(value, 0), NULL);
        const char *text = kv_node_text(kv_node_at(value, i), NULL);
        if (first == NULL || text == NULL || strcmp(first, text) != 0)
            return true;
    }
    return false;
}

/* What stands before a setting's name: settings of the section and the scheduler have names that
 * no other has. */
static const char *prefix_of(const kv_serving_plan *plan, int part)
{
    if (part == KV_SERVING_REQUESTS)
        return "requests ";
    if (part >= KV_SERVING_PARTS)
        return kv_node_key(kv_node_find(plan->map, "tiers"), part - KV_SERVING_PARTS);
    bool plain = part == 0 || strcmp(kv_serving_parts[part].name, "scheduler") == 0;
    return plain ? "" : kv_serving_parts[part].name;
}

static void write_setting(const kv_serving_plan *plan, int part, const char *key,
                          const kv_node *value, const kv_serving_point *point, FILE *out)
{
    const char *prefix = prefix_of(plan, part), *text = kv_node_text(value, NULL);
    bool spaced = *prefix == '\0' || prefix[strlen(prefix) - 1] == ' ';
    if (part == 0 && strcmp(key, "device") == 0)
        text = point->device->name;
    else if (part == 0 && strcmp(key, "model") == 0)
        text = point->model->name;
    fprintf(out, ", %s%s%s %s", prefix, spaced ? "" : " ", key, text != NULL ? text : "");
}

static void write_part(const kv_serving_plan *plan, int part, int combination,
                       const kv_serving_point *point, FILE *out)
{
    const kv_grid *grid = &plan->grid[part];
    int picked = kv__plan_part(plan, part, combination);
    for (int i = 0; grid->map != NULL && i < kv_node_count(grid->map); i++) {
        const char *key = kv_node_key(grid->map, i);
        bool told = part == 0 && (strcmp(key, "policies") == 0 || strcmp(key, "chunk_size") == 0);
        told = told || (part == KV_SERVING_REUSE && strcmp(key, "mode") != 0 &&
                        !kv__reuse_blends(grid, picked));
        if (!told && varies(kv_node_at(grid->map, i)))
            write_setting(plan, part, key, kv_grid_pick(grid, picked, i), point, out);
    }
}

/* Chunk sizes stand in the section's list, or with policies. */
static bool chunk_varies(const kv_serving_plan *plan)
{
    bool own = false, of_section = false;
    long long first = KV_CHUNK_NOT_GIVEN;
    for (int i = 0; i < plan->policies.count; i++) {
        long long chunk = plan->policies.point[i].chunk_tokens;
        if (chunk == KV_CHUNK_NOT_GIVEN) {
            of_section = true;
        } else {
            if (own && chunk != first)
                return true;
            own = true;
            first = chunk;
        }
    }
    return (own && of_section) || (of_section && varies(kv_node_find(plan->map, "chunk_size")));
}

kv_err kv__plan_label(const kv_serving_plan *plan, int combination, const kv_point_spec *policy,
                      kv_serving_point *point, kv_diag *diag)
{
    size_t bytes;
    FILE *out = open_memstream(&point->label, &bytes);
    if (out == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv_spec_write_among(policy, &plan->policies, out);
    if (kv_node_find(plan->map, "model") == NULL && varies(plan->model_node))
        fprintf(out, ", model %s", point->model->name);
    for (int part = 0; part < KV_SERVING_GRIDS; part++)
        write_part(plan, part, combination, point, out);
    if (chunk_varies(plan) && point->chunk_tokens > 0)
        fprintf(out, ", chunk %lld", point->chunk_tokens);
    else if (chunk_varies(plan))
        fputs(", chunk whole", out);
    return fclose(out) == 0 && err == KV_OK ? KV_OK : kv_fail_memory(diag);
}
