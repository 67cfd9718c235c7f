#pragma once
/* W3C Trace Context: where a request belongs in its caller's trace. */
#include <stdbool.h>

enum { TRACEPARENT_SIZE = 56, TRACE_ID_SIZE = 33 };

/* header: `traceparent` as it came (NULL = none). Writes the one that goes on to writers and webhooks: the same trace and flags, with a
 * span of our own. false: there is none, or it is not valid, and is then as if it were not there, as the recommendation wants it. */
bool trace_take(const char *header, char ret[TRACEPARENT_SIZE]);
/* Its trace id: 32 hexadecimal digits. */
void trace_id(const char traceparent[TRACEPARENT_SIZE], char ret[TRACE_ID_SIZE]);
