#include "guardian/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "guardian/freeze.h"
#include "guardian/record.h"

enum {
    AGENT_FD = 3,
    WORKER_FD = 4,
    START_MS = 10000,
    MESSAGE_MS = 5000,
    RETRY_FIRST_MS = 20, /* between attempts to thaw what could not be thawed; doubled each time */
    RETRY_MAX_MS = 1000,
};

struct guardian {
    struct freeze_record record;
    int fds[FREEZE_SET_MAX];
    size_t n;
    int64_t freeze_ms;
    int64_t deadline_us; /* 0: nothing is frozen */
    bool expired, begun, over;
    bool held[FREEZE_SET_MAX];
    int64_t frozen_us[FREEZE_SET_MAX], thawed_us[FREEZE_SET_MAX];
};

static void say(int fd, json_t *message /* taken */, const int *fds, size_t n_fds)
{
    ipc_send(fd, message, fds, n_fds, NULL); /* a peer that is gone shows as end-of-file */
    json_decref(message);
}

/* --- what makes it hard to lose --- */

static void ignore_signals(void)
{
    static const int ignored[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGPIPE, SIGALRM,
                                  SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU};
    for (size_t i = 0; i < ELEMENTS(ignored); i++)
        signal(ignored[i], SIG_IGN);
}

/* Weaker without it, and still a holder: the agent tells, before anything is frozen. */
static void hold_fast(char *ret_weak, size_t size)
{
    AUTO_FD int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "-1000", 5) != 5)
        str_format(ret_weak, size, "oom_score_adj: %s", strerror(errno));
    setpriority(PRIO_PROCESS, 0, -20); /* every moment that it waits for a processor is one in which others cannot write */
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        str_format(ret_weak, size, "mlockall: %s", strerror(errno));
}

/* Frozen by somebody else within this lease: ours is only to see that it ends. */
static bool is_lent(const struct guardian *guardian, size_t i)
{
    return json_bool(json_array_get(json_object_get(guardian->record.doc, "file_systems"), i), "lent", false);
}

/* --- thaw --- */

/* Reverse order: the outer one of stacked file systems first. A mark that another hand (the agent, thaw-all) has
 * already changed is not ours to thaw again: by now it could be somebody else's freeze. What cannot be thawed keeps its
 * mark, and with it its record. */
static void thaw_marked(struct guardian *guardian)
{
    for (size_t i = guardian->n; i-- > 0;) {
        if (record_mark(&guardian->record, i) != FREEZE_MARK_OURS)
            continue;
        enum thaw_result result = freeze_end(guardian->fds[i]);
        guardian->held[i] = result == THAW_DONE || (result == THAW_NOT_FROZEN && is_lent(guardian, i));
        guardian->thawed_us[i] = clock_mono_us();
        if (result != THAW_FAILED)
            record_set(&guardian->record, i, FREEZE_MARK_THAWED);
    }
}

/* Nothing is frozen when it returns. A guardian that does not succeed is killed by the second holder, which goes on. */
static void thaw(struct guardian *guardian)
{
    int pause_ms = RETRY_FIRST_MS;
    if (guardian->begun)
        fault("guardian.thaw"); /* it cannot fail, but die or stop */
    thaw_marked(guardian);
    while (record_any_frozen(&guardian->record)) {
        poll(NULL, 0, pause_ms);
        pause_ms = 2 * pause_ms > RETRY_MAX_MS ? RETRY_MAX_MS : 2 * pause_ms;
        thaw_marked(guardian);
    }
    guardian->deadline_us = 0;
    record_remove(&guardian->record);
    if (guardian->begun)
        say(AGENT_FD, json_pack("{s:s}", "type", "thawed"), NULL, 0);
    guardian->begun = false;
}

static void on_thaw(struct guardian *guardian)
{
    thaw(guardian);
    json_t *held = json_array(), *spans = json_array();
    for (size_t i = 0; i < guardian->n; i++) {
        json_add(held, json_boolean(guardian->held[i]));
        bool known = guardian->held[i] && !is_lent(guardian, i); /* when somebody else froze and thawed only that one knows */
        json_add(spans, known ? json_pack("[I, I]", (json_int_t)guardian->frozen_us[i], (json_int_t)guardian->thawed_us[i]) : json_null());
    }
    say(WORKER_FD, json_pack("{s:s, s:o, s:b, s:o}", "type", "thawed", "held", held, "expired", guardian->expired, "spans", spans), NULL, 0);
    guardian->over = true;
}

/* --- freeze --- */

static const char *mount_point(const struct guardian *guardian, size_t i)
{
    return json_str(json_array_get(json_object_get(guardian->record.doc, "file_systems"), i), "mount_point", "?");
}

static int freeze_one(struct guardian *guardian, size_t i, struct err *err)
{
    int errnum = record_set(&guardian->record, i, FREEZE_MARK_OURS);
    if (errnum != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errnum, NULL, "freeze records: %s cannot be marked", mount_point(guardian, i));
    guardian->frozen_us[i] = clock_mono_us();
    errnum = fault("guardian.freeze") ? EIO : is_lent(guardian, i) ? 0 : freeze_begin(guardian->fds[i]);
    if (errnum == 0)
        return 0;
    record_set(&guardian->record, i, errnum == EBUSY ? FREEZE_MARK_FOREIGN : FREEZE_MARK_NONE);
    if (errnum == EBUSY)
        return err_set(err, VSS_E_VOLUME_IN_USE,
                       "Find out who has frozen it (fsfreeze, a hypervisor's agent), and let that thaw it.",
                       "%s is frozen by somebody else", mount_point(guardian, i));
    return err_errno(err, errnum == EOPNOTSUPP ? VSS_E_VOLUME_NOT_SUPPORTED : VSS_E_UNEXPECTED_PROVIDER_ERROR, errnum,
                     NULL, "%s cannot be frozen", mount_point(guardian, i));
}

/* Gone, both or one of them: what would be frozen now would be nobody's. */
static bool holder_gone(void)
{
    struct pollfd fds[] = {{.fd = AGENT_FD, .events = POLLIN}, {.fd = WORKER_FD, .events = POLLIN}};
    return poll(fds, ELEMENTS(fds), 0) > 0 && ((fds[0].revents | fds[1].revents) & (POLLHUP | POLLERR));
}

static int freeze_each(struct guardian *guardian, struct err *err)
{
    for (size_t i = 0; i < guardian->n; i++) {
        if (freeze_one(guardian, i, err) < 0)
            return -1;
        if (clock_mono_us() >= guardian->deadline_us)
            return err_set(
                err, VSS_E_FLUSH_WRITES_TIMEOUT, "Raise limits.freeze_seconds, or back up when less is being written.",
                "%s took longer than %lld ms to freeze", mount_point(guardian, i), (long long)guardian->freeze_ms);
        if (i + 1 < guardian->n && holder_gone())
            return err_set(err, VSS_E_UNEXPECTED, NULL, "the worker or the agent is gone");
    }
    return 0;
}

static void on_freeze(struct guardian *guardian)
{
    struct err err = {0};
    if (guardian->begun || guardian->expired)
        return;
    guardian->deadline_us = clock_mono_us() + guardian->freeze_ms * 1000;
    AUTO_JSON json_t *freezing =
        json_pack("{s:s, s:I}", "type", "freezing", "deadline_us", (json_int_t)guardian->deadline_us);
    if (ipc_send(AGENT_FD, freezing, NULL, 0, &err) < 0) { /* no second holder, no freeze */
        guardian->over = true;
        return;
    }
    guardian->begun = true;
    if (freeze_each(guardian, &err) == 0 && !fault("guardian.frozen")) {
        say(WORKER_FD, json_pack("{s:s, s:I}", "type", "frozen", "deadline_us", (json_int_t)guardian->deadline_us),
            NULL, 0);
        return;
    }
    if (!err.hr)
        err_set(&err, VSS_E_UNEXPECTED, NULL, "guardian: fault injected");
    thaw(guardian);
    say(WORKER_FD, json_pack("{s:s, s:o}", "type", "freeze_failed", "error", err_to_json(&err)), NULL, 0);
    guardian->over = true;
}

/* --- the loop --- */

static const struct {
    const char *type;
    void (*fn)(struct guardian *guardian);
} words[] = {{"freeze", on_freeze}, {"thaw", on_thaw}};

static void take_word(struct guardian *guardian)
{
    AUTO_JSON json_t *message = NULL;
    size_t n_fds = 0;
    if (ipc_recv(WORKER_FD, MESSAGE_MS, &message, NULL, &n_fds, NULL) != 1) {
        guardian->over = true;
        return;
    }
    for (size_t i = 0; i < ELEMENTS(words); i++)
        if (str_eq(words[i].type, json_str(message, "type", "")))
            words[i].fn(guardian);
}

static int timeout_ms(const struct guardian *guardian)
{
    if (!guardian->deadline_us)
        return -1;
    int64_t left = (guardian->deadline_us - clock_mono_us() + 999) / 1000;
    return left < 0 ? 0 : (int)left;
}

static void hold(struct guardian *guardian)
{
    while (!guardian->over) {
        struct pollfd fds[] = {{.fd = AGENT_FD, .events = POLLIN}, {.fd = WORKER_FD, .events = POLLIN}};
        int ready = poll(fds, ELEMENTS(fds), timeout_ms(guardian));
        if (guardian->deadline_us && clock_mono_us() >= guardian->deadline_us) {
            guardian->expired = true;
            thaw(guardian);
            say(WORKER_FD, json_pack("{s:s}", "type", "expired"), NULL, 0);
            continue;
        }
        if (ready <= 0)
            continue;
        if (fds[0].revents) /* the agent has nothing to say here: it is gone */
            guardian->over = true;
        else if (fds[1].revents)
            take_word(guardian);
    }
    thaw(guardian);
}

static int start(struct guardian *guardian, struct err *err)
{
    AUTO_JSON json_t *message = NULL;
    guardian->n = ELEMENTS(guardian->fds);
    if (ipc_recv(AGENT_FD, START_MS, &message, guardian->fds, &guardian->n, err) != 1)
        return -1;
    json_t *doc = json_object_get(message, "record");
    guardian->freeze_ms = json_int(message, "freeze_ms", 0);
    if (!str_eq(json_str(message, "type", ""), "guard") || guardian->n == 0 || guardian->freeze_ms <= 0 ||
        json_array_size(json_object_get(doc, "file_systems")) != guardian->n)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "message from the agent: not a set of file systems");
    for (size_t i = 0; i < guardian->n; i++)
        record_identify(guardian->fds[i], json_array_get(json_object_get(doc, "file_systems"), i));
    json_put(doc, "freeze_ms", json_integer(guardian->freeze_ms));
    json_put(doc, "since_ms", json_integer(clock_real_ms()));
    json_put(doc, "guardian", record_process(getpid()));
    json_put(doc, "agent", record_process(getppid()));
    return record_create(json_str(message, "records", ""), doc, &guardian->record, err);
}

int guardian_main(void)
{
    struct guardian guardian = {.record.fd = -1};
    struct err err = {0};
    char weak[128] = "";
    log_init("guardian", LOG_LEVEL_INFO); /* it writes none: what it has to say goes to agent and worker */
    ignore_signals();
    fcntl(AGENT_FD, F_SETFD, FD_CLOEXEC);
    fcntl(WORKER_FD, F_SETFD, FD_CLOEXEC);
    if (start(&guardian, &err) < 0 || (fault("guardian.ready") && err_set(&err, VSS_E_UNEXPECTED, NULL, "guardian: fault injected"))) {
        say(AGENT_FD, json_pack("{s:s, s:o}", "type", "failed", "error", err_to_json(&err)), NULL, 0);
        record_remove(&guardian.record);
        record_close(&guardian.record);
        return 1;
    }
    hold_fast(weak, sizeof(weak));
    say(AGENT_FD,
        json_pack("{s:s, s:s, s:s?}", "type", "ready", "path", guardian.record.path, "weak", weak[0] ? weak : NULL),
        &guardian.record.fd, 1);
    hold(&guardian);
    record_close(&guardian.record);
    return 0;
}
