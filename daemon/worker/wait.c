#include "worker/wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum {
    OWN_SOURCES = 3,
    MESSAGE_TIMEOUT_MS = 10000, /* core and agent send whole messages: a longer gap inside one is a broken peer */
};

int wait_init(struct wait *wait, int core_fd, int agent_fd)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
        return -1;
    signal(SIGPIPE, SIG_IGN); /* a writer that died between two events is an error code, not our end */
    *wait = (struct wait){.core_fd = core_fd, .agent_fd = agent_fd, .guardian_fd = -1};
    wait->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (wait->signal_fd < 0)
        return -1;
    wait->runs = json_array();
    return 0;
}

void wait_clear(struct wait *wait)
{
    fd_cleanup(&wait->core_fd);
    fd_cleanup(&wait->agent_fd);
    fd_cleanup(&wait->signal_fd);
    fd_cleanup(&wait->guardian_fd);
    wait->guardian_fd = -1;
    json_decref(wait->agent_answer);
    json_decref(wait->release);
    json_decref(wait->runs);
    wait->runs = wait->agent_answer = wait->release = NULL;
}

static void lose(struct wait *wait, const char *reason)
{
    if (!wait->lost)
        str_copy(wait->lost_reason, sizeof(wait->lost_reason), reason);
    wait->lost = true;
    wait->let_go = false;
}

static void cancel(struct wait *wait, const json_t *message)
{
    const json_t *id = json_object_get(message, "id");
    if (wait->current && json_equal(id, wait->current)) {
        wait->cancelled = true;
        return;
    }
    size_t i;
    json_t *run;
    json_array_foreach (wait->runs, i, run)
        if (json_equal(id, json_object_get(run, "id")))
            json_put(run, "cancelled", json_true());
}

static void replace(json_t **at, json_t *message)
{
    json_decref(*at);
    *at = json_incref(message);
}

static void take_agent_answer(struct wait *wait, json_t *message, int passed /* taken */)
{
    replace(&wait->agent_answer, message);
    if (passed < 0)
        return;
    fd_cleanup(&wait->guardian_fd);
    wait->guardian_fd = passed;
}

static void take_message(struct wait *wait, int *fd, const char *who)
{
    AUTO_JSON json_t *message = NULL;
    struct err err = {0};
    AUTO_FD int passed = -1;
    size_t n_fds = 1;
    int got = ipc_recv(*fd, MESSAGE_TIMEOUT_MS, &message, &passed, &n_fds, &err);
    if (got != 1) {
        char reason[sizeof(wait->lost_reason)];
        str_format(reason, sizeof(reason), "%s %s", who, got == 0 ? "closed its channel" : err.text);
        bool ordinary = got == 0 && fd == &wait->core_fd && !wait->lost && !wait->current && json_array_size(wait->runs) == 0;
        lose(wait, reason);
        wait->let_go = ordinary;
        fd_cleanup(fd);
        *fd = -1;
        return;
    }
    const char *type = json_str(message, "type", "");
    if (str_eq(type, "run"))
        json_add(wait->runs, json_incref(message));
    else if (str_eq(type, "cancel"))
        cancel(wait, message);
    else if (str_eq(type, "parked"))
        wait->parked = true;
    else if (str_eq(type, "release_hold"))
        replace(&wait->release, message);
    else if (str_eq(type, "guarded") || str_eq(type, "guard_failed") || str_eq(type, "thawed"))
        take_agent_answer(wait, message, TAKE_FD(passed));
}

static void take_signal(struct wait *wait)
{
    struct signalfd_siginfo info;
    if (read(wait->signal_fd, &info, sizeof(info)) == sizeof(info))
        lose(wait, "told to end by a signal");
}

static int timeout_until(int64_t deadline_ms)
{
    if (deadline_ms == INT64_MAX)
        return -1;
    int64_t left = deadline_ms - clock_mono_ms();
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

size_t wait_turn(struct wait *wait, const struct wait_source *sources, size_t n, int64_t deadline_ms)
{
    AUTO_FREE struct pollfd *fds = mem_new((n + OWN_SOURCES) * sizeof(*fds));
    for (size_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = sources[i].fd, .events = sources[i].events};
    struct pollfd *own = fds + n;
    own[0] = (struct pollfd){.fd = wait->core_fd, .events = POLLIN};
    own[1] = (struct pollfd){.fd = wait->agent_fd, .events = POLLIN};
    /* Once lost, a second SIGTERM must not spin us: the first one is being obeyed. */
    own[2] = (struct pollfd){.fd = wait->lost ? -1 : wait->signal_fd, .events = POLLIN};
    if (poll(fds, n + OWN_SOURCES, timeout_until(deadline_ms)) <= 0)
        return 0;
    if (own[0].revents)
        take_message(wait, &wait->core_fd, "core");
    if (own[1].revents)
        take_message(wait, &wait->agent_fd, "agent");
    if (own[2].revents)
        take_signal(wait);
    size_t served = 0;
    for (size_t i = 0; i < n; i++) {
        if (!fds[i].revents)
            continue;
        sources[i].ready(sources[i].arg, sources[i].fd, fds[i].revents);
        served++;
    }
    return served;
}

bool wait_look(struct wait *wait)
{
    wait_turn(wait, NULL, 0, 0);
    return wait_stopped(wait);
}

bool wait_stopped(const struct wait *wait)
{
    return wait->cancelled || wait->lost;
}

json_t *wait_next_run(struct wait *wait)
{
    if (json_array_size(wait->runs) == 0)
        return NULL;
    json_t *run = json_incref(json_array_get(wait->runs, 0));
    json_array_remove(wait->runs, 0);
    return run;
}
