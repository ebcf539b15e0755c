/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void kv_real_text(double value, char out[KV_REAL_TEXT])
{
    if (!isfinite(value)) {
        snprintf(out, KV_REAL_TEXT, "null");
        return;
    }
    if (value == rint(value) && fabs(value) < 1e16) {
        snprintf(out, KV_REAL_TEXT, "%.0f", value + 0.0); /* 1000 and not 1e+03; 0 and not -0 */
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, KV_REAL_TEXT, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            return;
    }
}

void kv_json_real(double value, FILE *out)
{
    char text[KV_REAL_TEXT];
    kv_real_text(value, text);
    fputs(text, out);
}

void kv_json_string(const char *text, FILE *out)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    putc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        const char *found = strchr(escaped, *c);
        if (found != NULL)
            fprintf(out, "\\%c", letter[found - escaped]);
        else if (*c < 0x20 || *c == 0x7f)
            fprintf(out, "\\u%04x", *c);
        else
            putc(*c, out);
    }
    putc('"', out);
}
