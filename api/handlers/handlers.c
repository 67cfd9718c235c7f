#include "api/handlers/handlers.h"

#include "api/reply.h"
#include "api/waiters.h"
#include "base/cleanup.h"
#include "base/str.h"

static const struct handler_table *const tables[] = {
    &handlers_sessions,     &handlers_components, &handlers_jobs,   &handlers_backups,
    &handlers_repositories, &handlers_inventory,  &handlers_health, &handlers_documents,
};

/* By index of the route. */
enum { ROUTES_MAX = 256 };
static const struct handler *bound[ROUTES_MAX];

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
    return 0;
}

const struct handler *handler_of(const struct api_route *route)
{
    return bound[route - api_routes];
}

void handlers_left(struct exchange *exchange)
{
    void *args[] = {exchange};

    if (!exchange->waiter)
        return;
    waiter_remove(TAKE_PTR(exchange->waiter));
    jobs_woken(args, 1);
}
