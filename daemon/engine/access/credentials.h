#pragma once
/* Private to the engine: sets of credentials, each known by the SHA-256 of what its holder presents. */
#include "crypto/hash.h"
#include "engine/engine_private.h"

struct credential_kind {
    enum store_kind store;
    const char *noun, *path; /* "token", "/tokens" */
    list_view_fn view;
    bool ends_at_once; /* an expired one is not kept to be shown */
};
extern const struct credential_kind credential_token, credential_certificate, credential_enrolment, credential_login;

struct credential {
    uint8_t digest[HASH_SIZE]; /* first: what the tree compares */
    json_t *doc;               /* committed record, but for last_used_at and last_used_from */
    int64_t expires_ms;
    int64_t used_ms;       /* CLOCK_REALTIME, of the last use, or of its making */
    int64_t used_saved_ms; /* CLOCK_MONOTONIC */
    bool used_unsaved;
    const struct task *taken_by; /* its deletion is on its way: refused already */
};

struct credentials {
    const struct credential_kind *kind;
    void *by_digest;
    struct credential **all; /* oldest first */
    size_t n, room;
};

/* A record: public members, and under "_" `sha256`, `created_ms`, `expires_ms`, and what its kind keeps for itself. More members
 * are the caller's. */
json_t *credential_record(const struct engine_request *request, const char *principal, int64_t expires_ms);
void credential_batch_put(const struct engine *engine, const struct credentials *set, struct store_batch *batch, const json_t *doc);
void credential_batch_delete(const struct credentials *set, struct store_batch *batch, const json_t *doc);
/* A committed one. */
int credential_insert(struct credentials *set, json_t *doc);
/* By id; NULL when it is not there, or on its way out. */
struct credential *credential_find(const struct credentials *set, const char *id);
/* By digest; the same. It may have expired. */
struct credential *credential_by_digest(const struct credentials *set, const uint8_t digest[HASH_SIZE]);
bool credential_expired(const struct credential *credential);
/* prefix and 43 characters of randomness; malloc'ed, to be wiped. */
char *credential_secret(const char *prefix);
json_t *credential_view(const struct credentials *set, json_t *doc); /* new reference */
void credential_note_use(struct engine *engine, const struct credentials *set, struct credential *credential, const char *from);
/* Refused from now on, deleted with the batch. */
void credential_take(struct credentials *set, const struct task *task, struct credential *one, struct store_batch *batch);
/* `committed` of a task that has taken some of the set whose noun is its scratch: 204. */
void credentials_deleted(struct task *task, const struct err *err);
/* Frees those that task has taken, or gives them back. */
void credentials_drop_taken(struct credentials *set, const struct task *task);
void credentials_give_back(struct credentials *set, const struct task *task);
/* Is there room for one more of that maker? 0 or -1 with err. */
int credentials_room(const struct credentials *set, const struct principal *maker, struct err *err);

/* The calls that all kinds have. */
void credentials_list(struct credentials *set, struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
void credentials_get(struct credentials *set, const struct engine_request *request, engine_answer_fn answer, void *arg);
void credentials_delete(struct credentials *set, struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
