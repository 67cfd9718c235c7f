/* Idempotency-Key: a call that is made twice is done once. The record of an answer goes into the very batch that makes its effect
 * durable, so that a kill leaves both or neither; what changes nothing in the store has a batch for its record alone. */
#include "engine/audit/audit.h"
#include "engine/engine_private.h"

#include <search.h>
#include <string.h>

#include "base/fault.h"
#include "crypto/hash.h"

/* In hand, from the call to its answer. */
struct once {
    char id[HASH_HEX_SIZE]; /* first: what the tree compares; of the record, too */
    char asked[HASH_HEX_SIZE];
    struct engine *engine;
    engine_call_fn call;
    const struct engine_request *request;
    engine_answer_fn answer;
    void *arg;
    bool put; /* the record is in a batch that was submitted */
    /* what will be answered when the record is durable */
    json_t *body;
    int status, retry_after;
    char location[128];
};

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct once *)a)->id, ((const struct once *)b)->id);
}

static void free_one(void *arg)
{
    struct once *once = arg;
    json_decref(once->body);
    free(once);
}

void onces_free(struct engine *engine)
{
    tdestroy(engine->onces, free_one);
    engine->onces = NULL;
}

/* --- the record --- */

static void hash_add(struct hash *hash, const char *text)
{
    hash_update(hash, text, strlen(text) + 1);
}

/* Whose key it is, and for what: two principals, or two paths, may use the same one. */
static void record_id(const struct engine_request *request, char ret[HASH_HEX_SIZE])
{
    uint8_t digest[HASH_SIZE];
    struct hash *hash = hash_new();
    hash_add(hash, request->principal->name);
    hash_add(hash, request->path);
    hash_add(hash, request->id ? request->id : "");
    hash_add(hash, request->sub_id ? request->sub_id : "");
    hash_add(hash, request->key);
    hash_final(hash, digest);
    hash_free(hash);
    hash_hex(digest, ret);
}

/* What was asked for, whatever its spelling. */
static void fingerprint(const struct engine_request *request, char ret[HASH_HEX_SIZE])
{
    uint8_t digest[HASH_SIZE];
    struct hash *hash = hash_new();
    const json_t *const parts[] = {request->body, request->query};
    for (size_t i = 0; i < ELEMENTS(parts); i++) {
        AUTO_FREE char *text = parts[i] ? json_dumps(parts[i], JSON_COMPACT | JSON_SORT_KEYS) : NULL;
        hash_add(hash, text ? text : "");
    }
    hash_final(hash, digest);
    hash_free(hash);
    hash_hex(digest, ret);
}

void once_batch_put(const struct engine_request *request, struct store_batch *batch, const struct engine_answer *answer)
{
    struct once *once = request->once;
    if (!once)
        return;
    int64_t now = clock_real_ms(), expires = now + IDEMPOTENCY_MS;
    AUTO_JSON json_t *doc = json_pack("{s:s, s:s, s:i, s:s, s:i, s:O?, s:I}", "id", once->id, "asked", once->asked, "status", answer->status,
                                      "location", answer->location, "retry_after", answer->retry_after, "body", answer->body, "expires_ms",
                                      (json_int_t)expires);
    const struct store_record record = {.id = once->id, .owner = request->principal->name, .created_ms = now, .expires_ms = expires, .doc = doc};
    store_batch_put(batch, STORE_IDEMPOTENCY, &record);
    once->put = true;
}

void once_batch_drop(const struct engine_request *request, struct store_batch *batch)
{
    if (request->once)
        store_batch_delete(batch, STORE_IDEMPOTENCY, request->once->id);
}

/* --- answering --- */

static void hand_over(struct once *once, const struct engine_answer *answer)
{
    engine_answer_fn fn = once->answer;
    void *arg = once->arg;
    tdelete(once, &once->engine->onces, compare);
    fn(arg, answer);
    free_one(once);
}

/* A store that refuses the record alone takes nothing back: the call has been done, and its caller is told. */
static void recorded(void *arg, const struct err *err)
{
    struct once *once = arg;
    struct engine_answer answer = {.status = once->status, .body = once->body, .retry_after = once->retry_after};
    if (err)
        incident(once->engine, NULL, NULL, NULL, err->hr, err->text);
    str_copy(answer.location, sizeof answer.location, once->location);
    hand_over(once, &answer);
}

static void answered(void *arg, const struct engine_answer *answer)
{
    struct once *once = arg;
    if (answer->err || once->put) {
        if (!answer->err)
            (void)fault("engine.idempotency");
        hand_over(once, answer);
        return;
    }
    once->status = answer->status;
    once->retry_after = answer->retry_after;
    once->body = answer->body ? json_deep_copy(answer->body) : NULL;
    str_copy(once->location, sizeof once->location, answer->location);
    struct store_batch *batch = store_batch_new();
    once_batch_put(once->request, batch, answer);
    store_submit(once->engine->store, batch, recorded, once);
}

static void refuse(engine_answer_fn answer, void *arg, bool other_body)
{
    struct err err;
    struct engine_answer refused = {.err = &err, .status_override = other_body ? 422 : 409, .retry_after = other_body ? 0 : 1};
    if (other_body)
        err_set(&err, E_INVALIDARG, "A new request needs a new key.", "Idempotency-Key: this key came with another request before");
    else
        err_set(&err, VSS_E_BAD_STATE, "Wait for its answer, or ask again.", "Idempotency-Key: the request with this key is still being worked on");
    str_copy(err.reason, sizeof err.reason, other_body ? "idempotency_key_reused" : "idempotency_in_flight");
    answer(arg, &refused);
}

static void replay(struct once *once, const json_t *doc)
{
    json_t *body = json_object_get(doc, "body");
    struct engine_answer answer = {.status = (int)json_int(doc, "status", 200), .body = json_is_null(body) ? NULL : body,
                                   .retry_after = (int)json_int(doc, "retry_after", 0), .replayed = true};
    str_copy(answer.location, sizeof answer.location, json_str(doc, "location", ""));
    hand_over(once, &answer);
}

/* --- the call --- */

/* What ends a freeze goes on without a look into the store, and so does what comes here while it is parked: only such calls as may be
 * repeated as they are (abort, renew, release). */
static void begin(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct once *once = request->once;
    struct err err = {0};
    AUTO_JSON json_t *doc = NULL;
    bool at_once = store_parked(engine->store) || audit_thaws(engine, request);
    enum store_result result = at_once ? STORE_NONE : store_get(engine->store, STORE_IDEMPOTENCY, once->id, &doc, NULL, &err);
    (void)answer;
    (void)arg;
    if (result == STORE_ERROR || result == STORE_RETRY) {
        const struct engine_answer refused = {.err = &err};
        hand_over(once, &refused);
        return;
    }
    if (!doc || json_int(doc, "expires_ms", 0) <= clock_real_ms()) {
        once->call(engine, request, answered, once);
    } else if (str_eq(json_str(doc, "asked", ""), once->asked)) {
        replay(once, doc);
    } else {
        engine_answer_fn fn = once->answer;
        void *to = once->arg;
        tdelete(once, &engine->onces, compare);
        free_one(once);
        refuse(fn, to, true);
    }
}

engine_call_fn once_call(const struct engine_request *request, engine_call_fn call)
{
    return request->once && call == begin ? request->once->call : call;
}

void engine_call_once(struct engine *engine, engine_call_fn call, struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct once *once = mem_new(sizeof *once);
    *once = (struct once){.engine = engine, .call = call, .request = request, .answer = answer, .arg = arg};
    record_id(request, once->id);
    fingerprint(request, once->asked);
    struct once *const *found = tfind(once, &engine->onces, compare);
    if (found) {
        bool other_body = !str_eq((*found)->asked, once->asked);
        free_one(once);
        refuse(answer, arg, other_body);
        return;
    }
    tsearch(once, &engine->onces, compare);
    request->once = once;
    engine_call(engine, begin, request, answer, arg);
}
