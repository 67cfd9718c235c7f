/* The daemon about itself and its caller. */
#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

static void live(struct exchange *exchange)
{
    AUTO_JSON json_t *body = json_pack("{s:b}", "live", 1);

    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

/* Of what the other roles told. The private CA's certificates are renewed long before: one that has a day left was not. */
static void role_reasons(const json_t *figures, json_t *reasons, json_t *warnings)
{
    enum { DAY_MS = 24 * 3600 * 1000, SOON_DAYS = 14, THAW_MARGIN_US = 5000000 };
    const json_t *roles = json_object_get(figures, "roles"), *agent = json_object_get(roles, "agent"), *expiry;
    const char *name;

    json_object_foreach(json_object_get(json_object_get(roles, "front"), "certificates"), name, expiry)
    {
        int64_t left = json_integer_value(expiry) - clock_real_ms();
        char text[128];
        if (left > SOON_DAYS * (int64_t)DAY_MS)
            continue;
        str_format(text, sizeof(text), left > 0 ? "the certificate %s expires in %lld hours" : "the certificate %s has expired", name,
                   (long long)left / 3600000);
        json_add(left > DAY_MS ? warnings : reasons, json_string(text));
    }
    int64_t since = json_int(agent, "frozen_since_us", 0), limit = json_int(agent, "freeze_seconds", 60);
    if (since > 0 && clock_mono_us() - since > 1000000 * limit + THAW_MARGIN_US)
        json_add(reasons, json_string("file systems are still frozen past limits.freeze_seconds: thawing them fails (quiesced thaw-all tries it again)"));
}

/* Whatever status the engine chose: the body decides, and a daemon that stops is not ready. */
static void ready_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    if (answer->err || !exchange->http) {
        reply_engine(exchange, answer, NULL);
    } else {
        AUTO_JSON json_t *body = json_deep_copy(answer->body);
        json_t *reasons = json_object_get(body, "reasons"), *warnings = json_object_get(body, "warnings");
        if (!warnings)
            json_put(body, "warnings", warnings = json_array());
        role_reasons(exchange->api->figures, reasons, warnings);
        if (exchange->api->draining)
            json_put(body, "reasons", json_pack("[s]", "the daemon is stopping"));
        json_put(body, "ready", json_boolean(json_array_size(json_object_get(body, "reasons")) == 0));
        reply_json(exchange, json_bool(body, "ready", false) ? 200 : 503, body);
        exchange_send(exchange);
    }
    exchange_unref(exchange);
}

static void ready(struct exchange *exchange)
{
    exchange_call(exchange, engine_health, ready_answered);
}

/* Where things are, for who has the address alone: no secret, so no credential. Browsers are sent to the dashboard before (assets.c). */
static void index_of_all(struct exchange *exchange)
{
    static const struct {
        const char *name, *path;
    } links[] = {{"self", "/"}, {"documentation", "/docs/"}, {"contract", "/openapi.yaml"}, {"dashboard", "/ui/"}, {"problems", "/problems"}, {"live", "/health/live"},
                 {"ready", "/health/ready"}, {"whoami", "/whoami"}, {"sessions", "/sessions"}, {"backups", "/backups"}, {"jobs", "/jobs"}, {"events", "/events"}};
    AUTO_JSON json_t *body = json_pack("{s:s, s:{}}", "name", "quiesced", "_links");

    for (size_t i = 0; i < ELEMENTS(links); i++)
        json_put(json_object_get(body, "_links"), links[i].name, json_pack("{s:s}", "href", links[i].path));
    reply_header(exchange, "Vary", "Accept");
    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

static void version(struct exchange *exchange)
{
    AUTO_JSON json_t *body = json_pack("{s:s, s:s}", "name", "quiesced", "version", openapi_version);

    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

static void whoami(struct exchange *exchange)
{
    static const char *const kinds[] = {
        [AUTH_CERTIFICATE] = "certificate", [AUTH_TOKEN] = "token", [AUTH_PEER] = "peer"};
    const struct principal *who = &exchange->principal;
    AUTO_JSON json_t *scopes = who->scopes ? json_incref(who->scopes) : json_array();
    AUTO_JSON json_t *body =
        json_pack("{s:s, s:s, s:s, s:O, s:s?, s:O?}", "principal", who->name, "role", role_name(who->role), "authentication",
                  kinds[exchange->auth_kind], "scopes", scopes, "token_id",
                  *who->token ? who->token : NULL, "paths", who->paths);

    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

static const struct handler rows[] = {
    {"index", .own = index_of_all},
    {"healthLive", .own = live},
    {"healthReady", .own = ready},
    {"version", .own = version},
    {"whoami", .own = whoami},
};
const struct handler_table handlers_health = {rows, ELEMENTS(rows)};
