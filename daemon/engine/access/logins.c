/* A browser's login: a cookie that stands for the credential it was made with, never for more: a token that is revoked, or a
 * certificate that is not presented with it, ends it. It ends by itself when it is not used, and after its whole time. */
#include <string.h>

#include "engine/access/access.h"
#include "engine/access/credentials.h"
#include "engine/session/session.h"

#define COOKIE_PREFIX "qsl1_"

enum { MOST_OF_ONE = 20 }; /* of one principal: the one that was used longest ago makes room */

static json_t *view(struct engine *engine, json_t *doc)
{
    return credential_view(engine->logins, doc);
}

const struct credential_kind credential_login = {.store = STORE_LOGIN, .noun = "login", .path = "/login", .view = view, .ends_at_once = true};

static int64_t limit_ms(const struct engine *engine, const char *name, int64_t fallback)
{
    return 1000 * json_int(json_object_get(engine->config, "limits"), name, fallback);
}

static int64_t idle_ends_ms(const struct engine *engine, const struct credential *login)
{
    int64_t ends = login->used_ms + limit_ms(engine, "login_idle_seconds", 1800);
    return ends < login->expires_ms ? ends : login->expires_ms;
}

enum credential_verdict engine_login_check(struct engine *engine, const uint8_t sha256[HASH_SIZE], const char *from, struct engine_login *ret)
{
    struct credential *login = credential_by_digest(engine->logins, sha256);
    if (!login)
        return CREDENTIAL_UNKNOWN;
    if (clock_real_ms() >= idle_ends_ms(engine, login))
        return CREDENTIAL_EXPIRED;
    const json_t *own = session_private(login->doc);
    *ret = (struct engine_login){.by_token = str_eq(json_str(own, "by", ""), "token")};
    str_copy(ret->id, sizeof ret->id, json_str(login->doc, "id", ""));
    str_copy(ret->principal, sizeof ret->principal, json_str(login->doc, "principal", ""));
    if (!hash_from_hex(json_str(own, "of", ""), ret->digest))
        return CREDENTIAL_UNKNOWN;
    if (from)
        credential_note_use(engine, engine->logins, login, from);
    return CREDENTIAL_GOOD;
}

static json_t *shown(const struct engine *engine, const struct credential *login)
{
    char idle[CLOCK_RFC3339_SIZE];
    return json_pack("{s:O, s:O, s:s}", "created_at", json_object_get(login->doc, "created_at"), "expires_at",
                     json_object_get(login->doc, "expires_at"), "idle_expires_at", clock_rfc3339(idle_ends_ms(engine, login), idle));
}

/* --- POST /login --- */

static void created(struct task *task, const struct err *err)
{
    struct engine *engine = task->engine;
    if (err) {
        credentials_give_back(engine->logins, task);
        incident(engine, NULL, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    json_t *doc = json_object_get(task->scratch, "doc");
    credentials_drop_taken(engine->logins, task);
    credential_insert(engine->logins, doc);
    json_t *body = shown(engine, credential_find(engine->logins, json_str(doc, "id", "")));
    json_put(body, "cookie", json_incref(json_object_get(task->scratch, "secret")));
    task_answer(task, 200, body);
}

static void make_room(struct engine *engine, const struct task *task, const char *principal, struct store_batch *batch)
{
    struct credentials *set = engine->logins;
    struct credential *oldest = NULL;
    size_t own = 0;
    for (size_t i = 0; i < set->n; i++) {
        struct credential *one = set->all[i];
        if (one->taken_by || !str_eq(json_str(one->doc, "principal", ""), principal))
            continue;
        own++;
        if (!oldest || one->used_ms < oldest->used_ms)
            oldest = one;
    }
    if (own >= MOST_OF_ONE)
        credential_take(set, task, oldest, batch);
}

void engine_login_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    char hash[HASH_HEX_SIZE];
    const struct principal *who = request->principal;
    if (credentials_room(engine->logins, who, &err) != 0) {
        answer_error(answer, arg, &err);
        return;
    }
    AUTO_FREE char *secret = credential_secret(COOKIE_PREFIX);
    int64_t expires_ms = clock_real_ms() + limit_ms(engine, "login_seconds", 43200);
    if (who->expires_ms && who->expires_ms < expires_ms)
        expires_ms = who->expires_ms;
    json_t *doc = credential_record(request, who->name, expires_ms), *own = session_private(doc);
    json_put(doc, "role", json_string(role_name(who->role)));
    json_put(own, "sha256", json_string(hash_sha256_hex(secret, strlen(secret), hash)));
    json_put(own, "by", json_incref(json_object_get(request->body, "by")));
    json_put(own, "of", json_incref(json_object_get(request->body, "of")));
    struct task *task = task_new(engine, request, answer, arg);
    task->scratch = json_pack("{s:o, s:s}", "doc", doc, "secret", secret);
    explicit_bzero(secret, strlen(secret));
    struct store_batch *batch = store_batch_new();
    make_room(engine, task, who->name, batch);
    credential_batch_put(engine, engine->logins, batch, doc);
    task->committed = created;
    task_commit(task, batch);
}

/* --- GET and DELETE --- */

void engine_login_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    const struct credential *login = credential_find(engine->logins, request->principal->login);
    if (login) {
        answer_body(answer, arg, 200, shown(engine, login));
        return;
    }
    struct err err;
    err_set(&err, VSS_E_OBJECT_NOT_FOUND, "POST /login makes one.", "this call was not made with the cookie of a login");
    answer_error(answer, arg, &err);
}

void engine_login_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct credentials *set = engine->logins;
    const struct principal *who = request->principal;
    bool everywhere = json_bool(request->query, "everywhere", false);
    struct task *task = task_new(engine, request, answer, arg);
    struct store_batch *batch = store_batch_new();
    task->scratch = json_string(credential_login.noun);
    for (size_t i = 0; i < set->n; i++) {
        struct credential *one = set->all[i];
        if (!one->taken_by && (everywhere ? str_eq(json_str(one->doc, "principal", ""), who->name)
                                          : str_eq(json_str(one->doc, "id", ""), who->login)))
            credential_take(set, task, one, batch);
    }
    task->committed = credentials_deleted;
    task_commit(task, batch);
}
