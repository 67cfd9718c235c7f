/* POST /tokens, and the other calls on tokens. */
#include <string.h>

#include "engine/access/credentials.h"
#include "engine/session/session.h"

#define TOKEN_PREFIX "qsd1_"

enum { SECRET_SIZE = 32, DEFAULT_SECONDS = 90 * 24 * 3600 };

static json_t *view(struct engine *engine, json_t *doc)
{
    return credential_view(engine->tokens, doc);
}

const struct credential_kind credential_token = {.store = STORE_TOKEN, .noun = "token", .path = "/tokens", .view = view};

char *credential_secret(const char *prefix)
{
    uint8_t random[SECRET_SIZE];
    hash_random(random, sizeof random);
    AUTO_FREE char *coded = hash_base64url(random, sizeof random);
    char *secret = str_new("%s%s", prefix, coded);
    explicit_bzero(random, sizeof random);
    explicit_bzero(coded, strlen(coded));
    return secret;
}

static const char revoked[] = "the token or certificate at hand was revoked meanwhile";

static bool scopes_within(const json_t *scopes, const json_t *own)
{
    size_t i;
    const json_t *scope;
    if (json_array_size(own) == 0)
        return true;
    json_array_foreach(scopes, i, scope)
        if (!json_has_string(own, json_string_value(scope)))
            return false;
    return json_array_size(scopes) > 0;
}

/* The token or the enrolled certificate with which somebody calls; NULL: it is another credential, or was revoked. */
static const struct credential *credential_with(const struct engine *engine, const struct principal *who)
{
    return *who->token ? credential_find(engine->tokens, who->token)
                       : *who->certificate ? credential_find(engine->certificates, who->certificate) : NULL;
}

/* Nobody hands on more than he has. */
static int may_make(const struct engine *engine, const struct engine_request *request, int64_t expires_ms, struct err *err)
{
    const struct principal *who = request->principal;
    const char *role = json_str(request->body, "role", "");
    if ((*who->token || *who->certificate) && !credential_with(engine, who))
        return err_set(err, E_ACCESSDENIED, NULL, "%s", revoked);
    if (!role_allows(who->role, role_by_name(role)))
        return err_set(err, E_ACCESSDENIED, NULL, "%s has the role %s and cannot make a token with the role %s", who->name,
                       role_name(who->role), role);
    if (!scopes_within(json_object_get(request->body, "scopes"), who->scopes))
        return err_set(err, E_ACCESSDENIED, "Give it scopes that the token at hand has.",
                       "the token at hand is limited by scopes, and the new one would not be within them");
    if (who->expires_ms && who->role != ROLE_ADMIN && expires_ms > who->expires_ms) {
        err_set(err, E_INVALIDARG, "Give a shorter life, or make it with a credential that lives longer.",
                "it would outlive the credential that makes it");
        str_copy(err->pointer, sizeof err->pointer, "/expires_in_seconds");
        return -1;
    }
    return 0;
}

/* An administrator makes tokens for others: its name is the principal. Everybody else makes them for himself. */
static json_t *record(struct engine *engine, const struct engine_request *request, const char *secret, int64_t expires_ms)
{
    const struct principal *who = request->principal;
    const json_t *scopes = json_object_get(request->body, "scopes");
    bool personal = who->role != ROLE_ADMIN;
    const struct credential *with = credential_with(engine, who);
    char hash[HASH_HEX_SIZE];
    json_t *doc = credential_record(request, personal ? who->name : json_str(request->body, "name", ""), expires_ms);
    json_put(doc, "scopes", scopes ? json_deep_copy(scopes) : json_array());
    json_put(doc, "last_used_at", json_null());
    json_put(doc, "last_used_from", json_null());
    json_t *own = session_private(doc);
    json_put(own, "sha256", json_string(hash_sha256_hex(secret, strlen(secret), hash)));
    json_put(own, "by_configuration", /* who is enrolled need not be in the configuration */
             json_boolean(personal && (!with || json_bool(session_private(with->doc), "by_configuration", false))));
    json_put(own, "ends_with", json_string(personal && with ? json_str(with->doc, "id", "") : ""));
    return doc;
}

/* Revoked while its child was on the way to the store: the revocation did not see the child. */
static bool maker_gone(const struct engine *engine, const json_t *doc)
{
    const char *maker = json_str(session_private(doc), "ends_with", "");
    return *maker && !credential_find(engine->tokens, maker) && !credential_find(engine->certificates, maker);
}

static void created(struct task *task, const struct err *err)
{
    struct engine *engine = task->engine;
    if (err) {
        incident(engine, NULL, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    json_t *doc = json_object_get(task->scratch, "doc");
    if (maker_gone(engine, doc)) {
        struct err gone;
        struct store_batch *batch = store_batch_new();
        credential_batch_delete(engine->tokens, batch, doc);
        once_batch_drop(task->request, batch);
        store_submit(engine->store, batch, NULL, NULL);
        err_set(&gone, E_ACCESSDENIED, NULL, "%s", revoked);
        task_fail(task, &gone);
        return;
    }
    credential_insert(engine->tokens, doc);
    json_put(task->body, "token", json_incref(json_object_get(task->scratch, "secret")));
    task_answer(task, task->status, json_incref(task->body));
}

void engine_token_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err = {0};
    const struct principal *who = request->principal;
    int64_t seconds = json_int(request->body, "expires_in_seconds", 0);
    int64_t expires_ms = clock_real_ms() + 1000 * (seconds ? seconds : DEFAULT_SECONDS);
    if (!seconds && who->expires_ms && who->role != ROLE_ADMIN && expires_ms > who->expires_ms)
        expires_ms = who->expires_ms;
    if (may_make(engine, request, expires_ms, &err) != 0 || credentials_room(engine->tokens, who, &err) != 0) {
        answer_error(answer, arg, &err);
        return;
    }
    AUTO_FREE char *secret = credential_secret(TOKEN_PREFIX);
    struct task *task = task_new(engine, request, answer, arg);
    task->scratch = json_pack("{s:o, s:s}", "doc", record(engine, request, secret, expires_ms), "secret", secret);
    explicit_bzero(secret, strlen(secret));
    struct store_batch *batch = store_batch_new();
    json_t *doc = json_object_get(task->scratch, "doc");
    credential_batch_put(engine, engine->tokens, batch, doc);
    task->status = 201;
    str_format(task->location, sizeof task->location, "/tokens/%s", json_str(doc, "id", ""));
    task->body = view(engine, doc);
    json_put(task->body, "token", json_null()); /* shown once: what is kept of the answer does not have it */
    task->committed = created;
    task_commit(task, batch);
}

void engine_token_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_list(engine->tokens, engine, request, answer, arg);
}

void engine_token_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_get(engine->tokens, request, answer, arg);
}

void engine_token_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_delete(engine->tokens, engine, request, answer, arg);
}
