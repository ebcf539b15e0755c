/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/lengths.h"
#include "traces/request_format.h"
#include "traces/session.h"

#include <math.h>
#include <stdlib.h>

#include <gsl/gsl_randist.h>

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static kv_err next(void *state, kv_request *out, kv_diag *diag);
static void close(void *state);

typedef struct synth_config {
    kv__session_config session;
    kv__lengths prompt, output, context, document;
    long long requests;
    long long contexts;
    double context_skew;
    long long documents, documents_per_prompt;
    double document_skew;
    double turns;
    long long think_time_ns;
    long long block_tokens;
    long long prompt_limit_tokens;
} synth_config;

/* A text that prompts share. */
typedef struct context {
    int32_t tokens;
    uint64_t first_id; /* names of its complete blocks */
} context;

/* Texts to draw from, the k-th in proportion to a power of k. */
typedef struct pool {
    context *text;             /* [count] */
    gsl_ran_discrete_t *which; /* NULL: there are none */
    size_t count;
} pool;

typedef struct synth {
    kv__sessions sessions; /* first */
    const synth_config *config;
    gsl_rng *rng;
    pool contexts;    /* of sessions */
    pool documents;   /* that prompts retrieve */
    size_t *drawn;    /* [config->documents_per_prompt] documents of one prompt */
    uint64_t session; /* number of the next one */
    long long made;   /* requests so far */
    uint64_t next_id; /* name of the next block that is new */
    uint64_t *id;     /* [id_allocated] blocks of the session's prompt */
    int32_t id_allocated;
} synth;

#define FIELD(name_) .offset = offsetof(synth_config, name_)

/* The rows of one kind of length. */
#define LENGTHS(name_, field_, kind_, mean_, cv_, what_)                                           \
    {.name = name_,                                                                                \
     .type = KV_CHOICE,                                                                            \
     FIELD(field_.kind),                                                                           \
     .fallback = kind_,                                                                            \
     .choices = kv__length_choices,                                                                \
     .flags = KV_PARAM_SWEEP,                                                                      \
     .help = "distribution of the length of " what_},                                              \
        {.name = name_ "_mean",                                                                    \
         .type = KV_REAL,                                                                          \
         FIELD(field_.mean),                                                                       \
         .fallback = mean_,                                                                        \
         .min = 0,                                                                                 \
         .max = INT32_MAX,                                                                         \
         .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,                                              \
         .unit = "tokens",                                                                         \
         .help = "mean length of " what_ " (not of uniform ones)"},                                \
        {.name = name_ "_cv",                                                                      \
         .type = KV_REAL,                                                                          \
         FIELD(field_.cv),                                                                         \
         .fallback = cv_,                                                                          \
         .min = 0,                                                                                 \
         .max = 100,                                                                               \
         .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,                                              \
         .help = "its coefficient of variation (lognormal and gamma)"},                            \
        {.name = name_ "_min",                                                                     \
         .type = KV_INT,                                                                           \
         FIELD(field_.min),                                                                        \
         .fallback = "1",                                                                          \
         .min = 0,                                                                                 \
         .max = INT32_MAX,                                                                         \
         .flags = KV_PARAM_SWEEP,                                                                  \
         .unit = "tokens",                                                                         \
         .help = "shorter ones are lengthened to this"},                                           \
    {                                                                                              \
        .name = name_ "_max", .type = KV_INT, FIELD(field_.max), .fallback = "100000", .min = 1,   \
        .max = INT32_MAX, .flags = KV_PARAM_SWEEP, .unit = "tokens",                               \
        .help = "longer ones are cut to this"                                                      \
    }

static const kv_param params[] = {
    {.name = "requests",
     .type = KV_INT,
     FIELD(requests),
     .fallback = "1000",
     .min = 1,
     .max = 9e15,
     .flags = KV_PARAM_SWEEP,
     .unit = "requests",
     .help = "requests of all sessions together"},
    LENGTHS("prompt", prompt, "lognormal", "1000", "1", "what a turn adds to the prompt"),
    LENGTHS("output", output, "lognormal", "200", "1", "an answer"),
    LENGTHS("context", context, "fixed", "2000", "1", "a context that sessions share"),
    {.name = "contexts",
     .type = KV_INT,
     FIELD(contexts),
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     .flags = KV_PARAM_SWEEP,
     .help = "contexts that sessions may begin with; 0: they share nothing"},
    {.name = "context_skew",
     .type = KV_REAL,
     FIELD(context_skew),
     .fallback = "1",
     .min = 0,
     .max = 10,
     .flags = KV_PARAM_SWEEP,
     .help = "the k-th context is used in proportion to k to the power of minus this (Zipf)"},
    LENGTHS("document", document, "lognormal", "500", "0.5",
            "a document, before it is filled up to whole blocks"),
    {.name = "documents",
     .type = KV_INT,
     FIELD(documents),
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     .flags = KV_PARAM_SWEEP,
     .help = "documents that prompts retrieve from; 0: none. Blocks are then named by content"},
    {.name = "documents_per_prompt",
     .type = KV_INT,
     FIELD(documents_per_prompt),
     .fallback = "4",
     .min = 1,
     .max = 1000,
     .flags = KV_PARAM_SWEEP,
     .help = "different documents that a session's first prompt has, in the order drawn, between "
             "context and question"},
    {.name = "document_skew",
     .type = KV_REAL,
     FIELD(document_skew),
     .fallback = "1",
     .min = 0,
     .max = 10,
     .flags = KV_PARAM_SWEEP,
     .help = "the k-th document is drawn in proportion to k to the power of minus this (Zipf)"},
    {.name = "turns",
     .type = KV_REAL,
     FIELD(turns),
     .fallback = "1",
     .min = 1,
     .max = 1e6,
     .flags = KV_PARAM_SWEEP,
     .help = "mean turns of a session (geometric)"},
    {.name = "think_time",
     .type = KV_DURATION,
     FIELD(think_time_ns),
     .fallback = "10s",
     .min = 0,
     .max = 9e15,
     .flags = KV_PARAM_SWEEP,
     .help = "mean time from an answer to the next turn (exponential)"},
    {.name = "block_tokens",
     .type = KV_INT,
     FIELD(block_tokens),
     .fallback = "512",
     .min = 1,
     .max = 1 << 20,
     .flags = KV_PARAM_SWEEP,
     .unit = "tokens",
     .help = "tokens per block that prompts name"},
    {.name = "prompt_limit",
     .type = KV_INT,
     FIELD(prompt_limit_tokens),
     .fallback = "131072",
     .min = 1,
     .max = INT32_MAX,
     .flags = KV_PARAM_SWEEP,
     .unit = "tokens",
     .help = "a session ends before its prompt would be longer"},
    {.name = NULL}};

/* Sessions begin with a shared context or with nothing; each turn adds to the prompt, and so does
 * its answer. Prompts name their complete blocks. In the open loop a turn arrives one think time
 * after the one before: answers take no time there. With documents the first prompt of a session is
 * its context, some documents and a question, as in retrieval-augmented generation; names then tell
 * contents, and what stands before a document fills whole blocks, so that it is cut alike wherever
 * it stands. */
KV_REQUEST_FORMAT_DEFINE(synth) = {
    .name = "synth",
    .brief = "made up: sessions with shared contexts, lengths and gaps from named distributions",
    .config_bytes = sizeof(synth_config),
    .params = params,
    .shared_params = kv__session_params,
    .state_bytes = sizeof(synth),
    .no_file = true,
    .open = open,
    .next = next,
    .peek = kv__sessions_peek,
    .completed = kv__sessions_completed,
    .close = close,
};

/* --- Sessions -------------------------------------------------------------------------------- */

/* What a session's prompt is made of so far. */
typedef struct growing {
    int64_t tokens;
    int32_t blocks; /* that have names in s->id */
} growing;

static kv_err have_ids(synth *s, int64_t count)
{
    if (count <= s->id_allocated)
        return KV_OK;
    uint64_t *larger = realloc(s->id, 2 * (size_t)count * sizeof *larger);
    if (larger == NULL)
        return KV_ERR_MEMORY;
    s->id = larger;
    s->id_allocated = (int32_t)(2 * count < INT32_MAX ? 2 * count : INT32_MAX);
    return KV_OK;
}

/* Puts a text behind what the prompt has, which fills whole blocks. */
static kv_err add_text(synth *s, growing *g, const context *text)
{
    int32_t blocks = (int32_t)(text->tokens / s->config->block_tokens);
    kv_err err = have_ids(s, (int64_t)g->blocks + blocks);
    for (int32_t i = 0; err == KV_OK && i < blocks; i++)
        s->id[g->blocks + i] = text->first_id + (uint64_t)i;
    g->tokens += text->tokens;
    g->blocks += blocks;
    return err;
}

/* Retrieves documents, all different, in the order in which they are drawn; what would leave no
 * room for a question is left out. */
static kv_err add_documents(synth *s, growing *g)
{
    kv_err err = KV_OK;
    for (long long n = 0; err == KV_OK && n < s->config->documents_per_prompt; n++) {
        long long i;
        do {
            s->drawn[n] = gsl_ran_discrete(s->rng, s->documents.which);
            for (i = 0; i < n && s->drawn[i] != s->drawn[n]; i++)
                ;
        } while (i < n);
        const context *document = &s->documents.text[s->drawn[n]];
        if (g->tokens + document->tokens < s->config->prompt_limit_tokens)
            err = add_text(s, g, document);
    }
    return err;
}

/* Begins with a context, drawn by its popularity, or with nothing; then documents. */
static kv_err begin_session(synth *s, growing *g)
{
    kv_err err = KV_OK;
    *g = (growing){0};
    if (s->contexts.which != NULL)
        err = add_text(s, g, &s->contexts.text[gsl_ran_discrete(s->rng, s->contexts.which)]);
    return err == KV_OK && s->documents.which != NULL ? add_documents(s, g) : err;
}

/* Names the blocks that the prompt completed, as new ones. Where nothing can be shared, none has a
 * name: a long trace is then cheap to look at. */
static kv_err grow_prompt(synth *s, growing *g, int32_t tokens)
{
    bool shares = s->config->turns > 1 || s->contexts.which != NULL || s->documents.which != NULL;
    g->tokens += tokens;
    int64_t blocks = shares ? g->tokens / s->config->block_tokens : 0;
    kv_err err = have_ids(s, blocks);
    for (; err == KV_OK && g->blocks < blocks; g->blocks++)
        s->id[g->blocks] = s->next_id++;
    return err;
}

static kv_err add_turn(synth *s, growing *g, int64_t *at_ns, kv__session *out)
{
    int64_t think_ns = 0;
    if (out->turns > 0)
        think_ns = (int64_t)gsl_ran_exponential(s->rng, (double)s->config->think_time_ns);
    if (__builtin_add_overflow(*at_ns, think_ns, at_ns))
        *at_ns = INT64_MAX;
    kv__turn turn = {.at_ns = *at_ns,
                     .think_ns = think_ns,
                     .prompt_tokens = (int32_t)g->tokens,
                     .output_tokens = kv__length_draw(&s->config->output, s->rng),
                     .after = out->turns - 1};
    kv_err err = kv__session_add(out, &turn, s->id, g->blocks);
    return err == KV_OK ? grow_prompt(s, g, turn.output_tokens) : err;
}

static kv_err load(void *closure, kv__session *out, kv_diag *diag)
{
    synth *s = closure;
    const synth_config *c = s->config;
    growing g;
    int64_t at_ns = 0;
    unsigned turns = c->turns > 1 ? gsl_ran_geometric(s->rng, 1 / c->turns) : 1;
    if (s->made == c->requests)
        return KV_END;
    out->name = s->session++;
    out->anonymous = c->turns == 1;
    out->block_tokens = (int32_t)c->block_tokens;
    kv_err err = begin_session(s, &g);
    for (unsigned i = 0; err == KV_OK && i < turns && s->made < c->requests; i++) {
        int32_t more = kv__length_draw(&c->prompt, s->rng);
        if (i > 0 && g.tokens + more > c->prompt_limit_tokens)
            break;
        int64_t room = c->prompt_limit_tokens - g.tokens;
        err = grow_prompt(s, &g, (int32_t)(more < room ? more : room > 0 ? room : 0));
        if (err == KV_OK)
            err = add_turn(s, &g, &at_ns, out);
        s->made++;
    }
    return err == KV_OK ? KV_OK : kv_fail_memory(diag);
}

/* --- Start ----------------------------------------------------------------------------------- */

static kv_err check_lengths(const char *name, const kv__lengths *l, int least, kv_diag *diag)
{
    if (l->min < least)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "%s_min: expected at least %d", name, least);
    if (l->min > l->max)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "%s_min is above %s_max", name, name);
    return KV_OK;
}

/* Draws texts, whose popularity falls with their number. */
static kv_err make_pool(synth *s, pool *p, size_t count, double skew, const kv__lengths *lengths,
                        kv_diag *diag)
{
    int32_t block = (int32_t)s->config->block_tokens;
    if (count == 0)
        return KV_OK;
    double *weight = calloc(count, sizeof *weight);
    p->text = calloc(count, sizeof *p->text);
    p->count = count;
    for (size_t k = 0; weight != NULL && p->text != NULL && k < count; k++) {
        weight[k] = pow((double)(k + 1), -skew);
        int64_t tokens = kv__length_draw(lengths, s->rng);
        if (s->config->documents > 0)
            tokens = (tokens + block - 1) / block * block;
        p->text[k] = (context){(int32_t)tokens, s->next_id};
        s->next_id += (uint64_t)(tokens / block);
    }
    if (weight != NULL && p->text != NULL)
        p->which = gsl_ran_discrete_preproc(count, weight);
    free(weight);
    return p->which == NULL ? kv_fail_memory(diag) : KV_OK;
}

static void free_pool(pool *p)
{
    if (p->which != NULL)
        gsl_ran_discrete_free(p->which);
    free(p->text);
}

static kv_err check_documents(const synth_config *c, kv_diag *diag)
{
    if (c->documents == 0)
        return KV_OK;
    if (c->documents_per_prompt > c->documents)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "documents_per_prompt is above documents");
    return check_lengths("document", &c->document, 1, diag);
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    enum { STREAM_CONTENT = 3 };
    synth *s = state;
    s->config = env->config;
    const synth_config *c = s->config;
    kv_err err = check_lengths("prompt", &c->prompt, 1, diag);
    if (err == KV_OK)
        err = check_lengths("output", &c->output, 0, diag);
    if (err == KV_OK)
        err = check_lengths("context", &c->context, 1, diag);
    int64_t longest = c->context.max + (c->documents > 0 ? c->block_tokens - 1 : 0);
    if (err == KV_OK && c->contexts > 0 && longest >= c->prompt_limit_tokens)
        err = kv_fail(diag, KV_ERR_INPUT, NULL,
                      "context_max must be below prompt_limit, by a block if there are documents");
    if (err == KV_OK)
        err = check_documents(c, diag);
    if (err != KV_OK)
        return err;
    s->rng = kv__rng_new((uint64_t)env->options->seed, STREAM_CONTENT);
    s->drawn = calloc((size_t)c->documents_per_prompt, sizeof *s->drawn);
    if (s->rng == NULL || s->drawn == NULL)
        return kv_fail_memory(diag);
    err = make_pool(s, &s->contexts, (size_t)c->contexts, c->context_skew, &c->context, diag);
    if (err == KV_OK)
        err =
            make_pool(s, &s->documents, (size_t)c->documents, c->document_skew, &c->document, diag);
    if (err == KV_OK)
        err = kv__sessions_init(&s->sessions, &c->session, env, load, s, diag);
    return err;
}

static kv_err next(void *state, kv_request *out, kv_diag *diag)
{
    synth *s = state;
    kv_err err = kv__sessions_next(state, out, diag);
    if (err == KV_OK)
        out->names_contents = s->documents.which != NULL;
    return err;
}

static void close(void *state)
{
    synth *s = state;
    kv__sessions_fini(&s->sessions);
    free_pool(&s->contexts);
    free_pool(&s->documents);
    gsl_rng_free(s->rng);
    free(s->drawn);
    free(s->id);
}
