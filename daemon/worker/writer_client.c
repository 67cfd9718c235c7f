#include "worker/writer_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/offspring.h"
#include "base/str.h"
#include "worker/freeze_guard.h"
#include "worker/writer_metadata.h"

enum {
    REAP_MS = 5000, /* after SIGKILL; as for a mover */
    LINE_MAX_BYTES = 1024 * 1024, /* protocol 1: a longer line is a failure */
    LOG_LINE_MAX = 4096,
    LOG_LINES_PER_EVENT = 200, /* a flooding writer must not fill the journal */
    JSON_DEPTH_MAX = 32,
};

static int pipe_for(int ret_ours[1], int ret_theirs[1], bool we_write, struct err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    int ours = we_write ? fds[1] : fds[0];
    ret_ours[0] = ours;
    ret_theirs[0] = we_write ? fds[0] : fds[1];
    fcntl(ours, F_SETFL, O_NONBLOCK);
    return 0;
}

int writer_client_start(struct writer_client *client, const char *name, const char *session, struct proc_spec *spec,
                        struct err *err)
{
    *client = (struct writer_client){.pidfd = -1, .in_fd = -1, .out_fd = -1, .err_fd = -1, .next_id = 1};
    str_copy(client->name, sizeof(client->name), name);
    str_copy(client->session, sizeof(client->session), session);
    lines_init(&client->out, LINE_MAX_BYTES);
    lines_init(&client->log, LOG_LINE_MAX);
    AUTO_FD int in = -1;
    AUTO_FD int out = -1;
    AUTO_FD int log = -1;
    if (pipe_for(&client->in_fd, &in, true, err) < 0 || pipe_for(&client->out_fd, &out, false, err) < 0 ||
        pipe_for(&client->err_fd, &log, false, err) < 0)
        goto failed;
    const struct proc_fd fds[] = {{in, 0}, {out, 1}, {log, 2}};
    spec->fds = fds;
    spec->n_fds = ELEMENTS(fds);
    spec->new_group = true; /* it does not die with us: at end-of-file it undoes its hold; the agent ends one that is late */
    if (proc_spawn(spec, &client->pid, &client->pidfd, err) == 0)
        return 0;
    client->pid = 0;
failed:
    writer_client_clear(client);
    client->broken = true;
    return -1;
}

static void kill_group(struct writer_client *client)
{
    if (client->pid > 0)
        offspring_kill(client->pid);
}

/* The first failure is the one that counts: later ones are its consequences. */
static void break_off(struct writer_client *client, uint32_t hr, const char *text)
{
    if (!client->broken)
        err_set(&client->err, hr, NULL, "%s", text);
    client->broken = true;
    client->pending = false;
    kill_group(client);
    fd_cleanup(&client->in_fd);
    fd_cleanup(&client->out_fd);
    client->in_fd = client->out_fd = -1;
}

static void take_answer(struct writer_client *client, const char *line, size_t length)
{
    struct err err = {0};
    AUTO_JSON json_t *answer = json_parse_strict(line, length, JSON_DEPTH_MAX, &err);
    if (!answer || writer_answer_check(answer, &err) < 0) {
        char text[900];
        str_format(text, sizeof(text), "its answer is not protocol 1: %s", err.text);
        break_off(client, VSS_E_WRITERERROR_NONRETRYABLE, text);
        return;
    }
    if (!client->pending || json_integer_value(json_object_get(answer, "id")) != client->next_id - 1) {
        break_off(client, VSS_E_WRITERERROR_NONRETRYABLE, "it answered out of turn");
        return;
    }
    client->pending = false;
    json_decref(client->answer);
    client->answer = TAKE_PTR(answer);
}

static void out_ready(void *arg, int fd, short revents)
{
    struct writer_client *client = arg;
    (void)revents;
    long got = lines_fill(&client->out, fd);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    size_t length;
    char *line;
    while (!client->broken && (line = lines_next(&client->out, &length)))
        take_answer(client, line, length);
    if (client->broken)
        return;
    if (client->out.overlong)
        break_off(client, VSS_E_WRITERERROR_NONRETRYABLE, "its answer is longer than 1 MiB");
    else if (got <= 0 && freeze_guard_killed(client->pid))
        break_off(client, VSS_E_WRITERERROR_TIMEOUT, "it held on past its window, and was killed");
    else if (got <= 0)
        break_off(client, VSS_E_WRITER_NOT_RESPONDING, "it died or closed its output");
}

static void log_text(struct writer_client *client, char *text, size_t length)
{
    if (++client->log_lines > LOG_LINES_PER_EVENT) {
        if (client->log_lines == LOG_LINES_PER_EVENT + 1)
            log_line(LOG_LEVEL_WARNING, &(struct log_context){.session_id = client->session, .writer = client->name},
                     "the writer says too much: further lines of this event are dropped");
        return;
    }
    for (size_t i = 0; i < length; i++)
        if (text[i] == '\0')
            text[i] = '?';
    log_line(LOG_LEVEL_INFO, &(struct log_context){.session_id = client->session, .writer = client->name}, "%s", text);
}

static void log_whole_lines(struct writer_client *client)
{
    size_t length;
    char *line;
    while ((line = lines_next(&client->log, &length)))
        log_text(client, line, length);
    if (client->log.overlong) { /* cut it: a log line is no contract */
        client->log.overlong = false;
        if ((line = lines_rest(&client->log, &length)))
            log_text(client, line, length > LOG_LINE_MAX ? (line[LOG_LINE_MAX] = '\0', (size_t)LOG_LINE_MAX) : length);
    }
}

static void log_ready(void *arg, int fd, short revents)
{
    struct writer_client *client = arg;
    (void)revents;
    long got = lines_fill(&client->log, fd);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        fd_cleanup(&client->err_fd);
        client->err_fd = -1;
    }
    log_whole_lines(client);
}

static void in_ready(void *arg, int fd, short revents)
{
    struct writer_client *client = arg;
    (void)revents;
    ssize_t sent = write(fd, client->outgoing + client->outgoing_sent, client->outgoing_used - client->outgoing_sent);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (sent < 0) {
        break_off(client, VSS_E_WRITER_NOT_RESPONDING, "it died or closed its input");
        return;
    }
    client->outgoing_sent += (size_t)sent;
}

void writer_client_send(struct writer_client *client, json_t *request, int64_t timeout_ms)
{
    AUTO_JSON json_t *owned = request;
    if (client->broken)
        return;
    json_put(owned, "id", json_integer(client->next_id++));
    json_put(owned, "deadline_ms", json_integer(timeout_ms));
    AUTO_FREE char *text = json_dumps(owned, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0;
    if (length == 0 || length > LINE_MAX_BYTES) {
        break_off(client, VSS_E_WRITERERROR_NONRETRYABLE, "the request does not fit into a line of 1 MiB");
        return;
    }
    client->outgoing = mem_resize(client->outgoing, length + 1);
    memcpy(client->outgoing, text, length);
    client->outgoing[length] = '\n';
    client->outgoing_used = length + 1;
    client->outgoing_sent = 0;
    client->log_lines = 0;
    json_decref(client->answer);
    client->answer = NULL;
    client->pending = true;
    client->deadline_ms = clock_mono_ms() + timeout_ms;
    in_ready(client, client->in_fd, POLLOUT);
}

size_t writer_client_sources(struct writer_client *client, struct wait_source *ret)
{
    size_t n = 0;
    if (client->out_fd >= 0)
        ret[n++] = (struct wait_source){client->out_fd, POLLIN, out_ready, client};
    if (client->err_fd >= 0)
        ret[n++] = (struct wait_source){client->err_fd, POLLIN, log_ready, client};
    if (client->in_fd >= 0 && client->outgoing_sent < client->outgoing_used)
        ret[n++] = (struct wait_source){client->in_fd, POLLOUT, in_ready, client};
    return n;
}

void writer_client_expire(struct writer_client *client, int64_t now_ms)
{
    if (client->pending && now_ms >= client->deadline_ms)
        break_off(client, VSS_E_WRITERERROR_TIMEOUT, "it did not answer before its deadline");
}

void writer_client_abandon(struct writer_client *client)
{
    if (client->pending)
        break_off(client, VSS_E_WRITERERROR_RETRYABLE, "the operation ended before it answered");
}

void writer_client_reject(struct writer_client *client, const char *text)
{
    break_off(client, VSS_E_WRITERERROR_NONRETRYABLE, text);
}

void writer_client_hang_up(struct writer_client *client)
{
    fd_cleanup(&client->in_fd);
    client->in_fd = -1;
}

bool writer_client_gone(struct writer_client *client)
{
    struct pollfd exited = {.fd = client->pidfd, .events = POLLIN};
    if (client->pid > 0 && poll(&exited, 1, 0) == 1) {
        freeze_guard_forget(client->pid); /* before it is reaped: after that its number can be another process's */
        proc_reap(client->pid, client->pidfd, 0, NULL);
        client->pid = 0;
    }
    return client->pid == 0;
}

void writer_client_clear(struct writer_client *client)
{
    if (client->pid > 0) {
        kill_group(client);
        freeze_guard_forget(client->pid);
        if (!proc_reap(client->pid, client->pidfd, REAP_MS, NULL)) /* killed, yet hanging in the kernel: it must not hold us too */
            log_line(LOG_LEVEL_ERROR, NULL, "writer process %d does not end: it hangs in the kernel", (int)client->pid);
        client->pid = 0;
    }
    if (client->err_fd >= 0)
        log_ready(client, client->err_fd, POLLIN);
    lines_clear(&client->out);
    lines_clear(&client->log);
    fd_cleanup(&client->pidfd);
    fd_cleanup(&client->in_fd);
    fd_cleanup(&client->out_fd);
    fd_cleanup(&client->err_fd);
    client->pidfd = client->in_fd = client->out_fd = client->err_fd = -1;
    free(client->outgoing);
    client->outgoing = NULL;
    json_decref(client->answer);
    client->answer = NULL;
    client->pending = false;
    client->broken = true;
}
