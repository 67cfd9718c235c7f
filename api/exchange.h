#pragma once
/* One request and its answer. It outlives a client that leaves: the engine answers exactly once, and holds a reference
 * until then. */
#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api.h"
#include "api/auth.h"
#include "api/http.h"
#include "api/openapi.gen.h"
#include "api/route.h"
#include "api/throttle.h"
#include "api/trace.h"
#include "base/jsonspec.h"
#include "engine/engine.h"
#include "engine/etag.h"

enum { EXCHANGE_FAULTS_MAX = 16, REQUEST_ID_SIZE = 65 };

struct stream;
struct waiter;

struct exchange {
    struct api *api;
    struct http_request *http; /* NULL once the connection is done with it */
    int refs;
    char request_id[REQUEST_ID_SIZE];
    char traceparent[TRACEPARENT_SIZE], trace_id[TRACE_ID_SIZE]; /* "" = none */
    char instance[256]; /* path of the target, for problem bodies */
    struct route_match match;
    char from[INET6_ADDRSTRLEN]; /* the caller's address */
    struct throttle_key address;
    struct principal principal;  /* its scopes are a reference of ours */
    enum auth_kind auth_kind;
    char *upload;
    size_t upload_size, upload_room;
    size_t swallowed; /* bytes of a body that nobody wants */
    json_t *body;     /* checked; NULL when the operation takes none */
    json_t *query;    /* checked */
    struct json_fault faults[EXCHANGE_FAULTS_MAX];
    size_t n_faults;
    struct engine_request call; /* points into this exchange */
    struct http_reply reply;    /* being built */
    bool replied;               /* reply is final; refused ones may wait for the end of the body */
    uint32_t refused_hr;        /* of the problem that is replied */
    char refused_reason[48];
    bool sent;
    struct waiter *waiter; /* long-poll in hand */
    char *key;                  /* Idempotency-Key, checked; NULL = none */
    struct engine_stream *stream; /* the body that is being sent */
    struct stream *events;        /* the same, of events */
    char *if_match, *if_none_match; /* checked; NULL = none */
    char etag[ETAG_SIZE];       /* of the reply, when somebody has made it already; else "" */
    bool preference;       /* `wait` came from Prefer */
    int wait_seconds;
};

extern const struct http_events exchange_events;

struct exchange *exchange_ref(struct exchange *exchange);
void exchange_unref(struct exchange *exchange);
/* Do role and scopes allow the operation? */
bool exchange_permitted(const struct exchange *exchange);
/* The reply refuses the caller's credential, or him for want of one: the audit trail hears of it, if the call would change something. */
void exchange_turned_away(struct exchange *exchange);
/* Hands the reply to the connection, if there is still one. Called by reply.c when the request has ended. */
void exchange_send(struct exchange *exchange);
/* Calls the engine with this request; answer gets the exchange, which stays alive until then. */
void exchange_call(struct exchange *exchange, engine_call_fn call, engine_answer_fn answer);
