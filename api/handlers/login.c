/* Browsers: a cookie for a token or a certificate. */
#include <stdlib.h>
#include <string.h>

#include "api/handlers/handlers.h"
#include "api/login.h"
#include "api/reply.h"
#include "base/cleanup.h"
#include "base/str.h"

/* The engine's answer, with what only the API knows of the caller. */
static void reply_login(struct exchange *exchange, const struct engine_answer *answer, const char *csrf)
{
    const struct principal *who = &exchange->principal;
    AUTO_JSON json_t *body = json_deep_copy(answer->body);

    json_object_del(body, "cookie");
    json_put(body, "principal", json_string(who->name));
    json_put(body, "role", json_string(role_name(who->role)));
    json_put(body, "scopes", who->scopes ? json_incref(who->scopes) : json_array());
    json_put(body, "csrf_token", json_string(csrf));
    reply_json(exchange, 200, body);
    exchange_send(exchange);
}

static void created(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;
    char csrf[LOGIN_CSRF_SIZE];

    if (answer->err || !exchange->http) {
        reply_engine(exchange, answer, NULL);
    } else {
        const char *cookie = json_str(answer->body, "cookie", "");
        login_csrf_of(cookie, csrf);
        reply_header(exchange, "Set-Cookie", LOGIN_COOKIE "=%s; Path=/; Secure; HttpOnly; SameSite=Strict", cookie);
        reply_login(exchange, answer, csrf);
    }
    exchange_unref(exchange);
}

/* No cookie of old counts here, and the certificate only when no token is given. */
static void login_create(struct exchange *exchange)
{
    const char *token = json_str(exchange->body, "token", NULL);
    struct credential credential = {.preface = http_preface(exchange->http), .from = exchange->from};
    char of[HASH_HEX_SIZE];

    if (token) {
        hash_sha256(token, strlen(token), credential.digest);
        credential.is_token = credential.presented = true;
        credential.preface = NULL;
    } else if (credential.preface && credential.preface->has_certificate) {
        memcpy(credential.digest, credential.preface->fingerprint, HASH_SIZE);
        credential.presented = true;
    } else {
        credential.preface = NULL; /* a user of the local socket needs no cookie */
    }
    if (!login_with(exchange, &credential)) {
        exchange_turned_away(exchange);
        exchange_send(exchange);
        return;
    }
    hash_hex(credential.digest, of);
    free(TAKE_PTR(exchange->key)); /* a cookie is made anew each time, and kept nowhere to be told again */
    json_decref(exchange->body);
    exchange->body = json_pack("{s:s, s:s}", "by", token ? "token" : "certificate", "of", of);
    exchange_call(exchange, engine_login_create, created);
}

static void got(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;
    char csrf[LOGIN_CSRF_SIZE];

    if (!answer->err && exchange->http && login_csrf(exchange, csrf))
        reply_login(exchange, answer, csrf);
    else
        reply_engine(exchange, answer, NULL);
    exchange_unref(exchange);
}

/* Only a login has the word for its pages: whoever calls with a certificate or a token has no login. */
static void login_get(struct exchange *exchange)
{
    exchange_call(exchange, engine_login_get, got);
}

static void deleted(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    if (!answer->err)
        reply_header(exchange, "Set-Cookie", LOGIN_COOKIE "=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    reply_engine(exchange, answer, NULL);
    exchange_unref(exchange);
}

static void login_delete(struct exchange *exchange)
{
    exchange_call(exchange, engine_login_delete, deleted);
}

static const struct handler rows[] = {
    {"loginCreate", .own = login_create},
    {"loginGet", .own = login_get},
    {"loginDelete", .own = login_delete},
};
const struct handler_table handlers_login = {rows, ELEMENTS(rows)};
