#include "api/login.h"

#include <string.h>

#include "api/reply.h"
#include "api/throttle.h"
#include "base/cleanup.h"
#include "base/str.h"

static enum auth_kind check(struct exchange *exchange, const struct credential *credential)
{
    struct principal principal = {0};
    enum auth_kind kind = auth_check(exchange->api->auth, exchange->api->engine, credential, &principal);

    json_incref(principal.scopes);
    json_incref(principal.paths);
    json_decref(exchange->principal.scopes);
    json_decref(exchange->principal.paths);
    exchange->principal = principal;
    exchange->auth_kind = kind;
    return kind;
}

/* --- browsers --- */

/* front gives cookies this name (front/gate_head.h): libmicrohttpd must not parse them. */
#define COOKIE_HEADER "xookie"
enum { COOKIE_MAX = 64 };

/* false: there is none. */
static bool read_cookie(const struct exchange *exchange, char ret[COOKIE_MAX])
{
    static const char name[] = LOGIN_COOKIE "=";
    const char *at = http_header(exchange->http, COOKIE_HEADER);

    for (; at && *at; at += strcspn(at, ";"), at += strspn(at, "; "))
        if (str_starts(at, name)) {
            at += sizeof(name) - 1;
            return str_format(ret, COOKIE_MAX, "%.*s", (int)strcspn(at, "; "), at) && *ret;
        }
    return false;
}

void login_csrf_of(const char *cookie, char ret[LOGIN_CSRF_SIZE])
{
    AUTO_FREE char *text = str_new("quiesced-csrf:%s", cookie);
    hash_sha256_hex(text, strlen(text), ret);
    explicit_bzero(text, strlen(text));
}

bool login_csrf(const struct exchange *exchange, char ret[LOGIN_CSRF_SIZE])
{
    char cookie[COOKIE_MAX];

    if (!read_cookie(exchange, cookie))
        return false;
    login_csrf_of(cookie, ret);
    return true;
}

static bool changes_something(const struct exchange *exchange)
{
    static const char *const reading[] = {"GET", "HEAD", "OPTIONS"};

    for (size_t i = 0; i < ELEMENTS(reading); i++)
        if (str_eq(http_method(exchange->http), reading[i]))
            return false;
    return true;
}

bool login_same_site(struct exchange *exchange)
{
    const char *site = http_header(exchange->http, "Sec-Fetch-Site");

    if (!site || !changes_something(exchange) || str_eq(site, "same-origin") || str_eq(site, "none"))
        return true;
    reply_foreign_page(exchange);
    return false;
}

/* A cookie alone is sent by whatever page is open: what changes something needs the word that only our pages can read. */
static bool has_csrf(struct exchange *exchange)
{
    char wanted[LOGIN_CSRF_SIZE];
    const char *given = http_header(exchange->http, "X-CSRF-Token");

    if (!*exchange->principal.login || !changes_something(exchange))
        return true;
    if (given && login_csrf(exchange, wanted) && strlen(given) == strlen(wanted) && hash_equal(given, wanted, strlen(wanted)))
        return true;
    reply_csrf(exchange);
    return false;
}

/* What the cookie stands for, in place of what the connection presents. */
static void read_login(const struct exchange *exchange, const char *from, struct credential *ret, struct engine_login *login)
{
    char cookie[COOKIE_MAX];
    uint8_t digest[HASH_SIZE];

    if (!read_cookie(exchange, cookie))
        return;
    hash_sha256(cookie, strlen(cookie), digest);
    if (engine_login_check(exchange->api->engine, digest, from, login) != CREDENTIAL_GOOD) {
        *login = (struct engine_login){0};
        return;
    }
    if (login->by_token) {
        ret->is_token = true;
        ret->preface = NULL;
        memcpy(ret->digest, login->digest, HASH_SIZE);
    } else if (!ret->preface || !ret->preface->has_certificate ||
               !hash_equal(ret->preface->fingerprint, login->digest, HASH_SIZE)) {
        ret->preface = NULL;
    }
    ret->presented = false; /* nothing to be guessed: who has a cookie of ours has it from us */
}

/* from: the caller's address, or NULL when this is no use of the credential. */
static void read_credential(const struct exchange *exchange, const char *from, struct credential *ret, struct engine_login *login)
{
    const char *authorization = http_header(exchange->http, "Authorization");

    *login = (struct engine_login){0};
    credential_read(ret, http_preface(exchange->http), authorization);
    ret->from = from;
    if (!authorization)
        read_login(exchange, from, ret, login);
}

/* The credential may stand for somebody else by now: the login was not his. */
static bool still_of(const struct exchange *exchange, const struct engine_login *login)
{
    return !*login->id || str_eq(login->principal, exchange->principal.name);
}

bool login_address(struct exchange *exchange)
{
    struct throttle *throttle = exchange->api->throttle;

    const struct preface *preface = http_preface(exchange->http);
    if (preface && preface->has_credentials)
        throttle_key_user(throttle, preface->uid, &exchange->address);
    else
        throttle_key_address(throttle, http_peer(exchange->http), &exchange->address);
    int wait = throttle_request(throttle, &exchange->address, THROTTLE_ADDRESS);
    if (wait > 0)
        reply_too_many(exchange, wait, "this address");
    return wait == 0;
}

/* Wrong. Of an expired token it is known whose it was: he is counted wherever it came from. */
static void refuse(struct exchange *exchange, const struct credential *credential)
{
    struct throttle *throttle = exchange->api->throttle;
    struct throttle_key named;
    bool is_named = exchange->principal.name[0] != '\0';

    if (!credential->presented) {
        reply_unauthorized(exchange);
        return;
    }
    if (credential->is_token)
        throttle_set_known(throttle, &exchange->address, credential->digest, false);
    int wait = throttle_blocked(throttle, &exchange->address), of_principal = 0;
    if (is_named) {
        throttle_key_principal(throttle, exchange->principal.name, &named);
        of_principal = throttle_blocked(throttle, &named);
    }
    if (wait == 0)
        throttle_wrong(throttle, &exchange->address);
    if (is_named && of_principal == 0)
        throttle_wrong(throttle, &named);
    wait = wait > of_principal ? wait : of_principal;
    if (wait > 0)
        reply_locked_out(exchange, wait);
    else
        reply_unauthorized(exchange);
}

bool login(struct exchange *exchange)
{
    struct credential credential;
    struct engine_login login;

    read_credential(exchange, exchange->from, &credential, &login);
    if (!login_with(exchange, &credential))
        return false;
    if (!still_of(exchange, &login)) {
        reply_unauthorized(exchange);
        return false;
    }
    str_copy(exchange->principal.login, sizeof(exchange->principal.login), login.id);
    return has_csrf(exchange);
}

bool login_with(struct exchange *exchange, const struct credential *credential)
{
    struct throttle *throttle = exchange->api->throttle;
    struct throttle_key named;
    bool is_new = credential->is_token && credential->presented &&
                  !throttle_is_known(throttle, &exchange->address, credential->digest);
    int wait = is_new ? throttle_blocked(throttle, &exchange->address) : 0;
    if (wait > 0) { /* not even looked at: nothing can be tried out */
        reply_locked_out(exchange, wait);
        return false;
    }
    if (check(exchange, credential) == AUTH_NONE) {
        refuse(exchange, credential);
        return false;
    }
    if (is_new)
        throttle_set_known(throttle, &exchange->address, credential->digest, true);
    throttle_key_principal(throttle, exchange->principal.name, &named);
    wait = throttle_request(throttle, &named, THROTTLE_PRINCIPAL);
    if (wait > 0)
        reply_too_many(exchange, wait, exchange->principal.name);
    return wait == 0;
}

bool login_again(struct exchange *exchange)
{
    struct credential credential;
    struct engine_login login;

    read_credential(exchange, exchange->from, &credential, &login);
    if (check(exchange, &credential) != AUTH_NONE && still_of(exchange, &login)) {
        str_copy(exchange->principal.login, sizeof(exchange->principal.login), login.id);
        return true;
    }
    reply_unauthorized(exchange);
    return false;
}

bool login_holds(struct exchange *exchange)
{
    struct credential credential;
    struct engine_login login;

    const struct principal before = exchange->principal; /* its scopes are gone after the check */

    read_credential(exchange, NULL, &credential, &login);
    if (check(exchange, &credential) == AUTH_NONE || !still_of(exchange, &login))
        return false;
    str_copy(exchange->principal.login, sizeof(exchange->principal.login), login.id);
    /* A certificate may stand behind a login that has ended: that would be another's answer. */
    return str_eq(before.name, exchange->principal.name) && str_eq(before.login, login.id) && exchange_permitted(exchange);
}
