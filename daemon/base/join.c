#include "base/join.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"

/* Of a socket that a service manager has made, the kernel names the service manager. */
static int check_listener(int fd, const char *path, struct err *err)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "socket %s", path);
    if (peer.uid != 0 && peer.uid != geteuid())
        return err_set(err, E_ACCESSDENIED, NULL, "socket %s: user %u listens there, who is not to command us", path, (unsigned)peer.uid);
    return 0;
}

static int open_socket(const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (!str_copy(address.sun_path, sizeof(address.sun_path), path))
        return err_set(err, E_INVALIDARG, NULL, "socket %s: the path is too long", path);
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, "Is its socket unit active?", "socket %s: cannot be reached", path);
    return check_listener(fd, path, err) == 0 ? TAKE_FD(fd) : -1;
}

/* The journal's stream must not hold us when the journal lies on what is frozen: a line is then dropped, and counted (log.c). */
static void do_not_wait_for_the_journal(void)
{
    struct stat status;

    if (fstat(STDERR_FILENO, &status) == 0 && S_ISSOCK(status.st_mode))
        fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) | O_NONBLOCK);
}

/* Our lines, and our children's, go to serve's logger. What it writes to is told as a service manager tells it (log.h). */
static int take_log(int pipe_fd, bool journal, struct err *err)
{
    struct stat status;
    char stream[48];

    if (dup2(pipe_fd, STDERR_FILENO) < 0 || fstat(STDERR_FILENO, &status) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "standard error cannot be led to the log");
    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    if (journal)
        setenv("JOURNAL_STREAM", stream, 1);
    else
        unsetenv("JOURNAL_STREAM");
    return 0;
}

int join_serve(const char *path, int channel_fd, struct err *err)
{
    enum { FDS = 2 };
    AUTO_JSON json_t *welcome = NULL;
    int fds[FDS] = {-1, -1};
    size_t n = FDS;

    do_not_wait_for_the_journal();
    AUTO_FD int fd = open_socket(path, err);
    if (fd < 0)
        return -1;
    int got = ipc_recv(fd, -1, &welcome, fds, &n, err);
    if (got <= 0)
        return got;
    AUTO_FD int first = fds[0], second = fds[1];
    if (!str_eq(json_str(welcome, "type", ""), "welcome") || n == 0)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "socket %s: no welcome", path);
    if (take_log(first, json_bool(welcome, "journal", false), err) != 0)
        return -1;
    int control = n == FDS ? second : fd;
    if (control != channel_fd && dup2(control, channel_fd) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "the channel cannot be put in its place");
    int *const owned[] = {&fd, &first, &second};
    for (size_t i = 0; i < ELEMENTS(owned); i++)
        if (*owned[i] == channel_fd) /* that number is the channel's now */
            *owned[i] = -1;
    return 1;
}

int join_by_arguments(const char *role, int argc, char **argv, int channel_fd, bool *ret_over)
{
    struct err err = {0};

    *ret_over = false;
    if (argc == 2)
        return 0;
    if (argc != 4 || !str_eq(argv[2], "--join")) {
        fprintf(stderr, "usage: %s [--join SOCKET]\n", argv[1]);
        return 2;
    }
    int joined = join_serve(argv[3], channel_fd, &err);
    *ret_over = joined == 0;
    if (joined >= 0)
        return 0;
    log_init(role, LOG_LEVEL_INFO);
    log_err(LOG_LEVEL_ERROR, NULL, &err, "cannot report for duty");
    return 1;
}
