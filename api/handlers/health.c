/* The daemon about itself and its caller. */
#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "base/cleanup.h"

static void live(struct exchange *exchange)
{
    AUTO_JSON json_t *body = json_pack("{s:b}", "live", 1);

    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

/* Whatever status the engine chose: the body decides, and a daemon that stops is not ready. */
static void ready_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    if (answer->err || !exchange->http) {
        reply_engine(exchange, answer, NULL);
    } else {
        AUTO_JSON json_t *body = json_deep_copy(answer->body);
        if (exchange->api->draining) {
            json_put(body, "ready", json_false());
            json_put(body, "reasons", json_pack("[s]", "the daemon is stopping"));
        }
        reply_json(exchange, json_bool(body, "ready", false) ? 200 : 503, body);
        exchange_send(exchange);
    }
    exchange_unref(exchange);
}

static void ready(struct exchange *exchange)
{
    exchange_call(exchange, engine_health, ready_answered);
}

static void version(struct exchange *exchange)
{
    AUTO_JSON json_t *body = json_pack("{s:s, s:s}", "name", "quiesced", "version", openapi_version);

    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

static void whoami(struct exchange *exchange)
{
    AUTO_JSON json_t *body =
        json_pack("{s:s, s:s, s:s}", "principal", exchange->principal.name, "role", role_name(exchange->principal.role),
                  "authentication", exchange->auth_kind == AUTH_TOKEN ? "token" : "certificate");

    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

static const struct handler rows[] = {
    {"healthLive", .own = live},
    {"healthReady", .own = ready},
    {"version", .own = version},
    {"whoami", .own = whoami},
};
const struct handler_table handlers_health = {rows, ELEMENTS(rows)};
