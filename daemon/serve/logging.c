/* Our own standard error, and that of every role, is a pipe that does not block; the logger at its other end may. We
 * keep the pipe's reading end, too: a logger that dies is replaced, and what was in the pipe is still there. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/serve_private.h"

enum {
    PIPE_BYTES = 1024 * 1024, /* the most that everybody may ask for: /proc/sys/fs/pipe-max-size (pipe(7)) */
    END_MS = 5000,            /* the log may lie on something frozen: then the logger goes on without us */
    AGAIN_MS = 100,
};

static int spawn(struct logging *logging, struct err *err)
{
    const char *const argv[] = {proc_self_path(), "--role=logger", logging->journals ? "--journal" : logging->path, NULL};
    const struct proc_fd fds[] = {{logging->read_fd, STDIN_FILENO}, {logging->sink_fd, STDERR_FILENO}};
    /* It outlives us when we are killed: the last words of the roles are to be written. */
    const struct proc_spec spec = {.argv = argv,
                                   .environment = children_environment(),
                                   .fds = fds,
                                   .n_fds = ELEMENTS(fds),
                                   .new_group = true,
                                   .no_new_privileges = true};

    return proc_spawn(&spec, &logging->pid, &logging->pidfd, err) == 0 ? 0 : err_prefix(err, "logger");
}

/* The journal's streams are told by $JOURNAL_STREAM (base/log.c); now the pipe leads there. Does it? */
static bool lead_to_journal(int pipe_fd)
{
    struct stat stat;
    char stream[48];

    if (!log_to_journal() || fstat(pipe_fd, &stat) != 0)
        return false;
    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)stat.st_dev, (uintmax_t)stat.st_ino);
    return setenv("JOURNAL_STREAM", stream, 1) == 0;
}

static void retire(struct logging *logging)
{
    if (logging->pid > 0) {
        proc_reap(logging->pid, logging->pidfd, END_MS, NULL);
        close(logging->pidfd);
    }
    close(logging->sink_fd);
}

/* Takes sink_fd. */
static int divert(struct logging *logging, int sink_fd, const char *path, struct err *err)
{
    struct logging next = {.path = path, .sink_fd = sink_fd, .pidfd = -1};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0) {
        close(sink_fd);
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe for the log");
    }
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES); /* refused to a user who has many of them: then it is smaller */
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    next.read_fd = ends[0];
    AUTO_FD int write_fd = ends[1];
    next.journals = !path && lead_to_journal(write_fd);
    if (spawn(&next, err) != 0 || dup2(write_fd, STDERR_FILENO) < 0) {
        close(next.read_fd);
        close(sink_fd);
        return -1;
    }
    log_init("serve", LOG_LEVEL_INFO);
    if (logging->read_fd >= 0) { /* the one before has nothing more to come */
        close(logging->read_fd);
        close(TAKE_FD(write_fd));
        retire(logging);
    }
    *logging = next;
    return 0;
}

int logging_begin(struct logging *logging, struct err *err)
{
    int fd;

    do /* whoever started us without 0, 1 or 2 would find the pipe there */
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO && fcntl(fd, F_SETFD, 0) == 0);
    if (fd >= 0)
        close(fd);
    fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (fd < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "standard error cannot be duplicated");
    return divert(logging, fd, NULL, err);
}

int logging_to_file(struct logging *logging, const char *path, int *ret_terminal, struct err *err)
{
    int fd = places_log(path, err);

    if (fd < 0)
        return -1;
    *ret_terminal = fcntl(logging->sink_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return divert(logging, fd, path, err);
}

/* --- its end, and another one --- */

static void on_exit_io(void *arg, uint32_t events)
{
    struct logging *logging = arg;
    char text[64];
    int status = 0;

    (void)events;
    if (!proc_reap(logging->pid, logging->pidfd, 0, &status))
        return;
    loop_io_remove(TAKE_PTR(logging->exit_io));
    close(TAKE_FD(logging->pidfd));
    logging->pid = 0;
    log_line(LOG_LEVEL_WARNING, NULL, "logger ended: %s; it is started again",
             proc_status_text(status, text, sizeof(text)));
    loop_timer_set(logging->again, AGAIN_MS);
}

static void on_again(void *arg)
{
    struct logging *logging = arg;
    struct err err = {0};

    if (spawn(logging, &err) == 0) {
        logging->exit_io = loop_io_add(logging->loop, logging->pidfd, EPOLLIN, on_exit_io, logging);
        return;
    }
    log_err(LOG_LEVEL_ERROR, NULL, &err, "log"); /* in the pipe, for the one that can be started */
    loop_timer_set(logging->again, SERVE_BACKOFF_MAX_MS);
}

void logging_watch(struct logging *logging, struct loop *loop)
{
    logging->loop = loop;
    logging->again = loop_timer_new(loop, on_again, logging);
    logging->exit_io = loop_io_add(loop, logging->pidfd, EPOLLIN, on_exit_io, logging);
}

void logging_unwatch(struct logging *logging)
{
    loop_io_remove(TAKE_PTR(logging->exit_io));
    loop_timer_free(TAKE_PTR(logging->again));
}

void logging_reopen(const struct logging *logging)
{
    if (logging->pid > 0) /* one that is started later opens it anyway */
        syscall(SYS_pidfd_send_signal, logging->pidfd, SIGHUP, NULL, 0);
}

void logging_end(struct logging *logging)
{
    if (logging->read_fd < 0)
        return;
    if (logging->pid == 0)
        spawn(logging, NULL);
    close(TAKE_FD(logging->read_fd));
    dup2(logging->sink_fd,
         STDERR_FILENO); /* ours was the last end of the pipe, unless a worker still undoes something */
    retire(logging);
}
