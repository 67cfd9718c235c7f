#pragma once
/* One request and its answer. It outlives a client that leaves: the engine answers exactly once, and holds a reference
 * until then. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api.h"
#include "api/auth.h"
#include "api/http.h"
#include "api/openapi.gen.h"
#include "api/route.h"
#include "base/jsonspec.h"
#include "engine/engine.h"

enum { EXCHANGE_FAULTS_MAX = 16, REQUEST_ID_SIZE = 65 };

struct waiter;

struct exchange {
    struct api *api;
    struct http_request *http; /* NULL once the connection is done with it */
    int refs;
    char request_id[REQUEST_ID_SIZE];
    char instance[256]; /* path of the target, for problem bodies */
    struct route_match match;
    struct principal principal;
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
    bool sent;
    struct waiter *waiter; /* long-poll in hand */
    bool preference;       /* `wait` came from Prefer */
    int wait_seconds;
};

extern const struct http_events exchange_events;

struct exchange *exchange_ref(struct exchange *exchange);
void exchange_unref(struct exchange *exchange);
/* Hands the reply to the connection, if there is still one. Called by reply.c when the request has ended. */
void exchange_send(struct exchange *exchange);
/* Calls the engine with this request; answer gets the exchange, which stays alive until then. */
void exchange_call(struct exchange *exchange, engine_call_fn call, engine_answer_fn answer);
