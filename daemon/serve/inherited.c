/* Sockets that a service manager has opened for us (sd_listen_fds(3)): the listeners, and one on which each role reports for duty that is a
 * unit of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/serve_private.h"

enum { LISTEN_FDS_START = 3 /* sd_listen_fds(3) */ };

static int number(const char *name, int64_t least, int64_t most)
{
    const char *text = getenv(name);
    int64_t value;

    return text && str_to_int(text, least, most, &value) ? (int)value : 0;
}

/* What is not a listening stream socket cannot be served, whatever its name promises. */
static bool listens(int fd)
{
    int type = 0, accepting = 0;
    socklen_t size = sizeof(type);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
        return false;
    size = sizeof(accepting);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &size) == 0 && accepting;
}

void inherited_take(struct inherited *ret)
{
    AUTO_FREE char *names = str_dup(getenv("LISTEN_FDNAMES") ? getenv("LISTEN_FDNAMES") : "");
    int n = number("LISTEN_PID", 1, INT32_MAX) == getpid() ? number("LISTEN_FDS", 1, INHERITED_MAX) : 0;
    char *rest = names;

    *ret = (struct inherited){.n = 0};
    for (int i = 0; i < n; i++) {
        struct inherited_fd *one = &ret->all[ret->n++];
        const char *name = strsep(&rest, ":");
        one->fd = LISTEN_FDS_START + i;
        str_copy(one->name, sizeof(one->name), name ? name : "");
        fcntl(one->fd, F_SETFD, FD_CLOEXEC);
        fcntl(one->fd, F_SETFL, fcntl(one->fd, F_GETFL) | O_NONBLOCK);
    }
    unsetenv("LISTEN_PID"); /* not for our children */
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

bool inherited_has(const struct inherited *inherited, const char *name)
{
    for (size_t i = 0; i < inherited->n; i++)
        if (str_eq(inherited->all[i].name, name))
            return true;
    return false;
}

int inherited_pull(struct inherited *inherited, const char *name)
{
    for (size_t i = 0; i < inherited->n; i++) {
        struct inherited_fd *one = &inherited->all[i];
        if (one->fd >= 0 && str_eq(one->name, name) && listens(one->fd))
            return TAKE_FD(one->fd);
    }
    return -1;
}

void inherited_close(struct inherited *inherited)
{
    for (size_t i = 0; i < inherited->n; i++) {
        struct inherited_fd *one = &inherited->all[i];
        if (one->fd < 0)
            continue;
        log_line(LOG_LEVEL_WARNING, NULL, "the service manager has opened a socket \"%s\" that is of no use here: closed", one->name);
        close(TAKE_FD(one->fd));
    }
}
