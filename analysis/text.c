/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/text.h"

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
