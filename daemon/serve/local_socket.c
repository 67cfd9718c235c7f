/* The local socket: the API for users of this machine, who are known by the kernel's word instead of a credential. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/serve_private.h"

/* Whom the configuration does not map gets no further than 401; while it maps nobody, the socket is its owner's alone. */
static mode_t mode_of(const json_t *config)
{
    size_t i;
    const json_t *principal;

    json_array_foreach(json_object_get(config, "principals"), i, principal)
        if (json_object_get(principal, "user") || json_object_get(principal, "group"))
            return 0666;
    return 0600;
}

/* A socket that nobody listens on is a dead daemon's. Anything else is not ours to remove. */
static int make_room(const struct sockaddr_un *address, struct err *err)
{
    struct stat status;

    if (lstat(address->sun_path, &status) != 0)
        return 0; /* the bind tells what is wrong */
    if (!S_ISSOCK(status.st_mode))
        return err_set(err, E_INVALIDARG, "Remove it, or change socket.path.", "socket %s: there is something else",
                       address->sun_path);
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno != ECONNREFUSED)
        return err_set(err, E_INVALIDARG, "Stop that program, or change socket.path.",
                       "socket %s: another program listens there", address->sun_path);
    unlink(address->sun_path);
    return 0;
}

/* What lies at path now, to be looked at and changed without another look at the path: its directory may be another user's, who would
 * lead a chmod of root's elsewhere. -1 with errno: there is no socket. */
static int find(const char *path, struct stat *ret)
{
    AUTO_FD int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, ret) != 0)
        return -1;
    if (!S_ISSOCK(ret->st_mode)) {
        errno = ENOTSOCK;
        return -1;
    }
    return TAKE_FD(fd);
}

static int set_mode(const struct local_socket *local, mode_t mode)
{
    struct stat status;
    AUTO_FD int fd = find(local->path, &status);
    char itself[64];

    if (fd < 0)
        return -1;
    if (status.st_dev != local->device || status.st_ino != local->inode) {
        errno = ESTALE;
        return -1;
    }
    str_format(itself, sizeof(itself), "/proc/self/fd/%d", fd);
    return chmod(itself, mode);
}

/* Ours, since nobody else's is the one that was just bound by our user. */
static int recognize(struct local_socket *local)
{
    struct stat status;
    AUTO_FD int fd = find(local->path, &status);

    if (fd < 0)
        return -1;
    if (status.st_uid != geteuid()) {
        errno = EPERM;
        return -1;
    }
    local->device = status.st_dev;
    local->inode = status.st_ino;
    return 0;
}

static int open_at(struct local_socket *local, mode_t mode, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (!str_copy(address.sun_path, sizeof(address.sun_path), local->path))
        return err_set(err, E_INVALIDARG, "Set socket.path to a shorter one.",
                       "socket %s: the path is longer than %zu bytes", local->path, sizeof(address.sun_path) - 1);
    if (places_parents(local->path, err) != 0 || make_room(&address, err) != 0)
        return -1;
    mode_t before = umask(0177); /* nobody gets in before it is as it shall be */
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool bound = fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
    int saved = errno;
    umask(before);
    if (!bound)
        return err_errno(err, E_INVALIDARG, saved, "Change socket.path.", "cannot make the socket %s", local->path);
    if (recognize(local) != 0 || set_mode(local, mode) != 0 || listen(fd, SOMAXCONN) != 0) {
        saved = errno;
        unlink(local->path);
        return err_errno(err, E_INVALIDARG, saved, "Change socket.path.", "cannot serve the socket %s", local->path);
    }
    local->fd = TAKE_FD(fd);
    return 0;
}

int local_socket_open(struct local_socket *local, const json_t *config, const char *state_dir, struct err *err)
{
    const json_t *section = json_object_get(config, "socket");
    const char *path = json_str(section, "path", NULL);

    if (!json_bool(section, "enabled", true))
        return 0;
    if (!str_format(local->path, sizeof(local->path), "%s%s", path ? path : state_dir, path ? "" : "/api.sock"))
        return err_set(err, E_INVALIDARG, "Set socket.path to a shorter one.", "the path of the socket is too long");
    if (open_at(local, mode_of(config), err) == 0)
        return 0;
    if (path)
        return -1;
    /* Nobody asked for one there: a state directory with a long name serves all the same. */
    log_err(LOG_LEVEL_WARNING, NULL, err, "no local socket");
    *err = (struct err){0};
    return 0;
}

void local_socket_update(const struct local_socket *local, const json_t *config)
{
    if (local->fd >= 0 && set_mode(local, mode_of(config)) != 0)
        log_line(LOG_LEVEL_WARNING, NULL, "socket %s: cannot set its mode: %s", local->path, strerror(errno));
}

void local_socket_close(struct local_socket *local)
{
    if (local->fd < 0)
        return;
    unlink(local->path);
    close(TAKE_FD(local->fd));
}
