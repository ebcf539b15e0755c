/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Request traces: what arrives at a server, when, how long, and which blocks of its prompt it
 * shares with others.
 *
 * A reader is a source of requests in order of arrival. It streams: memory is bounded whatever the
 * length of the trace (a format that is one JSON document per session holds the sessions that are
 * under way). Files that end in zstd or gzip data are unpacked on the way; the path "-" is standard
 * input. Everything that a reader does follows from the file, the settings and the seed.
 *
 *     kv_request_spec spec = {0};
 *     kv_request_spec_init(&spec, "conversation.jsonl.zst", NULL, diag);
 *     kv_request_spec_set(&spec, "speedup", "2", NULL, diag);
 *     kv_request_open(&spec, &reader, diag);
 *     while ((err = kv_request_next(reader, &request, diag)) == KV_OK) ...
 *     kv_request_close(reader);
 *     kv_request_spec_fini(&spec);
 *
 * A new format is one file in traces/requests/ that ends in KV_REQUEST_FORMAT_DEFINE(name) = {...}
 * and one line in traces/traces.am. */
#ifndef KVSIM_TRACES_REQUEST_H
#define KVSIM_TRACES_REQUEST_H

#include "sim/base/diag.h"
#include "sim/base/param.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define KV_NO_SESSION UINT64_MAX /* kv_request.session of a request that belongs to none */

/* One request. What it points to is lent until the next kv_request_next or kv_request_peek. */
typedef struct kv_request {
    int64_t number;        /* of the requests that the reader gave out, from 0 */
    int64_t arrival_ns;    /* from the first arrival of the trace; never before the one before, save
                            * in a closed loop, where it is never before the last completion */
    int32_t prompt_tokens; /* >= 1 */
    int32_t output_tokens; /* >= 0; 0: only the prompt is processed */
    /* Names of the prompt's leading blocks. Equal names mean equal tokens from the beginning of the
     * prompt to the end of the block, in any request of the trace. The last block may be partial:
     * the blocks then cover min(block_count * block_tokens, prompt_tokens) tokens. What they do not
     * cover is shared with no one. */
    const uint64_t *blocks;
    /* [block_count] names of the contents of those blocks alone: equal names mean equal tokens,
     * wherever in a prompt they stand. NULL if the trace does not tell. */
    const uint64_t *contents;
    bool names_contents;  /* from a format to the reader: `blocks` names contents, which the reader
                             then chains */
    int32_t block_count;  /* 0 if the format names none */
    int32_t block_tokens; /* tokens per block; 0 if block_count is 0 */
    int32_t turn;         /* number within the session, from 0, unique there; 0 without a session */
    uint64_t session;     /* KV_NO_SESSION if it belongs to none */
    int32_t agent;        /* 0: the main line of the session; 1...: number of the sub-agent */
    int32_t after_turn;   /* the turn whose answer this one follows after think_time_ns (of a
                             sub-agent's first request: the turn that called it); -1: none */
    int32_t tenant;       /* see kv_request_tenant; 0 if the format knows none */
    int64_t think_time_ns; /* from the end of the answer before to this arrival; -1: not known */
} kv_request;

typedef enum kv_on_error { KV_ERROR_STOPS, KV_ERROR_SKIPS } kv_on_error;
typedef enum kv_arrivals {
    KV_ARRIVALS_RECORDED,
    KV_ARRIVALS_EVEN,
    KV_ARRIVALS_POISSON,
    KV_ARRIVALS_GAMMA,
    KV_ARRIVALS_TOGETHER,   /* all at time 0: a batch */
    KV_ARRIVALS_IF_RECORDED /* 0 where the trace records none: to look at a trace, no setting */
} kv_arrivals;

typedef enum kv_hashes {
    KV_HASHES_CHAINED, /* a block's name tells all tokens from the beginning of the prompt */
    KV_HASHES_CONTENT  /* ... its own tokens only */
} kv_hashes;

/* Settings that every format takes (table kv_request_params). */
typedef struct kv_request_options {
    int on_error;          /* kv_on_error: what a malformed row does */
    int arrivals;          /* kv_arrivals: where arrival times come from */
    int hashes;            /* kv_hashes: what names of blocks tell, where the trace does not say */
    double speedup;        /* recorded arrival times are divided by this */
    double rate;           /* requests per second, of arrivals that are not recorded */
    double burstiness;     /* coefficient of variation of KV_ARRIVALS_GAMMA */
    long long limit;       /* requests after which the trace ends; 0: none */
    long long sort_window; /* requests held back to bring them into order; 0: must be sorted */
    bool unnamed_blocks;   /* prompts may leave blocks unnamed, see kv_request_params */
    long long seed;        /* of everything that is drawn */
} kv_request_options;

extern const kv_param kv_request_params[];

/* What a reader saw so far. */
typedef struct kv_request_counts {
    int64_t requests;    /* given out */
    int64_t skipped;     /* malformed rows passed over under `on_error: skip` */
    int64_t zero_output; /* of `requests`: no token is to be generated */
    int64_t reordered;   /* of `requests`: brought into order by sort_window */
    int64_t assumed;     /* of `requests`: a time or length was missing and was assumed */
} kv_request_counts;

typedef struct kv_request_format kv_request_format;
typedef struct kv_request_reader kv_request_reader;

/* A trace and how to read it: what `requests: {...}` of an experiment says. */
typedef struct kv_request_spec {
    char *path;                      /* NULL for a format that reads no file */
    const kv_request_format *format; /* never NULL once initialised */
    kv_request_options options;
    void *config; /* the format's own settings, [format->config_bytes] */
} kv_request_spec;

/* Fills a zeroed spec with the defaults of a format. path: a file, "-", or NULL for a format that
 * reads none; a session format also takes a directory or a pattern like `sessions/x*.json.zst`.
 * format_name NULL: found by looking at the beginning of the file (not possible for "-"). */
kv_err kv_request_spec_init(kv_request_spec *spec, const char *path, const char *format_name,
                            kv_diag *diag) KV_MUST_USE;
/* Sets one setting, common or of the format, from text. Columns are set as "columns.arrival". */
kv_err kv_request_spec_set(kv_request_spec *spec, const char *name, const char *text,
                           const kv_mark *mark, kv_diag *diag) KV_MUST_USE;
/* Whether the format keeps the order of arrival by itself, as sessions do. */
bool kv_request_spec_waits(const kv_request_spec *spec);
/* Whether the settings agree with one another; kv_request_open does the same without a mark. */
kv_err kv_request_spec_check(const kv_request_spec *spec, const kv_mark *mark,
                             kv_diag *diag) KV_MUST_USE;
/* What describes a setting, common or of the format; NULL: there is none of that name. */
const kv_param *kv_request_spec_param(const kv_request_spec *spec, const char *name);
void kv_request_spec_fini(kv_request_spec *spec);

/* Opens a trace. The spec is borrowed: it must live, unchanged, until the reader is closed. */
kv_err kv_request_open(const kv_request_spec *spec, kv_request_reader **out,
                       kv_diag *diag) KV_MUST_USE;
void kv_request_close(kv_request_reader *reader);

/* The next request by arrival. KV_END: there is none, in a closed loop none until something that is
 * under way is completed. After an error the reader gives out no more. */
kv_err kv_request_next(kv_request_reader *reader, kv_request *out, kv_diag *diag) KV_MUST_USE;

/* When the next request arrives, without taking it; KV_END as kv_request_next. */
kv_err kv_request_peek(kv_request_reader *reader, int64_t *arrival_ns, kv_diag *diag) KV_MUST_USE;

/* Tells that the answer of a request ended, in order of time. In a closed loop (setting `loop` of a
 * format that has sessions) the turns that waited for it arrive think_time_ns later, so the next
 * request may then be another one than kv_request_peek told before, and there may be one where
 * there was none; otherwise this does nothing. A request that was rejected is completed when it is.
 */
void kv_request_completed(kv_request_reader *reader, uint64_t session, int32_t turn,
                          int64_t end_ns);

/* Where the request that was read last stands: its line, or only its file. */
kv_mark kv_request_mark(const kv_request_reader *reader);

const kv_request_counts *kv_request_get_counts(const kv_request_reader *reader);
/* What was wrong with the first row that was skipped; NULL if none was. */
const kv_diag *kv_request_first_skip(const kv_request_reader *reader);
/* The name of a tenant, or NULL if there is none of that number (yet). */
const char *kv_request_tenant(const kv_request_reader *reader, int32_t tenant);

/* ---- What a format provides. NULL in an optional slot means the default said beside it. ---- */

typedef struct kv_request_env kv_request_env; /* see traces/request_format.h */

struct kv_request_format {
    const char *name;              /* as users write it */
    const char *brief;             /* one line */
    const char *cite;              /* where the format is described; NULL if nowhere */
    size_t config_bytes;           /* of its settings; 0: none */
    const kv_param *params;        /* of its settings; NULL: none */
    const kv_param *shared_params; /* of those it shares with formats of its kind; NULL: none */
    const kv_param *columns;       /* settings of its nested mapping `columns`; NULL: none */
    size_t state_bytes;            /* zeroed by the reader before open */
    bool no_file;                  /* makes its requests up: no path is needed */
    bool takes_many; /* path may be a directory or a pattern: files are opened by itself */
    /* How sure the format is that a file is its own, 0..100, from the first bytes (text, unpacked,
     * terminated). Default: 0, it must be named. */
    int (*probe)(const char *path, const char *head, size_t head_bytes);
    /* Reads what comes before the first request. */
    kv_err (*open)(void *state, const kv_request_env *env, kv_diag *diag);
    /* The next request in file order; number is left to the reader. An error of the kind
     * KV_ERR_INPUT leaves the state behind the malformed row. arrival_ns may count from anywhere;
     * INT64_MIN: not recorded. */
    kv_err (*next)(void *state, kv_request *out, kv_diag *diag);
    /* When `next` will give its request, without reading on. Formats that have `completed` have
     * this too; the default reads one request ahead. */
    kv_err (*peek)(void *state, int64_t *arrival_ns, kv_diag *diag);
    /* See kv_request_completed; times as `next` gives them. Such a format keeps the order of
     * arrival by itself. Default: there are no sessions that could wait. */
    void (*completed)(void *state, uint64_t session, int32_t turn, int64_t end_ns);
    /* Whether `peek` and `completed` apply under these settings. Default: if there are any. */
    bool (*waits)(const void *config);
    /* Where the last request of `next` stands. Default: the line of the file that was read last. */
    kv_mark (*mark)(const void *state);
    /* Writes what stands before the first request (default: nothing) and a request, so that reading
     * gives back what the format can hold. Default: the format cannot be written. */
    void (*write_header)(FILE *out);
    void (*write)(FILE *out, const kv_request *request, const char *tenant);
    /* Frees what the others took, also after an open that failed. Default: nothing to free. */
    void (*close)(void *state);
};

/* All formats, ended by NULL, and the one of that name or NULL. */
const kv_request_format *const *kv_request_format_all(void);
const kv_request_format *kv_request_format_find(const char *name);

#define KV_REQUEST_FORMAT_DEFINE(id) const kv_request_format kv__request_format_##id

#endif
