/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One example: its attributes and small datasets, checked. */
#include "config.h"

#include "traces/attention_private.h"

#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {"single", "multi_turn", "multi_request"};
enum { MODES = sizeof mode_names / sizeof *mode_names };

static kv_err read_mode(const kv__h5 *group, kv_mode *mode, kv_diag *diag)
{
    char *text = NULL;
    kv_err err = kv__h5_get_text(group, "mode", &text, diag);
    if (err != KV_OK)
        return err;
    int i = 0;
    while (i < MODES && strcmp(text, mode_names[i]) != 0)
        i++;
    if (i == MODES)
        err = kv__h5_wrong(group, diag,
                           "attribute 'mode' is '%.64s', expected single, multi_turn or "
                           "multi_request",
                           text);
    free(text);
    *mode = (kv_mode)i;
    return err;
}

static kv_err read_texts(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    char *text = NULL;
    kv_err err = kv__h5_get_text(group, "task", &text, diag);
    e->task = text;
    if (err == KV_OK && text[0] == '\0')
        err = kv__h5_wrong(group, diag, "attribute 'task' is empty, expected a name");
    if (err == KV_OK && kv__h5_has_attribute(group, "context_id")) {
        err = kv__h5_get_text(group, "context_id", &text, diag);
        if (err == KV_OK)
            e->context_id = text;
    }
    return err == KV_OK ? read_mode(group, &e->mode, diag) : err;
}

static kv_err read_numbers(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    long long context = 0, prompt = 0, total = 0;
    kv_err err = kv__h5_get_int(group, "total_len", 1, KV__MAX_TOKENS, &total, diag);
    if (err == KV_OK)
        err = kv__h5_get_int(group, "prompt_len", 1, total, &prompt, diag);
    if (err == KV_OK)
        err = kv__h5_get_int(group, "context_len", 0, prompt, &context, diag);
    if (err == KV_OK)
        err = kv__h5_get_real(group, "full_score", &e->full_score, diag);
    if (err == KV_OK && !(e->full_score >= 0 && e->full_score <= 1))
        err = kv__h5_wrong(group, diag, "attribute 'full_score' is %g, expected 0 to 1",
                           e->full_score);
    e->context_tokens = (int)context;
    e->prompt_tokens = (int)prompt;
    e->total_tokens = (int)total;
    return err;
}

/* Reads a dataset of integers [any] or [any][columns] into *out, which is for the caller to free.
 */
static kv_err read_table(const kv__h5 *group, const char *name, bool required, int columns,
                         int32_t **out, int *rows, kv_diag *diag)
{
    kv__h5 dataset;
    const long long extents[] = {KV__H5_ANY, columns};
    long long found[2] = {0};
    *rows = 0;
    kv_err err = kv__h5_open_child(group, name, H5I_DATASET, required, H5P_DEFAULT, &dataset, diag);
    if (err != KV_OK || dataset.id < 0)
        return err;
    err = kv__h5_check_dataset(&dataset, H5T_INTEGER, columns > 1 ? 2 : 1, extents, found, diag);
    if (err == KV_OK && found[0] > KV__MAX_TOKENS)
        err = kv__h5_wrong(&dataset, diag, "has %lld rows, more than %d", found[0], KV__MAX_TOKENS);
    if (err == KV_OK && found[0] > 0) {
        *out = calloc((size_t)found[0], (size_t)columns * sizeof **out);
        err = *out != NULL ? kv__h5_read_all(&dataset, H5T_NATIVE_INT32, *out, diag)
                           : kv_fail_memory(diag);
    }
    if (err == KV_OK)
        *rows = (int)found[0];
    kv__h5_close(&dataset);
    return err;
}

static kv_err read_turns(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    int32_t *table = NULL;
    kv_err err = read_table(group, "turns", true, 3, &table, &e->turns, diag);
    e->turn = (const kv_turn *)table;
    for (int i = 0; i < e->turns && err == KV_OK; i++) {
        const kv_turn *t = &e->turn[i];
        if (t->query_start < 0 || t->query_start > t->answer_start || t->answer_start < 1 ||
            t->answer_start > t->answer_end || t->answer_end > e->total_tokens)
            err = kv__h5_wrong(group, diag,
                               "turns[%d] is (%d, %d, %d), expected 0 <= query_start <= "
                               "answer_start <= answer_end <= %d and an answer that starts after "
                               "token 0",
                               i, t->query_start, t->answer_start, t->answer_end, e->total_tokens);
    }
    return err;
}

static kv_err read_evidence(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    int32_t *table = NULL;
    kv_err err = read_table(group, "evidence", false, 3, &table, &e->evidences, diag);
    e->evidence = (const kv_evidence *)table;
    for (int i = 0; i < e->evidences && err == KV_OK; i++) {
        const kv_evidence *v = &e->evidence[i];
        if (v->turn < 0 || v->turn >= e->turns || v->start < 0 || v->start >= v->end ||
            v->end > e->total_tokens)
            err = kv__h5_wrong(group, diag,
                               "evidence[%d] is (%d, %d, %d), expected a turn from 0 to %d and "
                               "0 <= start < end <= %d",
                               i, v->turn, v->start, v->end, e->turns - 1, e->total_tokens);
    }
    return err;
}

static kv_err read_query_pos(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    int32_t *table = NULL;
    kv_err err = read_table(group, "query_pos", false, 1, &table, &e->rows, diag);
    e->query_pos = table;
    for (int r = 0; r < e->rows && err == KV_OK; r++)
        if (table[r] < 0 || table[r] >= e->total_tokens || (r > 0 && table[r] <= table[r - 1]))
            err = kv__h5_wrong(group, diag,
                               "query_pos[%d] is %d, expected ascending positions below %d", r,
                               table[r], e->total_tokens);
    return err;
}

kv_err kv__example_read_tokens(const kv_attention *attention, const kv_example *example,
                               int32_t **out, kv_diag *diag)
{
    kv__h5 group;
    int count = 0;
    kv_err err = kv__example_open_group(attention, example, &group, diag);
    if (err == KV_OK)
        err = read_table(&group, "tokens", true, 1, out, &count, diag);
    kv__h5_close(&group);
    return err;
}

void kv__example_try_tokens(const kv_attention *attention)
{
    kv_err err = KV_OK;
    for (int i = 0; i < attention->examples && err == KV_OK; i++) {
        int32_t *tokens = NULL;
        err = kv__example_read_tokens(attention, &attention->example[i], &tokens, NULL);
        free(tokens);
    }
}

static kv_err check_tokens(const kv__h5 *group, const kv_example *e, kv_diag *diag)
{
    kv__h5 dataset;
    const long long extent = e->total_tokens;
    kv_err err = kv__h5_open_child(group, "tokens", H5I_DATASET, true, H5P_DEFAULT, &dataset, diag);
    if (err != KV_OK)
        return err;
    err = kv__h5_check_dataset(&dataset, H5T_INTEGER, 1, &extent, NULL, diag);
    kv__h5_close(&dataset);
    return err;
}

static kv_err read_modality(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    kv__h5 dataset;
    const long long extent = e->total_tokens;
    kv_err err =
        kv__h5_open_child(group, "modality", H5I_DATASET, false, H5P_DEFAULT, &dataset, diag);
    if (err != KV_OK || dataset.id < 0)
        return err;
    uint8_t *modality = NULL;
    err = kv__h5_check_dataset(&dataset, H5T_INTEGER, 1, &extent, NULL, diag);
    if (err == KV_OK) {
        e->modality = modality = malloc((size_t)e->total_tokens);
        err = modality != NULL ? kv__h5_read_all(&dataset, H5T_NATIVE_UINT8, modality, diag)
                               : kv_fail_memory(diag);
    }
    for (int i = 0; i < e->total_tokens && err == KV_OK; i++)
        if (modality[i] > 1)
            err = kv__h5_wrong(&dataset, diag, "[%d] is %d, expected 0 (text) or 1 (image)", i,
                               modality[i]);
    kv__h5_close(&dataset);
    return err;
}

/* Opens each array once, which checks it. */
static kv_err check_arrays(const kv_attention *attention, const kv__h5 *group, kv_example *e,
                           kv_diag *diag)
{
    bool *const has[KV__ARRAYS] = {&e->has_probs, &e->has_q, &e->has_k, &e->has_v};
    for (int id = 0; id < KV__ARRAYS; id++) {
        kv__array array;
        kv_err err = kv__array_open(attention, e, group, (kv__array_id)id, &array, diag);
        if (err != KV_OK)
            return err;
        *has[id] = array.dataset.id >= 0;
        kv__array_close(&array);
    }
    if ((e->has_probs || e->has_q) && e->query_pos == NULL)
        return kv__h5_wrong(group, diag, "has rows but no 'query_pos' that says whose they are");
    return KV_OK;
}

static kv_err read_group(const kv_attention *attention, const kv__h5 *group, kv_example *e,
                         kv_diag *diag)
{
    static kv_err (*const steps[])(const kv__h5 *, kv_example *,
                                   kv_diag *) = {read_texts,
                                                 read_numbers,
                                                 read_turns,
                                                 read_evidence,
                                                 read_query_pos,
                                                 read_modality,
                                                 kv__example_read_prompt_scores};
    kv_err err = kv__h5_check_links(group, NULL, NULL, diag);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && err == KV_OK; i++)
        err = steps[i](group, e, diag);
    if (err == KV_OK)
        err = check_tokens(group, e, diag);
    if (err == KV_OK)
        err = check_arrays(attention, group, e, diag);
    return err == KV_OK ? kv__extras_check(attention, group, e, diag) : err;
}

kv_err kv__example_read(kv_attention *attention, const char *name, kv_example *example,
                        kv_diag *diag)
{
    kv__h5 group;
    example->name = strdup(name);
    if (example->name == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__example_open_group(attention, example, &group, diag);
    if (err == KV_OK)
        err = read_group(attention, &group, example, diag);
    kv__h5_close(&group);
    return err;
}

void kv__example_fini(kv_example *example)
{
    const void *owned[] = {example->name,     example->task,         example->context_id,
                           example->turn,     example->evidence,     example->query_pos,
                           example->modality, example->prompt_scores};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free((void *)owned[i]);
}

kv_err kv__example_open_group(const kv_attention *attention, const kv_example *example,
                              kv__h5 *group, kv_diag *diag)
{
    return kv__h5_open_child(&attention->group, example->name, H5I_GROUP, true, H5P_DEFAULT, group,
                             diag);
}

int kv_example_question_tokens(const kv_example *example)
{
    int start = example->turns > 0 ? example->turn[0].query_start : example->prompt_tokens;
    return start < example->prompt_tokens ? example->prompt_tokens - start : 0;
}

int kv_example_row(const kv_example *example, int position)
{
    int low = 0, high = example->rows;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (example->query_pos[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < example->rows && example->query_pos[low] == position ? low : -1;
}
