#include "worker/mover_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/lines.h"

enum {
    CANCEL_MS = 30000, /* a mover's time to remove its partial data */
    JSON_DEPTH_MAX = 64,
    NO_PROGRESS_MS = 200, /* core hears of progress at most five times a second */
};

struct mover_client {
    struct worker *worker;
    const char *phase;
    bool shielded;
    pid_t pid;
    int pidfd, in_fd, out_fd;
    struct lines lines;
    char *request;
    size_t length, sent;
    json_t *done;        /* the last word */
    bool ended;          /* its output is closed */
    struct err protocol; /* it talked nonsense */
    int64_t progress_ms; /* when core heard last */
};

static void clear_client(struct mover_client *client)
{
    if (client->pid > 0) {
        proc_kill_group(client->pid);
        proc_reap(client->pid, client->pidfd, -1, NULL);
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
    const struct proc_fd fds[] = {{child_in, 0}, {child_out, 1}, {STDERR_FILENO, 2}};
    const struct proc_spec spec = {
        .argv = argv, .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true, .die_with_parent = true};
    return proc_spawn(&spec, &client->pid, &client->pidfd, err);
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
    if (!str_eq(json_str(message, "type", ""), "progress") || now - client->progress_ms < NO_PROGRESS_MS)
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

static void converse(struct mover_client *client)
{
    int64_t kill_at = INT64_MAX;
    while (!client->ended && !client->protocol.hr && !client->done) {
        if (!client->shielded && wait_stopped(&client->worker->wait) && kill_at == INT64_MAX) {
            fd_cleanup(&client->in_fd);
            client->in_fd = -1;
            kill_at = clock_mono_ms() + CANCEL_MS;
        }
        if (clock_mono_ms() >= kill_at)
            return;
        struct wait_source sources[2] = {{client->out_fd, POLLIN, out_ready, client}};
        size_t n = 1;
        if (client->in_fd >= 0 && client->sent < client->length)
            sources[n++] = (struct wait_source){client->in_fd, POLLOUT, in_ready, client};
        writers_turn(client->worker, sources, n, kill_at);
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
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the mover answered nonsense: %s", client->protocol.text);
    return err_set(err, VSS_E_UNEXPECTED, NULL, "the mover ended without an answer: %s", text);
}

static int run(struct mover_client *client, const json_t *request, json_t **ret_result, struct err *err)
{
    client->pidfd = client->in_fd = client->out_fd = -1;
    lines_init(&client->lines, IPC_MESSAGE_MAX);
    AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
    client->request = str_new("%s\n", text ? text : "{}");
    client->length = strlen(client->request);
    int result = start_child(client, err);
    if (result == 0) {
        converse(client);
        result = conclude(client, ret_result, err);
    }
    clear_client(client);
    return result;
}

int mover_client_run(struct worker *worker, const json_t *request, const char *phase, json_t **ret_result,
                     struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = phase};
    return run(&client, request, ret_result, err);
}

int mover_client_run_shielded(struct worker *worker, const json_t *request, json_t **ret_result, struct err *err)
{
    struct mover_client client = {.worker = worker, .phase = "cleanup", .shielded = true};
    return run(&client, request, ret_result, err);
}
