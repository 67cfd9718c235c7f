/* What proves who somebody is, by its SHA-256: tokens, client certificates, codes of enrolments. All of them live in memory:
 * who calls is known without the store, which may be parked. A secret itself is answered once and kept nowhere. */
#include "engine/access/credentials.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/access/access.h"
#include "engine/session/session.h"

enum {
    MOST = 10000,
    MOST_OF_ONE = 100, /* maker who is no administrator: he must not use up everybody's */
    USED_SAVE_MS = 60000, /* when one was last used is shown exactly, and durable so far */
};

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, HASH_SIZE);
}

/* --- records --- */

json_t *credential_record(const struct engine_request *request, const char *principal, int64_t expires_ms)
{
    int64_t now_ms = clock_real_ms();
    char id[UUID_SIZE], created[CLOCK_RFC3339_SIZE], expires[CLOCK_RFC3339_SIZE];
    json_t *doc = json_object();
    json_put(doc, "id", json_string(uuid_v7(id)));
    json_put(doc, "name", json_string(json_str(request->body, "name", "")));
    json_put(doc, "principal", json_string(principal));
    json_put(doc, "role", json_string(json_str(request->body, "role", "")));
    json_put(doc, "made_by", json_string(request->principal->name));
    json_put(doc, "created_at", json_string(clock_rfc3339(now_ms, created)));
    json_put(doc, "expires_at", json_string(clock_rfc3339(expires_ms, expires)));
    json_put(doc, "_", json_pack("{s:I, s:I}", "created_ms", (json_int_t)now_ms, "expires_ms", (json_int_t)expires_ms));
    return doc;
}

static int64_t kept_ms(const struct engine *engine, const struct credentials *set)
{
    return set->kind->ends_at_once ? 0 : retention_ms(engine);
}

void credential_batch_put(const struct engine *engine, const struct credentials *set, struct store_batch *batch, const json_t *doc)
{
    const struct store_record record = {
        .id = json_str(doc, "id", ""),
        .owner = json_str(doc, "principal", ""),
        .operation = json_str(doc, "role", ""),
        .created_ms = json_int(session_private(doc), "created_ms", 0),
        .expires_ms = json_int(session_private(doc), "expires_ms", 0) + kept_ms(engine, set),
        .doc = (json_t *)doc,
    };
    store_batch_put(batch, set->kind->store, &record);
}

void credential_batch_delete(const struct credentials *set, struct store_batch *batch, const json_t *doc)
{
    store_batch_delete(batch, set->kind->store, json_str(doc, "id", ""));
}

int credential_insert(struct credentials *set, json_t *doc)
{
    struct credential *credential = mem_new(sizeof *credential);
    if (!hash_from_hex(json_str(session_private(doc), "sha256", ""), credential->digest)) {
        free(credential);
        return -1;
    }
    credential->doc = json_incref(doc);
    credential->expires_ms = json_int(session_private(doc), "expires_ms", 0);
    credential->used_ms = json_int(session_private(doc), "used_ms", json_int(session_private(doc), "created_ms", 0));
    if (set->n == set->room) {
        set->room = set->room ? 2 * set->room : 16;
        set->all = mem_resize(set->all, set->room * sizeof(struct credential *));
    }
    set->all[set->n++] = credential;
    if (!tsearch(credential, &set->by_digest, by_digest))
        abort(); /* out of memory */
    return 0;
}

static void credential_free(struct credentials *set, struct credential *credential)
{
    tdelete(credential, &set->by_digest, by_digest);
    json_decref(credential->doc);
    free(credential);
}

/* Keeps those that keep says; frees the others. */
static void sift(struct credentials *set, bool (*keep)(const struct credential *credential, const void *arg), const void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (keep(set->all[i], arg))
            set->all[kept++] = set->all[i];
        else
            credential_free(set, set->all[i]);
    }
    set->n = kept;
}

struct credential *credential_find(const struct credentials *set, const char *id)
{
    for (size_t i = 0; i < set->n; i++)
        if (!set->all[i]->taken_by && str_eq(json_str(set->all[i]->doc, "id", ""), id))
            return set->all[i];
    return NULL;
}

struct credential *credential_by_digest(const struct credentials *set, const uint8_t digest[HASH_SIZE])
{
    struct credential *const *found = tfind(digest, &set->by_digest, by_digest);
    return found && !(*found)->taken_by ? *found : NULL;
}

bool credential_expired(const struct credential *credential)
{
    return clock_real_ms() >= credential->expires_ms;
}

json_t *credential_view(const struct credentials *set, json_t *doc)
{
    const struct credential *credential = credential_find(set, json_str(doc, "id", ""));
    json_t *shown = json_copy(credential ? credential->doc : doc); /* what memory knows of its last use is newer */
    const char *state = json_int(session_private(doc), "expires_ms", 0) <= clock_real_ms() ? "expired" : "active";
    json_put(shown, "state", json_string(state));
    json_object_del(shown, "_");
    return shown;
}

static bool not_taken_by(const struct credential *credential, const void *task)
{
    return credential->taken_by != task;
}

void credentials_drop_taken(struct credentials *set, const struct task *task)
{
    sift(set, not_taken_by, task);
}

void credentials_give_back(struct credentials *set, const struct task *task)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->all[i]->taken_by == task)
            set->all[i]->taken_by = NULL;
}

int credentials_room(const struct credentials *set, const struct principal *maker, struct err *err)
{
    size_t own = 0;
    for (size_t i = 0; i < set->n; i++)
        own += str_eq(json_str(set->all[i]->doc, "made_by", ""), maker->name);
    if (set->n < MOST && (maker->role == ROLE_ADMIN || own < MOST_OF_ONE))
        return 0;
    return err_set(err, E_OUTOFMEMORY, "Revoke some (a GET of the path lists them).", "there are %zu %ss, %zu of them made by %s", set->n,
                   set->kind->noun, own, maker->name);
}

/* --- life --- */

static int load(struct engine *engine, struct credentials *set, struct err *err)
{
    char after[UUID_SIZE] = "";
    bool more = true;
    while (more) {
        AUTO_JSON json_t *rows = NULL;
        const struct store_query query = {.kind = set->kind->store, .limit = 500, .after = *after ? after : NULL, .oldest_first = true};
        size_t i;
        json_t *row;
        if (store_list(engine->store, &query, &rows, &more, err) == STORE_ERROR)
            return -1;
        json_array_foreach(rows, i, row)
        {
            str_copy(after, sizeof after, json_str(row, "id", ""));
            if (credential_insert(set, row) != 0)
                log_line(LOG_LEVEL_WARNING, NULL, "%s %s: its record has no hash; it is not valid any more", set->kind->noun, after);
        }
    }
    return 0;
}

struct credentials *credentials_new(struct engine *engine, const struct credential_kind *kind, struct err *err)
{
    struct credentials *set = mem_new(sizeof *set);
    set->kind = kind;
    if (load(engine, set, err) == 0)
        return set;
    credentials_free(engine, set);
    return NULL;
}

static void save_used(struct engine *engine, const struct credentials *set, struct credential *credential)
{
    struct store_batch *batch = store_batch_new();
    credential_batch_put(engine, set, batch, credential->doc);
    credential->used_saved_ms = clock_mono_ms();
    credential->used_unsaved = false;
    store_submit(engine->store, batch, NULL, NULL);
}

void credentials_free(struct engine *engine, struct credentials *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n; i++) {
        if (set->all[i]->used_unsaved && !set->all[i]->taken_by)
            save_used(engine, set, set->all[i]);
        credential_free(set, set->all[i]);
    }
    free(set->all);
    free(set);
}

static bool still_recorded(const struct credential *credential, const void *arg)
{
    const int64_t *gone_ms = arg;
    return credential->expires_ms > *gone_ms || credential->taken_by;
}

void credentials_forget_old(struct engine *engine, struct credentials *set)
{
    const int64_t gone_ms = clock_real_ms() - kept_ms(engine, set);
    sift(set, still_recorded, &gone_ms);
}

/* --- authentication --- */

void credential_note_use(struct engine *engine, const struct credentials *set, struct credential *credential, const char *from)
{
    char now[CLOCK_RFC3339_SIZE];
    credential->used_ms = clock_real_ms();
    json_put(session_private(credential->doc), "used_ms", json_integer(credential->used_ms));
    json_put(credential->doc, "last_used_at", json_string(clock_rfc3339(credential->used_ms, now)));
    json_put(credential->doc, "last_used_from", *from ? json_text(from) : json_null());
    credential->used_unsaved = true;
    if (!credential->used_saved_ms || clock_mono_ms() - credential->used_saved_ms >= USED_SAVE_MS)
        save_used(engine, set, credential);
}

static enum credential_verdict check(struct engine *engine, const struct credentials *set, const uint8_t sha256[32], const char *from,
                                     struct principal *ret)
{
    struct credential *credential = credential_by_digest(set, sha256);
    if (!credential)
        return CREDENTIAL_UNKNOWN;
    *ret = (struct principal){.role = role_by_name(json_str(credential->doc, "role", "")),
                              .expires_ms = credential->expires_ms,
                              .scopes = json_object_get(credential->doc, "scopes")};
    str_copy(ret->name, sizeof ret->name, json_str(credential->doc, "principal", ""));
    if (credential_expired(credential))
        return CREDENTIAL_EXPIRED;
    if (from)
        credential_note_use(engine, set, credential, from);
    if (set == engine->tokens)
        str_copy(ret->token, sizeof ret->token, json_str(credential->doc, "id", ""));
    if (set == engine->certificates)
        str_copy(ret->certificate, sizeof ret->certificate, json_str(credential->doc, "id", ""));
    return json_bool(session_private(credential->doc), "by_configuration", false) ? CREDENTIAL_PERSONAL : CREDENTIAL_GOOD;
}

enum credential_verdict engine_token_check(struct engine *engine, const uint8_t sha256[32], const char *from, struct principal *ret)
{
    return check(engine, engine->tokens, sha256, from, ret);
}

enum credential_verdict engine_certificate_check(struct engine *engine, const uint8_t sha256[32], const char *from, struct principal *ret)
{
    return check(engine, engine->certificates, sha256, from, ret);
}

/* --- GET --- */

/* Who has which credential is no business of viewers. */
static bool sees_all(const struct principal *who)
{
    return role_allows(who->role, ROLE_AUDITOR);
}

void credentials_list(struct credentials *set, struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = set->kind->store, .owner = sees_all(request->principal) ? NULL : request->principal->name};
    list_answer(engine, request, answer, arg, &query, set->kind->view);
}

/* Existence, then ownership; NULL with err. */
static struct credential *visible(const struct credentials *set, const struct engine_request *request, struct err *err)
{
    struct credential *found = credential_find(set, request->id);
    if (found && (sees_all(request->principal) || str_eq(json_str(found->doc, "principal", ""), request->principal->name)))
        return found;
    char hint[64];
    str_format(hint, sizeof hint, "GET %s lists what there is.", set->kind->path);
    err_set(err, VSS_E_OBJECT_NOT_FOUND, hint, "%s %s: no such %s", set->kind->noun, request->id, set->kind->noun);
    return NULL;
}

void credentials_get(struct credentials *set, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    const struct credential *found = visible(set, request, &err);
    if (found)
        answer_body(answer, arg, 200, credential_view(set, found->doc));
    else
        answer_error(answer, arg, &err);
}

/* --- DELETE --- */

static struct credentials *set_of(const struct task *task)
{
    struct credentials *const sets[] = {task->engine->tokens, task->engine->certificates, task->engine->enrolments, task->engine->logins};
    for (size_t i = 0; i < ELEMENTS(sets); i++)
        if (str_eq(sets[i]->kind->noun, json_string_value(task->scratch)))
            return sets[i];
    return NULL;
}

void credentials_deleted(struct task *task, const struct err *err)
{
    struct credentials *set = set_of(task), *tokens = task->engine->tokens;
    if (!err) {
        credentials_drop_taken(set, task);
        credentials_drop_taken(tokens, task); /* those that a certificate takes along */
        task_answer(task, 204, NULL);
        return;
    }
    credentials_give_back(set, task);
    credentials_give_back(tokens, task);
    incident(task->engine, NULL, NULL, NULL, err->hr, err->text);
    task_fail(task, err);
}

void credential_take(struct credentials *set, const struct task *task, struct credential *one, struct store_batch *batch)
{
    one->taken_by = task;
    credential_batch_delete(set, batch, one->doc);
}

static void take_one(struct credentials *set, const struct task *task, struct credential *one, json_t *gone, struct store_batch *batch)
{
    json_put(gone, json_str(one->doc, "id", ""), json_true());
    credential_take(set, task, one, batch);
}

/* The personal ones that were made with one that goes, and so on: a child is younger than its maker, so that one pass does. */
static void take_children(struct credentials *set, const struct task *task, json_t *gone, struct store_batch *batch)
{
    for (size_t i = 0; i < set->n; i++) {
        struct credential *one = set->all[i];
        const char *maker = json_str(session_private(one->doc), "ends_with", "");
        if (!one->taken_by && json_object_get(gone, maker))
            take_one(set, task, one, gone, batch);
    }
}

void credentials_delete(struct credentials *set, struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    const struct principal *who = request->principal;
    struct credential *found = visible(set, request, &err);
    if (!found) {
        answer_error(answer, arg, &err);
        return;
    }
    const char *role = json_str(found->doc, "role", "");
    if (!principal_may_change(who, json_str(found->doc, "principal", "")) || !role_allows(who->role, role_by_name(role))) {
        err_set(&err, E_ACCESSDENIED, NULL, "%s %s belongs to %s and has the role %s", set->kind->noun, request->id,
                json_str(found->doc, "principal", ""), role);
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    struct store_batch *batch = store_batch_new();
    task->scratch = json_string(set->kind->noun);
    AUTO_JSON json_t *gone = json_object();
    take_one(set, task, found, gone, batch);
    take_children(engine->tokens, task, gone, batch);
    task->committed = credentials_deleted;
    task_commit(task, batch);
}
