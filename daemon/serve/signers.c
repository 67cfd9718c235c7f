/* Signers on core's word. They run as root, so core has no more than one of each kind at a time, and none for ever: whoever has taken core over
 * can start no crowd of them. What comes while one is at work waits its turn. */
#include "serve/serve_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

static void next(struct signer *signer);

/* One that was killed and hangs in a disk that does not answer is left to init: the end of serve does not wait for it. */
enum { KILLED_MS = 5000 };

static void reap(struct signer *signer)
{
    if (!proc_reap(signer->pid, signer->pidfd, KILLED_MS, NULL))
        log_line(LOG_LEVEL_WARNING, NULL, "signer: process %d was killed and has not ended", (int)signer->pid);
    loop_io_remove(TAKE_PTR(signer->exit_io));
    close(TAKE_FD(signer->pidfd));
    loop_timer_free(TAKE_PTR(signer->bound));
    signer->pid = 0;
}

static void on_exit_io(void *arg, uint32_t events)
{
    (void)events;
    reap(arg);
    next(arg);
}

static void on_bound(void *arg)
{
    const struct signer *signer = arg;

    log_line(LOG_LEVEL_ERROR, NULL, "signer: process %d does not end after %d s: killed", (int)signer->pid, SIGNER_MS / 1000);
    syscall(SYS_pidfd_send_signal, signer->pidfd, SIGKILL, NULL, 0);
}

static int start(struct signer *signer, const struct signer_order *order, struct err *err)
{
    if (children_spawn_signer(signer->serve, order, &signer->pid, &signer->pidfd, err) != 0) {
        signer->pid = 0;
        return -1;
    }
    signer->exit_io = loop_io_add(signer->serve->loop, signer->pidfd, EPOLLIN, on_exit_io, signer);
    signer->bound = loop_timer_new(signer->serve->loop, on_bound, signer);
    loop_timer_set(signer->bound, SIGNER_MS);
    return 0;
}

static void drop(struct signer_order *order)
{
    close(order->fd);
    free(order->principal);
}

/* Whoever has closed its end waits no longer: a seal that nobody hears of would be one that the store lacks. */
static bool awaited(const struct signer_order *order)
{
    struct pollfd peer = {.fd = order->fd};

    return poll(&peer, 1, 0) == 0 || !(peer.revents & (POLLHUP | POLLERR));
}

static void next(struct signer *signer)
{
    while (signer->pid == 0 && signer->n_waiting > 0) {
        struct signer_order order = signer->waiting[0];
        struct err err = {0};

        signer->n_waiting--;
        for (size_t i = 0; i < signer->n_waiting; i++)
            signer->waiting[i] = signer->waiting[i + 1];
        if (awaited(&order) && start(signer, &order, &err) != 0)
            log_err(LOG_LEVEL_ERROR, NULL, &err, "signer");
        drop(&order);
    }
}

int signers_take(struct serve *serve, enum signer_kind kind, const struct signer_order *order, struct err *err)
{
    struct signer *signer = &serve->signers[kind];

    signer->serve = serve;
    if (signer->pid == 0)
        return start(signer, order, err);
    if (signer->n_waiting == ELEMENTS(signer->waiting))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "core asks for more than the signer gets done: %zu requests wait", signer->n_waiting);
    struct signer_order *waiting = &signer->waiting[signer->n_waiting];
    *waiting = *order;
    waiting->fd = fcntl(order->fd, F_DUPFD_CLOEXEC, 3);
    if (waiting->fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "a request for the signer");
    waiting->principal = str_dup(order->principal);
    signer->n_waiting++;
    return 0;
}

bool signers_own(const struct serve *serve, pid_t pid)
{
    for (size_t i = 0; i < SIGNER_KINDS; i++)
        if (serve->signers[i].pid == pid)
            return true;
    return false;
}

void signers_stop(struct serve *serve)
{
    for (size_t i = 0; i < SIGNER_KINDS; i++) {
        struct signer *signer = &serve->signers[i];

        while (signer->n_waiting > 0)
            drop(&signer->waiting[--signer->n_waiting]);
        if (signer->pid == 0)
            continue;
        syscall(SYS_pidfd_send_signal, signer->pidfd, SIGKILL, NULL, 0);
        reap(signer);
    }
}
