/* Enrolment: an administrator makes a one-time code; who presents it with a certificate request gets a client certificate of
 * the private CA. The CA's key is out of our reach: the signer's answer comes on a socket of its own. A certificate of the CA is
 * good as long as its record is here. */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/access/access.h"
#include "engine/access/credentials.h"
#include "engine/audit/signer_call.h"
#include "engine/session/session.h"

#define CODE_PREFIX "qse1_"

enum {
    CODE_SECONDS = 3600,
    CERTIFICATE_DAYS = 90,
};

static json_t *view_enrolment(struct engine *engine, json_t *doc)
{
    return credential_view(engine->enrolments, doc);
}

static json_t *view_certificate(struct engine *engine, json_t *doc)
{
    return credential_view(engine->certificates, doc);
}

const struct credential_kind credential_enrolment = {.store = STORE_ENROLMENT, .noun = "enrolment", .path = "/enrolments", .view = view_enrolment};
const struct credential_kind credential_certificate = {.store = STORE_CERTIFICATE, .noun = "certificate", .path = "/certificates", .view = view_certificate};

/* --- the code --- */

static void enrolment_created(struct task *task, const struct err *err)
{
    struct engine *engine = task->engine;
    if (err) {
        incident(engine, NULL, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    json_t *doc = json_object_get(task->scratch, "doc");
    credential_insert(engine->enrolments, doc);
    json_put(task->body, "code", json_incref(json_object_get(task->scratch, "code")));
    task_answer(task, task->status, json_incref(task->body));
}

void engine_enrolment_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    char hash[HASH_HEX_SIZE];
    if (credentials_room(engine->enrolments, request->principal, &err) || credentials_room(engine->certificates, request->principal, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    AUTO_FREE char *code = credential_secret(CODE_PREFIX);
    int64_t expires_ms = clock_real_ms() + 1000 * json_int(request->body, "expires_in_seconds", CODE_SECONDS);
    json_t *doc = credential_record(request, json_str(request->body, "name", ""), expires_ms);
    json_put(doc, "certificate_days", json_integer(json_int(request->body, "certificate_days", CERTIFICATE_DAYS)));
    json_put(session_private(doc), "sha256", json_string(hash_sha256_hex(code, strlen(code), hash)));
    struct task *task = task_new(engine, request, answer, arg);
    task->scratch = json_pack("{s:o, s:s}", "doc", doc, "code", code);
    explicit_bzero(code, strlen(code));
    struct store_batch *batch = store_batch_new();
    credential_batch_put(engine, engine->enrolments, batch, doc);
    task->status = 201;
    str_format(task->location, sizeof task->location, "/enrolments/%s", json_str(doc, "id", ""));
    task->body = view_enrolment(engine, doc);
    json_put(task->body, "code", json_null()); /* shown once: what is kept of the answer does not have it */
    task->committed = enrolment_created;
    task_commit(task, batch);
}

/* --- signing --- */

/* One request at the signer. */
struct signing {
    struct signing *next;
    struct task *task;
    struct signer_call *call;
};

static void signing_free(struct signing *signing)
{
    struct signing **at = &signing->task->engine->signings;
    while (*at != signing)
        at = &(*at)->next;
    *at = signing->next;
    signer_call_free(signing->call);
    free(signing);
}

void signings_free(struct engine *engine)
{
    while (engine->signings) {
        struct task *task = engine->signings->task;
        struct err err;
        signing_free(engine->signings);
        credentials_give_back(engine->enrolments, task);
        err_set(&err, VSS_E_UNEXPECTED, "Ask again when the daemon is back.", "the daemon ended before this was done");
        task_fail(task, &err);
    }
}

static void refuse(struct task *task, const struct err *err)
{
    credentials_give_back(task->engine->enrolments, task);
    if (err->hr == (uint32_t)VSS_E_UNEXPECTED)
        incident(task->engine, NULL, NULL, NULL, err->hr, err->text);
    task_fail(task, err);
}

static void certificate_created(struct task *task, const struct err *err)
{
    struct engine *engine = task->engine;
    if (err) {
        refuse(task, err);
        return;
    }
    json_t *doc = json_object_get(task->scratch, "doc");
    credentials_drop_taken(engine->enrolments, task);
    credential_insert(engine->certificates, doc);
    log_line(LOG_LEVEL_INFO, NULL, "certificate %s was issued to %s (%s)", json_str(doc, "id", ""), json_str(doc, "principal", ""),
             json_str(doc, "role", ""));
    task_answer(task, task->status, json_incref(task->body));
}

/* The certificate's record, from what the signer says of it and the enrolment's. */
static json_t *certificate_record(const struct engine_request *request, const json_t *enrolment, const json_t *said)
{
    int64_t expires_ms = json_int(said, "expires_ms", 0);
    json_t *doc = credential_record(request, json_str(enrolment, "principal", ""), expires_ms);
    static const char *const taken[] = {"name", "role", "made_by"};
    for (size_t i = 0; i < ELEMENTS(taken); i++)
        json_put(doc, taken[i], json_incref(json_object_get(enrolment, taken[i])));
    json_put(doc, "fingerprint", json_string(json_str(said, "sha256", "")));
    json_put(doc, "serial", json_string(json_str(said, "serial", "")));
    json_put(doc, "last_used_at", json_null());
    json_put(doc, "last_used_from", json_null());
    json_put(session_private(doc), "sha256", json_string(json_str(said, "sha256", "")));
    return doc;
}

static void signer_said(struct task *task, const json_t *said)
{
    struct engine *engine = task->engine;
    struct err err = {0};
    const json_t *error = json_object_get(said, "error");
    if (!json_str(said, "certificate", NULL)) {
        if (error)
            err_from_json(&err, error);
        else
            err_set(&err, VSS_E_UNEXPECTED, "The log of the signer says more.", "the signer gave no certificate");
        refuse(task, &err);
        return;
    }
    const json_t *enrolment = json_object_get(task->scratch, "enrolment");
    json_t *doc = certificate_record(task->request, enrolment, said);
    json_put(task->scratch, "doc", doc);
    json_put(task->scratch, "pem", json_string(json_str(said, "certificate", "")));
    struct store_batch *batch = store_batch_new();
    credential_batch_delete(engine->enrolments, batch, enrolment);
    credential_batch_put(engine, engine->certificates, batch, doc);
    task->status = 201;
    str_format(task->location, sizeof task->location, "/certificates/%s", json_str(doc, "id", ""));
    task->body = view_certificate(engine, doc);
    json_put(task->body, "certificate", json_incref(json_object_get(task->scratch, "pem")));
    task->committed = certificate_created;
    task_commit(task, batch);
}

static void signer_answered(void *arg, const json_t *said)
{
    struct signing *signing = arg;
    struct task *task = signing->task;
    signing->call = NULL;
    signing_free(signing);
    signer_said(task, said);
}

static int ask_signer(struct task *task, const json_t *enrolment, struct err *err)
{
    struct engine *engine = task->engine;
    struct signing *signing = mem_new(sizeof *signing);
    int fd = -1;
    *signing = (struct signing){.next = engine->signings, .task = task};
    if (engine->sign)
        signing->call = signer_call_new(engine->loop, json_str(task->request->body, "csr", ""), &fd, signer_answered, signing);
    if (!signing->call) {
        free(signing);
        return err_set(err, E_OUTOFMEMORY, "Try again in a moment.", "the signer cannot be reached");
    }
    engine->signings = signing;
    engine->sign(engine->sign_arg, json_str(enrolment, "principal", ""), (int)json_int(enrolment, "certificate_days", 1), fd);
    close(fd);
    return 0;
}

void engine_on_sign(struct engine *engine, engine_sign_fn sign, void *arg)
{
    engine->sign = sign;
    engine->sign_arg = arg;
}

/* --- redeeming --- */

void engine_certificate_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err = {0};
    uint8_t digest[HASH_SIZE];
    const char *code = json_str(request->body, "code", "");
    hash_sha256(code, strlen(code), digest);
    struct credential *enrolment = credential_by_digest(engine->enrolments, digest);
    if (!enrolment || credential_expired(enrolment)) {
        err_set(&err, E_ACCESSDENIED, "Ask an administrator for a new one.", "the code is not valid, or was used, or has expired");
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    task->scratch = json_pack("{s:O}", "enrolment", enrolment->doc);
    enrolment->taken_by = task; /* nobody else gets it, unless this fails */
    if (ask_signer(task, enrolment->doc, &err))
        refuse(task, &err);
}

/* --- the rest --- */

void engine_enrolment_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_list(engine->enrolments, engine, request, answer, arg);
}
void engine_enrolment_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_get(engine->enrolments, request, answer, arg);
}
void engine_enrolment_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_delete(engine->enrolments, engine, request, answer, arg);
}
void engine_certificate_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_list(engine->certificates, engine, request, answer, arg);
}
void engine_certificate_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_get(engine->certificates, request, answer, arg);
}
void engine_certificate_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    credentials_delete(engine->certificates, engine, request, answer, arg);
}
