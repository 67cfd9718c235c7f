#include "api/api.h"

#include <stdlib.h>

#include "api/auth.h"
#include "api/exchange.h"
#include "api/handlers/handlers.h"
#include "api/stream.h"
#include "api/tally.h"
#include "api/throttle.h"
#include "api/waiters.h"
#include "base/cleanup.h"
#include "base/str.h"

static void on_job(void *arg, const char *job_id)
{
    struct api *api = arg;

    if (!engine_job_is_pending(api->engine, job_id))
        waiters_wake(api->waiters, job_id);
}

struct api *api_new(struct loop *loop, struct engine *engine, const json_t *start, int handover_fd, struct err *err)
{
    AUTO_FD int handover = handover_fd;
    struct api *api = mem_new(sizeof(*api));

    *api = (struct api){.loop = loop, .engine = engine};
    api->throttle = throttle_new(json_object_get(json_object_get(start, "config"), "limits"));
    api->tally = tally_new();
    api->waiters = waiters_new(loop, jobs_woken);
    api->streams = streams_new(loop, engine, err);
    if (api->streams && handlers_bind(err) == 0 && api_reload(api, start, err) == 0)
        api->http = http_new(loop, TAKE_FD(handover), &exchange_events, api, err);
    if (!api->http) {
        api_free(api);
        return NULL;
    }
    engine_observe_jobs(engine, on_job, api);
    return api;
}

int api_reload(struct api *api, const json_t *message, struct err *err)
{
    struct auth *auth = auth_new(json_object_get(message, "principals"), err);

    if (!auth)
        return -1;
    auth_free(api->auth);
    api->auth = auth;
    const json_t *limits = json_object_get(json_object_get(message, "config"), "limits");
    throttle_reload(api->throttle, limits);
    waiters_reload(api->waiters, limits);
    streams_reload(api->streams, limits);
    free(api->ca_pem);
    api->ca_pem = str_dup(json_str(message, "ca_pem", NULL));
    free(api->audit_pem);
    api->audit_pem = str_dup(json_str(message, "audit_pem", NULL));
    return 0;
}

void api_take_figures(struct api *api, json_t *message)
{
    json_decref(api->figures);
    api->figures = json_incref(message);
}

void api_drain(struct api *api)
{
    api->draining = true;
    http_drain(api->http);
    waiters_wake_all(api->waiters);
    streams_drain(api->streams);
}

size_t api_close_idle(struct api *api)
{
    return http_close_idle(api->http);
}

void api_free(struct api *api)
{
    if (!api)
        return;
    http_free(api->http);
    waiters_free(api->waiters);
    streams_free(api->streams);
    throttle_free(api->throttle);
    tally_free(api->tally);
    auth_free(api->auth);
    json_decref(api->figures);
    free(api->ca_pem);
    free(api->audit_pem);
    free(api);
}
