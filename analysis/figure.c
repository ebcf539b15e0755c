/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/figure.h"

#include "analysis/sheet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Okabe and Ito (2008), without yellow, which white swallows; their black is the dark grey. */
static const char *const palette[] = {"#0072b2", "#e69f00", "#009e73",    "#cc79a7",
                                      "#d55e00", "#56b4e9", KV_FIGURE_INK};
/* Filled shapes first; they are told apart at small sizes. */
static const int point_types[] = {7, 5, 9, 13, 11, 15, 6, 4, 8, 12, 10, 14};
enum {
    COLOURS = sizeof palette / sizeof palette[0],
    POINTS = sizeof point_types / sizeof point_types[0],
    DASHES = 5,
    MOST_BANDS = 4 /* more of them hide one another: bars then */
};

const char *kv__figure_colour(int colour)
{
    return palette[colour % COLOURS];
}

int kv__figure_point(int series)
{
    return point_types[series % POINTS];
}

int kv__figure_dash(int series)
{
    return 1 + series / COLOURS % DASHES;
}

void kv__series_text(const kv_series *series, int letters, char *out, size_t bytes)
{
    char chunk[64] = ", whole prompt", title[512];
    if (series->chunk_tokens)
        snprintf(chunk, sizeof chunk, ", chunk %lld", series->chunk_tokens);
    if (series->oracle)
        strcat(chunk, " (sees the future)");
    int room = letters - (int)strlen(chunk);
    kv__text_fit(series->title, letters == 0 ? 0 : room > 5 ? room : 5, title, sizeof title);
    snprintf(out, bytes, "%s%s", title, chunk);
}

/* --- which series ------------------------------------------------------------------ */

static bool is_full(const kv_curve *curve)
{
    return strcmp(curve->policy, "full") == 0;
}

static bool same_series(const kv_series *series, const kv_curve *curve)
{
    return series->chunk_tokens == curve->chunk_tokens && strcmp(series->label, curve->label) == 0;
}

static const kv_curve *find_curve(const kv_figure *figure, int task, const kv_series *series)
{
    for (int c = 0; c < figure->curves->curves; c++) {
        const kv_curve *curve = &figure->curves->curve[c];
        if (strcmp(curve->task, figure->task[task]) == 0 && same_series(series, curve))
            return curve;
    }
    return NULL;
}

const kv_curve *kv__figure_curve(const kv_figure *figure, int task, int series)
{
    return find_curve(figure, task, &figure->series[series]);
}

const kv_curve *kv__figure_full(const kv_figure *figure, int task)
{
    for (int c = 0; c < figure->curves->curves; c++) {
        const kv_curve *curve = &figure->curves->curve[c];
        if (is_full(curve) && strcmp(curve->task, figure->task[task]) == 0)
            return curve;
    }
    return NULL;
}

const kv_curve *kv__figure_known(const kv_figure *figure, int task)
{
    for (int c = 0; c < figure->curves->curves; c++) {
        const kv_curve *curve = &figure->curves->curve[c];
        if (curve->has_critical && strcmp(curve->task, figure->task[task]) == 0)
            return curve;
    }
    return NULL;
}

const char *kv__figure_source(const kv_figure *figure)
{
    const char *source = "measured";
    for (int c = 0; c < figure->curves->curves; c++)
        if (strcmp(figure->curves->curve[c].source, "measured") != 0)
            source = figure->curves->curve[c].source;
    return source;
}

/* Collects tasks and all series but the full policy's, in the order of the experiment. */
static void collect(kv_figure *figure)
{
    for (int c = 0; c < figure->curves->curves; c++) {
        const kv_curve *curve = &figure->curves->curve[c];
        int task = 0, series = 0;
        while (task < figure->tasks && strcmp(figure->task[task], curve->task) != 0)
            task++;
        if (task == figure->tasks)
            figure->task[figure->tasks++] = curve->task;
        while (series < figure->count && !same_series(&figure->series[series], curve))
            series++;
        if (series == figure->count && !is_full(curve))
            figure->series[figure->count++] = (kv_series){.label = curve->label,
                                                          .title = curve->title,
                                                          .chunk_tokens = curve->chunk_tokens,
                                                          .oracle = curve->oracle};
    }
}

/* How far apart two chunk sizes are, in octaves; the whole prompt is far from any number. */
static double chunk_distance(long long a, long long b)
{
    return fabs(log2(a ? (double)a : 1e12) - log2(b ? (double)b : 1e12));
}

/* The chunk size that most policies have; the larger one of equals. */
static long long commonest_chunk(const kv_figure *figure)
{
    long long best = 0;
    int best_times = 0;
    for (int i = 0; i < figure->count; i++) {
        long long chunk = figure->series[i].chunk_tokens;
        int times = 0;
        for (int j = 0; j < figure->count; j++)
            times += figure->series[j].chunk_tokens == chunk;
        if (times > best_times || (times == best_times && chunk > best)) {
            best = chunk;
            best_times = times;
        }
    }
    return best;
}

/* Keeps, of each policy, the series whose chunk size is nearest to the commonest. */
static long long keep_one_chunk(kv_figure *figure)
{
    long long chunk = commonest_chunk(figure);
    int kept = 0;
    for (int i = 0; i < figure->count; i++) {
        const kv_series *series = &figure->series[i];
        bool nearest = true;
        for (int j = 0; j < figure->count && nearest; j++) {
            double mine = chunk_distance(series->chunk_tokens, chunk);
            double other = chunk_distance(figure->series[j].chunk_tokens, chunk);
            nearest = strcmp(figure->series[j].label, series->label) != 0 || mine < other ||
                      (mine == other && i <= j);
        }
        if (nearest) {
            kv_series copy = *series; /* places before i are free only after i was compared */
            figure->series[i] = figure->series[kept];
            figure->series[kept++] = copy;
        }
    }
    figure->count = kept;
    return chunk;
}

/* Mean critical footprint over tasks; a bound counts as what it bounds, nothing as the worst. */
static double rank_of(const kv_figure *figure, const kv_series *series)
{
    double sum = 0;
    for (int t = 0; t < figure->tasks; t++) {
        const kv_curve *curve = find_curve(figure, t, series);
        if (curve == NULL || !curve->has_critical || curve->status == KV_CRITICAL_NEVER)
            sum += 1;
        else
            sum += curve->status == KV_CRITICAL_OK ? curve->kv_footprint
                                                   : curve->point[0].kv_footprint;
    }
    return sum / figure->tasks;
}

/* Drops the series that rank worst until `most` are left; the others keep their order. */
static void keep_best(kv_figure *figure, int most)
{
    while (figure->count > most) {
        int worst = 0;
        double worst_rank = -1;
        for (int i = 0; i < figure->count; i++) {
            double rank = rank_of(figure, &figure->series[i]);
            if (rank >= worst_rank) {
                worst = i;
                worst_rank = rank;
            }
        }
        figure->count--;
        memmove(&figure->series[worst], &figure->series[worst + 1],
                (size_t)(figure->count - worst) * sizeof *figure->series);
    }
}

static void choose(kv_figure *figure, int most)
{
    int all = figure->count;
    if (all <= most)
        return;
    char chunk[24];
    if (!figure->curves->chunks_given)
        kv_chunk_text(keep_one_chunk(figure), chunk);
    bool many = figure->count > most;
    keep_best(figure, most);
    figure->hidden = all - figure->count;
    if (figure->curves->chunks_given) {
        snprintf(figure->note, sizeof figure->note,
                 "Shown: %d of %d curves (least critical footprints); --policy selects others.",
                 figure->count, all);
        return;
    }
    snprintf(figure->note, sizeof figure->note,
             "Shown: %d of %d curves (chunk size %s%s%s); --policy and --chunk-size select others.",
             figure->count, all, chunk, chunk[0] == 'w' ? "" : " or nearest",
             many ? ", least critical footprints" : "");
}

/* --- looks ------------------------------------------------------------------------- */

/* The colour that stands for black, which oracles have to themselves where there are any. */
enum { INK = COLOURS - 1 };

/* Oracles: dashed, in ink, with a small cross. */
static void give_reference_looks(kv_figure *figure)
{
    static const int dash[] = {2, 3, 4, 5};
    static const int cross[] = {1, 2};
    int oracles = 0;
    for (int i = 0; i < figure->count; i++)
        if (figure->series[i].oracle) {
            figure->series[i].colour = INK;
            figure->series[i].dash = dash[oracles % 4];
            figure->series[i].point = cross[oracles++ % 2];
        }
}

int kv__figure_open_point(const kv_figure *figure, int series)
{
    enum { OPEN = POINTS / 2 }; /* of point_types, the second half */
    int oracles = 0;
    for (int i = 0; i < series; i++)
        oracles += figure->series[i].oracle;
    return figure->series[series].oracle ? point_types[OPEN + oracles % OPEN]
                                         : figure->series[series].point;
}

static bool has_oracle(const kv_figure *figure)
{
    for (int i = 0; i < figure->count; i++)
        if (figure->series[i].oracle)
            return true;
    return false;
}

/* Colour follows the policy and dashes the chunk size; points differ from series to series, so that
 * no two differ by colour alone. */
static void give_looks(kv_figure *figure)
{
    int labels = 0;
    bool reserved = has_oracle(figure);
    for (int i = 0; i < figure->count; i++) {
        kv_series *series = &figure->series[i];
        int colour = -1, chunk = 0;
        if (series->oracle)
            continue;
        labels += reserved && labels % COLOURS == INK;
        for (int j = 0; j < i; j++) {
            if (strcmp(figure->series[j].label, series->label) == 0) {
                colour = figure->series[j].colour;
                chunk++;
            }
        }
        series->colour = colour >= 0 ? colour : labels++;
        series->dash = 1 + (series->colour / COLOURS + chunk) % DASHES;
        series->point = point_types[i % POINTS];
    }
    give_reference_looks(figure);
}

kv_err kv__figure_init(kv_figure *figure, const kv_curves *curves, int most, kv_diag *diag)
{
    size_t room = (size_t)curves->curves + 1;
    *figure = (kv_figure){.curves = curves,
                          .task = calloc(room, sizeof *figure->task),
                          .series = calloc(room, sizeof *figure->series)};
    if (figure->task == NULL || figure->series == NULL) {
        kv__figure_fini(figure);
        return kv_fail_memory(diag);
    }
    collect(figure);
    choose(figure, most);
    give_looks(figure);
    return KV_OK;
}

void kv__figure_fini(kv_figure *figure)
{
    free(figure->task);
    free(figure->series);
    figure->task = NULL;
    figure->series = NULL;
}

/* --- panels ------------------------------------------------------------------------ */

kv_axes kv__figure_axes(const kv_figure *figure)
{
    double most = 0;
    for (int c = 0; c < figure->curves->curves; c++) {
        const kv_curve *curve = &figure->curves->curve[c];
        for (int p = 0; p < curve->points; p++) {
            most = fmax(most, curve->point[p].accuracy); /* fmax leaves out NaN */
            most = fmax(most, curve->point[p].hi);
        }
    }
    return (kv_axes){100, most > 0.5 ? 1.05 : most > 0 ? 1.1 * most : 1};
}

/* Blocks $cI (percent, accuracy, lo, hi) and $kI (the critical footprint). */
static void write_data(const kv_figure *figure, int task, FILE *script)
{
    for (int i = 0; i < figure->count; i++) {
        const kv_curve *curve = kv__figure_curve(figure, task, i);
        if (curve == NULL)
            continue;
        fprintf(script, "$c%d << EOD\n", i);
        for (int p = 0; p < curve->points; p++) {
            const kv_curve_point *point = &curve->point[p];
            bool open = isnan(point->lo) || isnan(point->hi);
            if (!isnan(point->accuracy) && !isnan(point->kv_footprint))
                fprintf(script, "%.10g %.10g %.10g %.10g\n", 100 * point->kv_footprint,
                        point->accuracy, open ? point->accuracy : point->lo,
                        open ? point->accuracy : point->hi);
        }
        fputs("EOD\n", script);
        if (curve->has_critical && curve->status == KV_CRITICAL_OK)
            fprintf(script, "$k%d << EOD\n%.10g %.10g\nEOD\n", i, 100 * curve->kv_footprint,
                    curve->threshold * curve->full_accuracy);
    }
}

static bool has_points(const kv_curve *curve)
{
    for (int p = 0; curve != NULL && p < curve->points; p++)
        if (!isnan(curve->point[p].accuracy) && !isnan(curve->point[p].kv_footprint))
            return true;
    return false;
}

/* The line of the target and the point of the full policy. */
static int write_reference(const kv_figure *figure, int task, double scale, FILE *script)
{
    const kv_curve *known = kv__figure_known(figure, task), *full = kv__figure_full(figure, task);
    int written = 0;
    if (known != NULL) {
        double y = known->threshold * known->full_accuracy;
        fprintf(script, "$t << EOD\n0 %.10g\n%.10g %.10g\nEOD\n", y, kv__figure_axes(figure).x_most,
                y);
    }
    if (has_points(full))
        fprintf(script, "$f << EOD\n%.10g %.10g\nEOD\n", 100 * full->point[0].kv_footprint,
                full->point[0].accuracy);
    fputs("plot ", script);
    if (known != NULL)
        written +=
            fprintf(script, "$t using 1:2 with lines lw 1 dt 2 lc rgb '#808080' notitle") > 0;
    if (has_points(full))
        written +=
            fprintf(script,
                    "%s$f using 1:2 with points pt 3 ps %.3g lw 1.5 lc rgb '#808080' notitle",
                    written ? ", " : "", 1.4 * scale) > 0;
    return written;
}

int kv__figure_panel(const kv_figure *figure, int task, double scale, FILE *script,
                     int *plot_series)
{
    write_data(figure, task, script);
    int elements = write_reference(figure, task, scale, script);
    for (int e = 0; e < elements; e++)
        plot_series[e] = -1;
    for (int i = 0; i < figure->count; i++) {
        const kv_curve *curve = kv__figure_curve(figure, task, i);
        const kv_series *series = &figure->series[i];
        const char *colour = kv__figure_colour(series->colour);
        if (!has_points(curve))
            continue;
        fprintf(script, elements ? ", " : "");
        if (series->oracle) {
            fprintf(script,
                    "$c%d using 1:2 with linespoints lw 1.5 dt %d pt %d ps %.3g lc rgb '%s' "
                    "notitle",
                    i, series->dash, series->point, 0.6 * scale, colour);
            plot_series[elements++] = i;
            continue;
        }
        if (figure->count <= MOST_BANDS)
            fprintf(script,
                    "$c%d using 1:3:4 with filledcurves lc rgb '%s' fs transparent solid 0.14 "
                    "noborder notitle",
                    i, colour);
        else
            fprintf(script, /* bars of yerrorbars come with a point in white */
                    "$c%d using 1:3:(0):($4-$3) with vectors nohead lw 1 lc rgb '#90%s' notitle", i,
                    colour + 1);
        fprintf(script,
                ", $c%d using 1:2 with linespoints lw 2 dt %d pt %d ps %.3g lc rgb '%s' notitle", i,
                series->dash, series->point, 0.8 * scale, colour);
        plot_series[elements++] = i;
        plot_series[elements++] = i;
        if (curve->has_critical && curve->status == KV_CRITICAL_OK) {
            fprintf(script, ", $k%d using 1:2 with points pt 6 ps %.3g lw 2 lc rgb '%s' notitle", i,
                    1.9 * scale, colour);
            plot_series[elements++] = i;
        }
    }
    fputs(elements ? "\n" : "NaN notitle\n", script);
    return elements;
}
