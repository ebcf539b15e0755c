/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/plot.h"

#include "analysis/gnuplot.h"
#include "analysis/output.h"
#include "analysis/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define KV_PLOT(id) extern const kv_plot_kind kv__plot_##id;
#include "analysis/plot_registry.inc"
#undef KV_PLOT

static const kv_plot_kind *const plot_table[] = {
#define KV_PLOT(id) &kv__plot_##id,
#include "analysis/plot_registry.inc"
#undef KV_PLOT
    NULL};

const kv_plot_kind *const *kv_plot_all(void)
{
    return plot_table;
}

const kv_plot_kind *kv_plot_find(const char *name)
{
    for (const kv_plot_kind *const *kind = plot_table; *kind != NULL; kind++)
        if (strcmp((*kind)->name, name) == 0)
            return *kind;
    return NULL;
}

bool kv_plot_format_of(const char *path, kv_plot_format *format)
{
    static const char *const ends[] = {".svg", ".png", ".pdf"};
    size_t bytes = strlen(path);
    for (int f = 0; f < 3; f++) {
        if (bytes > 4 && strcasecmp(path + bytes - 4, ends[f]) == 0) {
            *format = (kv_plot_format)f;
            return true;
        }
    }
    return false;
}

int kv_plot_font(kv_plot_format format)
{
    static const int sizes[] = {13, 10, 10}; /* pixels, points at 96 and at 100 to the inch */
    return sizes[format];
}

double kv_plot_point_scale(kv_plot_format format)
{
    return format == KV_PLOT_SVG ? 0.8 : format == KV_PLOT_PDF ? 0.6 : 1;
}

static void write_terminal(const kv_plot_options *canvas, FILE *script)
{
    static const char *const names[] = {"svg", "pngcairo", "pdfcairo"};
    static const char *const fonts[] = {"sans-serif", "sans", "sans"};
    kv_plot_format format = canvas->format;
    fprintf(script,
            "set encoding utf8\nset terminal %s noenhanced font '%s,%d' background '#ffffff' ",
            names[format], fonts[format], kv_plot_font(format));
    if (format == KV_PLOT_PDF)
        fprintf(script, "size %.3fin,%.3fin\n", canvas->width / 100.0, canvas->height / 100.0);
    else
        fprintf(script, "size %d,%d\n", canvas->width, canvas->height);
}

/* What the font has not is a question mark: PNG and PDF keep shapes, not characters, and without a
 * font for them these are boxes that hide the rest. */
static kv_err draw_drawable(FILE *script, int picture, kv_diag *diag)
{
    FILE *drawable = tmpfile();
    char *line = NULL;
    size_t room = 0;
    if (drawable == NULL)
        return kv_fail(diag, KV_ERR_IO, NULL, "cannot write a temporary file");
    rewind(script);
    for (ssize_t length; (length = getline(&line, &room, script)) > 0;)
        for (int i = 0, bytes; i < length; i += bytes) {
            bytes = kv__character(line + i);
            bool known = bytes == 0 || kv__drawable(line + i, bytes);
            bytes = bytes > 0 ? bytes : 1; /* the end of the line */
            fwrite(known ? line + i : "?", 1, known ? (size_t)bytes : 1, drawable);
        }
    kv_err err = ferror(script) || ferror(drawable)
                     ? kv_fail(diag, KV_ERR_IO, NULL, "cannot write a temporary file")
                     : kv__gnuplot_run(drawable, picture, diag);
    free(line);
    fclose(drawable);
    return err;
}

static kv_err draw(kv_results *results, const kv_plot_kind *kind, const kv_plot_options *canvas,
                   FILE *script, int picture, kv_diag *diag)
{
    write_terminal(canvas, script);
    kv_err err = kind->write(results, canvas, script, diag);
    if (err != KV_OK)
        return err;
    return (canvas->format == KV_PLOT_SVG ? kv__gnuplot_run : draw_drawable)(script, picture, diag);
}

kv_err kv_plot_draw(kv_results *results, const kv_plot_kind *kind, const kv_plot_options *options,
                    const char *path, kv_diag *diag)
{
    kv_plot_options canvas = *options;
    kv_output output;
    canvas.width = canvas.width ? canvas.width : kind->width;
    canvas.height = canvas.height ? canvas.height : kind->height;
    FILE *script = tmpfile();
    if (script == NULL)
        return kv_fail(diag, KV_ERR_IO, NULL, "cannot write a temporary file");
    kv_err err = kv__output_open(path, &output, diag);
    if (err == KV_OK) {
        err = draw(results, kind, &canvas, script, fileno(output.file), diag);
        err = kv__output_close(&output, err, diag);
    }
    fclose(script);
    return err;
}
