#pragma once
/* The framing gate: judges the decrypted bytes of one connection before core's libmicrohttpd, which is lax, sees them.
 * A head passes only when it is there as a whole and every rule of RFC 9112 that keeps two readers of one message from
 * reading it differently holds; so core has no part of a head in hand that a client is slow with. A body passes as it
 * comes. Two readers look at a head, llhttp (strict) and front/gate_head.c: both must find the same end and body. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "front/refusal.h"

struct gate;

struct gate_limits {
    size_t head_bytes; /* request line and headers, as sent, and GATE_FIELD_COST for each header and query parameter */
    size_t headers;
    uint64_t body_bytes;
};

/* What libmicrohttpd takes of its connection's memory for one of these beside its text. */
enum { GATE_FIELD_COST = 64 };

/* What may pass, in this order. */
struct gate_pass {
    uint8_t *kept; /* a head's bytes that came with earlier calls; the caller frees them; NULL = none */
    size_t kept_length;
    const uint8_t *rest; /* within the bytes that were given */
    size_t rest_length;
};

enum gate_place {
    GATE_BETWEEN, /* no byte of a further request has come */
    GATE_HEAD,
    GATE_BODY,
};

struct gate *gate_new(const struct gate_limits *limits /* copied */);
void gate_free(struct gate *gate); /* NULL is fine */
/* Judges further bytes, which it may move about within themselves; cookies lose their name (front/gate_head.h). Always
 * fills *ret. Returns NULL, or why the connection must end after *ret: then it must not be called again. */
const struct refusal *gate_feed(struct gate *gate, uint8_t *bytes, size_t length, struct gate_pass *ret);

enum gate_place gate_place(const struct gate *gate);
uint64_t gate_requests(const struct gate *gate); /* how many heads have passed */
bool gate_head_only(const struct gate *gate);    /* the request in hand is a HEAD: its reply has no body */
