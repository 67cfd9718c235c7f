/* One generation: front, core and agent, started together and ended together. A role that dies takes the others
 * along, because they hold ends of its channels; its successors start clean. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "base/undo_bounds.h"
#include "guardian/thaw_orphans.h"
#include "serve/serve_private.h"

static const char *const role_names[ROLE_NAMES] = {
    [ROLE_NAME_AGENT] = "agent", [ROLE_NAME_CORE] = "core", [ROLE_NAME_FRONT] = "front"};

static bool any_running(const struct serve *serve)
{
    for (size_t i = 0; i < ROLE_NAMES; i++)
        if (serve->roles[i].pid > 0)
            return true;
    return false;
}

static void close_channel(struct role *role)
{
    ipc_channel_free(TAKE_PTR(role->channel));
}

/* --- the end of a generation --- */

static void generation_ended(struct serve *serve)
{
    loop_timer_stop(serve->bound);
    loop_timer_stop(serve->grace);
    serve->phase = PHASE_RESTING;
    if (serve->ending) {
        loop_quit(serve->loop, serve->exit_code);
        return;
    }
    loop_timer_set(serve->backoff, serve->backoff_ms);
    serve->backoff_ms = serve->backoff_ms * 2 > SERVE_BACKOFF_MAX_MS ? SERVE_BACKOFF_MAX_MS : serve->backoff_ms * 2;
}

bool generation_restores(const struct serve *serve)
{
    return serve->restoring || clock_mono_ms() < serve->restoring_until;
}

void generation_stop(struct serve *serve)
{
    if (serve->phase == PHASE_STOPPING || serve->phase == PHASE_RESTING)
        return;
    if (serve->phase == PHASE_SERVING && clock_mono_ms() - serve->serving_since >= SERVE_STEADY_MS)
        serve->backoff_ms = SERVE_BACKOFF_FIRST_MS;
    serve->phase = PHASE_STOPPING;
    for (size_t i = 0; i < ROLE_NAMES; i++)
        close_channel(&serve->roles[i]);
    loop_timer_stop(serve->grace);
    loop_timer_set(serve->bound, generation_restores(serve) ? RESTORE_UNDO_AGENT_MS : SERVE_STOP_MS);
    if (!any_running(serve))
        generation_ended(serve);
}

/* Why this generation ends. Roles end because another one did, and may be heard of before it: one that a signal has ended is the cause. */
static void note_end(struct serve *serve, const char *name, const char *reason, bool by_signal)
{
    if (serve->previous_end[0] && (!by_signal || serve->previous_by_signal))
        return;
    serve->previous_by_signal = by_signal;
    str_format(serve->previous_end, sizeof(serve->previous_end), "%s %s", name, reason);
}

/* A role ended, or its channel did, and nobody asked for it. */
static void generation_failed(struct serve *serve, const char *name, const char *reason)
{
    bool before_ready = serve->phase == PHASE_STARTING;

    for (size_t i = 0; i < ROLE_NAMES; i++)
        serve->restarts[i] += str_eq(role_names[i], name);
    if (serve->phase != PHASE_DRAINING)
        note_end(serve, name, reason, false);
    if (serve->phase == PHASE_DRAINING) {
        log_line(LOG_LEVEL_WARNING, NULL, "%s %s while draining", name, reason);
        generation_stop(serve);
        return;
    }
    if (before_ready && ++serve->failed_starts >= SERVE_FAILED_STARTS_MAX && !serve->ending) {
        struct err *err = &serve->failure;
        err_set(err, VSS_E_UNEXPECTED, "The lines above, of that role, say why.",
                "%s %s before it was ready, %u starts in a row", name, reason, serve->failed_starts);
        log_err(LOG_LEVEL_ERROR, NULL, err, "giving up");
        err_prefix(err, "giving up");
        serve->ending = true;
        serve->exit_code = 1;
    } else {
        log_line(LOG_LEVEL_ERROR, NULL, "%s %s%s; all roles are started again", name, reason,
                 before_ready ? " before it was ready" : "");
    }
    generation_stop(serve);
}

static void bound_reached(struct serve *serve)
{
    char missing[64];

    if (serve->phase == PHASE_RESTING && serve->joining.awaiting && joining_lacks(serve, missing, sizeof(missing))) {
        log_line(LOG_LEVEL_WARNING, NULL, "still waiting for: %s (their units tell why they do not come)", missing);
        loop_timer_set(serve->bound, SERVE_START_MS);
    } else if (serve->phase == PHASE_STARTING) {
        generation_failed(serve, "a role", "did not become ready in time");
    } else if (serve->phase == PHASE_DRAINING) {
        log_line(LOG_LEVEL_WARNING, NULL, "draining took too long: what still runs is undone");
        generation_stop(serve);
    } else if (serve->phase == PHASE_STOPPING) {
        for (size_t i = 0; i < ROLE_NAMES; i++) {
            struct role *role = &serve->roles[i];
            if (role->pid <= 0)
                continue;
            log_line(LOG_LEVEL_ERROR, NULL, "%s did not end by itself: killed", role->name);
            role->killed = true;
            /* It alone, never its group: guardians and workers undo by themselves when it is gone. */
            syscall(SYS_pidfd_send_signal, role->pidfd, SIGKILL, NULL, 0);
        }
    }
}

/* --- draining: front and core together, then the agent, whose workers core needed until the end --- */

static void drain_step(struct serve *serve)
{
    struct role *agent = &serve->roles[ROLE_NAME_AGENT], *core = &serve->roles[ROLE_NAME_CORE],
                *front = &serve->roles[ROLE_NAME_FRONT];

    if (agent->drained || agent->pid == 0) {
        generation_stop(serve);
        return;
    }
    if (!core->drained || serve->agent_draining)
        return;
    if (!front->drained) {
        if (!loop_timer_armed(serve->grace))
            loop_timer_set(serve->grace, SERVE_FRONT_GRACE_MS);
        return;
    }
    loop_timer_stop(serve->grace);
    close_channel(front);
    close_channel(core);
    serve->agent_draining = true;
    AUTO_JSON json_t *drain = json_pack("{s:s}", "type", "drain");
    ipc_channel_send(agent->channel, drain, NULL, 0);
}

static void grace_over(void *arg)
{
    struct serve *serve = arg;

    serve->roles[ROLE_NAME_FRONT].drained = true;
    drain_step(serve);
}

void generation_drain(struct serve *serve)
{
    static const enum role_name first[] = {ROLE_NAME_FRONT, ROLE_NAME_CORE};
    int64_t drain_ms = 1000 * json_int(json_object_get(serve->config, "limits"), "drain_seconds", 10);

    if (serve->phase != PHASE_SERVING) {
        generation_stop(serve);
        return;
    }
    serve->phase = PHASE_DRAINING;
    serve->agent_draining = false;
    loop_timer_set(serve->bound, drain_ms + SERVE_DRAIN_EXTRA_MS);
    AUTO_JSON json_t *drain = json_pack("{s:s}", "type", "drain");
    for (size_t i = 0; i < ELEMENTS(first); i++)
        ipc_channel_send(serve->roles[first[i]].channel, drain, NULL, 0);
}

/* --- what roles say --- */

static void announce(struct serve *serve)
{
    const json_t *tls = json_object_get(serve->config, "tls");
    const struct pki_paths *pki = &serve->places.pki;
    /* With a certificate of the operator's the private CA proves nothing: that chain is what a client must trust. */
    struct ready ready = {.ca = json_str(tls, "certificate", pki->ca_public),
                          .certificate = pki->admin_certificate,
                          .key = pki->admin_key,
                          .token_file = pki->admin_token,
                          .socket = serve->local.fd >= 0 ? serve->local.path : NULL};
    struct err err = {0};

    listeners_url(&serve->listeners, 0, ready.url);
    if (serve->options.ready_file && notify_ready_file(serve->options.ready_file, &ready, &err) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "ready file");
    if (!serve->announced)
        notify_print(&serve->listeners, &ready, serve->first_start);
    serve->announced = true;
    notify_state("READY=1");
}

static void role_ready(struct role *role)
{
    struct serve *serve = role->serve;

    role->ready = true;
    if (serve->phase != PHASE_STARTING)
        return; /* the answer to a reload */
    for (size_t i = 0; i < ROLE_NAMES; i++)
        if (!serve->roles[i].ready)
            return;
    loop_timer_stop(serve->bound);
    serve->phase = PHASE_SERVING;
    serve->previous_by_signal = false;
    serve->previous_end[0] = '\0'; /* told: core has it from its start message */
    serve->failed_starts = 0;
    serve->serving_since = clock_mono_ms();
    loop_timer_set(serve->watchdog, 0); /* its first round also brings the first figures */
    announce(serve);
    if (serve->reload_pending)
        generation_reload(serve);
}

static void role_drained(struct role *role)
{
    role->drained = true;
    if (role->serve->phase == PHASE_DRAINING)
        drain_step(role->serve);
}

static void role_reload_failed(struct role *role, const json_t *msg)
{
    struct err err = {0};

    err_from_json(&err, json_object_get(msg, "error"));
    log_err(LOG_LEVEL_ERROR, NULL, &err, "%s keeps what it had before the reload", role->name);
}

/* Core sees the end of the socket, whatever happens; the fd is the channel's to close. */
static void role_signs(struct role *role, const json_t *msg, int fd)
{
    struct err err = {0};

    if (children_sign(role->serve, json_str(msg, "principal", ""), (int)json_int(msg, "days", 0), fd, &err) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "signer");
}

static void role_seals(struct role *role, int fd)
{
    struct err err = {0};

    if (children_seal(role->serve, fd, &err) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "signer");
}

static void role_answered(struct role *role, const json_t *msg)
{
    watchdog_answered(role);
    generation_figures_take(role, json_object_get(msg, "figures"));
}

/* Core sees the end of the socket when there will be none; the fd is the channel's to close. */
static void role_wants_courier(struct role *role, int fd)
{
    struct err err = {0};

    if (courier_start(role->serve, fd, &err) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "courier");
}

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct role *role = arg;
    const char *type = json_str(msg, "type", "");

    if (str_eq(type, "ready"))
        role_ready(role);
    else if (str_eq(type, "drained"))
        role_drained(role);
    else if (str_eq(type, "pong"))
        role_answered(role, msg);
    else if (str_eq(type, "figures"))
        generation_figures_take(role, json_object_get(msg, "figures"));
    else if (str_eq(type, "sign") && role == &role->serve->roles[ROLE_NAME_CORE] && n_fds == 1)
        role_signs(role, msg, fds[0]);
    else if (str_eq(type, "seal") && role == &role->serve->roles[ROLE_NAME_CORE] && n_fds == 1)
        role_seals(role, fds[0]);
    else if (str_eq(type, "courier") && role == &role->serve->roles[ROLE_NAME_CORE] && n_fds == 1)
        role_wants_courier(role, fds[0]);
    else if (str_eq(type, "restoring") && role == &role->serve->roles[ROLE_NAME_AGENT])
        role->serve->restoring = json_bool(msg, "active", false);
    else if (str_eq(type, "reload_failed"))
        role_reload_failed(role, msg);
    else
        generation_failed(role->serve, role->name, "sent an unknown message");
}

/* Waits at most ms. Of a role that is no child of ours there is no status. */
static bool role_ended(const struct role *role, int ms, int *ret_status)
{
    struct pollfd exit = {.fd = role->pidfd, .events = POLLIN};

    return role->joined ? poll(&exit, 1, ms) > 0 : proc_reap(role->pid, role->pidfd, ms, ret_status);
}

/* The exit follows at once in the ordinary case, and says more than the channel does. */
static void role_gone(struct role *role, const char *otherwise)
{
    enum { EXIT_MS = 500 };
    struct serve *serve = role->serve;
    bool expected = !role->channel || serve->phase == PHASE_STOPPING;
    char text[64] = "", reason[80];
    int status = 0;

    bool gone = role->pid > 0 && role_ended(role, EXIT_MS, &status);
    if (gone) {
        role->pid = 0;
        loop_io_remove(TAKE_PTR(role->exit_io));
        close(TAKE_FD(role->pidfd));
        str_format(reason, sizeof(reason), "ended: %s", role->joined ? "its unit tells how" : proc_status_text(status, text, sizeof(text)));
    }
    close_channel(role);
    if (gone && !role->joined && WIFSIGNALED(status) && !role->killed && (!expected || serve->previous_end[0]))
        note_end(serve, role->name, reason, true);
    if (serve->phase == PHASE_DRAINING && gone && status == 0)
        role->drained = expected = true;
    if (!expected) {
        generation_failed(serve, role->name, gone ? reason : otherwise);
        return;
    }
    if (gone && status != 0)
        log_line(LOG_LEVEL_WARNING, NULL, "%s %s", role->name, reason);
    if (serve->phase == PHASE_DRAINING)
        drain_step(serve);
    if (serve->phase == PHASE_STOPPING && !any_running(serve))
        generation_ended(serve);
}

static void on_closed(void *arg, const struct err *err)
{
    role_gone(arg, err ? "broke its channel" : "closed its channel");
}

static void on_exit_io(void *arg, uint32_t events)
{
    (void)events;
    role_gone(arg, "ended");
}

static void on_bound(void *arg)
{
    bound_reached(arg);
}

/* --- the start --- */

/* Our end of the channel to a role that is started now, or -1. */
static int role_spawn(struct serve *serve, enum role_name name, struct err *err)
{
    int control[2];

    if (ipc_pair(control, err) != 0)
        return -1;
    int result = children_spawn(serve, name, control[1], err);
    close(control[1]);
    if (result == 0)
        return control[0];
    close(control[0]);
    return -1;
}

static int role_start(struct serve *serve, enum role_name name, struct err *err)
{
    struct role *role = &serve->roles[name];

    *role = (struct role){.serve = serve, .name = role_names[name], .pidfd = -1};
    int control = serve->joining.active ? joining_take(serve, name, role, err) : role_spawn(serve, name, err);
    if (control < 0)
        return err_prefix(err, "%s", role->name);
    role->channel = ipc_channel_new(serve->loop, control, on_message, on_closed, role);
    role->exit_io = loop_io_add(serve->loop, role->pidfd, EPOLLIN, on_exit_io, role);
    return 0;
}

static int send_start(struct serve *serve, const int handover[2], const int agent[2], struct err *err)
{
    int files[FRONT_FILES];
    struct message_fds front = {.n = 0};
    AUTO_JSON json_t *to_core = messages_core(serve, "start", err);

    if (!to_core || messages_open_files(serve, files, err) != 0)
        return -1;
    front.fds[front.n++] = handover[0];
    for (size_t i = 0; i < FRONT_FILES; i++)
        if (files[i] >= 0)
            front.fds[front.n++] = files[i];
    for (size_t i = 0; i < serve->listeners.n; i++)
        front.fds[front.n++] = serve->listeners.fds[i];
    if (serve->local.fd >= 0)
        front.fds[front.n++] = serve->local.fd;
    AUTO_JSON json_t *to_agent = messages_agent(serve, "start");
    AUTO_JSON json_t *to_front = messages_front(serve, "start");
    ipc_channel_send(serve->roles[ROLE_NAME_AGENT].channel, to_agent, &agent[0], 1);
    ipc_channel_send(serve->roles[ROLE_NAME_CORE].channel, to_core, (int[]){handover[1], agent[1]}, 2);
    ipc_channel_send(serve->roles[ROLE_NAME_FRONT].channel, to_front, front.fds, front.n);
    for (size_t i = 0; i < FRONT_FILES; i++)
        if (files[i] >= 0)
            close(files[i]);
    return 0;
}

static int start_all(struct serve *serve, struct err *err)
{
    int handover[2] = {-1, -1}, agent[2] = {-1, -1};
    int result = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handover) != 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot create a socket pair");
    if (ipc_pair(agent, err) != 0)
        result = -1;
    for (enum role_name name = 0; result == 0 && name < ROLE_NAMES; name++)
        result = role_start(serve, name, err);
    if (result == 0)
        result = send_start(serve, handover, agent, err);
    for (int i = 0; i < 2; i++) { /* the roles alone hold these channels: an end of one must be seen by the other */
        close(handover[i]);
        if (agent[i] >= 0)
            close(agent[i]);
    }
    return result;
}

/* Roles that are units come by themselves; the one that comes last starts the generation. */
static bool roles_awaited(struct serve *serve)
{
    serve->joining.awaiting = serve->joining.active && !joining_complete(serve);
    if (serve->joining.awaiting) {
        serve->phase = PHASE_RESTING;
        loop_timer_set(serve->bound, SERVE_AWAIT_MS);
    }
    return serve->joining.awaiting;
}

void generation_start(struct serve *serve)
{
    struct err err = {0};

    if (!serve->bound) {
        serve->bound = loop_timer_new(serve->loop, on_bound, serve);
        serve->grace = loop_timer_new(serve->loop, grace_over, serve);
    }
    if (roles_awaited(serve))
        return;
    serve->phase = PHASE_STARTING;
    if (serve->restoring) /* what its agent knew of writers that are still at it */
        serve->restoring_until = clock_mono_ms() + RESTORE_UNDO_AGENT_MS;
    serve->restoring = false;
    generation_figures_drop(serve); /* of the generation before */
    if (!serve->joining.active) /* the agent's unit does it itself: we may not */
        thaw_orphans(); /* of the generation before: its agent may have been killed with a guardian that was stopped */
    for (size_t i = 0; i < ROLE_NAMES; i++)
        serve->roles[i] = (struct role){.serve = serve, .name = role_names[i], .pidfd = -1};
    loop_timer_set(serve->bound, SERVE_START_MS);
    if (start_all(serve, &err) != 0) {
        log_err(LOG_LEVEL_ERROR, NULL, &err, "start");
        generation_failed(serve, "a role", "could not be started");
    }
}

void generation_reload(struct serve *serve)
{
    struct err err = {0};
    int files[FRONT_FILES];
    struct message_fds front = {.n = 0};

    serve->reload_pending = serve->phase == PHASE_STARTING;
    if (serve->phase != PHASE_SERVING)
        return; /* the next generation starts with the new one */
    AUTO_JSON json_t *to_core = messages_core(serve, "reload", &err);
    if (!to_core || messages_open_files(serve, files, &err) != 0) {
        log_err(LOG_LEVEL_ERROR, NULL, &err, "reload");
        return;
    }
    for (size_t i = 0; i < FRONT_FILES; i++)
        if (files[i] >= 0)
            front.fds[front.n++] = files[i];
    AUTO_JSON json_t *to_agent = messages_agent(serve, "reload");
    AUTO_JSON json_t *to_front = messages_front(serve, "reload");
    ipc_channel_send(serve->roles[ROLE_NAME_AGENT].channel, to_agent, NULL, 0);
    ipc_channel_send(serve->roles[ROLE_NAME_CORE].channel, to_core, NULL, 0);
    ipc_channel_send(serve->roles[ROLE_NAME_FRONT].channel, to_front, front.fds, front.n);
    for (size_t i = 0; i < front.n; i++)
        close(front.fds[i]);
}
