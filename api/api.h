#pragma once
/* The API: what a request needs beside itself. One thread, one loop. */
#include <jansson.h>
#include <stdbool.h>

#include "api/http.h"
#include "base/err.h"
#include "base/loop.h"
#include "engine/engine.h"

struct auth;
struct streams;
struct tally;
struct throttle;
struct waiters;

struct api {
    struct loop *loop;
    struct engine *engine;
    struct http *http;
    struct auth *auth;
    struct throttle *throttle;
    struct tally *tally;
    struct waiters *waiters; /* long-polls */
    struct streams *streams; /* of events */
    json_t *figures;         /* of the other roles: {"roles","restarts"}, or NULL */
    char *ca_pem;            /* NULL when there is none */
    char *audit_pem;         /* of the key that seals the audit trail; the same */
    bool draining;
};

/* start: serve's start message to core; engine: borrowed; handover_fd: owned, on failure too. */
struct api *api_new(struct loop *loop, struct engine *engine, const json_t *start, int handover_fd, struct err *err);
/* Principals and CA from a reload message. On failure everything stays as it was. */
int api_reload(struct api *api, const json_t *message, struct err *err);
/* Serve's message of what the other roles count. */
void api_take_figures(struct api *api, json_t *message /* borrowed */);
/* Waiting readers are answered at once; from now on only reads and cancels are taken. */
void api_drain(struct api *api);
/* Closes idle connections; how many requests are still in hand. */
size_t api_close_idle(struct api *api);
void api_free(struct api *api);
