/* A role that is stopped or hangs is as gone as a dead one, but nothing says so: each is asked from time to time, and one
 * that does not answer is killed. Its successor's generation then starts as after any death, freezes thawed first. */
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "serve/serve_private.h"

enum { WATCHDOG_SECONDS = 20, ROUNDS = 3 /* unanswered in a row: one alone may be our own pause, not the role's */ };

static int64_t round_ms(const struct serve *serve)
{
    int64_t manager_ms = notify_watchdog_ms() / ROUNDS; /* the service manager's patience with us */
    int64_t own_ms = 1000 * json_int(json_object_get(serve->config, "limits"), "watchdog_seconds", WATCHDOG_SECONDS) / ROUNDS;

    return manager_ms > 0 && manager_ms < own_ms ? manager_ms : own_ms;
}

static void ask(struct role *role)
{
    if (role->pid <= 0 || !role->channel || role->drained)
        return;
    if (role->unanswered >= ROUNDS) {
        log_line(LOG_LEVEL_ERROR, NULL, "%s (pid %d) does not answer: killed", role->name, (int)role->pid);
        syscall(SYS_pidfd_send_signal, role->pidfd, SIGKILL, NULL, 0);
        return;
    }
    AUTO_JSON json_t *ping = json_pack("{s:s}", "type", "ping");
    role->unanswered++;
    ipc_channel_send(role->channel, ping, NULL, 0);
}

/* Starts, drains and ends have bounds of their own, and rest is rest. What remains: a role that does not even end when it is killed (it hangs
 * in the kernel), and one that does not answer. */
static bool in_order(const struct serve *serve)
{
    if (serve->phase == PHASE_STOPPING)
        return loop_timer_armed(serve->bound);
    for (size_t i = 0; serve->phase == PHASE_SERVING && i < ROLE_NAMES; i++)
        if (serve->roles[i].unanswered >= ROUNDS)
            return false;
    return true;
}

static void on_round(void *arg)
{
    struct serve *serve = arg;
    bool watching = serve->phase == PHASE_SERVING || serve->phase == PHASE_DRAINING; /* a start has a bound of its own */

    if (notify_watchdog_ms() > 0 && in_order(serve)) /* by what the roles' own loops have answered until now */
        notify_state("WATCHDOG=1");
    for (size_t i = 0; watching && i < ROLE_NAMES; i++)
        ask(&serve->roles[i]);
    loop_timer_set(serve->watchdog, round_ms(serve));
}

void watchdog_start(struct serve *serve)
{
    serve->watchdog = loop_timer_new(serve->loop, on_round, serve);
    loop_timer_set(serve->watchdog, round_ms(serve));
}

void watchdog_answered(struct role *role)
{
    role->unanswered = 0;
}
