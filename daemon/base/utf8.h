#pragma once
#include <stddef.h>

/* Length (1 to 4) of the well-formed UTF-8 character at text (RFC 3629: no overlong forms, no surrogates,
 * at most U+10FFFF), looking at no more than left bytes; 0 when there is none. */
size_t utf8_span(const char *text, size_t left);
