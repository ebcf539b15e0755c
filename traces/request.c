/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/request.h"

#include "sim/base/map.h"
#include "traces/arrivals.h"
#include "traces/field.h"
#include "traces/request_format.h"
#include "traces/sort_window.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const kv_request kv__request_blank = {
    .arrival_ns = INT64_MIN, .session = KV_NO_SESSION, .after_turn = -1, .think_time_ns = -1};

struct kv__tenants {
    char **name; /* [count] */
    int count, allocated;
    kv__map by_hash; /* of the name; names whose hashes are equal count as one */
};

struct kv_request_reader {
    const kv_request_spec *spec;
    kv__text *text;
    void *state;
    bool opened; /* the format's open was called */
    kv__tenants tenants;
    kv_request_counts counts;
    kv_diag first_skip;
    kv__sort_window *window; /* NULL: none */
    gsl_rng *rng;
    kv__arrivals arrivals; /* if they are not recorded */
    bool begun;
    int64_t base_ns;        /* the first recorded arrival */
    int64_t last_ns;        /* the last recorded arrival */
    int64_t floor_ns;       /* the last completion; no arrival is before it */
    bool timed, untimed;    /* a row had an arrival time, had none */
    int32_t block_tokens;   /* of the last row that named blocks; 0: none did */
    int32_t unnamed_tokens; /* of the longest prompt that named none */
    bool looked_ahead;
    kv_request ahead; /* what kv_request_peek took, if looked_ahead */
    uint64_t *chain;  /* [chain_room] names of the last request's blocks, made from contents */
    int32_t chain_room;
    kv_err failed; /* KV_OK until the reader fails for good */
};

/* --- Tenants
 * --------------------------------------------------------------------------------------- */

static kv_err add_tenant(kv__tenants *tenants, uint64_t hash, const char *name, kv_diag *diag)
{
    if (tenants->count == tenants->allocated) {
        int allocated = tenants->allocated == 0 ? 16 : 2 * tenants->allocated;
        char **larger = realloc(tenants->name, (size_t)allocated * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(diag);
        tenants->name = larger;
        tenants->allocated = allocated;
    }
    char *copy = strdup(name);
    if (copy == NULL || kv__map_add(&tenants->by_hash, hash, (uint32_t)tenants->count) != KV_OK) {
        free(copy);
        return kv_fail_memory(diag);
    }
    tenants->name[tenants->count++] = copy;
    return KV_OK;
}

kv_err kv__tenant_number(kv__tenants *tenants, const char *name, const kv_mark *mark, int32_t *out,
                         kv_diag *diag)
{
    uint64_t hash = kv__name_of(name);
    uint32_t number = kv__map_get(&tenants->by_hash, hash);
    if (number == KV_MAP_ABSENT) {
        number = (uint32_t)tenants->count;
        if (number >= KV_TENANTS_MOST)
            return kv_fail(diag, KV_ERR_INPUT, mark,
                           "more than %d tenants: is this the right column?", KV_TENANTS_MOST);
        kv_err err = add_tenant(tenants, hash, name, diag);
        if (err != KV_OK)
            return err;
    }
    *out = (int32_t)number;
    return KV_OK;
}

static void tenants_fini(kv__tenants *tenants)
{
    for (int i = 0; i < tenants->count; i++)
        free(tenants->name[i]);
    free(tenants->name);
    kv__map_fini(&tenants->by_hash);
}

const char *kv_request_tenant(const kv_request_reader *reader, int32_t tenant)
{
    return tenant >= 0 && tenant < reader->tenants.count ? reader->tenants.name[tenant] : NULL;
}

/* --- Opening and closing
 * --------------------------------------------------------------------------- */

static bool is_recorded(const kv_request_options *o)
{
    return o->arrivals == KV_ARRIVALS_RECORDED || o->arrivals == KV_ARRIVALS_IF_RECORDED;
}

static bool is_drawn(const kv_request_options *o)
{
    return !is_recorded(o) && o->arrivals != KV_ARRIVALS_TOGETHER;
}

bool kv_request_spec_waits(const kv_request_spec *spec)
{
    const kv_request_format *format = spec->format;
    return format->completed != NULL && (format->waits == NULL || format->waits(spec->config));
}

kv_err kv_request_spec_check(const kv_request_spec *spec, const kv_mark *mark, kv_diag *diag)
{
    const kv_request_options *o = &spec->options;
    const char *wrong = NULL;
    if (is_drawn(o) && o->rate == 0)
        wrong = "drawn arrivals need `rate`, in requests per second";
    else if (!is_drawn(o) && o->rate != 0)
        wrong = "`rate` needs `arrivals: poisson`, `gamma` or `even`: none are drawn now";
    else if (!is_recorded(o) && kv_request_spec_waits(spec))
        wrong = "here sessions say when turns arrive: set `session_rate` instead of `arrivals`";
    else if (o->sort_window > 0 && kv_request_spec_waits(spec))
        wrong = "this format is in order by itself: leave `sort_window` out";
    if (wrong == NULL)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark, "%s", wrong);
}

static kv_err start_arrivals(kv_request_reader *reader, kv_diag *diag)
{
    static const kv__gaps gaps[] = {[KV_ARRIVALS_EVEN] = KV_GAPS_EVEN,
                                    [KV_ARRIVALS_POISSON] = KV_GAPS_POISSON,
                                    [KV_ARRIVALS_GAMMA] = KV_GAPS_GAMMA};
    const kv_request_options *o = &reader->spec->options;
    if (!is_drawn(o))
        return KV_OK;
    enum { STREAM_ARRIVALS = 1 };
    reader->rng = kv__rng_new((uint64_t)o->seed, STREAM_ARRIVALS);
    if (reader->rng == NULL)
        return kv_fail_memory(diag);
    kv__arrivals_config config = {
        .gaps = gaps[o->arrivals], .rate = o->rate, .burstiness = o->burstiness};
    kv__arrivals_init(&reader->arrivals, &config, reader->rng);
    return KV_OK;
}

static kv_err open_format(kv_request_reader *reader, kv_diag *diag)
{
    const kv_request_spec *spec = reader->spec;
    const kv_request_format *format = spec->format;
    kv_err err = KV_OK;
    reader->state = calloc(1, format->state_bytes > 0 ? format->state_bytes : 1);
    if (reader->state == NULL)
        return kv_fail_memory(diag);
    if (!format->no_file && !format->takes_many)
        err = kv__text_open(spec->path, &reader->text, diag);
    if (err != KV_OK)
        return err;
    kv_request_env env = {spec->path,   spec->config,     &spec->options,
                          reader->text, &reader->tenants, &reader->counts.assumed};
    reader->opened = true;
    return format->open(reader->state, &env, diag);
}

kv_err kv_request_open(const kv_request_spec *spec, kv_request_reader **out, kv_diag *diag)
{
    kv_err err = kv_request_spec_check(spec, &(kv_mark){spec->path, 0, 0}, diag);
    if (err != KV_OK)
        return err;
    kv_request_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return kv_fail_memory(diag);
    reader->spec = spec;
    reader->last_ns = INT64_MIN;
    err = start_arrivals(reader, diag);
    if (err == KV_OK && spec->options.sort_window > 0)
        err = kv__sort_window_new((size_t)spec->options.sort_window, &reader->window, diag);
    if (err == KV_OK)
        err = open_format(reader, diag);
    if (err != KV_OK) {
        kv_request_close(reader);
        return err;
    }
    *out = reader;
    return KV_OK;
}

void kv_request_close(kv_request_reader *reader)
{
    if (reader == NULL)
        return;
    const kv_request_format *format = reader->spec->format;
    if (reader->opened && format->close != NULL)
        format->close(reader->state);
    kv__text_close(reader->text);
    kv__sort_window_free(reader->window);
    tenants_fini(&reader->tenants);
    gsl_rng_free(reader->rng);
    free(reader->state);
    free(reader->chain);
    free(reader);
}

/* --- One request after another
 * ------------------------------------------------------------------------ */

static kv_mark mark_of(const kv_request_reader *reader)
{
    if (reader->spec->format->mark != NULL)
        return reader->spec->format->mark(reader->state);
    return reader->text != NULL ? kv__text_mark(reader->text) : (kv_mark){reader->spec->path, 0, 0};
}

static kv_err unsorted(const kv_request_reader *reader, int64_t arrival_ns, kv_diag *diag)
{
    kv_mark mark = mark_of(reader);
    int64_t early_ns;
    if (__builtin_sub_overflow(reader->last_ns, arrival_ns, &early_ns))
        early_ns = INT64_MAX;
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "arrives %.9g s before the request before it: sort the trace, or set "
                   "`sort_window` to the number of requests to hold back",
                   (double)early_ns / 1e9);
}

/* Rows of a file name all whole blocks of their prompts, or no row names any: else block sizes are
 * mistaken, or ids were lost. */
static kv_err check_blocks(kv_request_reader *reader, const kv_request *r, const kv_mark *mark,
                           kv_diag *diag)
{
    const kv_request_format *format = reader->spec->format;
    if (reader->spec->options.unnamed_blocks || kv_request_spec_waits(reader->spec) ||
        format->no_file)
        return KV_OK;
    int32_t size = r->block_count > 0 ? r->block_tokens : reader->block_tokens;
    int32_t whole = size > 0 ? r->prompt_tokens / size : 0;
    if (r->block_count == 0 && whole > 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "names no blocks, unlike rows before: ids are missing; set "
                       "`unnamed_blocks: true` if this prompt shares nothing");
    if (r->block_count > 0 && r->block_count < whole)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "names %d blocks of %d tokens, but a prompt of %d tokens has %d: check "
                       "`block_tokens`, or set `unnamed_blocks: true` if the rest shares nothing",
                       r->block_count, size, r->prompt_tokens, whole);
    if (r->block_count > 0 && reader->unnamed_tokens >= size)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "names blocks, but a prompt of %d tokens before names none; set "
                       "`unnamed_blocks: true` if that shares nothing",
                       reader->unnamed_tokens);
    if (r->block_count > 0)
        reader->block_tokens = size;
    else if (r->prompt_tokens > reader->unnamed_tokens)
        reader->unnamed_tokens = r->prompt_tokens;
    return KV_OK;
}

/* Either all rows have arrival times or none has. */
static kv_err check_time(kv_request_reader *reader, const kv_request *r, const kv_mark *mark,
                         kv_diag *diag)
{
    bool timed = r->arrival_ns != INT64_MIN;
    bool first = !reader->timed && !reader->untimed;
    if (!first && timed != reader->timed)
        return kv_fail(diag, KV_ERR_INPUT, mark, "has %s arrival time, unlike the rows before",
                       timed ? "an" : "no");
    reader->timed = timed;
    reader->untimed = !timed;
    return KV_OK;
}

/* What no format may give. */
static kv_err check(kv_request_reader *reader, const kv_request *r, kv_diag *diag)
{
    kv_mark mark = mark_of(reader);
    const kv_request_options *o = &reader->spec->options;
    if (r->prompt_tokens < 1)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "the prompt has no tokens");
    if ((int64_t)(r->block_count - 1) * r->block_tokens >= r->prompt_tokens)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "%d blocks of %d tokens are more than a prompt of %d tokens has",
                       r->block_count, r->block_tokens, r->prompt_tokens);
    kv_err err = check_time(reader, r, &mark, diag);
    if (err != KV_OK)
        return err;
    if (o->arrivals == KV_ARRIVALS_RECORDED && r->arrival_ns == INT64_MIN)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the trace records no arrival times: set `arrivals: poisson` (or `gamma`, "
                       "`even`) and `rate`");
    bool in_order = reader->window != NULL || kv_request_spec_waits(reader->spec);
    if (is_recorded(o) && !in_order && r->arrival_ns < reader->last_ns)
        return unsorted(reader, r->arrival_ns, diag);
    return check_blocks(reader, r, &mark, diag);
}

/* Judges an error of the format: true if it is a row to pass over, and counts it. Otherwise *err is
 * what stops the reader, and diag has its words. */
static bool pass_over(kv_request_reader *reader, kv_err *err, const kv_diag *words, kv_diag *diag)
{
    bool broken = reader->text != NULL && kv__text_broken(reader->text);
    const kv_diag *failure = broken ? kv__text_failure(reader->text) : NULL;
    if (*err == KV_ERR_INPUT && !broken && reader->spec->options.on_error == KV_ERROR_SKIPS) {
        if (reader->counts.skipped++ == 0)
            reader->first_skip = *words;
        return true;
    }
    if (failure != NULL) { /* a row that it cut short says less */
        words = failure;
        *err = failure->code;
    }
    if (diag != NULL && diag->code == KV_OK)
        *diag = *words;
    return false;
}

/* The next sound request in file order. */
static kv_err fetch(kv_request_reader *reader, kv_request *out, kv_diag *diag)
{
    for (;;) {
        kv_diag words; /* only its code counts until an error is written to it */
        words.code = KV_OK;
        kv_err err = reader->spec->format->next(reader->state, out, &words);
        if (err == KV_OK)
            err = check(reader, out, &words);
        if (err == KV_OK || err == KV_END || !pass_over(reader, &err, &words, diag))
            return err;
    }
}

/* The same for looking at what `next` would give. */
static kv_err fetch_arrival(kv_request_reader *reader, int64_t *ns, kv_diag *diag)
{
    for (;;) {
        kv_diag words;
        words.code = KV_OK;
        kv_err err = reader->spec->format->peek(reader->state, ns, &words);
        if (err == KV_OK || err == KV_END || !pass_over(reader, &err, &words, diag))
            return err;
    }
}

/* The next request in order of arrival; last_ns is then its recorded time. */
static kv_err fetch_sorted(kv_request_reader *reader, kv_request *out, kv_diag *diag)
{
    kv_err err = KV_OK;
    if (reader->window == NULL) {
        err = fetch(reader, out, diag);
        if (err == KV_OK)
            reader->last_ns = out->arrival_ns;
        return err;
    }
    while (err == KV_OK && !kv__sort_window_full(reader->window)) {
        kv_request request;
        err = fetch(reader, &request, diag);
        if (err == KV_OK)
            err = kv__sort_window_add(reader->window, &request, diag);
    }
    if (err > KV_OK || !kv__sort_window_take(reader->window, out, &reader->counts.reordered))
        return err > KV_OK ? err : KV_END;
    if (out->arrival_ns < reader->last_ns)
        return unsorted(reader, out->arrival_ns, diag);
    reader->last_ns = out->arrival_ns;
    return KV_OK;
}

/* A recorded span at the reader's speed. */
static kv_err at_speed(const kv_request_reader *reader, int64_t *ns, kv_diag *diag)
{
    double speedup = reader->spec->options.speedup;
    if (speedup == 1)
        return KV_OK;
    double scaled = (double)*ns / speedup;
    if (scaled >= 9.2e18) {
        kv_mark mark = mark_of(reader);
        return kv_fail(diag, KV_ERR_INPUT, &mark, "at this speedup a time exceeds 292 years");
    }
    *ns = llround(scaled);
    return KV_OK;
}

/* Turns the recorded times into those of the replay. */
static kv_err set_times(kv_request_reader *reader, kv_request *r, kv_diag *diag)
{
    const kv_request_options *o = &reader->spec->options;
    bool recorded = is_recorded(o) && r->arrival_ns != INT64_MIN;
    int64_t ns = recorded ? r->arrival_ns : is_drawn(o) ? kv__arrivals_next(&reader->arrivals) : 0;
    kv_err err = KV_OK;
    if (!reader->begun) {
        reader->base_ns = ns;
        reader->begun = true;
    }
    if (ns == INT64_MAX || __builtin_sub_overflow(ns, reader->base_ns, &ns)) {
        kv_mark mark = mark_of(reader);
        return kv_fail(diag, KV_ERR_INPUT, &mark, "the trace spans more than 292 years");
    }
    if (recorded)
        err = at_speed(reader, &ns, diag);
    if (err == KV_OK && r->think_time_ns > 0)
        err = at_speed(reader, &r->think_time_ns, diag);
    if (err != KV_OK)
        return err;
    r->arrival_ns = ns > reader->floor_ns ? ns : reader->floor_ns;
    return KV_OK;
}

/* The next request, not counted yet. */
static kv_err take(kv_request_reader *reader, kv_request *out, kv_diag *diag)
{
    long long limit = reader->spec->options.limit;
    if (reader->failed != KV_OK)
        return reader->failed;
    if (limit > 0 && reader->counts.requests >= limit)
        return KV_END;
    kv_err err = fetch_sorted(reader, out, diag);
    if (err == KV_OK)
        err = set_times(reader, out, diag);
    if (err > KV_OK)
        reader->failed = err;
    return err;
}

/* Names that tell contents become names that tell all tokens up to the end of the block. */
static kv_err chain_names(kv_request_reader *reader, kv_request *r, kv_diag *diag)
{
    bool contents = r->names_contents || reader->spec->options.hashes == KV_HASHES_CONTENT;
    if (!contents || r->block_count == 0)
        return KV_OK;
    if (r->block_count > reader->chain_room) {
        uint64_t *larger = realloc(reader->chain, (size_t)r->block_count * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(diag);
        reader->chain = larger;
        reader->chain_room = r->block_count;
    }
    uint64_t name = 0;
    for (int32_t i = 0; i < r->block_count; i++)
        reader->chain[i] = name = kv__name_behind(name, r->blocks[i]);
    r->contents = r->blocks;
    r->blocks = reader->chain;
    return KV_OK;
}

kv_err kv_request_next(kv_request_reader *reader, kv_request *out, kv_diag *diag)
{
    kv_request request = reader->ahead;
    kv_err err = reader->looked_ahead ? KV_OK : take(reader, &request, diag);
    reader->looked_ahead = false;
    if (err == KV_OK)
        err = chain_names(reader, &request, diag);
    if (err != KV_OK)
        return err;
    request.number = reader->counts.requests++;
    reader->counts.zero_output += request.output_tokens == 0;
    *out = request;
    return KV_OK;
}

/* Of a format that keeps order by itself, without reading on: what is next may still change. */
static kv_err peek_format(kv_request_reader *reader, int64_t *arrival_ns, kv_diag *diag)
{
    int64_t ns;
    long long limit = reader->spec->options.limit;
    if (limit > 0 && reader->counts.requests >= limit)
        return KV_END;
    kv_err err = fetch_arrival(reader, &ns, diag);
    if (err > KV_OK)
        reader->failed = err;
    if (err != KV_OK)
        return err;
    ns = reader->begun ? ns - reader->base_ns : 0;
    err = at_speed(reader, &ns, diag);
    *arrival_ns = ns > reader->floor_ns ? ns : reader->floor_ns;
    return err;
}

kv_err kv_request_peek(kv_request_reader *reader, int64_t *arrival_ns, kv_diag *diag)
{
    if (reader->failed != KV_OK)
        return reader->failed;
    if (reader->spec->format->peek != NULL && kv_request_spec_waits(reader->spec))
        return peek_format(reader, arrival_ns, diag);
    if (!reader->looked_ahead) {
        kv_err err = take(reader, &reader->ahead, diag);
        if (err != KV_OK)
            return err;
        reader->looked_ahead = true;
    }
    *arrival_ns = reader->ahead.arrival_ns;
    return KV_OK;
}

void kv_request_completed(kv_request_reader *reader, uint64_t session, int32_t turn, int64_t end_ns)
{
    const kv_request_format *format = reader->spec->format;
    if (session == KV_NO_SESSION || !kv_request_spec_waits(reader->spec))
        return;
    double recorded = (double)end_ns * reader->spec->options.speedup;
    int64_t recorded_ns = reader->spec->options.speedup == 1 ? end_ns : llround(recorded);
    reader->floor_ns = end_ns > reader->floor_ns ? end_ns : reader->floor_ns;
    format->completed(reader->state, session, turn, reader->base_ns + recorded_ns);
}

kv_mark kv_request_mark(const kv_request_reader *reader)
{
    bool ahead = reader->looked_ahead || reader->window != NULL;
    return ahead ? (kv_mark){reader->spec->path, 0, 0} : mark_of(reader);
}

const kv_request_counts *kv_request_get_counts(const kv_request_reader *reader)
{
    return &reader->counts;
}

const kv_diag *kv_request_first_skip(const kv_request_reader *reader)
{
    return reader->counts.skipped == 0 ? NULL : &reader->first_skip;
}
