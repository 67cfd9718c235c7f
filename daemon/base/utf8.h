#pragma once
#include <stddef.h>

/* Length (1 to 4) of the well-formed UTF-8 character at text (RFC 3629: no overlong forms, no surrogates,
 * at most U+10FFFF), looking at no more than left bytes; 0 when there is none. */
size_t utf8_span(const char *text, size_t left);
/* Appends text to the NUL-terminated ret, which has room for size bytes, for people to read: bytes that are no printable UTF-8, and the
 * backslash, as \xNN. What does not fit is left out. */
void utf8_escape(char *ret, size_t size, const char *text);
