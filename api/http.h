#pragma once
/* HTTP over plain sockets: libmicrohttpd in its external epoll mode inside our loop. Nobody else includes its header.
 * A request is `begin` (headers), `upload` (body, piecewise), `end`; it is answered once with http_answer, in begin
 * (then a body that is still on its way costs the connection), in end, or at any later time on the loop. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/preface.h"

/* HTTP_CONNECTION_MEMORY: where libmicrohttpd keeps request line, headers, a piece of the body and the reply's head.
 * All of it is touched, so that it is most of what an idle connection costs (measured: 8.7 kB with 8 KiB, 20.7 kB with
 * 20 KiB). What front passes leaves room in it for our largest reply head (base/preface.h: HEAD_BYTES_MAX). */
enum {
    HTTP_CONNECTION_MEMORY = 8 * 1024,
    HTTP_CONNECTIONS_MAX = 16384,
    HTTP_IDLE_SECONDS = 300
};
enum { HTTP_HEADERS_MAX = 16 };

struct http;
struct http_request;
struct sockaddr;

struct http_header {
    const char *name; /* static */
    char *value;      /* owned by the reply */
};
struct http_reply {
    int status;
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    char *body; /* NULL = none */
    size_t size;
    bool body_static; /* body outlives everything and is not freed */
    /* The body comes out of a pipe instead, until http_stream_end: front reads it (front/body.h), we never do. */
    bool stream;
    int pipe; /* its reading end, owned; -1: the reply to HEAD, which has none */
    /* Or it comes bit by bit, with the request's state. Fills at most room bytes and returns how many; 0:
     * none now, http_wake when there are; HTTP_END, HTTP_BREAK. Never after `done`. */
    long (*read)(void *state, char *buffer, size_t room);
};
enum { HTTP_END = -1, HTTP_BREAK = -2 }; /* it is whole; it never will be: the connection goes */

struct http_events {
    /* Headers are there. content_length: -1 when the body is chunked, 0 without a body. Returns the request's state,
     * never NULL. */
    void *(*begin)(void *arg, struct http_request *request, int64_t content_length);
    /* false: gives up; the connection is closed without an answer. */
    bool (*upload)(void *state, const char *data, size_t size);
    void (*end)(void *state);
    /* The client has gone while the answer is pending, while its body streams, or while `read` has nothing. The request must still be
     * answered, the stream ended, the reader woken; nobody will read it. */
    void (*left)(void *state);
    /* The request is over and `request` is invalid from now on; called once per begin, answered or not. */
    void (*done)(void *state);
};

/* handover_fd: SOCK_SEQPACKET from front (base/preface.h), owned. */
struct http *http_new(struct loop *loop, int handover_fd, const struct http_events *events, void *arg, struct err *err);
/* Drops every connection; unanswered requests get done(). NULL is fine. */
void http_free(struct http *http);
/* Every further reply closes its connection. */
void http_drain(struct http *http);
/* Closes the connections on which no request is in hand; returns how many others there are. */
size_t http_close_idle(struct http *http);

const char *http_method(const struct http_request *request);
const char *http_target(const struct http_request *request);                   /* raw; of the absolute form without scheme and host */
const char *http_header(const struct http_request *request, const char *name); /* NULL = absent */
bool http_header_repeated(const struct http_request *request, const char *name); /* more than once */
const struct preface *http_preface(const struct http_request *request);        /* NULL without a certificate or peer */
const struct sockaddr *http_peer(const struct http_request *request); /* the client's address */
/* Takes what reply owns (and clears it). */
void http_answer(struct http_request *request, struct http_reply *reply);
void http_reply_clear(struct http_reply *reply);
/* Ends the body of a stream: with the last chunk, or with a reset of the connection. What is in the pipe still comes
 * before the last chunk. */
void http_stream_end(struct http_request *request, bool whole);
/* Does the client's version of HTTP have chunks? Without them a body that breaks off looks whole. */
bool http_knows_chunks(const struct http_request *request);
/* `read` is called again on the loop's next turn. Nothing happens when it has not said that there is nothing. */
void http_wake(struct http_request *request);
/* The connection goes, however much it is stuck; done follows. */
void http_drop(struct http_request *request);
