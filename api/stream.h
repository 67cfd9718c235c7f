#pragma once
/* Streams of server-sent events (WHATWG HTML, 9.2). A stream reads the past from the store, page by page, and from then on what all
 * streams share in memory (recent.h), with no queue of its own: one that does not take what it is sent costs a frame, and is dropped when
 * RECENT_EVENTS have come meanwhile (front drops it earlier: limits.least_bytes_per_second). */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "engine/engine.h"

struct exchange;
struct stream;
struct streams;

/* NULL with err: the store cannot be read. */
struct streams *streams_new(struct loop *loop, struct engine *engine, struct err *err);
void streams_free(struct streams *streams); /* NULL is fine; no stream may be left */
/* limits of the configuration: streams (4,096), streams_per_principal (256), heartbeat_seconds (15). */
void streams_reload(struct streams *streams, const json_t *limits);
size_t streams_count(const struct streams *streams);
/* Every stream ends, in order. */
void streams_drain(struct streams *streams);

/* Last-Event-ID: digits alone, up to what is exact in every language (2^53 - 1, as in the contract). false: it is no id. */
bool stream_read_id(const char *text, int64_t *ret);

struct stream_spec {
    const char *job_id;   /* only this one's, until its end; NULL = all that the principal may see */
    const json_t *job;    /* as it is now: sent first, and the end when it has ended; NULL = none */
    int64_t after;        /* id; -1 = from now on */
};
/* Answers the exchange: with a stream, or that there are too many. The query's members `session` and `types` are filters. */
void stream_begin(struct exchange *exchange, const struct stream_spec *spec);
void stream_left(struct stream *stream); /* the client has gone */
void stream_free(struct stream *stream); /* the request is over; NULL is fine */
