/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/text.h"

#include <stdbool.h>
#include <stdint.h>

int kv__character(const char *text)
{
    static const uint32_t least[] = {0, 0x20, 0xa0, 0x800, 0x10000}; /* by bytes */
    const unsigned char *byte = (const unsigned char *)text;
    int bytes = byte[0] < 0x80   ? 1
                : byte[0] < 0xc0 ? 0
                : byte[0] < 0xe0 ? 2
                : byte[0] < 0xf0 ? 3
                : byte[0] < 0xf8 ? 4
                                 : 0;
    if (bytes == 0 || byte[0] == 0x7f)
        return 0;
    uint32_t code = bytes == 1 ? byte[0] : byte[0] & (0x7fu >> bytes);
    for (int i = 1; i < bytes; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (byte[i] & 0x3fu);
    }
    if (code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ||
        (code & 0xfffe) == 0xfffe)
        return 0;
    return bytes;
}

static uint32_t code_of(const char *text, int bytes)
{
    const unsigned char *byte = (const unsigned char *)text;
    uint32_t code = bytes == 1 ? byte[0] : byte[0] & (0x7fu >> bytes);
    for (int i = 1; i < bytes; i++)
        code = code << 6 | (byte[i] & 0x3fu);
    return code;
}

kv_direction kv__direction(const char *text, int bytes)
{
    uint32_t c = bytes > 0 ? code_of(text, bytes) : 0;
    bool right = (c >= 0x590 && c < 0x900) || c == 0x200f || (c >= 0xfb1d && c < 0xfe00) ||
                 (c >= 0xfe70 && c < 0xff00) || (c >= 0x10800 && c < 0x11000) ||
                 (c >= 0x1e800 && c < 0x1f000);
    return right                                                      ? KV_DIRECTION_RIGHT
           : c == 0x202c                                              ? KV_DIRECTION_END_EMBED
           : c == 0x2069                                              ? KV_DIRECTION_END_ISOLATE
           : c == 0x202a || c == 0x202b || c == 0x202d || c == 0x202e ? KV_DIRECTION_EMBED
           : c >= 0x2066 && c <= 0x2068                               ? KV_DIRECTION_ISOLATE
                                                                      : KV_DIRECTION_NONE;
}

/* Marks that are not seen and act on what stands beside them. */
static bool turns(const char *text, int bytes)
{
    uint32_t c = code_of(text, bytes);
    return c == 0x200e || c == 0x200f || c == 0x61c ||
           kv__direction(text, bytes) > KV_DIRECTION_RIGHT;
}

void kv__plain_write(const char *text, int bytes, FILE *out)
{
    for (int i = 0, taken; i < bytes; i += taken) {
        taken = kv__character(text + i);
        bool plain = taken > 0 && taken <= bytes - i && !turns(text + i, taken);
        fwrite(plain ? text + i : "?", 1, plain ? (size_t)taken : 1, out);
        taken = taken ? taken : 1;
    }
}

bool kv__drawable(const char *text, int bytes)
{
    static const struct {
        uint32_t first, last;
    } has[] = {{0x20, 0x2e9},    {0x300, 0x34f},   {0x38e, 0x3a1},   {0x3a3, 0x525},
               {0x531, 0x556},   {0x561, 0x587},   {0x5d0, 0x5ea},   {0x621, 0x63a},
               {0x640, 0x655},   {0x10d0, 0x10fc}, {0x1e00, 0x1efb}, {0x1f20, 0x1f45},
               {0x1f80, 0x1fb4}, {0x2000, 0x2064}, {0x2074, 0x208e}, {0x2090, 0x209c},
               {0x20a0, 0x20b5}, {0x210b, 0x2149}, {0x2150, 0x2185}, {0x2190, 0x2311},
               {0x2500, 0x269c}, {0x2701, 0x2701}, {0x2761, 0x2794}, {0x27f0, 0x28ff},
               {0x384, 0x38a},   {0x38c, 0x38c},   {0xfffd, 0xfffd}};
    uint32_t c = code_of(text, bytes);
    bool any = false;
    for (size_t i = 0; i < sizeof has / sizeof has[0]; i++)
        any = any || (c >= has[i].first && c <= has[i].last);
    return any;
}

double kv__text_width(const char *text, double size)
{
    static const short advance[] = {
        /* of ' ' to '~', in thousandths of the size */
        318,  401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337,
        636,  636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531,
        1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787,
        603,  787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500,
        500,  613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612,
        635,  635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838};
    double sum = 0;
    for (int bytes; *text; text += bytes ? bytes : 1) {
        bytes = kv__character(text);
        if (bytes == 1)
            sum += advance[*text - ' '];
        else if (bytes > 1) /* few letters beyond Latin, Greek and Cyrillic are not wide */
            sum += bytes == 2 ? 700 : 1000;
    }
    return sum / 1000 * size;
}
