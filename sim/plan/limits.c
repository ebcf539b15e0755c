/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/plan/limits.h"

#include "sim/base/unit.h"

#include <ctype.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define AT(f) offsetof(kv_plan_measures, f)
#define LATENCY(name, field, help)                                                                 \
    {                                                                                              \
        name, KV_METRIC_SECONDS, false, AT(row.field), help                                        \
    }
#define FIVE(id, what)                                                                             \
    LATENCY(#id "_mean", id.mean, what ", mean"), LATENCY(#id "_p50", id.p50, what ", median"),    \
        LATENCY(#id "_p90", id.p90, what ", 90th percentile"),                                     \
        LATENCY(#id "_p95", id.p95, what ", 95th percentile"),                                     \
        LATENCY(#id "_p99", id.p99, what ", 99th percentile")

const kv_metric kv_metrics[] = {
    {"accuracy", KV_METRIC_NUMBER, true, AT(accuracy),
     "of the task that fares worst; `of full`: as a share of the full cache's"},
    FIVE(ttft, "time to the first token"),
    FIVE(tpot, "time per further token"),
    FIVE(itl, "between two tokens"),
    FIVE(e2e, "time to the last token"),
    FIVE(queue, "time to admission"),
    {"goodput", KV_METRIC_NUMBER, true, AT(row.goodput),
     "requests per second within `serving.goodput`"},
    {"throughput_tok_s", KV_METRIC_NUMBER, true, AT(row.throughput_tok_s),
     "answer tokens per second"},
    {"price", KV_METRIC_NUMBER, false, AT(price), "per hour, of all devices"},
    {.name = NULL}};
#undef AT

static double measure_at(const kv_plan_measures *measures, size_t offset)
{
    double value;
    memcpy(&value, (const char *)measures + offset, sizeof value);
    return value;
}

/* --- Reading ------------------------------------------------------------------------------------
 */

static kv_err find_metric(const char *name, const kv_mark *mark, const kv_metric **out,
                          kv_diag *diag)
{
    const char *names[64];
    int count = 0;
    for (const kv_metric *m = kv_metrics; m->name != NULL; m++) {
        if (strcmp(m->name, name) == 0) {
            *out = m;
            return KV_OK;
        }
        names[count++] = m->name;
    }
    const char *near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark, "nothing called '%s' can be limited%s%s%s", name,
                   near != NULL ? "; did you mean '" : "; expected accuracy, ttft_p99, goodput ...",
                   near != NULL ? near : "", near != NULL ? "'?" : "");
}

static kv_err parse_value(const char *text, const kv_mark *mark, kv_limit *out, kv_diag *diag)
{
    const char *rest = text;
    double value;
    if (out->metric->kind == KV_METRIC_SECONDS) {
        kv_err err =
            kv_quantity_parse(kv_units_duration, out->metric->name, text, &value, mark, diag);
        if (err == KV_OK && !(value > 0))
            err =
                kv_fail(diag, KV_ERR_INPUT, mark, "%s: expected a time above 0", out->metric->name);
        out->value = value * 1e-9;
        return err;
    }
    bool number = kv_number_parse(text, &value, &rest) != 0 && rest != text;
    while (number && *rest == ' ')
        rest++;
    out->of_full =
        strcmp(out->metric->name, "accuracy") == 0 && number && strcmp(rest, "of full") == 0;
    out->value = value;
    if (!number || (*rest != '\0' && !out->of_full) || !(value > 0) || !isfinite(value))
        return kv_fail(diag, KV_ERR_INPUT, mark, "%s: expected a number above 0%s instead of '%s'",
                       out->metric->name,
                       strcmp(out->metric->name, "accuracy") == 0 ? ", such as 0.9 of full," : "",
                       text);
    if (strcmp(out->metric->name, "accuracy") == 0 && value > 1)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "accuracy: expected a fraction, at most 1, such as 0.9 of full, instead of "
                       "'%s'",
                       text);
    return KV_OK;
}

void kv_limit_text(const kv_limit *limit, double value, char *out, size_t bytes)
{
    char number[48];
    snprintf(number, sizeof number, "%.6g", value);
    if (limit->metric->kind == KV_METRIC_SECONDS)
        snprintf(number, sizeof number, value < 1 ? "%.6gms" : "%.6gs",
                 value < 1 ? 1e3 * value : value);
    snprintf(out, bytes, "%s %s %s%s", limit->metric->name,
             limit->metric->at_least ? ">=" : "<=", number, limit->of_full ? " of full" : "");
}

kv_err kv_limit_parse(const char *text, const kv_mark *mark, kv_limit *out, kv_diag *diag)
{
    char name[48], relation[3] = "";
    size_t letters = 0;
    *out = (kv_limit){.text = ""};
    text += strspn(text, " ");
    while (letters + 1 < sizeof name &&
           (isalnum((unsigned char)text[letters]) || text[letters] == '_'))
        letters++;
    snprintf(name, sizeof name, "%.*s", (int)letters, text);
    const char *rest = text + letters + strspn(text + letters, " ");
    size_t marks = strspn(rest, "<>=");
    if (letters == 0 || marks != 2)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "'%.80s' is no limit; expected something like ttft_p99 <= 2s", text);
    snprintf(relation, sizeof relation, "%.2s", rest);
    kv_err err = find_metric(name, mark, &out->metric, diag);
    if (err != KV_OK)
        return err;
    const char *wanted = out->metric->at_least ? ">=" : "<=";
    if (strcmp(relation, wanted) != 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "%s: expected %s instead of %s", name, wanted,
                       relation);
    rest += marks;
    err = parse_value(rest + strspn(rest, " "), mark, out, diag);
    if (err == KV_OK)
        kv_limit_text(out, out->value, out->text, sizeof out->text);
    return err;
}

/* --- Asking -------------------------------------------------------------------------------------
 */

double kv_limit_measure(const kv_limit *limit, const kv_plan_measures *measures)
{
    return limit->of_full ? measures->accuracy_of_full
                          : measure_at(measures, limit->metric->offset);
}

double kv_limit_excess(const kv_limit *limit, const kv_plan_measures *measures)
{
    double value = kv_limit_measure(limit, measures);
    if (isnan(value))
        return limit->metric->kind == KV_METRIC_SECONDS ? 0 : INFINITY;
    if (limit->metric->at_least && value <= 0)
        return INFINITY;
    double excess = (limit->metric->at_least ? limit->value / value : value / limit->value) - 1;
    return fabs(excess) <= KV_LIMIT_ROUNDING ? 0 : excess;
}
