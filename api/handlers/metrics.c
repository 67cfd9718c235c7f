/* GET /metrics: figures from memory. The store is not asked, so that it answers while the store is parked, too. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/accept.h"
#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "api/role_figures.h"
#include "api/stream.h"
#include "api/tally.h"
#include "api/waiters.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/openmetrics.h"
#include "base/process_figures.h"
#include "base/str.h"

#define OPENMETRICS_TYPE "application/openmetrics-text"
#define PROMETHEUS_TYPE "text/plain"

/* The weight that a list of media ranges (RFC 9110, 12.5.1) gives to a type, in thousandths; 0 when it is not named: wildcards
 * leave the choice to us. */
static int weight_of(const char *accept, const char *type)
{
    size_t length = strlen(type);

    while (*accept) {
        accept += strspn(accept, ", \t");
        size_t range = strcspn(accept, ",");
        if (strncasecmp(accept, type, length) == 0 && strchr(",; \t", accept[length])) {
            const char *q = accept + length;
            while ((q = memchr(q, ';', (size_t)(accept + range - q)))) {
                q += 1 + strspn(q + 1, " \t");
                if (strncasecmp(q, "q=", 2) == 0)
                    return (int)(1000 * strtod(q + 2, NULL));
            }
            return 1000;
        }
        accept += range;
    }
    return 0;
}

/* Either that, or the other one is refused; that one of them is acceptable has been seen to. */
static bool wants_prometheus(const char *accept)
{
    static const char *const openmetrics[] = {OPENMETRICS_TYPE, NULL};

    return accept && (weight_of(accept, PROMETHEUS_TYPE) > weight_of(accept, OPENMETRICS_TYPE) || !accept_allows(accept, openmetrics));
}

static void write_api(const struct exchange *exchange, struct openmetrics *text)
{
    const struct api *api = exchange->api;

    tally_write(api->tally, text);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_waiters", "Long-polls in hand.");
    openmetrics_plain(text, (double)waiters_count(api->waiters));
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_event_streams", "Streams of events in hand.");
    openmetrics_plain(text, (double)streams_count(api->streams));
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "quiesced_loop_turn_seconds",
                       "Turns of core's event loop: what happens meanwhile waits for up to that long.");
    openmetrics_histogram(text, NULL, 0, &histogram_latency_bounds, loop_turn_times(api->loop));
}

static void metrics(struct exchange *exchange)
{
    const struct principal *who = &exchange->principal;
    bool prometheus = wants_prometheus(http_header(exchange->http, "Accept"));
    struct openmetrics *text = openmetrics_new(prometheus);
    size_t size;

    openmetrics_family(text, OPENMETRICS_INFO, "quiesced_build", "Which program this is.");
    openmetrics_one(text, "version", openapi_version, 1);
    engine_metrics(exchange->api->engine, text, engine_sees_all(who));
    write_api(exchange, text);
    role_figures_write(exchange->api->figures, text);
    process_figures(text);
    char *body = openmetrics_end(text, &size);
    reply_header(exchange, "Vary", "Accept");
    reply_owned(exchange,
                prometheus ? PROMETHEUS_TYPE "; version=0.0.4; charset=utf-8" : OPENMETRICS_TYPE "; version=1.0.0; charset=utf-8",
                body, size);
    exchange_send(exchange);
}

static const struct handler rows[] = {
    {"metrics", .own = metrics},
};
const struct handler_table handlers_metrics = {rows, ELEMENTS(rows)};
