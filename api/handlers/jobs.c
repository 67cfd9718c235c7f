/* Jobs, and waiting for them: GET /jobs/{id}?wait=S is IVssAsync::Wait followed by QueryStatus. */
#include <stdlib.h>
#include <string.h>

#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/waiters.h"
#include "base/cleanup.h"
#include "base/str.h"

enum { WAIT_SECONDS_MAX = 60 }; /* as in the contract */

/* --- waking --- */

/* Those who wait for the same job, from the call of the engine to its answer. */
struct crowd {
    size_t n;
    struct exchange *exchanges[];
};

static void reply_job(struct exchange *exchange, const struct engine_answer *answer, const char *text)
{
    if (exchange->preference)
        reply_header(exchange, "Preference-Applied", "wait=%d", exchange->wait_seconds);
    reply_engine(exchange, answer, text);
}

static void crowd_answered(void *arg, const struct engine_answer *answer)
{
    struct crowd *crowd = arg;
    AUTO_FREE char *text = reply_answer_text(answer);

    char etag[ETAG_SIZE] = "";
    if (text)
        etag_make(text, strlen(text), etag);
    for (size_t i = 0; i < crowd->n; i++) {
        str_copy(crowd->exchanges[i]->etag, sizeof(etag), etag);
        reply_job(crowd->exchanges[i], answer, text);
        exchange_unref(crowd->exchanges[i]);
    }
    free(crowd);
}

/* The job is read and written out once for all who wait: each was let in when it began to wait. */
void jobs_woken(void *const *args, size_t n)
{
    struct crowd *crowd = mem_new(sizeof(*crowd) + n * sizeof(crowd->exchanges[0]));

    for (size_t i = 0; i < n; i++) {
        crowd->exchanges[crowd->n] = exchange_ref(args[i]);
        crowd->exchanges[crowd->n++]->waiter = NULL;
    }
    struct exchange *first = crowd->exchanges[0];
    engine_call(first->api->engine, engine_job_get, &first->call, crowd_answered, crowd);
}

/* --- waiting --- */

static void job_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;
    const char *id = exchange->match.params[0];
    bool wait = exchange->http && exchange->wait_seconds > 0 && !exchange->api->draining && !answer->err;

    const struct waiter_spec spec = {id, exchange->principal.name, exchange->wait_seconds};

    wait = wait && engine_job_is_pending(exchange->api->engine, id);
    if (wait)
        exchange->waiter = waiter_add(exchange->api->waiters, &spec, exchange);
    if (!wait)
        reply_job(exchange, answer, NULL);
    else if (!exchange->waiter)
        reply_crowded(exchange, 429, "waits");
    exchange_unref(exchange);
}

static void job_get(struct exchange *exchange)
{
    int preferred = request_prefer_wait(http_header(exchange->http, "Prefer"), WAIT_SECONDS_MAX);

    exchange->preference = preferred >= 0 && !json_object_get(exchange->query, "wait");
    exchange->wait_seconds = exchange->preference ? preferred : (int)json_int(exchange->query, "wait", 0);
    exchange_call(exchange, engine_job_get, job_answered);
}

static const struct handler rows[] = {
    {"jobList", .call = engine_job_list},
    {"jobGet", .own = job_get, .call = engine_job_get},
    {"jobCancel", .call = engine_job_cancel},
    {"jobRelease", .call = engine_job_release},
};
const struct handler_table handlers_jobs = {rows, ELEMENTS(rows)};
