#pragma once
/* From method and raw target to a row of the route table. */
#include <stdbool.h>
#include <stddef.h>

#include "api/openapi.gen.h"

enum { ROUTE_PARAMS_MAX = 2, ROUTE_ALLOW_SIZE = 64 };

struct route_match {
    const struct api_route *route;  /* NULL when the path is known and the method is not (or is OPTIONS) */
    char allow[ROUTE_ALLOW_SIZE];   /* "GET, HEAD, OPTIONS" of the path */
    char *params[ROUTE_PARAMS_MAX]; /* decoded, owned; NULL = none */
    const char *query;              /* raw, into the target; "" when there is none */
};

/* true when the path is known. Literal segments are compared as they were sent: nothing is decoded or folded, so that
 * "%2e%2e",
 * "//" and "%00" match no path. HEAD finds GET's route. */
bool route_find(const char *target, const char *method, struct route_match *ret);
void route_match_clear(struct route_match *match);
/* A request target of the absolute form (RFC 9112 3.2.2) without scheme and host; any other one as it is. malloc'ed. */
char *route_origin_form(const char *target);

/* Percent-decodes [text, text + length) strictly: well-formed escapes, valid UTF-8, no control characters. malloc'ed,
 * or NULL. */
char *route_decode(const char *text, size_t length, bool plus_is_space);
