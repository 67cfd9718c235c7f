/* Roles that are units of their own (packaging/systemd): each connects to a socket that only its user can reach, and waits there until a
 * generation takes it. serve starts none then, and kills only what hangs; whoever ends is started again by the service manager. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/serve_private.h"

static const char *const names[JOIN_NAMES] = {
    [ROLE_NAME_AGENT] = "agent", [ROLE_NAME_CORE] = "core", [ROLE_NAME_FRONT] = "front", [JOIN_COURIER] = "courier"};

static const struct proc_identity *expected_user(const struct serve *serve, size_t name)
{
    const struct proc_identity *const users[JOIN_NAMES] = {
        [ROLE_NAME_CORE] = &serve->core_user, [ROLE_NAME_FRONT] = &serve->front_user, [JOIN_COURIER] = &serve->courier_user};

    return serve->root ? users[name] : NULL; /* the agent is who we are, and so is every role of a plain user */
}

static void forget(struct joiner *joiner)
{
    loop_io_remove(TAKE_PTR(joiner->io));
    fd_cleanup(&joiner->fd);
    fd_cleanup(&joiner->pidfd);
    *joiner = (struct joiner){.serve = joiner->serve, .name = joiner->name, .fd = -1, .pidfd = -1};
}

/* It says nothing before it is welcome: whatever comes is its end. */
static void on_joiner(void *arg, uint32_t events)
{
    (void)events;
    forget(arg);
}

/* Who it is, by the kernel's word. The pidfd is of that very process as long as its end of the connection is open. */
static int identify(const struct serve *serve, size_t name, struct joiner *joiner, struct err *err)
{
    const struct proc_identity *user = expected_user(serve, name);
    uid_t expected = user ? user->uid : geteuid();
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (getsockopt(joiner->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "its user is not known");
    if (peer.uid != expected)
        return err_set(err, E_ACCESSDENIED, "Its unit's User= and run_as of the configuration must be the same.", "it runs as user %u, and not as %u",
                       (unsigned)peer.uid, (unsigned)expected);
    joiner->pid = peer.pid;
    joiner->pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    return joiner->pidfd >= 0 ? 0 : err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "process %d cannot be watched", (int)peer.pid);
}

static void hand_courier(struct serve *serve);

static void on_join(void *arg, uint32_t events)
{
    struct joiner *joiner = arg;
    struct serve *serve = joiner->serve;
    struct err err = {0};
    int fd = accept4(serve->joining.listeners[joiner->name].fd, NULL, NULL, SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    struct joiner next = {.serve = serve, .name = joiner->name, .fd = fd, .pidfd = -1};
    if (identify(serve, joiner->name, &next, &err) != 0) {
        log_err(LOG_LEVEL_ERROR, NULL, &err, "%s reports for duty, and is sent away", names[joiner->name]);
        forget(&next);
        return;
    }
    forget(joiner); /* one that waited until now has a successor */
    *joiner = next;
    joiner->io = loop_io_add(serve->loop, fd, EPOLLIN | EPOLLRDHUP, on_joiner, joiner);
    if (joiner->name == JOIN_COURIER)
        hand_courier(serve);
    else if (serve->joining.awaiting && joining_complete(serve))
        generation_start(serve);
}

int joining_begin(struct serve *serve, struct inherited *inherited, struct err *err)
{
    struct joining *joining = &serve->joining;
    size_t found = 0;

    for (size_t i = 0; i < JOIN_NAMES; i++) {
        joining->joiners[i] = (struct joiner){.serve = serve, .name = i, .fd = -1, .pidfd = -1};
        joining->listeners[i].fd = inherited_pull(inherited, names[i]);
        found += i < ROLE_NAMES && joining->listeners[i].fd >= 0;
    }
    joining->courier_fd = joining->courier_pidfd = -1;
    joining->active = found == ROLE_NAMES;
    if (found == 0 || joining->active)
        return 0;
    return err_set(err, E_INVALIDARG, "Start the socket units of front, core and agent together.",
                   "the service manager has opened the sockets of some roles, and not of all");
}

void joining_listen(struct serve *serve)
{
    struct joining *joining = &serve->joining;

    for (size_t i = 0; joining->active && i < JOIN_NAMES; i++)
        if (joining->listeners[i].fd >= 0)
            joining->listeners[i].io = loop_io_add(serve->loop, joining->listeners[i].fd, EPOLLIN, on_join, &joining->joiners[i]);
}

void joining_end(struct serve *serve)
{
    struct joining *joining = &serve->joining;

    for (size_t i = 0; joining->active && i < JOIN_NAMES; i++) {
        loop_io_remove(TAKE_PTR(joining->listeners[i].io));
        fd_cleanup(&joining->listeners[i].fd);
        forget(&joining->joiners[i]);
    }
    if (joining->active) {
        fd_cleanup(&joining->courier_fd);
        fd_cleanup(&joining->courier_pidfd);
    }
}

bool joining_complete(const struct serve *serve)
{
    for (size_t i = 0; i < ROLE_NAMES; i++)
        if (serve->joining.joiners[i].fd < 0)
            return false;
    return true;
}

bool joining_lacks(struct serve *serve, char *ret, size_t size)
{
    ret[0] = '\0';
    for (size_t i = 0; i < ROLE_NAMES; i++) {
        size_t used = strlen(ret);
        if (serve->joining.joiners[i].fd < 0)
            str_format(ret + used, size - used, "%s%s", used ? ", " : "", names[i]);
    }
    return ret[0] != '\0';
}

/* channel: what becomes its channel in place of the connection, or -1. */
static int welcome(struct serve *serve, struct joiner *joiner, int channel, struct err *err)
{
    AUTO_JSON json_t *msg = json_pack("{s:s, s:b}", "type", "welcome", "journal", serve->logging.journals);
    const int fds[] = {STDERR_FILENO /* the pipe to our logger */, channel};

    return ipc_send(joiner->fd, msg, fds, channel >= 0 ? 2 : 1, err);
}

int joining_take(struct serve *serve, enum role_name name, struct role *role, struct err *err)
{
    struct joiner *joiner = &serve->joining.joiners[name];

    if (joiner->fd < 0)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "it has not reported for duty");
    if (welcome(serve, joiner, -1, err) != 0) {
        forget(joiner);
        return -1;
    }
    role->joined = true;
    role->pid = joiner->pid;
    role->pidfd = TAKE_FD(joiner->pidfd);
    int fd = TAKE_FD(joiner->fd);
    forget(joiner);
    return fd;
}

/* --- the courier: taken when core wants one, whichever of the two comes first --- */

static void hand_courier(struct serve *serve)
{
    struct joiner *joiner = &serve->joining.joiners[JOIN_COURIER];
    struct err err = {0};

    if (joiner->fd < 0 || serve->joining.courier_fd < 0)
        return;
    if (welcome(serve, joiner, serve->joining.courier_fd, &err) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "courier");
    fd_cleanup(&serve->joining.courier_fd);
    serve->joining.courier_fd = -1;
    fd_cleanup(&serve->joining.courier_pidfd);
    serve->joining.courier_pidfd = TAKE_FD(joiner->pidfd);
    forget(joiner);
}

int joining_courier(struct serve *serve, int fd, struct err *err)
{
    struct joining *joining = &serve->joining;

    if (joining->listeners[JOIN_COURIER].fd < 0)
        return err_set(err, VSS_E_UNEXPECTED, "Start quiesced-courier.socket.", "there is no socket for a courier: webhooks are not delivered");
    if (joining->courier_pidfd >= 0) /* core has let go of it; its unit starts another one */
        syscall(SYS_pidfd_send_signal, joining->courier_pidfd, SIGKILL, NULL, 0);
    fd_cleanup(&joining->courier_pidfd);
    joining->courier_pidfd = -1;
    fd_cleanup(&joining->courier_fd);
    joining->courier_fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (joining->courier_fd < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "courier");
    hand_courier(serve);
    return 0;
}
