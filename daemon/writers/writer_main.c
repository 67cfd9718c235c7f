/* The main loop of every built-in writer: writer protocol 1 on standard input and output (docs/writers/exec.md). */
#include "writers/writer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"

enum {
    LINE_MAX_BYTES = 1024 * 1024, /* protocol 1: a longer line is a failure */
    DEPTH_MAX = 64,
    DEADLINE_DEFAULT_MS = 10 * 1000,       /* limits.writer_seconds, identify */
    DEADLINE_MAX_MS = 24 * 60 * 60 * 1000, /* an absurd deadline must not overflow the clock */
    FREEZE_TIMEOUT_DEFAULT_MS = 60 * 1000, /* VSS: 60 seconds from Freeze to Thaw */
};

/* One process, one writer, one conversation. */
static struct {
    void *state;
    bool opened;
    bool lost; /* the hold is gone: the next event fails with `loss` */
    struct err loss;
    int64_t lease_end_ms; /* 0 = no freeze is held */
    int64_t renew_at_ms;  /* while a freeze is held, and the writer renews */
    int64_t freeze_timeout_ms;
    int signal_fd;
    char *buffer;
    size_t used;
    bool skipping; /* the rest of an overlong line */
    bool restores; /* between pre_restore and post_restore */
    bool ended;
} self = {.signal_fd = -1, .freeze_timeout_ms = FREEZE_TIMEOUT_DEFAULT_MS};

static struct log_context context(void)
{
    return (struct log_context){.writer = writer_this->name};
}

bool writer_abandoned(void)
{
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLRDHUP}, {.fd = self.signal_fd, .events = POLLIN}};
    if (poll(fds, ELEMENTS(fds), 0) <= 0)
        return false;
    return (fds[0].revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)) || (fds[1].revents & POLLIN);
}

int64_t writer_give_up_ms(int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_mono_ms();
    int64_t margin = left / 10;
    if (margin > 500)
        margin = 500;
    return left > 0 ? deadline_ms - margin : deadline_ms;
}

bool writer_selected(const struct writer_event *event, const char *name)
{
    if (!json_bool(event->request, "component_mode", true))
        return true;
    size_t i;
    json_t *component;
    json_array_foreach(event->components, i,
                       component) if (str_eq(json_str(component, "name", NULL), name) &&
                                      str_eq(json_str(component, "logical_path", ""), "")) return true;
    return false;
}

/* A blocking write: the answers are small, and a worker that does not read them ends us. */
static int answer_send(const json_t *answer)
{
    AUTO_FREE char *text = json_dumps(answer, JSON_COMPACT);
    if (!text)
        return -1;
    size_t length = strlen(text);
    text[length++] = '\n'; /* in place of the NUL */
    for (size_t done = 0; done < length;) {
        ssize_t n = write(STDOUT_FILENO, text + done, length - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

/* What a writer may answer are the writer errors; everything else is said by the nearest of them. */
static const char *failure_name(uint32_t hr)
{
    static const struct {
        uint32_t hr, as;
    } rows[] = {
        {VSS_E_WRITERERROR_RETRYABLE, VSS_E_WRITERERROR_RETRYABLE},
        {VSS_E_WRITERERROR_TIMEOUT, VSS_E_WRITERERROR_TIMEOUT},
        {VSS_E_WRITERERROR_OUTOFRESOURCES, VSS_E_WRITERERROR_OUTOFRESOURCES},
        {VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT},
        {VSS_E_WRITERERROR_PARTIAL_FAILURE, VSS_E_WRITERERROR_PARTIAL_FAILURE},
        {VSS_E_WRITERERROR_RECOVERY_FAILED, VSS_E_WRITERERROR_RECOVERY_FAILED},
        {E_OUTOFMEMORY, VSS_E_WRITERERROR_OUTOFRESOURCES},
        {VSS_E_INSUFFICIENT_STORAGE, VSS_E_WRITERERROR_OUTOFRESOURCES},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (rows[i].hr == hr)
            return hresult_name(rows[i].as);
    return hresult_name(VSS_E_WRITERERROR_NONRETRYABLE);
}

static json_t *answer_failure(const json_t *id, const struct err *err)
{
    AUTO_FREE char *message = str_new("%s%s%s", err->text, err->hint[0] ? ". " : "", err->hint);
    json_t *answer = json_object();
    json_put(answer, "id", id ? json_deep_copy(id) : json_null());
    json_put(answer, "ok", json_false());
    json_put(answer, "failure", json_string(failure_name(err->hr)));
    json_put(answer, "message", json_text(message));
    return answer;
}

static void lose(struct err err)
{
    struct log_context where = context();
    log_err(LOG_LEVEL_ERROR, &where, &err, "the hold is lost");
    self.lost = true;
    self.loss = err;
    self.lease_end_ms = 0;
}

/* Every hold undone, as the event "abort" does. */
static void release_everything(void)
{
    AUTO_JSON json_t *nothing = json_pack("{s:b}", "component_mode", 0);
    AUTO_JSON json_t *none = json_array();
    AUTO_JSON json_t *components = NULL;
    struct writer_event event = {.name = "abort",
                                 .request = nothing,
                                 .components = none,
                                 .backup_type = "full",
                                 .deadline_ms = clock_mono_ms() + DEADLINE_DEFAULT_MS};
    struct err err = {0};
    if (writer_this->event(self.state, &event, &components, &err) != 0) {
        struct log_context where = context();
        log_err(LOG_LEVEL_ERROR, &where, &err, "cannot release");
    }
}

static void look_at_lease(void)
{
    if (!self.lease_end_ms || clock_mono_ms() < self.lease_end_ms)
        return;
    release_everything();
    struct err err = {0};
    err_set(&err, VSS_E_WRITERERROR_TIMEOUT, "Take the snapshot faster, or freeze less.",
            "no thaw came within the freeze window: the hold was released");
    lose(err);
}

static void look_at_renewal(void)
{
    if (!self.lease_end_ms || !writer_this->renew || clock_mono_ms() < self.renew_at_ms)
        return;
    struct err err = {0};
    self.renew_at_ms = clock_mono_ms() + writer_this->renew_ms;
    if (writer_this->renew(self.state, &err) == 0)
        return;
    release_everything();
    lose(err);
}

static int watch_fd(void)
{
    return self.opened && !self.lost && writer_this->watch_fd ? writer_this->watch_fd(self.state) : -1;
}

static void look_at_watch(void)
{
    struct pollfd fd = {.fd = watch_fd(), .events = POLLRDHUP};
    if (fd.fd < 0 || poll(&fd, 1, 0) <= 0 || !(fd.revents & (POLLHUP | POLLRDHUP | POLLERR)))
        return;
    release_everything();
    struct err err = {0};
    err_set(&err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log; then start a new session.",
            "connection lost");
    lose(err);
}

static int identify(const json_t *request, int64_t deadline_ms, json_t *answer, struct err *err)
{
    if (!self.opened) {
        const json_t *configuration = json_object_get(request, "configuration");
        AUTO_JSON json_t *empty = json_object();
        if (writer_this->open(json_is_object(configuration) ? configuration : empty, &self.state, err) != 0)
            return -1;
        self.opened = true;
    }
    json_t *metadata = NULL;
    if (writer_this->identify(self.state, deadline_ms, &metadata, err) != 0)
        return -1;
    self.lost = false;
    self.freeze_timeout_ms = json_int(metadata, "freeze_timeout_ms", FREEZE_TIMEOUT_DEFAULT_MS);
    json_put(answer, "metadata", metadata);
    return 0;
}

/* These undo; they are never refused. */
static bool releases(const char *event)
{
    return str_eq(event, "abort") || str_eq(event, "backup_shutdown");
}

static int other_event(const json_t *request, const char *name, int64_t deadline_ms, json_t *answer, struct err *err)
{
    if (!self.opened)
        return releases(name) ? 0
                              : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Send identify first.",
                                        "%s came before identify", name);
    look_at_lease();
    look_at_watch();
    if (self.lost && !releases(name)) {
        *err = self.loss;
        return -1;
    }
    AUTO_JSON json_t *none = json_array();
    const json_t *components = json_object_get(request, "components");
    struct writer_event event = {.name = name,
                                 .request = request,
                                 .deadline_ms = deadline_ms,
                                 .components = json_is_array(components) ? components : none,
                                 .backup_type = json_str(request, "backup_type", "full")};
    json_t *answers = NULL;
    int result = writer_this->event(self.state, &event, &answers, err);
    if (answers)
        json_put(answer, "components", answers);
    if (releases(name))
        self.lost = false;
    if (writer_this->leased && result == 0 && str_eq(name, "freeze")) {
        /* The window that the worker gives, which limits.freeze_seconds has cut, holds even when the worker is stopped. */
        int64_t own_end_ms = clock_mono_ms() + self.freeze_timeout_ms;
        self.lease_end_ms = own_end_ms < deadline_ms ? own_end_ms : deadline_ms;
        self.renew_at_ms = clock_mono_ms() + writer_this->renew_ms;
    }
    if (str_eq(name, "thaw") || releases(name))
        self.lease_end_ms = 0;
    if (str_eq(name, "pre_restore"))
        self.restores = result == 0;
    if (str_eq(name, "post_restore") || releases(name))
        self.restores = false;
    return result;
}

static int handle(const json_t *request, json_t *answer, struct err *err)
{
    const char *name = json_str(request, "event", NULL);
    if (!name || !json_is_integer(json_object_get(request, "id")))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL,
                       "not a request of writer protocol 1: \"id\" and \"event\" are needed");
    int64_t allowed = json_int(request, "deadline_ms", DEADLINE_DEFAULT_MS);
    if (allowed < 0 || allowed > DEADLINE_MAX_MS)
        allowed = allowed < 0 ? 0 : DEADLINE_MAX_MS;
    int64_t deadline_ms = clock_mono_ms() + allowed;
    if (str_eq(name, "identify"))
        return identify(request, deadline_ms, answer, err);
    return other_event(request, name, deadline_ms, answer, err);
}

static void serve_line(const char *text, size_t length)
{
    struct err err = {0};
    AUTO_JSON json_t *request = json_parse_strict(text, length, DEPTH_MAX, &err);
    AUTO_JSON json_t *answer = json_object();
    const json_t *id = json_object_get(request, "id");
    json_put(answer, "id", json_is_integer(id) ? json_deep_copy(id) : json_null());
    json_put(answer, "ok", json_true());
    if (!request || handle(request, answer, &err) != 0) {
        json_t *failure = answer_failure(json_is_integer(id) ? id : NULL, &err);
        json_t *components = json_object_get(answer, "components");
        if (components)
            json_put(failure, "components", json_incref(components));
        json_decref(answer);
        answer = failure;
    }
    if (answer_send(answer) != 0)
        self.ended = true; /* nobody hears us any more */
}

static void overlong(void)
{
    struct err err = {0};
    err_set(&err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "a request of more than %d bytes", LINE_MAX_BYTES);
    AUTO_JSON json_t *answer = answer_failure(NULL, &err);
    if (answer_send(answer) != 0)
        self.ended = true;
}

static void serve_input(void)
{
    ssize_t n = read(STDIN_FILENO, self.buffer + self.used, LINE_MAX_BYTES + 1 - self.used);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        self.ended = true;
        return;
    }
    self.used += (size_t)n;
    char *start = self.buffer, *end;
    while (!self.ended && (end = memchr(start, '\n', self.used - (size_t)(start - self.buffer)))) {
        if (!self.skipping && end > start)
            serve_line(start, (size_t)(end - start));
        self.skipping = false;
        start = end + 1;
    }
    self.used -= (size_t)(start - self.buffer);
    memmove(self.buffer, start, self.used);
    if (self.used > LINE_MAX_BYTES) {
        if (!self.skipping)
            overlong();
        self.skipping = true;
        self.used = 0;
    } else if (self.skipping) {
        self.used = 0;
    }
}

static int turn_timeout(void)
{
    if (!self.lease_end_ms)
        return -1;
    int64_t next_ms = writer_this->renew && self.renew_at_ms < self.lease_end_ms ? self.renew_at_ms : self.lease_end_ms;
    int64_t left = next_ms - clock_mono_ms();
    return left > 0 ? (int)left : 0;
}

/* Told to end (SIGTERM) between pre_restore and post_restore: a mover of the worker may be moving files to where the old data was, and an undo now
 * would start the application on both. The worker is told to end, too, or it goes on; it alone knows when an undo is in nobody's way, and
 * then says so, or our input ends. */
static bool stays(void)
{
    struct signalfd_siginfo told;
    return self.restores && read(self.signal_fd, &told, sizeof(told)) == (ssize_t)sizeof(told);
}

static void run(void)
{
    while (!self.ended) {
        struct pollfd fds[] = {{.fd = self.signal_fd, .events = POLLIN},
                               {.fd = watch_fd(), .events = POLLRDHUP},
                               {.fd = STDIN_FILENO, .events = POLLIN}};
        if (poll(fds, ELEMENTS(fds), turn_timeout()) < 0 && errno != EINTR)
            return;
        if ((fds[0].revents & POLLIN) && !stays())
            return;
        look_at_lease();
        if (fds[1].revents)
            look_at_watch();
        look_at_renewal();
        if (fds[2].revents)
            serve_input();
    }
}

static int start(struct err *err)
{
    log_init("writer", LOG_LEVEL_INFO);
    if (writer_this->abi != WRITER_ABI)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "writer %s was built for another version", writer_this->name);
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    self.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (self.signal_fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "signalfd");
    self.buffer = mem_new(LINE_MAX_BYTES + 1);
    return 0;
}

int main(void)
{
    struct err err = {0};
    if (start(&err) != 0) {
        struct log_context where = context();
        log_err(LOG_LEVEL_ERROR, &where, &err, "cannot start");
        return EXIT_FAILURE;
    }
    run();
    if (self.opened)
        writer_this->close(self.state);
    free(self.buffer);
    close(self.signal_fd);
    return EXIT_SUCCESS;
}
