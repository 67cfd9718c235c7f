#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/capabilities.h"
#include "worker/context.h"
#include "worker/mover_client.h"

enum { CORE_FD = 3, AGENT_FD = 4, START_TIMEOUT_MS = 30000 };

static const struct operation {
    const char *name;
    operation_fn run;
} operations[] = {
    {"inventory", operation_inventory},
    {"metadata", operation_metadata},
    {"resolve", operation_resolve},
    {"covered", operation_covered},
    {"root", operation_root},
    {"plan", operation_plan},
    {"prepare", operation_prepare},
    {"snapshot", operation_snapshot},
    {"copy", operation_copy},
    {"complete", operation_complete},
    {"status", operation_status},
    {"abort", operation_abort},
    {"release", operation_release},
    {"pre_restore", operation_pre_restore},
    {"restore_files", operation_restore_files},
    {"post_restore", operation_post_restore},
    {"restore", operation_restore},
    {"verify", operation_verify},
    {"remove_backup", operation_remove_backup},
    {"seal", operation_seal},
    {"open_repository", operation_open_repository},
    {"scan", operation_scan},
    {"remove_snapshot", operation_remove_snapshot},
    {"expose", operation_expose},
    {"unexpose", operation_unexpose},
    {"list_files", operation_list_files},
    {"list_backup_files", operation_list_backup_files},
    {"archive", operation_archive},
    {"revert_check", operation_revert_check},
    {"revert", operation_revert},
    {"revert_outcome", operation_revert_outcome},
    {"recover", operation_recover},
    {"sweep", operation_sweep},
};

static void send_core(struct worker *worker, json_t *message /* taken */)
{
    AUTO_JSON json_t *owned = message;
    if (worker->wait.core_fd >= 0)
        ipc_send(worker->wait.core_fd, owned, NULL, 0, NULL); /* core gone: its end-of-file comes next */
}

void worker_say(struct worker *worker, json_t *message)
{
    send_core(worker, message);
}

void worker_progress(struct worker *worker, json_t *progress)
{
    AUTO_JSON json_t *owned = progress;
    if (worker->wait.current)
        send_core(worker,
                  json_pack("{s:s, s:O, s:O}", "type", "progress", "id", worker->wait.current, "progress", owned));
}

void worker_phase(struct worker *worker, const char *phase)
{
    worker_progress(worker, json_pack("{s:s}", "phase", phase));
}

void worker_incident(struct worker *worker, uint32_t hr, const char *writer, const char *text)
{
    send_core(worker, json_pack("{s:s, s:s, s:s?, s:s}", "type", "incident", "code", hresult_name(hr), "writer", writer,
                                "text", text));
}

int worker_stopped(struct worker *worker, struct err *err)
{
    if (worker->wait.lost && !worker->wait.cancelled) {
        err_set(err, VSS_E_UNEXPECTED, NULL, "interrupted: %s", worker->wait.lost_reason);
        if (err)
            str_copy(err->reason, sizeof(err->reason), "interrupted");
        return -1;
    }
    return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
}

#ifdef QUIESCED_FAULTS
enum { HOLD_STEP_MS = 20 };

bool worker_fault(struct worker *worker, const char *fmt, ...)
{
    char name[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    enum fault_kind kind = fault_take(name);
    while (kind == FAULT_HOLD && fault_armed(name) && !wait_stopped(&worker->wait))
        writers_turn(worker, NULL, 0, clock_mono_ms() + HOLD_STEP_MS);
    return kind == FAULT_FAIL;
}
#else
bool worker_fault(struct worker *worker, const char *fmt, ...)
{
    (void)worker;
    (void)fmt;
    return false;
}
#endif

int worker_fault_error(const char *what, struct err *err)
{
    return err_set(err, VSS_E_UNEXPECTED, NULL, "%s: fault injected", what);
}

static bool must_stop(void *arg)
{
    struct worker *worker = arg;
    if (worker->window_end_us && clock_mono_us() >= worker->window_end_us)
        return true; /* what comes out now is worth nothing: thaw */
    return wait_look(&worker->wait);
}

struct provider_environment worker_environment(struct worker *worker)
{
    const json_t *copy = json_object_get(json_object_get(worker->config, "providers"), "copy");
    return (struct provider_environment){
        .staging = json_str(copy, "staging", worker->staging),
        .node = worker->owner,
        .root = worker->root,
        .cancelled = must_stop,
        .cancelled_arg = worker,
        .await_release = freeze_set_await_release,
        .await_arg = worker,
        .window_end_us = worker->window_end_us,
    };
}

json_t *worker_restore_roots(const struct worker *worker)
{
    json_t *roots = json_object_get(json_object_get(worker->config, "restore"), "roots");
    return roots ? json_incref(roots) : json_array();
}

int64_t worker_limit_ms(const struct worker *worker, const char *key, int64_t fallback_seconds)
{
    const json_t *value = json_object_get(json_object_get(worker->config, "limits"), key);
    if (json_is_number(value) && json_number_value(value) > 0)
        return (int64_t)(json_number_value(value) * 1000);
    return fallback_seconds * 1000;
}

/* The agent's first word. Without it there is nothing to work with: end-of-file or silence ends us. */
static int take_start(struct worker *worker, struct err *err)
{
    AUTO_JSON json_t *start = NULL;
    size_t n_fds = 0;
    int got = ipc_recv(AGENT_FD, START_TIMEOUT_MS, &start, NULL, &n_fds, err);
    if (got < 0)
        return err_prefix(err, "the agent's start message");
    if (got == 0 || !str_eq(json_str(start, "type", ""), "start"))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the agent sent no start message");
    json_t *config = json_object_get(start, "config");
    worker->config = json_is_object(config) ? json_incref(config) : json_object();
    str_copy(worker->node, sizeof(worker->node), json_str(start, "node", "localhost"));
    /* The host alone is not enough: two state directories on one host must not take each other's snapshots for leftovers. */
    const char *installation = json_str(start, "installation", NULL);
    str_format(worker->owner, sizeof(worker->owner), "%s%s%s", worker->node, installation ? "/" : "", installation ? installation : "");
    str_copy(worker->staging, sizeof(worker->staging), json_str(start, "staging", ""));
    str_copy(worker->installation, sizeof(worker->installation), json_str(start, "installation", "-"));
    const char *session = json_str(start, "session", NULL);
    if (session)
        str_copy(worker->session, sizeof(worker->session), session);
    else
        str_format(worker->session, sizeof(worker->session), "job-%d", (int)getpid());
    return 0;
}

static int find_and_run(struct worker *worker, const json_t *message, json_t *result, struct err *err)
{
    const char *name = json_str(message, "operation", "");
    if (wait_look(&worker->wait))
        return worker_stopped(worker, err);
    if (!str_eq(name, "seal"))
        mover_client_unready(worker);
    for (size_t i = 0; i < ELEMENTS(operations); i++) {
        if (!str_eq(operations[i].name, name))
            continue;
        if (!worker_fault(worker, "worker.%s", name))
            return operations[i].run(worker, json_object_get(message, "args"), result, err);
        worker_fault_error(name, err);
        worker_incident(worker, VSS_E_UNEXPECTED, NULL, err->text);
        return -1;
    }
    return err_set(err, E_NOTIMPL, NULL, "the worker knows no operation \"%s\"", name);
}

/* Our log lines, and those of writers, belong to the request that began it. */
static void take_trace(struct worker *worker, const json_t *trace)
{
    log_adopt(json_str(trace, "request_id", NULL), json_str(trace, "trace_id", NULL));
    if (!str_copy(worker->traceparent, sizeof(worker->traceparent), json_str(trace, "traceparent", "")))
        worker->traceparent[0] = '\0';
}

static void run_operation(struct worker *worker, const json_t *message)
{
    struct err err = {0};
    AUTO_JSON json_t *result = json_object();
    worker->wait.current = json_object_get(message, "id");
    worker->wait.cancelled = json_bool(message, "cancelled", false);
    take_trace(worker, json_object_get(json_object_get(message, "args"), "trace"));
    int failed = find_and_run(worker, message, result, &err);
    json_t *done = json_pack("{s:s, s:O, s:O}", "type", "done", "id", worker->wait.current, "result", result);
    if (failed < 0) {
        json_put(done, "error", err_to_json(&err));
        json_put(done, "writers", writers_failed(&worker->writers));
    }
    worker->wait.current = NULL;
    worker->wait.cancelled = false;
    send_core(worker, done);
}

static void serve(struct worker *worker)
{
    while (!worker->wait.lost && !worker->released) {
        AUTO_JSON json_t *message = wait_next_run(&worker->wait);
        if (message)
            run_operation(worker, message);
        else
            writers_turn(worker, NULL, 0, INT64_MAX);
    }
}

static void clear_worker(struct worker *worker)
{
    AUTO_JSON json_t *cleanup = undo_cleanup_new();
    undo_all(worker, HOLD_STAGING, cleanup);
    size_t i;
    const json_t *failed;
    json_array_foreach (json_object_get(cleanup, "failed"), i, failed)
        log_line(LOG_LEVEL_ERROR, &(struct log_context){.session_id = worker->session}, "%s is left behind: %s",
                 json_str(failed, "object", ""), json_str(failed, "reason", ""));
    snapshots_clear(&worker->set);
    json_decref(worker->config);
    json_decref(worker->components);
    json_decref(worker->backup_state);
    json_decref(worker->extra_files);
    mover_client_unready(worker);
    wait_clear(&worker->wait);
}

int worker_main(void)
{
    struct err err = {0};
    struct worker *worker = mem_new(sizeof(*worker));
    log_init("worker", LOG_LEVEL_INFO);
    fcntl(CORE_FD, F_SETFD, FD_CLOEXEC);
    fcntl(AGENT_FD, F_SETFD, FD_CLOEXEC);
    worker->root = geteuid() == 0;
    worker->staging_fd = -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what a writer leaves when it dies comes to us, and is ended */
    worker->extra_files = json_array();
    worker->freeze.guardian_fd = -1;
    if (wait_init(&worker->wait, CORE_FD, AGENT_FD) < 0) {
        log_line(LOG_LEVEL_ERROR, NULL, "cannot wait: %s", strerror(errno));
        free(worker);
        return 1;
    }
    int result = take_start(worker, &err);
    if (result == 0 && worker->root && capabilities_reduce(&err) < 0)
        log_err(LOG_LEVEL_WARNING, &(struct log_context){.session_id = worker->session}, &err,
                "more privileges than needed");
    if (result == 0)
        serve(worker);
    else
        log_err(LOG_LEVEL_ERROR, NULL, &err, "the worker cannot start");
    /* Core lets go of a worker that it has no more use for: what that holds it undoes, as always. Anything else is worth a word. */
    if (worker->wait.lost && !worker->wait.let_go && undo_holds(&worker->undo))
        log_line(LOG_LEVEL_WARNING, &(struct log_context){.session_id = worker->session}, "undoing everything: %s",
                 worker->wait.lost_reason);
    clear_worker(worker);
    free(worker);
    return result < 0;
}
