#pragma once
/* The gate's own reading of a head, beside llhttp's: line by line, once it is there as a whole. */
#include <stddef.h>
#include <stdint.h>

#include "front/gate.h"

enum framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED };

struct head {
    enum framing framing;
    uint64_t length; /* FRAMING_LENGTH */
    int minor;       /* of HTTP/1.x */
    size_t cost;     /* what libmicrohttpd needs beside the text: see GATE_FIELD_COST */
    bool cookies;
    unsigned seen; /* headers that may be there once, as bits */
};

/* bytes: whole lines that end in CR LF, the last one empty, free of other control characters but tabs. Returns NULL
 * and fills *ret, or why it is refused. */
const struct refusal *head_read(const uint8_t *bytes, size_t length, const struct gate_limits *limits,
                                struct head *ret);
/* Gives every Cookie header of a head that was read another name of the same length. libmicrohttpd 0.9.75 would parse
 * them: it needs twice their memory, and reads past a quote that is not closed. api/login.c looks for its own by the
 * other name; browsers send those of other services on the host, too. */
void head_hide_cookies(uint8_t *bytes, size_t length);
