/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Read policies: which of the entries in memory a query reads.
 *
 * A read policy frees nothing: what a query passes over is there for the next one, so its footprint
 * is that of the retention policy beside it (100 % without one), plus metadata. At every measured
 * row the engine shows it what is present for one query head, and it chooses. Attention is
 * renormalised over the chosen entries; recall, evidence and output error count those alone.
 *
 * Rows are of two phases. Prefill: rows of the prompt and of later questions. Decode: rows of
 * answers after their first token. A policy says in which it chooses (`phases`); rows of the other
 * phase read everything. Every slot but `name`, `brief`, `config_bytes`, `params`, `phases` and
 * `select` may be NULL; NULL means the default said beside it.
 *
 * A new policy is one file in policies/read/ that ends in KV_READ_DEFINE(name) = {...}, and one
 * line in policies/policies.am. The generic tests then run over it. */
#ifndef KVSIM_POLICIES_READ_H
#define KVSIM_POLICIES_READ_H

#include "policies/retention.h"

/* Phases in which a policy chooses. */
enum { KV_READS_PREFILL = 1, KV_READS_DECODE = 2 };

/* What one KV head of the layer holds for a row. */
typedef struct kv_read_head {
    const float *key;       /* [N][head_dim] as stored; NULL unless needed (KV_NEEDS_KEYS) */
    const int32_t *present; /* [presents] entries that the query can see, ascending */
    int presents;
} kv_read_head;

/* One row of one query head. Positions are token positions. */
typedef struct kv_read_row {
    const kv_view *view;  /* of the layer; see kv_view_row and kv_view_query */
    const void *config;   /* the policy's configuration */
    const uint8_t *study; /* [study_bytes * N] of this query head, as `study` left it; NULL: none.
                             Those of all heads of the layer lie one after the other */
    int kv_head;
    int query_head;         /* of all heads of the layer */
    int position;           /* of the query */
    bool prefill;           /* its phase */
    const int32_t *present; /* [presents] entries that the query can see, its own among them,
                               ascending */
    int presents;
    const float *row; /* [position + 1] recorded probabilities over all keys; where a transform
                         changes keys, what the stored ones give, at the positions of present[] */
    const kv_read_head
        *head;          /* [KV heads] of the layer; NULL unless the policy asks (whole_layer) */
    const float *query; /* [head_dim]; NULL unless needed (KV_NEEDS_QUERIES) */
    const float *key;   /* [N][head_dim] keys as stored, transformed ones where a transform stands
                           beside the policy; NULL unless needed (KV_NEEDS_KEYS) */
    double *work;       /* 4 (N + head_dim) doubles to use as it likes */
    int32_t *order;     /* N numbers likewise */
    int32_t *channel;   /* head_dim numbers likewise */
} kv_read_row;

/* What `study` sees: one query head of a layer, before the layer's first row. */
typedef struct kv_read_study {
    const kv_view *view;
    const void *config;
    int kv_head, query_head;
    double *work; /* 4 N doubles */
} kv_read_study;

/* Where entries lie while they are not read: on the device are the first `first` and the last
 * `last` present entries; the others are in host memory and are fetched when they are read. */
typedef struct kv_read_home {
    long long first, last;
} kv_read_home;

/* What is stored beside entries depends on these. */
typedef struct kv_read_size {
    const kv_shape *shape;
    int layer;
    double entries; /* of one KV head of the layer */
    bool prefill;   /* the prompt is not yet complete */
} kv_read_size;

typedef struct kv_read {
    const char *name;         /* as users write it */
    const char *brief;        /* one line: what is read */
    const char *cite;         /* paper or code it follows */
    const char *stage;        /* generation, compression, retrieval or loading */
    size_t config_bytes;      /* of the configuration struct */
    const kv_param *params;   /* ends with a NULL name. Reading less makes no footprint curve: a row
                                 has KV_PARAM_BUDGET only where it sets what `retention` keeps */
    const kv_preset *presets; /* NULL: none */
    const kv_condition *conditions; /* settings that others switch off; NULL: none */
    bool oracle;        /* it knows the attention before it reads: a bound, labelled so */
    unsigned phases;    /* KV_READS_PREFILL | KV_READS_DECODE */
    unsigned needs;     /* KV_NEEDS_*, of every measured row; rows of the prompt that `study`
                           reads are those of `observers` */
    bool whole_layer;   /* `select` looks at what the other KV heads hold */
    size_t study_bytes; /* bytes per token and query head that `study` fills; 0: none */
    /* Checks settings against one another. Default: nothing more to check. */
    kv_err (*check)(const void *config, const kv_mark *mark, kv_diag *diag);
    /* Further needs that depend on the settings. Default: none. */
    unsigned (*needs_of)(const void *config);
    /* Last rows of the prompt that `study` reads. Default: none. */
    long long (*observers)(const void *config);
    /* Looks at a layer before its first row. study: [study_bytes * N], zeroed. Default: nothing. */
    void (*study)(const kv_read_study *study, uint8_t *out);
    /* Chooses: fills chosen[] with a subset of present[], ascending, and returns how many. At least
     * one. */
    int (*select)(const kv_read_row *row, int32_t *chosen);
    /* What is stored beside the entries of a KV head, in entries. Default: nothing. */
    double (*metadata)(const void *config, const kv_read_size *size);
    /* What choosing itself reads of them per step and KV head, in entries. Default: all metadata.
     */
    double (*scan)(const void *config, const kv_read_size *size);
    /* Where entries lie. Default: all on the device. */
    kv_read_home (*home)(const void *config);
    /* Writes the retention policy (flow YAML, as in an experiment) that the method includes and
     * that is added where the user names none. Default: none. */
    void (*retention)(const void *config, char *out, size_t out_bytes);
} kv_read;

/* The table of all read policies, in the order of policies/policies.am; ends with NULL. */
const kv_read *const *kv_read_all(void);

/* --- Shared parts that read policies are made of (policies/read_parts.c) ------------------------
 */

/* Reorders index[0..n) so that its first k are those of highest score[index], ties to the lower
 * index; they are in no particular order. k beyond n is n; returns it. */
int kv_read_best(const double *score, int32_t *index, int n, int k);
/* The share of n entries, rounded up; a product that is whole but for its rounding is whole. */
int kv_read_share(double share, int n);
/* Sorts positions ascending. */
void kv_read_sort(int32_t *position, int n);
/* Everything that is present. */
int kv_read_everything(const kv_read_row *row, int32_t *chosen);
/* The end of the prefill that a row belongs to: of the prompt, or of its turn's question. */
int kv_read_prefill_end(const kv_read_row *row);
/* The present entries of positions below `sinks` or above position - local. At least the query's
 * own. */
int kv_read_ends(const kv_read_row *row, long long sinks, long long local, int32_t *chosen);

/* Pages: page p holds the present entries p*page .. p*page+page-1, as a compacted cache does. */
int kv_read_pages(int entries, long long page);
/* The largest dot product that a query could have with a key of the page, channel by channel: the
 * sum over the `channels` channels listed (NULL: all) of the largest query[d] * key[d] in it. */
double kv_read_page_bound(const kv_read_row *row, const float *query, int page,
                          long long page_tokens, const int32_t *channel, int channels);
/* The entries of the `count` pages of highest score[page], ascending. */
int kv_read_best_pages(const kv_read_row *row, double *score, long long page_tokens, int count,
                       int32_t *chosen);

#define KV_READ_DEFINE(id) const kv_read kv__read_##id

#endif
