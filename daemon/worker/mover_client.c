#include "worker/mover_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"
#include "movers/mover_child.h"
#include "worker/context.h"
#include "worker/lines.h"

enum {
    CANCEL_MS = 30000, /* a mover's time to remove its partial data, or what it had stored before the cancel was heard */
    PATIENCE_MS = 120000, /* for an answer that somebody waits for */
    REAP_MS = 5000,    /* after SIGKILL; one that hangs in the kernel is left to whoever reaps our descendants */
    JSON_DEPTH_MAX = 64,
    LOOK_MS = 1000,      /* how often a mover is looked at that says nothing; one stopped as long is killed */
    NO_PROGRESS_MS = 200, /* core hears of progress at most five times a second */
};

struct mover_client {
    struct worker *worker;
    const char *phase;
    struct mover_output *output; /* or NULL */
    bool shielded;
    pid_t pid;
    int pidfd, in_fd, out_fd;
    struct lines lines;
    char *request;
    size_t length, sent;
    json_t *done;        /* the last word */
    bool ended;          /* its output is closed */
    struct err protocol; /* it talked nonsense, or does not run */
    int64_t stopped_ms;  /* since when it is stopped; 0: it runs */
    int64_t progress_ms; /* when core heard last */
    int64_t patience_ms; /* so long for an answer; 0: as long as it takes */
    bool late;           /* which is over */
};

static void clear_client(struct mover_client *client)
{
    client->worker->mover_pid = 0;
    if (client->pid > 0) {
        proc_kill_group(client->pid);
        proc_reap(client->pid, client->pidfd, REAP_MS, NULL);
    }
    fd_cleanup(&client->pidfd);
    fd_cleanup(&client->in_fd);
    fd_cleanup(&client->out_fd);
    lines_clear(&client->lines);
    free(client->request);
    json_decref(client->done);
}

static int start_child(struct mover_client *client, struct err *err)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    client->in_fd = in[1];
    AUTO_FD int child_in = in[0];
    if (pipe2(out, O_CLOEXEC) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    client->out_fd = out[0];
    AUTO_FD int child_out = out[1];
    fcntl(client->in_fd, F_SETFL, O_NONBLOCK);
    fcntl(client->out_fd, F_SETFL, O_NONBLOCK);
    const char *argv[] = {proc_self_path(), "--role=mover", NULL};
    const struct mover_output *output = client->output;
    const struct proc_fd fds[] = {{child_in, 0}, {child_out, 1}, {STDERR_FILENO, 2},
                                  {output ? output->tree : -1, MOVER_TREE_FD}, {output ? output->write_end : -1, MOVER_OUTPUT_FD}};
    const char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
                                 fault_environment(), NULL};
    const struct proc_spec spec = {.argv = argv,
                                   .environment = environment,
                                   .fds = fds,
                                   .n_fds = output ? ELEMENTS(fds) : MOVER_TREE_FD,
                                   .new_group = true,
                                   .die_with_parent = true};
    int result = proc_spawn(&spec, &client->pid, &client->pidfd, err);
    client->worker->mover_pid = result == 0 ? client->pid : 0;
    return result;
}

static bool has_ended(int pidfd)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    return poll(&end, 1, 0) > 0;
}

/* The child that waits already, when it still does. */
static bool take_ready(struct mover_client *client)
{
    struct worker *worker = client->worker;
    if (worker->ready_mover.pid > 0 && has_ended(worker->ready_mover.pidfd))
        mover_client_unready(worker);
    if (worker->ready_mover.pid <= 0)
        return false;
    client->pid = worker->mover_pid = worker->ready_mover.pid;
    client->pidfd = worker->ready_mover.pidfd;
    client->in_fd = worker->ready_mover.in_fd;
    client->out_fd = worker->ready_mover.out_fd;
    worker->ready_mover.pid = 0;
    return true;
}

static void take_line(struct mover_client *client, const char *line, size_t length)
{
    AUTO_JSON json_t *message = json_parse_strict(line, length, JSON_DEPTH_MAX, &client->protocol);
    if (!message)
        return;
    if (str_eq(json_str(message, "type", ""), "done")) {
        json_decref(client->done);
        client->done = TAKE_PTR(message);
        return;
    }
    int64_t now = clock_mono_ms();
    const char *phase = json_str(message, "phase", NULL);
    if (str_eq(phase, "publish"))
        client->phase = "publish"; /* and core hears it now: it goes by it if this restore ends badly */
    if (!str_eq(json_str(message, "type", ""), "progress") || (!phase && now - client->progress_ms < NO_PROGRESS_MS))
        return;
    client->progress_ms = now;
    const json_t *inner = json_object_get(message, "progress");
    json_t *progress = json_copy(json_is_object(inner) ? (json_t *)inner : message);
    json_object_del(progress, "type");
    json_put(progress, "phase", json_string(client->phase));
    worker_progress(client->worker, progress);
}

static void out_ready(void *arg, int fd, short revents)
{
    struct mover_client *client = arg;
    (void)revents;
    long got = lines_fill(&client->lines, fd);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    size_t length;
    char *line;
    while ((line = lines_next(&client->lines, &length)))
        take_line(client, line, length);
    if (client->lines.overlong)
        err_set(&client->protocol, VSS_E_UNEXPECTED, NULL, "the mover's answer is too long");
    if (got <= 0)
        client->ended = true;
}

static void in_ready(void *arg, int fd, short revents)
{
    struct mover_client *client = arg;
    (void)revents;
    ssize_t sent = write(fd, client->request + client->sent, client->length - client->sent);
    if (sent > 0)
        client->sent += (size_t)sent;
    else if (sent < 0 && errno != EAGAIN && errno != EINTR)
        client->sent = client->length; /* it died: the end of its output tells */
}

/* A copy may take hours, so that there is no deadline to find a stopped one (SIGSTOP). true: it is killed. */
static bool is_stuck(struct mover_client *client)
{
    int64_t now = clock_mono_ms();
    if (!proc_stopped(client->pid))
        client->stopped_ms = 0;
    else if (!client->stopped_ms)
        client->stopped_ms = now;
    else if (now - client->stopped_ms >= LOOK_MS)
        return err_set(&client->protocol, VSS_E_UNEXPECTED, NULL, "the mover was stopped by a signal and is killed") < 0;
    return false;
}

/* Somebody waits for it, and has waited long enough. */
static bool is_late(struct mover_client *client, int64_t begun_ms)
{
    client->late = client->late || (client->patience_ms && (clock_mono_ms() - begun_ms >= client->patience_ms || worker_fault(client->worker, "worker.mover.late")));
    return client->late;
}

static void converse(struct mover_client *client)
{
    int64_t begun_ms = clock_mono_ms(), kill_at = client->shielded ? begun_ms + CANCEL_MS : INT64_MAX;
    while (!client->ended && !client->protocol.hr && !client->done) {
        bool stops = !client->shielded && (wait_stopped(&client->worker->wait) || is_late(client, begun_ms));
        if (stops && kill_at == INT64_MAX) {
            fd_cleanup(&client->in_fd);
            client->in_fd = -1;
            kill_at = clock_mono_ms() + CANCEL_MS;
        }
        if (clock_mono_ms() >= kill_at || is_stuck(client))
            return;
        struct wait_source sources[2] = {{client->out_fd, POLLIN, out_ready, client}};
        size_t n = 1;
        if (client->in_fd >= 0 && client->sent < client->length)
            sources[n++] = (struct wait_source){client->in_fd, POLLOUT, in_ready, client};
        int64_t look_at = clock_mono_ms() + LOOK_MS;
        writers_turn(client->worker, sources, n, look_at < kill_at ? look_at : kill_at);
    }
}

static int conclude(struct mover_client *client, json_t **ret_result, struct err *err)
{
    char text[128] = "it was killed";
    int status = 0;
    fd_cleanup(&client->in_fd);
    client->in_fd = -1;
    if (proc_reap(client->pid, client->pidfd, client->ended || client->done ? 5000 : 0, &status)) {
        client->pid = 0;
        proc_status_text(status, text, sizeof(text));
    }
    bool stopped = !client->shielded && wait_stopped(&client->worker->wait);
    const json_t *error = json_object_get(client->done, "error");
    if (client->late && !stopped && !json_object_get(client->done, "result"))
        return err_set(err, VSS_E_UNEXPECTED, "Is the repository's disk or server within reach?", "the mover had no answer within %lld s and was given up",
                       (long long)client->patience_ms / 1000);
    if (json_is_object(error)) {
        err_from_json(err, error);
        return stopped && err->hr == (uint32_t)VSS_S_ASYNC_CANCELLED ? worker_stopped(client->worker, err) : -1;
    }
    json_t *result = json_object_get(client->done, "result");
    if (client->done) {
        *ret_result = result ? json_incref(result) : json_object();
        return 0;
    }
    if (stopped)
        return worker_stopped(client->worker, err);
    if (client->protocol.hr)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the mover was given up: %s", client->protocol.text);
    return err_set(err, VSS_E_UNEXPECTED, NULL, "the mover ended without an answer: %s", text);
}

/* Where a mover may keep what spares it work; no backup depends on it. */
static char *request_line(const struct worker *worker, const json_t *request)
{
    AUTO_JSON json_t *whole = json_copy((json_t *)(uintptr_t)request);
    json_t *state_dir = json_object_get(worker->config, "state_dir");
    if (json_is_string(state_dir))
        json_put(whole, "state_dir", json_incref(state_dir));
    AUTO_FREE char *text = json_dumps(whole, JSON_COMPACT);
    return str_new("%s\n", text ? text : "{}");
}

static int run(struct mover_client *client, const json_t *request, json_t **ret_result, struct err *err)
{
    client->pidfd = client->in_fd = client->out_fd = -1;
    lines_init(&client->lines, IPC_MESSAGE_MAX);
    client->request = request_line(client->worker, request);
    client->length = strlen(client->request);
    int result = !client->output && take_ready(client) ? 0 : start_child(client, err);
    if (result == 0 && client->output) {
        close(TAKE_FD(client->output->write_end));
        client->output->hand_out(client->worker, &client->output->read_end);
    }
    if (result == 0) {
        converse(client);
        result = conclude(client, ret_result, err);
    }
    clear_client(client);
    return result;
}

void mover_client_ready(struct worker *worker)
{
    struct mover_client client = {.worker = worker, .pidfd = -1, .in_fd = -1, .out_fd = -1};
    struct err err;
    if (worker->ready_mover.pid > 0)
        return;
    lines_init(&client.lines, IPC_MESSAGE_MAX);
    if (start_child(&client, &err) < 0) {
        clear_client(&client); /* whoever needs one tries again, and tells */
        return;
    }
    lines_clear(&client.lines);
    worker->ready_mover.pid = client.pid;
    worker->ready_mover.pidfd = client.pidfd;
    worker->ready_mover.in_fd = client.in_fd;
    worker->ready_mover.out_fd = client.out_fd;
    worker->mover_pid = 0;
}

void mover_client_unready(struct worker *worker)
{
    struct mover_client client = {.worker = worker, .pid = worker->ready_mover.pid, .pidfd = worker->ready_mover.pidfd,
                                  .in_fd = worker->ready_mover.in_fd, .out_fd = worker->ready_mover.out_fd};
    if (client.pid <= 0)
        return;
    worker->ready_mover.pid = 0;
    lines_init(&client.lines, IPC_MESSAGE_MAX);
    clear_client(&client);
}

int mover_client_run(struct worker *worker, const json_t *request, const char *phase, json_t **ret_result,
                     struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = phase};
    return run(&client, request, ret_result, err);
}

int mover_client_ask(struct worker *worker, const json_t *request, const char *phase, json_t **ret_result, struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = phase, .patience_ms = PATIENCE_MS};
    return run(&client, request, ret_result, err);
}

int mover_client_restore(struct worker *worker, const json_t *request, bool *ret_published, json_t **ret_result,
                         struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = "restore"};
    int result = run(&client, request, ret_result, err);
    *ret_published = str_eq(client.phase, "publish");
    return result;
}

void mover_client_tidy(struct worker *worker, const json_t *restore)
{
    static const char *const taken[] = {"mover", "repository", "target", "roots"};
    AUTO_JSON json_t *request = json_pack("{s:s}", "verb", "tidy"), *nothing = NULL;
    struct err ignored;
    for (size_t i = 0; i < ELEMENTS(taken); i++)
        json_put(request, taken[i], json_incref(json_object_get(restore, taken[i])));
    mover_client_run_shielded(worker, request, &nothing, &ignored); /* else the next restore to that target does it */
}

int mover_client_produce(struct worker *worker, const json_t *request, struct mover_output *output, json_t **ret_result, struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = "archive", .output = output};
    return run(&client, request, ret_result, err);
}

int mover_client_run_shielded(struct worker *worker, const json_t *request, json_t **ret_result, struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = "cleanup", .shielded = true};
    return run(&client, request, ret_result, err);
}
