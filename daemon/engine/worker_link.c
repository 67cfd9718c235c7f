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
    bool window;                 /* open: it holds writers or file systems */
    bool stuck;                  /* its own word of a thaw is not to be had */
    bool settled;                /* it is gone, and nothing that it left holds anything */
    char thawed_set[UUID_SIZE];  /* the newest that the agent knows to be thawed */
    json_t *freezing;            /* id of its unanswered or answered `freezing`; NULL = nothing is frozen */
    struct err death;
    struct loop_timer *later;    /* reports a death outside the caller's stack */
    void (*lost)(void *arg, const struct err *err);
    void *arg;
};

/* The end of an operation that is kept back. */
struct held_message {
    struct held_message *next;
    struct worker_link *worker; /* NULL: closed meanwhile, nobody waits any more */
    json_t *message;
};

struct agent_link {
    struct loop *loop;
    const struct freeze_handlers *freeze;
    bool held;
    struct held_message *held_first, **held_last;
    struct loop_timer *let_go;
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

static struct worker_link *worker_by_id(struct agent_link *agent, const char *id)
{
    for (struct worker_link *worker = agent->workers; worker; worker = worker->next) {
        if (str_eq(worker->id, id))
            return worker;
    }
    return NULL;
}

/* Every operation of a dead worker fails; an idle one's owner is told. */
static void worker_report_death(void *arg)
{
    struct worker_link *worker = arg;
    struct agent_link *agent = worker->agent;
    if (agent->held) /* agent_link_hold reports it */
        return;
    if (!worker->first) {
        if (worker->lost)
            worker->lost(worker->arg, &worker->death);
        return;
    }
    char id[UUID_SIZE]; /* who is told may close it, and have a new one at the same address */
    str_copy(id, sizeof id, worker->id);
    const struct err death = worker->death; /* who is told may close it first, and say why then */
    while ((worker = worker_by_id(agent, id)) && worker->first) {
        const struct worker_reply reply = {.err = &death};
        worker_complete(worker, &reply);
    }
}

/* The freeze is over: it thawed, its operation ended, or the agent says so. */
static void worker_thawed(struct worker_link *worker)
{
    if (!worker->freezing)
        return;
    json_decref(TAKE_PTR(worker->freezing));
    if (worker->agent->freeze)
        worker->agent->freeze->thawed(worker->agent->arg, worker);
}

static void worker_window(struct worker_link *worker, const json_t *message)
{
    bool open = json_bool(message, "open", false);
    bool changes = open || worker->window;
    worker->window = open;
    worker->stuck = open && json_is_string(json_object_get(message, "stuck"));
    if (changes && worker->agent->freeze && worker->agent->freeze->window)
        worker->agent->freeze->window(worker->agent->arg, worker, message);
}

static void hold_ends(struct worker_link *worker)
{
    if (worker->freezing && worker->agent->freeze)
        worker->agent->freeze->holding(worker->agent->arg, worker, NULL);
}

static void worker_die(struct worker_link *worker, const struct err *err)
{
    if (worker->dead)
        return;
    worker_window(worker, NULL);
    hold_ends(worker);
    if (worker_link_settled(worker, json_string_value(worker->freezing)))
        worker_thawed(worker);
    worker->dead = true;
    worker->death = *err;
    str_copy(worker->death.reason, sizeof worker->death.reason, "worker_lost");
    ipc_channel_free(worker->channel);
    worker->channel = NULL;
    loop_timer_set(worker->later, 0);
}

static void hold_message(struct worker_link *worker, json_t *msg)
{
    struct held_message *held = mem_new(sizeof *held);
    *held = (struct held_message){.worker = worker, .message = json_incref(msg)};
    *worker->agent->held_last = held;
    worker->agent->held_last = &held->next;
}

static void on_done(struct worker_link *worker, json_t *msg)
{
    if (worker->stuck) { /* the agent says when it is thawed; nobody can release it any more */
        hold_ends(worker);
    } else {
        worker_window(worker, NULL);
        worker_thawed(worker);
    }
    if (worker->agent->held) {
        hold_message(worker, msg);
        return;
    }
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

static void on_freezing(struct worker_link *worker, json_t *msg)
{
    json_t *id = json_object_get(msg, "id");
    worker_thawed(worker);
    worker->freezing = id ? json_incref(id) : json_null();
    if (worker->agent->freeze)
        worker->agent->freeze->freezing(worker->agent->arg, worker, json_object_get(msg, "superblocks"));
    else
        worker_link_parked(worker);
}

static void on_holding(struct worker_link *worker, json_t *msg)
{
    if (worker->freezing && worker->agent->freeze)
        worker->agent->freeze->holding(worker->agent->arg, worker, msg);
}

static void on_window(struct worker_link *worker, json_t *msg)
{
    worker_window(worker, msg);
}

static void on_thawed(struct worker_link *worker, json_t *msg)
{
    (void)msg;
    worker_thawed(worker);
}

static void on_stream(struct worker_link *worker, const json_t *msg, int *fd)
{
    struct operation *operation = worker->first;
    if (operation && worker->sent && operation->handlers.stream && str_eq(operation->id, json_str(msg, "id", "")))
        operation->handlers.stream(operation->arg, TAKE_FD(*fd)); /* may close this worker */
}

static const struct {
    const char *type;
    void (*fn)(struct worker_link *worker, json_t *msg);
} worker_messages[] = {{"done", on_done}, {"progress", on_progress}, {"incident", on_incident},
                       {"freezing", on_freezing}, {"holding", on_holding}, {"thawed", on_thawed},
                       {"window", on_window}};

static void worker_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    const char *type = json_str(msg, "type", "");
    if (n_fds == 1 && str_eq(type, "stream")) {
        on_stream(arg, msg, fds);
        return;
    }
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

/* {"type":"thawed","worker","set"} and {"type":"settled","worker"} */
static void on_settled(struct agent_link *agent, struct worker_link *worker, const json_t *msg)
{
    const char *set = json_str(msg, "set", NULL);
    if (worker && set)
        str_copy(worker->thawed_set, sizeof worker->thawed_set, set);
    else if (worker)
        worker->settled = true;
    if (agent->freeze && agent->freeze->settled)
        agent->freeze->settled(agent->arg, json_str(msg, "worker", ""), set);
    bool silent = worker && (worker->dead || worker->stuck);
    if (silent && worker_link_settled(worker, json_string_value(worker->freezing)))
        worker_thawed(worker);
}

static void agent_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct agent_link *agent = arg;
    const char *type = json_str(msg, "type", "");
    struct worker_link *worker = worker_by_id(agent, json_str(msg, "worker", ""));
    if (str_eq(type, "settled") || str_eq(type, "thawed")) {
        on_settled(agent, worker, msg);
        return;
    }
    if (str_eq(type, "left_frozen") && agent->freeze && agent->freeze->left)
        agent->freeze->left(agent->arg, json_object_get(msg, "sets"));
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

/* --- keeping ends back --- */

static struct held_message *held_take(struct agent_link *agent)
{
    struct held_message *held = agent->held_first;
    if (!held)
        return NULL;
    agent->held_first = held->next;
    if (!agent->held_first)
        agent->held_last = &agent->held_first;
    return held;
}

static void let_go(void *arg)
{
    struct agent_link *agent = arg;
    struct held_message *held;
    while (!agent->held && (held = held_take(agent))) {
        if (held->worker)
            on_done(held->worker, held->message);
        json_decref(held->message);
        free(held);
    }
    for (struct worker_link *worker = agent->workers; worker && !agent->held; worker = worker->next)
        if (worker->dead)
            loop_timer_set(worker->later, 0);
}

void agent_link_hold(struct agent_link *agent, bool hold)
{
    agent->held = hold;
    if (!hold)
        loop_timer_set(agent->let_go, 0);
}

void agent_link_on_freeze(struct agent_link *agent, const struct freeze_handlers *handlers)
{
    agent->freeze = handlers;
}

void worker_link_parked(struct worker_link *worker)
{
    if (!worker->freezing || !worker->channel)
        return;
    AUTO_JSON json_t *msg = json_pack("{s:s, s:O}", "type", "parked", "id", worker->freezing);
    ipc_channel_send(worker->channel, msg, NULL, 0);
}

struct agent_link *agent_link_new(struct loop *loop, int fd, worker_incident_fn incident, agent_lost_fn lost, void *arg)
{
    struct agent_link *agent = mem_new(sizeof *agent);
    *agent = (struct agent_link){.loop = loop, .incident = incident, .lost = lost, .arg = arg};
    agent->held_last = &agent->held_first;
    agent->let_go = loop_timer_new(loop, let_go, agent);
    agent->channel = ipc_channel_new(loop, fd, agent_message, agent_closed, agent);
    return agent;
}

void agent_link_free(struct agent_link *agent)
{
    if (!agent)
        return;
    while (agent->workers)
        worker_link_close(agent->workers);
    for (struct held_message *held; (held = held_take(agent));) {
        json_decref(held->message);
        free(held);
    }
    loop_timer_free(agent->let_go);
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

static void unheard(void *arg, const struct worker_reply *reply)
{
    (void)arg;
    (void)reply;
}

void worker_link_abandon(struct worker_link *worker)
{
    if (!worker->first)
        return;
    worker->first->handlers = (struct worker_handlers){.done = unheard};
    worker_link_cancel(worker);
}

void worker_link_tell(struct worker_link *worker, const json_t *message)
{
    if (worker && worker->channel)
        ipc_channel_send(worker->channel, message, NULL, 0);
}

const char *worker_link_id(const struct worker_link *worker)
{
    return worker->id;
}

bool worker_link_settled(const struct worker_link *worker, const char *set)
{
    return worker->settled || (set && *set && str_eq(worker->thawed_set, set));
}

const char *worker_link_session(const struct worker_link *worker)
{
    return worker->session_id;
}

void worker_link_close(struct worker_link *worker)
{
    if (!worker)
        return;
    worker_window(worker, NULL);
    worker_thawed(worker);
    for (struct held_message *held = worker->agent->held_first; held; held = held->next)
        if (held->worker == worker)
            held->worker = NULL;
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
