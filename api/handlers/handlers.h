#pragma once
/* Which code answers which operation of the contract: one file per resource, each a table. */
#include "api/exchange.h"

struct handler {
    const char *operation_id;
    engine_call_fn call;                    /* the engine's answer is the reply */
    void (*own)(struct exchange *exchange); /* or code of the API's own */
};

struct handler_table {
    const struct handler *rows;
    size_t n;
};
extern const struct handler_table handlers_sessions, handlers_components, handlers_jobs, handlers_backups,
    handlers_repositories, handlers_inventory, handlers_health, handlers_documents, handlers_not_implemented,
    handlers_snapshots, handlers_access, handlers_metrics, handlers_login, handlers_webhooks, handlers_events,
    handlers_problems;

/* Binds every route to its handler. Fails when a route has none, a handler no route, or an operation two handlers: such
 * a program must not start. */
int handlers_bind(struct err *err);
/* Of a route, after handlers_bind. */
const struct handler *handler_of(const struct api_route *route);

/* The GET of what a route changes: of the same path, or of the one above it; NULL = there is none. */
const struct api_route *handler_resource(const struct api_route *route);

/* The client of a waiting request has gone. */
void handlers_left(struct exchange *exchange);
/* waiters_woken_fn: answers the long-polls whose time has come. */
void jobs_woken(void *const *args, size_t n);
