#pragma once
/* The API: what a request needs beside itself. One thread, one loop. */
#include <jansson.h>
#include <stdbool.h>

#include "api/http.h"
#include "base/err.h"
#include "base/loop.h"
#include "engine/engine.h"

struct auth;
struct waiters;

struct api {
    struct loop *loop;
    struct engine *engine;
    struct http *http;
    struct auth *auth;
    struct waiters *waiters; /* long-polls */
    char *ca_pem;            /* NULL when there is none */
    bool draining;
};

/* start: serve's start message to core; engine: borrowed; handover_fd: owned, on failure too. */
struct api *api_new(struct loop *loop, struct engine *engine, const json_t *start, int handover_fd, struct err *err);
/* Principals and CA from a reload message. On failure everything stays as it was. */
int api_reload(struct api *api, const json_t *message, struct err *err);
/* Waiting readers are answered at once; from now on only reads and cancels are taken. */
void api_drain(struct api *api);
/* Closes idle connections; how many requests are still in hand. */
size_t api_close_idle(struct api *api);
void api_free(struct api *api);
