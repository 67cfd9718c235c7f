#include "engine/worker_link.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"

struct operation {
    struct operation *next;
    char id[UUID_SIZE];
    json_t *message;
    struct worker_handlers handlers;
    void *arg;
    bool cancelled;
};

struct worker_link {
    struct worker_link *next;
    struct agent_link *agent;
    char id[UUID_SIZE];
    char *session_id;
    struct ipc_channel *channel; /* NULL until launched */
    struct operation *first, *last; /* first is in hand */
    bool sent;
    bool dead;
    struct err death;
    struct loop_timer *later;    /* reports a death outside the caller's stack */
    void (*lost)(void *arg, const struct err *err);
    void *arg;
};

struct agent_link {
    struct loop *loop;
    struct ipc_channel *channel;
    struct worker_link *workers;
    worker_incident_fn incident;
    agent_lost_fn lost;
    void *arg;
};

static void operation_free(struct operation *operation)
{
    json_decref(operation->message);
    free(operation);
}

static void worker_send_next(struct worker_link *worker)
{
    struct operation *operation = worker->first;
    if (!operation || worker->sent || !worker->channel)
        return;
    worker->sent = true;
    ipc_channel_send(worker->channel, operation->message, NULL, 0);
    if (operation->cancelled)
        worker_link_cancel(worker);
}

/* Takes the operation in hand off the list and reports its end. */
static void worker_complete(struct worker_link *worker, const struct worker_reply *reply)
{
    struct operation *operation = worker->first;
    worker->first = operation->next;
    if (!worker->first)
        worker->last = NULL;
    worker->sent = false;
    struct worker_handlers handlers = operation->handlers;
    void *arg = operation->arg;
    operation_free(operation);
    if (!worker->dead)
        worker_send_next(worker);
    handlers.done(arg, reply); /* last: may close this worker */
}

static bool worker_known(const struct agent_link *agent, const struct worker_link *wanted)
{
    for (const struct worker_link *worker = agent->workers; worker; worker = worker->next) {
        if (worker == wanted)
            return true;
    }
    return false;
}

/* Every operation of a dead worker fails; an idle one's owner is told. */
static void worker_report_death(void *arg)
{
    struct worker_link *worker = arg;
    struct agent_link *agent = worker->agent;
    if (!worker->first) {
        if (worker->lost)
            worker->lost(worker->arg, &worker->death);
        return;
    }
    while (worker_known(agent, worker) && worker->first) {
        const struct worker_reply reply = {.err = &worker->death};
        worker_complete(worker, &reply);
    }
}

static void worker_die(struct worker_link *worker, const struct err *err)
{
    if (worker->dead)
        return;
    worker->dead = true;
    worker->death = *err;
    str_copy(worker->death.reason, sizeof worker->death.reason, "worker_lost");
    ipc_channel_free(worker->channel);
    worker->channel = NULL;
    loop_timer_set(worker->later, 0);
}

static void on_done(struct worker_link *worker, json_t *msg)
{
    if (!worker->first || !worker->sent || !str_eq(worker->first->id, json_str(msg, "id", "")))
        return;
    struct err err;
    struct worker_reply reply = {.result = json_object_get(msg, "result"), .writers = json_object_get(msg, "writers")};
    const json_t *error = json_object_get(msg, "error");
    if (json_is_object(error)) {
        err_from_json(&err, error);
        reply.err = &err;
    }
    worker_complete(worker, &reply);
}

static void on_progress(struct worker_link *worker, json_t *msg)
{
    struct operation *operation = worker->first;
    json_t *progress = json_object_get(msg, "progress");
    if (operation && operation->handlers.progress && json_is_object(progress) && str_eq(operation->id, json_str(msg, "id", "")))
        operation->handlers.progress(operation->arg, progress);
}

static void on_incident(struct worker_link *worker, json_t *msg)
{
    worker->agent->incident(worker->agent->arg, worker->session_id, msg);
}

static const struct {
    const char *type;
    void (*fn)(struct worker_link *worker, json_t *msg);
} worker_messages[] = {{"done", on_done}, {"progress", on_progress}, {"incident", on_incident}};

static void worker_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    (void)fds;
    (void)n_fds;
    const char *type = json_str(msg, "type", "");
    for (size_t i = 0; i < ELEMENTS(worker_messages); i++) {
        if (str_eq(type, worker_messages[i].type)) {
            worker_messages[i].fn(arg, msg);
            return;
        }
    }
}

static void worker_closed(void *arg, const struct err *err)
{
    struct worker_link *worker = arg;
    struct err death;
    if (err)
        death = *err;
    else
        err_set(&death, VSS_E_UNEXPECTED, "See the log for its last words; start a new session.", "the worker process ended unexpectedly");
    worker_die(worker, &death);
}

static struct worker_link *worker_by_id(struct agent_link *agent, const char *id)
{
    for (struct worker_link *worker = agent->workers; worker; worker = worker->next) {
        if (str_eq(worker->id, id))
            return worker;
    }
    return NULL;
}

static void agent_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct agent_link *agent = arg;
    const char *type = json_str(msg, "type", "");
    struct worker_link *worker = worker_by_id(agent, json_str(msg, "worker", ""));
    if (!worker) /* closed meanwhile: the fd is dropped, which ends the worker */
        return;
    struct err err;
    if (str_eq(type, "launched") && n_fds == 1 && !worker->channel && !worker->dead) {
        worker->channel = ipc_channel_new(agent->loop, TAKE_FD(fds[0]), worker_message, worker_closed, worker);
        worker_send_next(worker);
    } else if (str_eq(type, "launch_failed")) {
        err_from_json(&err, json_object_get(msg, "error"));
        worker_die(worker, &err);
    } else if (str_eq(type, "exited") && !worker->channel) {
        err_set(&err, VSS_E_UNEXPECTED, NULL, "the worker process ended: %s", json_str(msg, "status", "unknown status"));
        worker_die(worker, &err);
    }
}

static void agent_closed(void *arg, const struct err *err)
{
    struct agent_link *agent = arg;
    (void)err;
    agent->lost(agent->arg);
}

struct agent_link *agent_link_new(struct loop *loop, int fd, worker_incident_fn incident, agent_lost_fn lost, void *arg)
{
    struct agent_link *agent = mem_new(sizeof *agent);
    *agent = (struct agent_link){.loop = loop, .incident = incident, .lost = lost, .arg = arg};
    agent->channel = ipc_channel_new(loop, fd, agent_message, agent_closed, agent);
    return agent;
}

void agent_link_free(struct agent_link *agent)
{
    if (!agent)
        return;
    while (agent->workers)
        worker_link_close(agent->workers);
    ipc_channel_free(agent->channel);
    free(agent);
}

size_t agent_link_workers(const struct agent_link *agent)
{
    size_t n = 0;
    for (const struct worker_link *worker = agent->workers; worker; worker = worker->next)
        n++;
    return n;
}

struct worker_link *worker_link_new(struct agent_link *agent, const char *session_id, void (*lost)(void *arg, const struct err *err), void *arg)
{
    struct worker_link *worker = mem_new(sizeof *worker);
    *worker = (struct worker_link){.agent = agent, .session_id = str_dup(session_id), .lost = lost, .arg = arg, .next = agent->workers};
    uuid_v7(worker->id);
    worker->later = loop_timer_new(agent->loop, worker_report_death, worker);
    agent->workers = worker;
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s, s:s?}", "type", "launch", "worker", worker->id, "session", session_id);
    ipc_channel_send(agent->channel, msg, NULL, 0);
    return worker;
}

void worker_link_run(struct worker_link *worker, const char *operation, json_t *args, const struct worker_handlers *handlers, void *arg)
{
    struct operation *op = mem_new(sizeof *op);
    op->handlers = *handlers;
    op->arg = arg;
    uuid_v7(op->id);
    op->message = json_pack("{s:s, s:s, s:s, s:o}", "type", "run", "id", op->id, "operation", operation, "args", args ? args : json_object());
    if (worker->last)
        worker->last->next = op;
    else
        worker->first = op;
    worker->last = op;
    if (worker->dead)
        loop_timer_set(worker->later, 0);
    else
        worker_send_next(worker);
}

void worker_link_cancel(struct worker_link *worker)
{
    struct operation *operation = worker->first;
    if (!operation)
        return;
    operation->cancelled = true;
    if (!worker->channel || !worker->sent)
        return;
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s}", "type", "cancel", "id", operation->id);
    ipc_channel_send(worker->channel, msg, NULL, 0);
}

void worker_link_close(struct worker_link *worker)
{
    if (!worker)
        return;
    for (struct worker_link **at = &worker->agent->workers; *at; at = &(*at)->next) {
        if (*at == worker) {
            *at = worker->next;
            break;
        }
    }
    while (worker->first) {
        struct operation *operation = worker->first;
        worker->first = operation->next;
        operation_free(operation);
    }
    ipc_channel_free(worker->channel);
    loop_timer_free(worker->later);
    free(worker->session_id);
    free(worker);
}

bool worker_link_alive(const struct worker_link *worker)
{
    return worker && !worker->dead;
}
