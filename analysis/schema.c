/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/schema.h"

#include "analysis/measure.h"
#include "analysis/plan_results.h"
#include "analysis/serving_tables.h"
#include "analysis/views.h"
#include "sim/base/json.h"

#include <stdlib.h>
#include <string.h>

static const kv_column run_columns[] = {
    {"id", "INTEGER PRIMARY KEY", "", "number of the run in this file, from 1"},
    {"name", "TEXT NOT NULL", "", "name of the experiment"},
    {"experiment", "TEXT NOT NULL", "", "the whole experiment as resolved, YAML"},
    {"seed", "INTEGER NOT NULL", "", "seed of everything that is random"},
    {"version", "TEXT NOT NULL", "", "of the kvsim that ran it"},
    {"shard", "INTEGER", "", "which part of the experiment this is, from 1; NULL: all of it"},
    {"shards", "INTEGER", "", "into how many parts it was divided; NULL: not"},
    {"started_at", "TEXT NOT NULL", "UTC", "when it began, ISO 8601"},
    {"finished_at", "TEXT", "UTC", "when it was complete; NULL: it is not"},
    {"wall_seconds", "REAL", "s", "time taken by the process that finished it"},
    {.name = NULL}};

static const kv_column latest_run_columns[] = {
    {"(as run)", "", "", "the last run that is complete, else the last one"}, {.name = NULL}};

static const kv_table run_tables[] = {
    {.name = "run", .help = "One experiment from begin to finish.", .column = run_columns},
    {.name = "latest_run",
     .help = "The run that plots and reports show.",
     .column = latest_run_columns,
     .rest = "SELECT * FROM run ORDER BY finished_at IS NULL, id DESC LIMIT 1",
     .is_view = true},
    {.name = NULL}};

static const kv_column attention_run_columns[] = {
    {"run_id", "INTEGER PRIMARY KEY REFERENCES run(id)", "", "the run"},
    {"threshold", "REAL NOT NULL", "fraction", "of the full accuracy, at critical footprints"},
    {"confidence", "REAL NOT NULL", "fraction", "of all intervals"},
    {"resamples", "INTEGER NOT NULL", "", "of the examples, behind each interval"},
    {"accuracy_model", "TEXT NOT NULL", "", "what predicted accuracy"},
    {"accuracy_spec", "TEXT", "", "what that model was given"},
    {"first_point", "INTEGER NOT NULL", "", "footprint_point.id of the run's first point"},
    {"point_rows", "INTEGER NOT NULL", "", "rows of footprint_point that belong to the run"},
    {"done", "INTEGER NOT NULL DEFAULT 0", "", "1 once its tables are complete"},
    {.name = NULL}};

static const kv_column example_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "place in the run, from 0"},
    {"example", "TEXT NOT NULL", "",
     "its name; with its trace before it where two traces use one name"},
    {"name", "TEXT NOT NULL", "", "its name in the trace"},
    {"task", "TEXT NOT NULL", "", "task it belongs to"},
    {"turns", "INTEGER NOT NULL", "", "questions it asks"},
    {"prompt_tokens", "INTEGER NOT NULL", "tokens", "before its first answer"},
    {"full_score", "REAL", "fraction", "the model's score with the full cache"},
    {"trace", "TEXT NOT NULL", "", "path of its trace, as the experiment has it"},
    {"digest", "TEXT NOT NULL", "", "SHA-256 of that trace"},
    {"calibrates", "INTEGER NOT NULL", "", "1 if the accuracy model was fitted on it"},
    {"calibration_only", "INTEGER NOT NULL", "",
     "1 if it serves the accuracy model and is in no other table"},
    {.name = NULL}};

static const kv_column footprint_point_columns[] = {
    {"id", "INTEGER PRIMARY KEY", "", "number of the point"},
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"task", "TEXT NOT NULL", "", "task its examples belong to"},
    {"turn", "INTEGER", "", "turn of a conversation, from 1; NULL: all turns together"},
    {"policy", "TEXT NOT NULL", "", "name of the retention policy"},
    {"params", "TEXT NOT NULL", "", "all its settings, canonical JSON"},
    {"curve", "TEXT NOT NULL", "",
     "its settings without the budget: points with equal policy, curve and chunk_size are a curve"},
    {"label", "TEXT NOT NULL", "", "policy and settings in few words"},
    {"saves",
     "TEXT NOT NULL DEFAULT 'entries' CHECK (saves IN ('entries', 'bytes', 'reads', 'prefill'))",
     "",
     "what to compare it by: entries (retention alone), bytes (with a transform), reads (with a "
     "read "
     "policy) or prefill (with one that reads less in prefill alone)"},
    {"chunk_size", "INTEGER", "tokens", "tokens prefilled in one step; NULL: the whole prompt"},
    {"keep", "REAL", "fraction", "what the policy is told to keep; NULL: it is told otherwise"},
    {"n_examples", "INTEGER NOT NULL", "", "examples averaged; averages are means of ratios"},
    {"*", "", "", ""},
    {"accuracy", "REAL", "fraction", "accuracy of the model's answers; NULL: not known"},
    {"accuracy_lo", "REAL", "fraction", "lower end of its interval; NULL: not known"},
    {"accuracy_hi", "REAL", "fraction", "upper end of its interval; NULL: not known"},
    {"accuracy_source",
     "TEXT NOT NULL CHECK (accuracy_source IN ('measured', 'calibrated', 'proxy'))", "",
     "measured (given), calibrated (predicted by a model fitted to measurements) or proxy (a rule; "
     "no accuracy was measured)"},
    {"accuracy_interval", "TEXT NOT NULL", "", "what the interval contains"},
    {.name = NULL}};

static const kv_column example_point_columns[] = {
    {"point_id", "INTEGER NOT NULL REFERENCES footprint_point(id)", "", "the point"},
    {"example", "TEXT NOT NULL", "", "example.example"},
    {"turn", "INTEGER", "", "turn of the point; NULL: all turns together"},
    {"*", "", "", ""},
    {"accuracy", "REAL", "fraction",
     "predicted for this example; NULL: not known, or measured for all at once"},
    {.name = NULL}};

static const kv_column retained_set_columns[] = {
    {"point_id", "INTEGER NOT NULL REFERENCES footprint_point(id)", "",
     "the point, all turns together"},
    {"example", "TEXT NOT NULL", "", "example.example"},
    {"layer", "INTEGER NOT NULL", "", "layer, from 0"},
    {"kv_head", "INTEGER NOT NULL", "", "KV head, from 0"},
    {"positions", "TEXT NOT NULL", "tokens",
     "JSON array of the positions in memory after the last prefill chunk, ascending"},
    {.name = NULL}};

static const kv_column critical_footprint_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"task", "TEXT NOT NULL", "", "task of the curve"},
    {"turn", "INTEGER", "", "turn of the curve; NULL: all turns together"},
    {"policy", "TEXT NOT NULL", "", "policy of the curve"},
    {"params", "TEXT NOT NULL", "", "its settings without the budget: footprint_point.curve"},
    {"label", "TEXT NOT NULL", "", "policy and settings in few words"},
    {"chunk_size", "INTEGER", "tokens", "chunk size of the curve; NULL: the whole prompt"},
    {"threshold", "REAL NOT NULL", "fraction", "share of the full accuracy that must remain"},
    {"full_accuracy", "REAL NOT NULL", "fraction",
     "accuracy of policy `full`, else mean full_score of the examples"},
    {"kv_footprint", "REAL", "fraction",
     "where the curve crosses threshold x full_accuracy, nearest the small end; NULL unless ok"},
    {"first_crossing", "REAL", "fraction",
     "the crossing nearest the large end: above it the curve stays on its side; NULL unless ok"},
    {"lo", "REAL", "fraction",
     "lower end of the interval of kv_footprint; status never: of how much is needed at least, "
     "where "
     "no resample reaches the target the largest footprint seen; NULL: open, below every point"},
    {"hi", "REAL", "fraction",
     "upper end; status always: of how much is needed at most, where all resamples stay above the "
     "target the smallest footprint seen; NULL: open, above every point"},
    {"status", "TEXT NOT NULL CHECK (status IN ('ok', 'always', 'never'))", "",
     "ok: the curve crosses; always: every point is above; never: none is"},
    {"kv_footprint_bytes", "REAL", "fraction",
     "kv_footprint on the axis of footprint_point.kv_footprint_bytes, as the next three are"},
    {"bytes_lo", "REAL", "fraction", "lo on that axis"},
    {"bytes_hi", "REAL", "fraction", "hi on that axis"},
    {"bytes_status", "TEXT CHECK (bytes_status IN ('ok', 'always', 'never'))", "",
     "status on that axis; NULL: bytes are not known"},
    {"points", "INTEGER NOT NULL", "", "points on the curve"},
    {"accuracy_source",
     "TEXT NOT NULL CHECK (accuracy_source IN ('measured', 'calibrated', 'proxy'))", "",
     "the weakest source among its points"},
    {.name = NULL}};

static const kv_column curve_columns[] = {
    {"run_id, task, turn, policy, params, label, chunk_size", "", "",
     "which curve, as in critical_footprint"},
    {"keep, kv_footprint, accuracy, accuracy_lo, accuracy_hi, accuracy_source", "", "",
     "its points, sorted by footprint"},
    {.name = NULL}};

static const kv_column calibration_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"task", "TEXT NOT NULL", "", "task that was measured"},
    {"fit", "TEXT NOT NULL CHECK (fit IN ('own', 'shared', 'none'))", "",
     "own: fitted to points of this task; shared: to points of all tasks; none: too few points"},
    {"points", "INTEGER NOT NULL", "", "measured points behind the fit, policy full aside"},
    {"policies", "INTEGER NOT NULL", "", "their policies"},
    {"examples", "INTEGER NOT NULL", "", "recorded examples that the points were replayed on"},
    {"full_accuracy", "REAL NOT NULL", "fraction", "accuracy with the full cache"},
    {"full_measured", "INTEGER NOT NULL", "",
     "1 if that was measured, 0 if it is the mean full_score of the examples"},
    {"steepness", "REAL", "", "b of the link"},
    {"midpoint", "REAL", "fraction", "m of the link"},
    {"query_midpoint", "REAL", "fraction", "t of the link"},
    {"guess", "REAL", "fraction", "g of the link; NULL: not fitted, values were recorded"},
    {"covariance", "TEXT", "", "of ln b, m, t and, if fitted, logit g: JSON matrix"},
    {"residual_rms", "REAL", "fraction", "root mean square of what the fit misses"},
    {"held_out_mae", "REAL", "fraction",
     "mean absolute error of points whose policy the fit had not seen"},
    {"held_out_rms", "REAL", "fraction", "root mean square of the same errors"},
    {"held_out_max", "REAL", "fraction", "the largest of them"},
    {"held_out_bias", "REAL", "fraction", "their mean, predicted less measured"},
    {"held_out_turn_mae", "REAL", "fraction", "mean absolute error of points of single turns"},
    {"coverage", "REAL", "fraction", "share of held-out points that lie within their interval"},
    {"spread", "REAL", "", "size of the held-out errors in units of docs/calibration.md"},
    {"turn_spread", "REAL", "", "the same for single turns"},
    {"critical_mae", "REAL", "fraction",
     "mean absolute error of held-out critical footprints, where both curves cross"},
    {"critical_curves", "INTEGER NOT NULL", "", "curves where both cross"},
    {"critical_differ", "INTEGER NOT NULL", "",
     "curves of which measured and held-out accuracies differ in whether they cross"},
    {.name = NULL}};

static const kv_column calibration_point_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"task", "TEXT NOT NULL", "", "task"},
    {"turn", "INTEGER", "", "turn; NULL: all turns together"},
    {"policy", "TEXT NOT NULL", "", "policy that was measured"},
    {"params", "TEXT NOT NULL", "", "all its settings, canonical JSON"},
    {"label", "TEXT NOT NULL", "", "policy and settings in few words"},
    {"chunk_size", "INTEGER", "tokens", "tokens prefilled in one step; NULL: the whole prompt"},
    {"n", "REAL", "", "examples behind the measurement; NULL: not known"},
    {"fitted_to", "INTEGER NOT NULL", "", "1 if the fit saw it, 0 if it is only compared"},
    {"accuracy", "REAL NOT NULL", "fraction", "as measured"},
    {"fitted", "REAL", "fraction", "as the fit has it"},
    {"held_out", "REAL", "fraction", "predicted by a fit that had not seen its policy"},
    {"held_out_lo", "REAL", "fraction", "lower end of that prediction's interval"},
    {"held_out_hi", "REAL", "fraction", "upper end"},
    {"kv_footprint", "REAL", "fraction", "of the replay"},
    {"evidence_output", "REAL", "fraction", "x of the link, mean of examples and turns"},
    {"query_intact", "REAL", "fraction", "q of the link, mean of examples and turns"},
    {.name = NULL}};

static const kv_column calibration_policy_columns[] = {
    {"run_id, task, policy", "", "", "the held-out policy"},
    {"points, mae, max, bias", "", "fraction",
     "its points of all turns together, and how wrong they are when the fit has not seen it"},
    {.name = NULL}};

static const kv_column warning_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "from 0"},
    {"text", "TEXT NOT NULL", "", "what a reader of the results should know"},
    {.name = NULL}};

static const kv_column attention_point_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "place in the sweep, from 0"},
    {"policy", "TEXT NOT NULL", "", "as in footprint_point"},
    {"params", "TEXT NOT NULL", "", "as in footprint_point"},
    {"curve", "TEXT NOT NULL", "", "as in footprint_point"},
    {"label", "TEXT NOT NULL", "", "as in footprint_point"},
    {"saves", "TEXT NOT NULL", "", "as in footprint_point"},
    {"task", "TEXT", "", "the only task it is replayed on; NULL: all"},
    {"chunk_size", "INTEGER", "tokens", "as in footprint_point"},
    {"keep", "REAL", "fraction", "as in footprint_point"},
    {"calibration_only", "INTEGER NOT NULL", "", "as in example"},
    {.name = NULL}};

static const kv_column attention_unit_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"number", "INTEGER NOT NULL", "", "example.number"},
    {"records", "BLOB NOT NULL", "", "measures of every point and turn, little-endian doubles"},
    {.name = NULL}};

static const kv_column attention_set_columns[] = {
    {"run_id", "INTEGER NOT NULL REFERENCES run(id)", "", "the run"},
    {"point", "INTEGER NOT NULL", "", "attention_point.number"},
    {"example", "INTEGER NOT NULL", "", "example.number"},
    {"sets", "BLOB NOT NULL", "",
     "layer, KV head, count and positions of each set, little-endian 32-bit integers"},
    {.name = NULL}};

static const kv_table attention_tables[] = {
    {.name = "attention_run",
     .help = "Settings of the attention part of a run.",
     .column = attention_run_columns},
    {.name = "example",
     .help = "The examples of a run and the traces they come from.",
     .column = example_columns,
     .rest = "PRIMARY KEY (run_id, number)"},
    {.name = "footprint_point",
     .help = "What one policy under one chunk size does on one task, averaged over examples.",
     .column = footprint_point_columns},
    {.name = "example_point",
     .help = "The same for each example.",
     .column = example_point_columns,
     .rest = "PRIMARY KEY (point_id, example)",
     .without_rowid = true},
    {.name = "retained_set",
     .help = "Which KV entries stay; filled when the experiment says `keep_sets: true` and, for "
             "policies whose counts depend on scores, when it also serves requests.",
     .column = retained_set_columns,
     .rest = "PRIMARY KEY (point_id, example, layer, kv_head)",
     .without_rowid = true},
    {.name = "critical_footprint",
     .help = "The least footprint at which accuracy is still at least the threshold times the full "
             "accuracy, for each curve.",
     .column = critical_footprint_columns},
    {.name = "curve",
     .help = "footprint_point as curves.",
     .column = curve_columns,
     .rest = "SELECT run_id, task, turn, policy, curve AS params, label, chunk_size, keep, "
             "kv_footprint, accuracy, accuracy_lo, accuracy_hi, accuracy_source "
             "FROM footprint_point ORDER BY run_id, task, turn, policy, curve, "
             "chunk_size IS NULL, chunk_size, kv_footprint, id",
     .is_view = true},
    {.name = "calibration",
     .help = "How accuracy was calibrated, and how well it predicts unseen policies.",
     .column = calibration_columns,
     .rest = "PRIMARY KEY (run_id, task)"},
    {.name = "calibration_point",
     .help = "The measured accuracies behind it.",
     .column = calibration_point_columns},
    {.name = "calibration_policy",
     .help = "Errors of each policy that was left out.",
     .column = calibration_policy_columns,
     .rest = "SELECT run_id, task, policy, count(*) AS points, "
             "avg(abs(held_out - accuracy)) AS mae, max(abs(held_out - accuracy)) AS max, "
             "avg(held_out - accuracy) AS bias FROM calibration_point "
             "WHERE fitted_to AND held_out IS NOT NULL GROUP BY run_id, task, policy",
     .is_view = true},
    {.name = "warning",
     .help = "What a reader of the results should know.",
     .column = warning_columns,
     .rest = "PRIMARY KEY (run_id, number)"},
    {.name = "attention_point",
     .help = "Work table: the points of a run that is not complete.",
     .column = attention_point_columns,
     .rest = "PRIMARY KEY (run_id, number)",
     .without_rowid = true},
    {.name = "attention_unit",
     .help = "Work table: the finished examples of a run that is not complete.",
     .column = attention_unit_columns,
     .rest = "PRIMARY KEY (run_id, number)"},
    {.name = "attention_set",
     .help = "Work table: the retained sets of a run that is not complete.",
     .column = attention_set_columns,
     .rest = "PRIMARY KEY (run_id, point, example)"},
    {.name = NULL}};

static const kv_table *const parts[] = {run_tables,      attention_tables, kv__serving_tables,
                                        kv__plan_tables, kv__view_tables,  NULL};

const kv_table *const *kv_schema_parts(void)
{
    return parts;
}

const kv_table *kv_schema_find(const char *name)
{
    for (const kv_table *const *part = parts; *part != NULL; part++)
        for (const kv_table *table = *part; table->name != NULL; table++)
            if (strcmp(table->name, name) == 0)
                return table;
    return NULL;
}

/* Calls write once per real column: "*" becomes one column per measure. */
static void each_column(const kv_table *table, FILE *out,
                        void (*write)(FILE *out, bool first, const kv_column *column))
{
    bool first = true;
    for (const kv_column *c = table->column; c->name != NULL; c++) {
        int count = strcmp(c->name, "*") == 0 ? KV_MEASURES : 1;
        for (int i = 0; i < count; i++, first = false) {
            kv_column column = *c;
            if (count > 1) {
                const kv_measure_info *m = kv_measure_get((kv_measure)i);
                column = (kv_column){m->name, "REAL", m->unit, m->help};
            }
            write(out, first, &column);
        }
    }
}

static void write_definition(FILE *out, bool first, const kv_column *column)
{
    fprintf(out, "%s%s %s", first ? "" : ", ", column->name, column->type);
}

static void write_name(FILE *out, bool first, const kv_column *column)
{
    fprintf(out, "%s%s", first ? "" : ", ", column->name);
}

static void write_mark(FILE *out, bool first, const kv_column *column)
{
    fputs(first ? "?" : ", ?", out);
}

static void write_create(FILE *out, const kv_table *table)
{
    if (table->is_view) {
        fprintf(out, "CREATE VIEW %s AS %s;\n", table->name, table->rest);
        return;
    }
    fprintf(out, "CREATE TABLE %s (", table->name);
    each_column(table, out, write_definition);
    if (table->rest != NULL)
        fprintf(out, ", %s", table->rest);
    fprintf(out, ")%s;\n", table->without_rowid ? " WITHOUT ROWID" : "");
}

/* Closes a memory stream: its text, or NULL if anything went wrong. */
static char *close_text(FILE *out, char **text)
{
    bool bad = ferror(out) != 0;
    if ((fclose(out) != 0 || bad) && *text != NULL) {
        free(*text);
        return NULL;
    }
    return *text;
}

char *kv_schema_create(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    for (const kv_table *const *part = parts; *part != NULL; part++)
        for (const kv_table *table = *part; table->name != NULL; table++)
            write_create(out, table);
    fputs("CREATE INDEX footprint_point_curve ON footprint_point"
          "(run_id, task, turn, policy, chunk_size);\n",
          out);
    return close_text(out, &text);
}

char *kv_schema_insert(const kv_table *table)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    fprintf(out, "INSERT INTO %s (", table->name);
    each_column(table, out, write_name);
    fputs(") VALUES (", out);
    each_column(table, out, write_mark);
    fputs(")", out);
    return close_text(out, &text);
}

/* The first word of "REAL NOT NULL ..." and whether the rest matters to a reader. */
static void write_markdown_row(FILE *out, bool first, const kv_column *column)
{
    int word = (int)strcspn(column->type, " ");
    fprintf(out, "| `%s` | %.*s | %s | %s |\n", column->name, word, column->type, column->unit,
            column->help);
}

void kv_schema_markdown(FILE *out)
{
    for (const kv_table *const *part = parts; *part != NULL; part++) {
        for (const kv_table *table = *part; table->name != NULL; table++) {
            fprintf(out, "### `%s`%s\n\n%s\n\n| column | type | unit | meaning |\n", table->name,
                    table->is_view ? " (view)" : "", table->help);
            fputs("| --- | --- | --- | --- |\n", out);
            each_column(table, out, write_markdown_row);
            fputs("\n", out);
        }
    }
}

/* --- datasette -------------------------------------------------------------------------------- */

static void write_description(FILE *out, bool first, const kv_column *column)
{
    char text[512];
    snprintf(text, sizeof text, "%s%s%s%s", column->help, *column->unit ? " (" : "", column->unit,
             *column->unit ? ")" : "");
    fputs(first ? "\n          " : ",\n          ", out);
    kv_json_string(column->name, out);
    fputs(": ", out);
    kv_json_string(text, out);
}

/* One description per name of a view's columns. */
static void describe_view(FILE *out, const kv_table *view)
{
    bool first = true;
    for (const kv_column *c = view->column; c->name != NULL; c++) {
        char name[64];
        if (sscanf(c->name, "(as %63[a-z_])", name) == 1) {
            fputs(first ? "" : ",", out);
            each_column(kv_schema_find(name), out, write_description);
            first = false;
            continue;
        }
        for (const char *at = c->name; *at != '\0'; first = false) {
            int letters = (int)strcspn(at, ",");
            snprintf(name, sizeof name, "%.*s", letters, at);
            kv_column column = {name, c->type, c->unit, c->help};
            write_description(out, first, &column);
            at += letters + (int)strspn(at + letters, ", ");
        }
    }
}

bool kv_schema_is_work(const kv_table *table)
{
    return strncmp(table->help, "Work table", strlen("Work table")) == 0;
}

/* Work tables are hidden. */
static void write_table_metadata(FILE *out, const kv_table *table)
{
    bool work = kv_schema_is_work(table);
    fputs("      ", out);
    kv_json_string(table->name, out);
    fputs(": {\"description\": ", out);
    kv_json_string(table->help, out);
    if (work)
        fputs(", \"hidden\": true", out);
    fputs(",\n        \"columns\": {", out);
    if (table->is_view)
        describe_view(out, table);
    else
        each_column(table, out, write_description);
    fputs("}}", out);
}

void kv_schema_datasette(const char *database, FILE *out)
{
    bool first = true;
    fputs("{\n  \"title\": \"kvsim\",\n  \"description\": \"Results of kvsim: docs/results.md "
          "explains them.\",\n  \"databases\": {\n    ",
          out);
    kv_json_string(database, out);
    fputs(": {\n      \"tables\": {\n", out);
    for (const kv_table *const *part = parts; *part != NULL; part++)
        for (const kv_table *table = *part; table->name != NULL; table++) {
            fputs(first ? "" : ",\n", out);
            write_table_metadata(out, table);
            first = false;
        }
    fputs("\n      }\n    }\n  }\n}\n", out);
}
