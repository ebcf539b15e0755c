/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Step times from measured kernel times.
 *
 * A step is every row of dense.csv at its number of tokens, per layer (but for the embedding and
 * the final norm, and twice for the norm that a layer has before attention and before the MLP),
 * attention per layer, and every row of per_sequence.csv once. `moe.csv`, where there is one, is
 * the mixture of a layer. Chunks that share a step are taken as several chunks of their typical
 * size sum(c^2) / sum(c): a table has one chunk per step, and reading it at the sum of the chunks
 * would let tokens attend across requests. Sequences of uneven length cost t_mean + alpha (t_max -
 * t_mean), alpha by their number (step_time_skew.h). */
#include "config.h"

#include "models/step_time.h"
#include "models/step_time_grid.h"
#include "models/step_time_skew.h"
#include "sim/base/file.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct table {
    kv__curve dense; /* us over tokens: all of a step that depends on them */
    kv__curve per_sequence;
    kv__grid4 attention; /* us of one layer */
    kv__sheet mixture;   /* us of one layer over tokens and touched experts; may be empty */
    kv__skew skew;       /* of uneven lengths */
    double layers;       /* attention layers */
    double mixture_layers;
    double scale;              /* ns of the server per us of the table */
    double entries_per_token;  /* KV entries */
    double all_reduce_ns;      /* per token */
    double all_reduce_base_ns; /* per step */
    const kv_model *model;
    bool *outside; /* set once a step lay outside of what was measured */
} table;

static kv_err open_table(const kv_step_time_config *config, const kv_step_hardware *hardware,
                         void **state, kv_diag *diag);
static void close_table(void *state);
static double mixed(const void *state, const kv_step_batch *batch);
static void ramp(const void *state, const kv_step_batch *batch, kv_step_ramp *out);
static const char *warning(const void *state);

const kv_step_time_type kv__step_time_table = {
    .name = "table",
    .open = open_table,
    .close = close_table,
    .mixed = mixed,
    .ramp = ramp,
    .warning = warning,
};

static kv_err no_memory(kv_err err, kv_diag *diag)
{
    return err == KV_ERR_MEMORY ? kv_fail_memory(diag) : err;
}

/* How often a row of dense.csv occurs in a step. */
static double times_of(const char *name, double layers)
{
    if (strcmp(name, "embedding") == 0 || strcmp(name, "final_layernorm") == 0)
        return 1;
    return strcmp(name, "layernorm") == 0 ? 2 * layers : layers;
}

/* Adds the rows of one name, from `first` on, to a curve and marks them as done. */
static kv_err add_name(kv__curve *curve, kv__csv *csv, size_t first, double weight)
{
    double *x = calloc(csv->rows, sizeof *x), *y = calloc(csv->rows, sizeof *y);
    size_t points = 0;
    kv_err err = x != NULL && y != NULL ? KV_OK : KV_ERR_MEMORY;
    char *name = csv->label[first];
    for (size_t r = first; err == KV_OK && r < csv->rows; r++) {
        if (csv->label[r] == NULL || strcmp(csv->label[r], name) != 0)
            continue;
        x[points] = csv->value[2 * r];
        y[points++] = csv->value[2 * r + 1];
        if (r != first) {
            free(csv->label[r]);
            csv->label[r] = NULL;
        }
    }
    if (err == KV_OK)
        err = kv__curve_add(curve, x, y, points, weight);
    free(name);
    csv->label[first] = NULL;
    free(x);
    free(y);
    return err;
}

/* Reads a file of curves by name into their weighted sum. layers 0: each occurs once. */
static kv_err read_curves(const char *directory, const char *file, const char *axis, double layers,
                          kv__curve *out, kv_diag *diag)
{
    const char *columns[] = {axis, "time_us", NULL};
    char *path = kv_path_resolve(directory, file);
    if (path == NULL)
        return kv_fail_memory(diag);
    kv__csv csv;
    kv_err err = kv__csv_read(path, "layer", columns, &csv, NULL, diag);
    for (size_t r = 0; err == KV_OK && r < csv.rows; r++)
        if (csv.label[r] != NULL)
            err = no_memory(add_name(out, &csv, r, layers > 0 ? times_of(csv.label[r], layers) : 1),
                            diag);
    kv__csv_fini(&csv);
    free(path);
    return err;
}

/* Brings rows into the form of kv__grid4_make. Tables of later profilers give, instead of the keys
 * before the chunk, the mean keys that its tokens see, half of the chunk more, and have rows with
 * several tokens per decode, which are left out. */
static kv_err shape_attention(kv__csv *csv, const char *path, kv_diag *diag)
{
    enum { CHUNK, DECODES, KEYS, TIME, BEFORE, SEEN, QUERY, COLUMNS };
    size_t rows = 0;
    kv_mark mark = {path, 1, 0};
    bool before = (csv->has & 1u << BEFORE) != 0;
    if (!before && (csv->has & 1u << SEEN) == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "the header lacks the column 'kv_prefill'");
    for (size_t r = 0; r < csv->rows; r++) {
        double v[COLUMNS];
        memcpy(v, &csv->value[COLUMNS * r], sizeof v);
        if (v[QUERY] > 1)
            continue;
        double history = before ? v[BEFORE] : fmax(0, v[SEEN] - v[CHUNK] / 2);
        const double row[] = {v[CHUNK], history, v[DECODES], v[KEYS], v[TIME]};
        memcpy(&csv->value[(KV__AXES + 1) * rows++], row, sizeof row);
    }
    csv->rows = rows;
    return rows > 0 ? KV_OK : kv_fail(diag, KV_ERR_INPUT, &mark, "there are no rows to use");
}

static kv_err read_attention(const char *directory, kv__grid4 *out, kv_diag *diag)
{
    const char *columns[] = {"prefill_chunk", "n_decode",     "kv_decode",     "time_us",
                             "?kv_prefill",   "?prefill_key", "?decode_q_len", NULL};
    char *path = kv_path_resolve(directory, "attention.csv");
    if (path == NULL)
        return kv_fail_memory(diag);
    kv__csv csv;
    kv_err err = kv__csv_read(path, NULL, columns, &csv, NULL, diag);
    if (err == KV_OK)
        err = shape_attention(&csv, path, diag);
    if (err == KV_OK)
        err = kv__grid4_make(&csv, path, out, diag);
    kv__csv_fini(&csv);
    free(path);
    return err;
}

/* The mixture of one layer over tokens and touched experts; empty without a file. */
static kv_err read_mixture(const char *directory, kv__sheet *out, kv_diag *diag)
{
    const char *columns[] = {"tokens", "activated_experts", "time_us", "?ep", NULL};
    char *path = kv_path_resolve(directory, "moe.csv");
    if (path == NULL)
        return kv_fail_memory(diag);
    kv__csv csv;
    bool absent;
    kv_err err = kv__csv_read(path, NULL, columns, &csv, &absent, diag);
    size_t rows = 0;
    for (size_t r = 0; r < csv.rows; r++)
        if (csv.value[4 * r + 3] <= 1) /* experts are not divided among devices */
            memmove(&csv.value[3 * rows++], &csv.value[4 * r], 3 * sizeof(double));
    kv_mark mark = {path, 1, 1};
    if (err == KV_OK && !absent && rows == 0 && csv.rows > 0)
        err = kv_fail(diag, KV_ERR_UNSUPPORTED, &mark,
                      "all rows are of experts divided among devices (ep above 1), which is not "
                      "simulated: expected rows with ep 1, measured at this tensor_parallel");
    csv.rows = rows;
    if (err == KV_OK && !absent && rows > 0)
        err = no_memory(kv__sheet_make(&csv, out), diag);
    kv__csv_fini(&csv);
    free(path);
    return err;
}

static kv_err read_tables(table *t, const char *directory, kv_diag *diag)
{
    kv_err err = read_curves(directory, "dense.csv", "tokens", t->layers, &t->dense, diag);
    if (err == KV_OK)
        err = read_curves(directory, "per_sequence.csv", "sequences", 0, &t->per_sequence, diag);
    if (err == KV_OK)
        err = read_attention(directory, &t->attention, diag);
    if (err == KV_OK)
        err = kv__skew_read(directory, &t->skew, diag);
    if (err == KV_OK)
        err = read_mixture(directory, &t->mixture, diag);
    return err;
}

static kv_err open_table(const kv_step_time_config *config, const kv_step_hardware *hardware,
                         void **state, kv_diag *diag)
{
    const kv_model *model = hardware->model;
    if (config->path == NULL)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "step_time: {model: table} needs `path`, the folder of dense.csv, "
                       "per_sequence.csv and attention.csv");
    table *t = calloc(1, sizeof *t);
    if (t == NULL)
        return kv_fail_memory(diag);
    double bytes = (double)model->hidden_size * kv_dtype_bits((kv_dtype)model->dtype) / 8;
    t->model = model;
    t->outside = calloc(1, sizeof *t->outside);
    t->layers = (double)model->layers;
    for (int l = 0; l < model->layers; l++)
        t->mixture_layers += model->layer[l].mlp == KV_MLP_MOE;
    t->scale = 1e3 * config->kernel_scale;
    t->entries_per_token = (double)kv__entries_per_token(model);
    t->all_reduce_base_ns = 2 * t->layers * kv__all_reduce_ns(hardware, 0);
    t->all_reduce_ns = 2 * t->layers * kv__all_reduce_ns(hardware, bytes) - t->all_reduce_base_ns;
    if (t->entries_per_token < 1)
        t->entries_per_token = 1;
    kv_err err = t->outside == NULL ? kv_fail_memory(diag) : read_tables(t, config->path, diag);
    if (err != KV_OK) {
        close_table(t);
        return err;
    }
    *state = t;
    return KV_OK;
}

static void close_table(void *state)
{
    table *t = state;
    kv__curve_fini(&t->dense);
    kv__curve_fini(&t->per_sequence);
    kv__grid4_fini(&t->attention);
    kv__sheet_fini(&t->mixture);
    kv__skew_fini(&t->skew);
    free(t->outside);
    free(t);
}

static bool beyond(const double *axis, size_t points, double value)
{
    return points > 0 && value > axis[points - 1];
}

/* All but attention, in nanoseconds. */
static double around_attention(const table *t, double tokens, double sequences)
{
    if (beyond(t->dense.x, t->dense.points, tokens) ||
        beyond(t->per_sequence.x, t->per_sequence.points, sequences))
        *t->outside = true;
    double us = kv__curve_at(&t->dense, tokens) + kv__curve_at(&t->per_sequence, sequences);
    if (t->mixture.curves > 0)
        us += t->mixture_layers *
              kv__sheet_at(&t->mixture, tokens, kv__touched_experts(t->model, tokens));
    return us * t->scale + t->all_reduce_base_ns + t->all_reduce_ns * tokens;
}

static double uneven(const table *t, double chunk, double history, const kv_step_batch *batch)
{
    double n = (double)batch->decodes, e = t->entries_per_token;
    double mean = n > 0 ? (double)batch->decode_entries / e / n : 0;
    double even = kv__grid4_at(&t->attention, chunk, history, n, mean);
    double alpha = kv__skew_alpha(&t->skew, n, chunk > 0);
    if (alpha <= 0)
        return even;
    double longest = (double)batch->decode_longest / e;
    return even + alpha * (kv__grid4_at(&t->attention, chunk, history, n, longest) - even);
}

static double mixed(const void *state, const kv_step_batch *batch)
{
    const table *t = state;
    double tokens = (double)batch->prefill_tokens;
    double chunk = batch->prefill_square / tokens, history = batch->prefill_history / tokens;
    double least = kv__grid4_at(&t->attention, t->attention.axis[KV__CHUNK][1], 0, 0, 0);
    double one = kv__grid4_at(&t->attention, chunk, history, 0, 0);
    double more = (tokens / chunk - 1) * fmax(0, one - least); /* the other chunks, launched once */
    double us = t->layers * fmax(least, uneven(t, chunk, history, batch) + more);
    return us * t->scale + around_attention(t, (double)batch->tokens, (double)batch->sequences);
}

/* A piece of the decode kernel's time over entries: the value at `entries`, the slope, and the
 * entries at which the piece ends (INT64_MAX: never). */
typedef struct piece {
    kv_fine value, slope;
    int64_t end;
} piece;

/* n sequences of the same length that read e entries in all (e of one: at_least 1 sequence).
 * Integer arithmetic from the piece's start on: any two points of a piece lie on one line exactly.
 */
static piece piece_at(const table *t, double n, int64_t entries, double per_key, double weight)
{
    const double *axis = t->attention.axis[KV__KEYS];
    size_t size = t->attention.size[KV__KEYS];
    if (beyond(axis, size, (double)entries / per_key))
        *t->outside = true;
    kv__bracket at = kv__bracket_find(axis, size, 1, (double)entries / per_key);
    size_t hi = at.lo + 1 < size ? at.lo + 1 : at.lo;
    int64_t from = llround(axis[at.lo] * per_key), to = llround(axis[hi] * per_key);
    double ns = weight * t->layers * t->scale;
    kv_fine low = kv__fine(ns * kv__grid4_at(&t->attention, 0, 0, n, axis[at.lo]));
    kv_fine high = kv__fine(ns * kv__grid4_at(&t->attention, 0, 0, n, axis[hi]));
    piece p = {.slope = to > from ? (high - low) / (to - from) : 0, .end = INT64_MAX};
    p.value = low + p.slope * (entries - from);
    if (hi + 1 < size && entries < to)
        p.end = to;
    return p;
}

/* Steps until a quantity that grows has reached `end`. */
static int64_t steps_to(int64_t now, int64_t growth, int64_t end)
{
    if (growth <= 0 || end == INT64_MAX)
        return INT64_MAX;
    return now >= end ? 1 : (end - now + growth - 1) / growth;
}

static void ramp(const void *state, const kv_step_batch *batch, kv_step_ramp *out)
{
    const table *t = state;
    double n = (double)batch->decodes, e = t->entries_per_token;
    double alpha = kv__skew_alpha(&t->skew, n, false);
    piece even = piece_at(t, n, batch->decode_entries, e * n, 1 - alpha);
    *out = (kv_step_ramp){.first = kv__fine(around_attention(t, n, (double)batch->sequences)) +
                                   even.value,
                          .slope = even.slope * batch->decode_growth,
                          .steps = steps_to(batch->decode_entries, batch->decode_growth, even.end)};
    if (alpha > 0) {
        piece longest = piece_at(t, n, batch->decode_longest, e, alpha);
        int64_t steps = steps_to(batch->decode_longest, batch->longest_growth, longest.end);
        out->first += longest.value;
        out->slope += longest.slope * batch->longest_growth;
        out->steps = steps < out->steps ? steps : out->steps;
    }
}

static const char *warning(const void *state)
{
    const table *t = state;
    return *t->outside
               ? "steps lay outside of what the step-time table measured (tokens, sequences or "
                 "keys); the outermost piece was continued"
               : "";
}
