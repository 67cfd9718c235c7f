#include "writercheck/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/offspring.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/writer_metadata.h"

enum {
    LINE_MAX_BYTES = 1024 * 1024, /* protocol 1 */
    JSON_DEPTH_MAX = 32,
    PAUSE_NS = 10 * 1000 * 1000,
};

static const char session_id[] = "01890a5d-ac96-774b-bcce-b302099a8057"; /* any UUID: nobody knows it */
static const char *const phases[PHASE_COUNT] = {"identify", "prepare_backup", "prepare_snapshot", "freeze",
                                                "thaw",     "post_snapshot",  "backup_complete",  "backup_shutdown"};

const char *phase_name(enum phase phase)
{
    return phases[phase];
}

static void close_fd(int *fd)
{
    fd_cleanup(fd);
    *fd = -1;
}

bool talk_open(struct talk *talk, struct check *check)
{
    *talk = (struct talk){.check = check,
                          .pidfd = -1,
                          .in_fd = -1,
                          .out_fd = -1,
                          .next_id = 1,
                          .death_rule = RULE_STAYS_ALIVE,
                          .backup_type = "full",
                          .component_mode = true};
    lines_init(&talk->out, LINE_MAX_BYTES);
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    struct err err = {0};
    if (pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0) {
        const struct proc_fd fds[] = {{in[0], 0}, {out[1], 1}, {STDERR_FILENO, 2}};
        struct proc_spec spec = {.argv = check->argv, .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true};
        if (proc_spawn(&spec, &talk->pid, &talk->pidfd, &err) < 0)
            talk->pid = 0;
    } else {
        err_errno(&err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    }
    close_fd(&in[0]);
    close_fd(&out[1]);
    talk->in_fd = in[1];
    talk->out_fd = out[0];
    if (talk->pid > 0) {
        fcntl(talk->in_fd, F_SETFL, O_NONBLOCK);
        fcntl(talk->out_fd, F_SETFL, O_NONBLOCK);
        return true;
    }
    check->over = true;
    judge(check, RULE_STARTS, false, "%s", err.text);
    talk_close(talk);
    return false;
}

/* ---- what it says ---- */

static bool is_writer_error(const char *name)
{
    uint32_t hr;
    return name && hresult_by_name(name, &hr) && str_starts(name, "VSS_E_WRITERERROR_");
}

static void judge_code(struct talk *talk, const char *event, const json_t *object, bool needed)
{
    const char *failure = json_str(object, "failure", NULL);
    bool none = !failure || !failure[0] || str_eq(failure, "S_OK");
    judge(talk->check, RULE_FAILURE_CODES, none ? !needed : is_writer_error(failure), "%s: \"failure\" is %s", event,
          failure ? failure : "missing");
}

static void judge_answer(struct talk *talk, const char *event, const json_t *asked)
{
    struct err err = {0};
    const json_t *components = json_object_get(talk->answer, "components");
    bool good = writer_answer_check(talk->answer, &err) == 0 &&
                (str_eq(event, "identify") || writer_components_check(components, asked, &err) == 0);
    judge(talk->check, RULE_ANSWER_FORM, good, "%s: %s", event, err.text);
    judge_code(talk, event, talk->answer, !json_bool(talk->answer, "ok", false));
    size_t i;
    const json_t *component;
    json_array_foreach(components, i, component) judge_code(talk, event, component, false);
}

/* Takes one line; true when it is the answer that we wait for (or stands for it). */
static bool take_line(struct talk *talk, const char *event, const char *line, size_t length, bool waiting)
{
    struct check *check = talk->check;
    struct err err = {0};
    AUTO_JSON json_t *object = json_parse_strict(line, length, JSON_DEPTH_MAX, &err);
    if (talk->abused) /* what it says of the abuse, and with which id, is its own affair */
        return json_int(object, "id", 0) == talk->next_id - 1;
    if (!judge(check, RULE_ONLY_JSON, json_is_object(object), "%s: it said: %.200s", event, line))
        return false;
    json_int_t id = json_int(object, "id", 0), expected = talk->next_id - 1;
    bool earlier = id > 0 && id < expected; /* answered already */
    if (!judge(check, RULE_ONE_ANSWER, waiting && !earlier, "%s: it said, unasked: %.200s", event, line))
        return false;
    judge(check, RULE_ECHOES_ID, id == expected, "%s: request %lld, answer: %.200s", event, (long long)expected, line);
    json_decref(talk->answer);
    talk->answer = TAKE_PTR(object);
    return true;
}

static void ended(struct talk *talk, const char *event)
{
    int status = 0;
    char text[64] = "it closed its output";
    if (talk_await_exit(talk, &status))
        proc_status_text(status, text, sizeof(text));
    judge(talk->check, talk->death_rule, false, "%s: it ended: %s", event, text);
    close_fd(&talk->in_fd);
    close_fd(&talk->out_fd);
}

/* Sends what fits, reads lines, until a line is taken (want), the writer ends, or the deadline passes. */
static bool exchange(struct talk *talk, const char *event, const char *bytes, size_t length, int64_t deadline_ms)
{
    while (talk->out_fd >= 0) {
        size_t got;
        char *line;
        while ((line = lines_next(&talk->out, &got)))
            if (take_line(talk, event, line, got, true))
                return true;
        if (talk->out.overlong) {
            judge(talk->check, RULE_ANSWER_FORM, false, "%s: a line of more than 1 MiB", event);
            return false;
        }
        int64_t left = deadline_ms - clock_mono_ms();
        if (left <= 0)
            return false;
        struct pollfd fds[] = {{.fd = talk->out_fd, .events = POLLIN},
                               {.fd = length ? talk->in_fd : -1, .events = POLLOUT}};
        if (poll(fds, ELEMENTS(fds), (int)left) < 0)
            continue;
        if (fds[1].revents) {
            ssize_t sent = write(talk->in_fd, bytes, length);
            bytes += sent > 0 ? sent : 0;
            length -= sent > 0 ? (size_t)sent : 0;
            if (sent < 0 && errno != EAGAIN)
                length = 0; /* it does not read any more: the output tells the rest */
        }
        if (fds[0].revents && lines_fill(&talk->out, talk->out_fd) == 0)
            close_fd(&talk->out_fd);
    }
    return false;
}

/* ---- what it is asked ---- */

static json_t *components_for(const struct talk *talk, const char *event)
{
    if (!talk->component_mode)
        return json_array();
    json_t *components = json_deep_copy(talk->check->components);
    size_t i;
    json_t *component;
    json_array_foreach(components, i, component)
    {
        if (str_eq(event, "backup_complete"))
            json_put(component, "succeeded", json_true());
        if (talk->unknown_members)
            json_put(component, "unheard_of", json_pack("{s:[i]}", "x", 1));
    }
    return components;
}

static json_t *request_for(struct talk *talk, const char *event, json_t *extra)
{
    const struct check *check = talk->check;
    AUTO_JSON json_t *owned = extra;
    json_t *request = json_pack("{s:I, s:s, s:s, s:I}", "id", talk->next_id++, "event", event, "session", session_id,
                                "deadline_ms", (json_int_t)check->limit_ms);
    if (talk->unknown_members)
        json_put(request, "unheard_of", json_pack("{s:[n]}", "x"));
    if (str_eq(event, "identify")) {
        json_put(request, "configuration", json_deep_copy(check->configuration));
    } else {
        json_put(request, "snapshot_set", json_string(session_id));
        json_put(request, "backup_type", json_string(talk->backup_type));
        json_put(request, "component_mode", json_boolean(talk->component_mode));
        json_put(request, "bootable_system_state", json_false());
        json_put(request, "partial_files", json_false());
        json_put(request, "components", check->components ? components_for(talk, event) : json_array());
        json_put(request, "volumes", check->volumes ? json_deep_copy(check->volumes) : json_array());
        if (check->staging)
            json_put(request, "staging", json_string(check->staging));
    }
    if (str_eq(event, "thaw"))
        json_put(request, "snapshot_taken", json_true());
    if (owned)
        json_object_update(request, owned);
    return request;
}

enum said talk_ask(struct talk *talk, const char *event, json_t *extra)
{
    struct check *check = talk->check;
    AUTO_JSON json_t *request = request_for(talk, event, extra);
    AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
    AUTO_FREE char *line = str_new("%s\n", text);
    if (check->over || talk->out_fd < 0)
        return SAID_NOTHING;
    if (exchange(talk, event, line, strlen(line), clock_mono_ms() + check->limit_ms)) {
        judge(check, RULE_ANSWERS_IN_TIME, true, "%s", "");
        judge(check, talk->death_rule, true, "%s", "");
        judge_answer(talk, event, json_object_get(request, "components"));
        return json_bool(talk->answer, "ok", false) ? SAID_OK : SAID_FAILED;
    }
    if (talk->out_fd < 0) {
        ended(talk, event);
        return SAID_NOTHING;
    }
    if (!talk->out.overlong)
        judge(check, RULE_ANSWERS_IN_TIME, false, "%s: no answer within %lld ms", event, (long long)check->limit_ms);
    check->over = true; /* every conversation would wait as long */
    return SAID_NOTHING;
}

bool talk_reach(struct talk *talk, int n_phases)
{
    for (int i = 0; i < n_phases; i++)
        if (talk_ask(talk, phases[i], NULL) != SAID_OK)
            return false;
    return true;
}

bool talk_abuse(struct talk *talk, const char *bytes, size_t length)
{
    AUTO_JSON json_t *request = request_for(talk, "abort", NULL); /* its answer shows that the writer has read on */
    AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
    size_t whole = length + strlen(text) + 1;
    AUTO_FREE char *both = mem_new(whole + 1);
    memcpy(both, bytes, length);
    memcpy(both + length, text, whole - length - 1);
    both[whole - 1] = '\n';
    talk->abused = true;
    bool answered = exchange(talk, "abort", both, whole, clock_mono_ms() + talk->check->limit_ms);
    int status = 0; /* an orderly end is fine too; a signal, or silence, is not */
    return answered || (talk->out_fd < 0 && talk_await_exit(talk, &status) && WIFEXITED(status));
}

/* ---- its end ---- */

bool talk_await_exit(struct talk *talk, int *ret_status)
{
    if (talk->pid == 0)
        return false;
    bool late = !proc_reap(talk->pid, talk->pidfd, (int)talk->check->limit_ms, ret_status);
    talk->killed = late;
    if (late) {
        offspring_kill(talk->pid);
        proc_reap(talk->pid, talk->pidfd, -1, ret_status);
    }
    talk->pid = 0;
    return !late;
}

/* We are a subreaper: what a writer leaves behind becomes our child, however it went away. */
static bool anybody_left(int64_t patience_ms)
{
    int64_t end = clock_mono_ms() + patience_ms;
    for (;;) {
        pid_t gone = waitpid(-1, NULL, WNOHANG);
        if (gone < 0)
            return false;
        if (gone == 0 && clock_mono_ms() >= end)
            return true;
        if (gone == 0)
            nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
}

static void judge_exit(struct talk *talk)
{
    struct check *check = talk->check;
    if (check->over || check->verdicts[RULE_END_OF_FILE_EXITS].failed) {
        offspring_kill(talk->pid);
        proc_reap(talk->pid, talk->pidfd, -1, NULL);
        talk->pid = 0;
        talk->killed = true;
        return;
    }
    int status = 0;
    char text[64];
    bool left = talk_await_exit(talk, &status);
    proc_status_text(status, text, sizeof(text));
    judge(check, RULE_END_OF_FILE_EXITS, left && WIFEXITED(status), "%s",
          left ? text : "it was still there when the time was up, and was killed");
}

void talk_close(struct talk *talk)
{
    struct check *check = talk->check;
    close_fd(&talk->in_fd);
    bool watched = talk->pid > 0;
    if (watched)
        judge_exit(talk);
    size_t got;
    char *line;
    while (!check->over && talk->out_fd >= 0 && lines_fill(&talk->out, talk->out_fd) > 0)
        while ((line = lines_next(&talk->out, &got)))
            take_line(talk, "end of file", line, got, false);
    bool left = anybody_left(check->verdicts[RULE_NO_PROCESS_LEFT].failed || !watched ? 0 : check->limit_ms);
    if (watched && !check->over)
        judge(check, RULE_NO_PROCESS_LEFT, !left, "%s", "a process that it started lives on after its end");
    if (left)
        offspring_kill_adopted(NULL, 0, (uid_t)OFFSPRING_ANY_USER);
    lines_clear(&talk->out);
    close_fd(&talk->out_fd);
    close_fd(&talk->pidfd);
    json_decref(talk->answer);
    talk->answer = NULL;
}
