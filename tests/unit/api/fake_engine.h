#pragma once
/* An engine that answers by the id it is asked for, so that the API can be tested alone:
 *   sessions: "later" answers after a while, "missing" is not found, "busy" is in a bad state; others answer at once.
 *   jobs: pending until DELETE ends them (which tells the observer); their bodies count how often they were read. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "engine/engine.h"

enum { FAKE_JOBS = 8, FAKE_LATER_MS = 30 };

struct fake_job {
    char id[64];
    bool ended;
    int reads;
};

struct engine {
    struct loop *loop;
    struct ipc_channel *agent;
    engine_job_observer_fn observer;
    void *observer_arg;
    struct fake_job jobs[FAKE_JOBS];
    int later_begun, later_done;
};

struct later {
    struct engine *engine;
    const struct engine_request *request;
    engine_answer_fn answer;
    void *arg;
    struct loop_timer *timer;
};

static void fake_success(const struct engine_request *request, const char *name, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *body =
        json_pack("{s:s, s:s?, s:s?, s:s, s:O?, s:O}", "call", name, "id", request->id, "sub_id", request->sub_id,
                  "principal", request->principal->name, "body", request->body, "query", request->query);

    answer(arg, &(struct engine_answer){.status = 200, .body = body});
}

void engine_metrics(struct engine *engine, struct openmetrics *text, bool labels)
{
    (void)engine;
    (void)text;
    (void)labels;
}

bool engine_sees_all(const struct principal *principal)
{
    return principal->role == ROLE_ADMIN;
}

void engine_call(struct engine *engine, engine_call_fn call, const struct engine_request *request,
                 engine_answer_fn answer, void *arg)
{
    call(engine, request, answer, arg);
}

void engine_call_audited(struct engine *engine, engine_call_fn call, struct engine_request *request, engine_answer_fn answer,
                         void *arg)
{
    call(engine, request, answer, arg);
}

void engine_audit_refused(struct engine *engine, struct engine_request *request, const struct engine_answer *answer)
{
    (void)engine;
    (void)request;
    (void)answer;
}

void engine_audit_turned_away(struct engine *engine, struct engine_request *request, const struct engine_answer *answer)
{
    (void)engine;
    (void)request;
    (void)answer;
}

void engine_on_seal(struct engine *engine, void (*seal)(void *arg, int fd), void *arg)
{
    (void)engine;
    (void)seal;
    (void)arg;
}

void engine_audit_seal_last(struct engine *engine, void (*ended)(void *arg), void *arg)
{
    (void)engine;
    ended(arg);
}

int engine_failure_status(const struct engine_answer *answer)
{
    int status = answer->status_override ? answer->status_override : hresult_http(answer->err->hr);

    return status < 400 ? 500 : status;
}

void engine_call_once(struct engine *engine, engine_call_fn call, struct engine_request *request, engine_answer_fn answer,
                      void *arg)
{
    call(engine, request, answer, arg);
}

static void fake_later(void *arg)
{
    struct later *later = arg;

    later->engine->later_done++;
    fake_success(later->request, "later", later->answer, later->arg); /* the request must still be there */
    loop_timer_free(later->timer);
    free(later);
}

static void fake_call(struct engine *engine, const char *name, const struct engine_request *request,
                      engine_answer_fn answer, void *arg)
{
    struct err err = {0};

    if (str_eq(request->id, "missing")) {
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "Look again.", "session missing: no such session");
        answer(arg, &(struct engine_answer){.err = &err});
    } else if (str_eq(request->id, "busy")) {
        AUTO_JSON json_t *extra = json_pack("{s:s}", "session_state", "prepared");
        err_set(&err, VSS_E_BAD_STATE, "", "session busy: out of sequence");
        answer(arg, &(struct engine_answer){.err = &err, .extra = extra});
    } else if (str_eq(request->id, "later")) {
        struct later *later = mem_new(sizeof(*later));
        engine->later_begun++;
        *later = (struct later){engine, request, answer, arg, loop_timer_new(engine->loop, fake_later, later)};
        loop_timer_set(later->timer, FAKE_LATER_MS);
    } else {
        fake_success(request, name, answer, arg);
    }
}

/* No call of a fake engine answers with a stream. */
const char *engine_stream_type(const struct engine_stream *stream)
{
    (void)stream;
    return "";
}

const char *engine_stream_name(const struct engine_stream *stream)
{
    (void)stream;
    return "";
}

int engine_stream_start(struct engine_stream *stream, void (*ended)(void *arg, bool whole), void *arg)
{
    (void)stream;
    (void)ended;
    (void)arg;
    return -1;
}

void engine_stream_close(struct engine_stream *stream)
{
    (void)stream;
}

#define FAKE(name)                                                                                                     \
    void engine_##name(struct engine *engine, const struct engine_request *request, engine_answer_fn answer,           \
                       void *arg)                                                                                      \
    {                                                                                                                  \
        fake_call(engine, #name, request, answer, arg);                                                                \
    }
FAKE(session_get)
FAKE(session_delete)
FAKE(session_backup_state)
FAKE(session_context)
FAKE(session_restore_state)
FAKE(session_writer_filter)
FAKE(session_writers)
FAKE(session_writer_status)
FAKE(session_document)
FAKE(session_renew)
FAKE(session_abort)
FAKE(component_add)
FAKE(component_list)
FAKE(component_get)
FAKE(component_patch)
FAKE(component_subcomponent)
FAKE(component_new_target)
FAKE(component_mapping)
FAKE(snapshot_set_start)
FAKE(snapshot_set_add)
FAKE(snapshot_set_components)
FAKE(hold_list)
FAKE(snapshot_set_release)
FAKE(job_metadata)
FAKE(job_prepare)
FAKE(job_snapshot)
FAKE(job_copy)
FAKE(job_status)
FAKE(job_pre_restore)
FAKE(job_restore_files)
FAKE(job_post_restore)
FAKE(job_list)
FAKE(snapshot_list)
FAKE(snapshot_get)
FAKE(snapshot_delete)
FAKE(snapshot_files)
FAKE(snapshot_archive)
FAKE(snapshot_revert)
FAKE(snapshot_revert_status)
FAKE(snapshot_expose)
FAKE(snapshot_unexpose)
FAKE(snapshot_set_get)
FAKE(snapshot_set_delete)
FAKE(backup_create)
FAKE(backup_list)
FAKE(backup_get)
FAKE(backup_files)
FAKE(backup_delete)
FAKE(backup_restore)
FAKE(backup_verify)
FAKE(repository_list)
FAKE(repository_get)
FAKE(repository_create)
FAKE(repository_put)
FAKE(repository_delete)
FAKE(repository_scan)
FAKE(writer_list)
FAKE(provider_list)
FAKE(mover_list)
FAKE(volume_list)
FAKE(volume_resolve)
FAKE(error_list)
FAKE(audit_list)
FAKE(event_list)
FAKE(token_create)
FAKE(token_list)
FAKE(token_get)
FAKE(token_delete)
FAKE(enrolment_create)
FAKE(enrolment_list)
FAKE(enrolment_get)
FAKE(enrolment_delete)
FAKE(certificate_create)
FAKE(certificate_list)
FAKE(certificate_get)
FAKE(certificate_delete)
FAKE(webhook_create)
FAKE(webhook_list)
FAKE(webhook_get)
FAKE(webhook_patch)
FAKE(webhook_delete)
FAKE(webhook_rotate)
FAKE(webhook_test)
FAKE(delivery_list)
FAKE(delivery_get)
FAKE(delivery_redeliver)
FAKE(login_create)
FAKE(login_get)
FAKE(login_delete)

void engine_on_sign(struct engine *engine, engine_sign_fn sign, void *arg)
{
    (void)engine;
    (void)sign;
    (void)arg;
}
void engine_on_courier(struct engine *engine, void (*start)(void *arg, int fd), void *arg)
{
    (void)engine;
    (void)start;
    (void)arg;
}

enum credential_verdict engine_token_check(struct engine *engine, const uint8_t sha256[32], const char *from,
                                      struct principal *ret)
{
    (void)engine;
    (void)sha256;
    (void)from;
    (void)ret;
    return CREDENTIAL_UNKNOWN;
}

enum credential_verdict engine_certificate_check(struct engine *engine, const uint8_t sha256[32], const char *from,
                                                 struct principal *ret)
{
    return engine_token_check(engine, sha256, from, ret);
}

enum credential_verdict engine_login_check(struct engine *engine, const uint8_t sha256[32], const char *from,
                                           struct engine_login *ret)
{
    (void)engine;
    (void)sha256;
    (void)from;
    (void)ret;
    return CREDENTIAL_UNKNOWN;
}

void engine_session_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer,
                           void *arg)
{
    (void)engine;
    answer(arg, &(struct engine_answer){.status = 201, .body = request->body, .location = "/sessions/1"});
}

void engine_session_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer,
                         void *arg)
{
    AUTO_JSON json_t *body = json_pack("{s:[], s:s, s:O}", "items", "next_cursor", "c2", "query", request->query);

    (void)engine;
    answer(arg, &(struct engine_answer){.status = 200, .body = body, .next_cursor = "c2"});
}

void engine_job_complete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer,
                         void *arg)
{
    (void)engine;
    answer(arg, &(struct engine_answer){.status = 202, .body = request->body, .location = "/jobs/1"});
}

void engine_job_release(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    (void)engine;
    (void)request;
    answer(arg, &(struct engine_answer){.status = 204});
}

void engine_health(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *body = json_pack("{s:b, s:[], s:i, s:i}", "ready", 1, "reasons", "later_begun",
                                       engine->later_begun, "later_done", engine->later_done);

    (void)request;
    answer(arg, &(struct engine_answer){.status = 200, .body = body});
}

/* --- jobs --- */

static struct fake_job *fake_job(struct engine *engine, const char *id)
{
    for (size_t i = 0; i < FAKE_JOBS; i++) {
        if (!engine->jobs[i].id[0])
            str_copy(engine->jobs[i].id, sizeof(engine->jobs[i].id), id);
        if (str_eq(engine->jobs[i].id, id))
            return &engine->jobs[i];
    }
    abort();
}

void engine_job_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (str_eq(request->id, "missing") || str_eq(request->id, "busy")) {
        fake_call(engine, "job_get", request, answer, arg);
        return;
    }
    struct fake_job *job = fake_job(engine, request->id);
    AUTO_JSON json_t *body = json_pack("{s:s, s:s, s:i}", "id", job->id, "state", job->ended ? "succeeded" : "running",
                                       "reads", ++job->reads);
    answer(arg, &(struct engine_answer){.status = 200, .body = body});
}

void engine_job_cancel(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct fake_job *job = fake_job(engine, request->id);

    engine->observer(engine->observer_arg, job->id); /* a change that is no end wakes nobody */
    job->ended = true;
    engine->observer(engine->observer_arg, job->id);
    answer(arg, &(struct engine_answer){.status = 202, .body = request->query});
}

void engine_observe_jobs(struct engine *engine, engine_job_observer_fn observer, void *arg)
{
    engine->observer = observer;
    engine->observer_arg = arg;
}

void engine_watch(struct engine *engine, const struct engine_watcher *watcher, void *arg)
{
    (void)engine;
    (void)watcher;
    (void)arg;
}

const char *engine_archive_type(const char *format)
{
    return str_eq(format, "tar") ? "application/x-tar" : "application/zstd";
}

bool engine_event_visible(const struct principal *principal, const char *type, const char *owner)
{
    (void)type;
    return principal->role == ROLE_ADMIN || str_eq(principal->name, owner);
}

bool engine_job_is_pending(struct engine *engine, const char *job_id)
{
    return !fake_job(engine, job_id)->ended;
}

/* --- life --- */

struct engine *engine_new(struct loop *loop, const json_t *start, int agent_fd, struct err *err)
{
    struct engine *engine = mem_new(sizeof(*engine));

    (void)start;
    (void)err;
    close(agent_fd);
    engine->loop = loop;
    return engine;
}

void engine_when_recovered(struct engine *engine, void (*fn)(void *arg), void *arg)
{
    (void)engine;
    fn(arg);
}

void engine_reload(struct engine *engine, const json_t *config)
{
    (void)engine;
    (void)config;
}

void engine_drain(struct engine *engine, void (*done)(void *arg), void *arg)
{
    (void)engine;
    done(arg);
}

void engine_free(struct engine *engine)
{
    free(engine);
}
