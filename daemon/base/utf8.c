#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* RFC 3629, section 4: what may follow a first byte. */
static const struct utf8_row {
    unsigned char first_min, first_max, second_min, second_max;
    size_t length;
} utf8_rows[] = {
    {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

size_t utf8_span(const char *text, size_t left)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; left > 0 && i < ELEMENTS(utf8_rows); i++) {
        const struct utf8_row *row = &utf8_rows[i];
        if (p[0] < row->first_min || p[0] > row->first_max)
            continue;
        if (left < row->length || (row->length > 1 && (p[1] < row->second_min || p[1] > row->second_max)))
            return 0;
        for (size_t k = 2; k < row->length; k++)
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        return row->length;
    }
    return 0;
}

void utf8_escape(char *ret, size_t size, const char *text)
{
    size_t at = strlen(ret);
    for (size_t left = strlen(text); left;) {
        size_t span = utf8_span(text, left);
        if (span == 1 && ((unsigned char)*text < 0x20 || *text == 0x7f || *text == '\\'))
            span = 0;
        if (at + (span ? span : 4) >= size)
            break;
        if (span)
            memcpy(ret + at, text, span);
        else
            snprintf(ret + at, size - at, "\\x%02x", (unsigned char)*text);
        at += span ? span : 4;
        text += span ? span : 1;
        left -= span ? span : 1;
    }
    ret[at] = '\0';
}
