#pragma once
/* Arguments of a request against its route: media type, JSON, body schema, query parameters. */
#include "api/exchange.h"

/* Nothing that a request of ours needs is nested deeper; a Backup Components Document has 8 levels. */
enum { REQUEST_DEPTH_MAX = 32 };

/* Fills exchange->body and exchange->query, or replies with 400 or 415. */
void request_check(struct exchange *exchange);
/* Seconds of `wait=S` in a Prefer header (RFC 7240), at most `most`; -1 when there is none that can be understood. */
int request_prefer_wait(const char *prefer, int most);
