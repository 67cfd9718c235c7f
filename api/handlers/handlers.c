#include "api/handlers/handlers.h"

#include <string.h>

#include "api/reply.h"
#include "api/stream.h"
#include "api/waiters.h"
#include "base/cleanup.h"
#include "base/str.h"

static const struct handler_table *const tables[] = {
    &handlers_sessions,     &handlers_components, &handlers_jobs,   &handlers_backups,
    &handlers_repositories, &handlers_inventory,  &handlers_health, &handlers_documents,
    &handlers_not_implemented, &handlers_snapshots,
    &handlers_access,       &handlers_metrics,    &handlers_login,  &handlers_webhooks,
    &handlers_events, &handlers_problems,
};

/* By index of the route. */
enum { ROUTES_MAX = 256 };
static const struct handler *bound[ROUTES_MAX];
static const struct api_route *resources[ROUTES_MAX];

static int bind_one(const struct handler *handler, struct err *err)
{
    for (size_t i = 0; i < api_n_routes; i++) {
        if (!str_eq(api_routes[i].operation_id, handler->operation_id))
            continue;
        if (bound[i])
            return err_set(err, VSS_E_UNEXPECTED, NULL, "operation %s has two handlers", handler->operation_id);
        bound[i] = handler;
        return 0;
    }
    return err_set(err, VSS_E_UNEXPECTED, NULL, "handler %s is for no operation of the contract",
                   handler->operation_id);
}

/* /sessions/{id}/context has no GET of its own: it is a part of /sessions/{id}. */
static const struct api_route *resource_of(const struct api_route *route)
{
    size_t length = strlen(route->path);

    while (length > 0) {
        for (size_t i = 0; i < api_n_routes; i++)
            if (str_eq(api_routes[i].method, "GET") && strlen(api_routes[i].path) == length &&
                strncmp(api_routes[i].path, route->path, length) == 0)
                return &api_routes[i];
        while (length > 0 && route->path[--length] != '/')
            ;
    }
    return NULL;
}

int handlers_bind(struct err *err)
{
    for (size_t i = 0; i < ROUTES_MAX; i++)
        bound[i] = NULL;
    if (api_n_routes > ROUTES_MAX)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "%zu routes, room for %d", api_n_routes, ROUTES_MAX);
    for (size_t t = 0; t < ELEMENTS(tables); t++)
        for (size_t i = 0; i < tables[t]->n; i++)
            if (bind_one(&tables[t]->rows[i], err) != 0)
                return -1;
    for (size_t i = 0; i < api_n_routes; i++)
        if (!bound[i])
            return err_set(err, VSS_E_UNEXPECTED, NULL, "operation %s has no handler", api_routes[i].operation_id);
    for (size_t i = 0; i < api_n_routes; i++) {
        resources[i] = resource_of(&api_routes[i]);
        if (resources[i] && !bound[resources[i] - api_routes]->call && api_routes[i].must_match)
            return err_set(err, VSS_E_UNEXPECTED, NULL, "operation %s: nobody can look at what it changes", api_routes[i].operation_id);
    }
    return 0;
}

const struct handler *handler_of(const struct api_route *route)
{
    return bound[route - api_routes];
}

const struct api_route *handler_resource(const struct api_route *route)
{
    return resources[route - api_routes];
}

void handlers_left(struct exchange *exchange)
{
    void *args[] = {exchange};

    if (exchange->stream) {
        engine_stream_close(TAKE_PTR(exchange->stream));
        http_stream_end(exchange->http, false);
    }
    if (exchange->events)
        stream_left(exchange->events);
    if (!exchange->waiter)
        return;
    waiter_remove(TAKE_PTR(exchange->waiter));
    jobs_woken(args, 1);
}
