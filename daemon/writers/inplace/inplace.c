#include "writers/inplace/inplace.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "base/undo_bounds.h"
#include "writers/inplace/aside.h"
#include "writers/inplace/service.h"
#include "writers/inplace/target.h"

enum {
    WAIT_MS = 50,
    UNDO_LEAST_MS = 10 * 1000, /* what it is left of a short deadline, or half of that */
};

/* OWED: pre_restore or post_restore failed, and old data is not in its place again. */
enum inplace_state { AT_REST, TAKEN, OWED, ELSEWHERE };

struct inplace {
    const struct inplace_server *server;
    void *arg;
    char *name;
    json_t *stop, *start;
    enum inplace_state state;
    bool ran;     /* before pre_restore */
    bool started; /* by post_restore */
    struct aside *aside;
    char *directory;
    json_t *asked; /* what pre_restore was asked for */
    int lock_fd;   /* -1, or the lock of the place */
};

struct inplace *inplace_new(const struct inplace_server *server, void *arg, const json_t *configuration)
{
    struct inplace *inplace = mem_new(sizeof(*inplace));
    *inplace = (struct inplace){.server = server,
                                .arg = arg,
                                .lock_fd = -1,
                                .name = str_dup(json_str(configuration, "name", "?")),
                                .stop = json_incref(json_object_get(configuration, "stop")),
                                .start = json_incref(json_object_get(configuration, "start"))};
    return inplace;
}

static void forget(struct inplace *inplace)
{
    aside_free(inplace->aside);
    free(inplace->directory);
    json_decref(inplace->asked);
    fd_cleanup(&inplace->lock_fd); /* last: the old data is in its place, or removed */
    inplace->lock_fd = -1;
    inplace->aside = NULL;
    inplace->directory = NULL;
    inplace->asked = NULL;
    inplace->started = false;
    inplace->state = AT_REST;
}

void inplace_free(struct inplace *inplace)
{
    if (!inplace)
        return;
    inplace_undo(inplace, clock_mono_ms() + RESTORE_UNDO_MS);
    forget(inplace);
    json_decref(inplace->stop);
    json_decref(inplace->start);
    free(inplace->name);
    free(inplace);
}

static struct log_context context(const struct inplace *inplace)
{
    return (struct log_context){.writer = inplace->name};
}

const json_t *inplace_component(const struct writer_event *event, const char *name, bool only)
{
    size_t i;
    const json_t *component;
    json_array_foreach(event->components, i, component) if (only ||
                                                            (str_eq(json_str(component, "name", NULL), name) &&
                                                             str_eq(json_str(component, "logical_path", ""), "")))
        return component;
    return NULL;
}

bool inplace_wait(int64_t give_up_ms, const char *what, struct err *err)
{
    if (clock_mono_ms() >= give_up_ms)
        err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Look into the server's log; raise limits.writer_seconds.",
                "%s in time", what);
    else if (writer_abandoned())
        err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "the requester has gone");
    else {
        nanosleep(&(struct timespec){.tv_nsec = WAIT_MS * 1000000L}, NULL);
        return true;
    }
    return false;
}

/* What an event does itself ends so early that an undo still fits before the deadline. */
static int64_t work_until(int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_mono_ms(), reserve = left / 4;
    if (reserve < UNDO_LEAST_MS)
        reserve = left / 2 < UNDO_LEAST_MS ? left / 2 : UNDO_LEAST_MS;
    return deadline_ms - (reserve > RESTORE_UNDO_MS ? RESTORE_UNDO_MS : reserve > 0 ? reserve : 0);
}

/* --- stop and start --- */

static int stop_server(struct inplace *inplace, int64_t give_up_ms, bool patient, struct err *err)
{
    if (service_run(inplace->stop, give_up_ms, patient, err) != 0)
        return err_prefix(err, "%s could not be stopped", inplace->server->what);
    while (inplace->server->running(inplace->arg)) {
        bool more = patient ? clock_mono_ms() < service_until(give_up_ms) : inplace_wait(give_up_ms, "it did not stand still", err);
        if (patient && more)
            nanosleep(&(struct timespec){.tv_nsec = WAIT_MS * 1000000L}, NULL);
        if (!more && patient)
            err_set(err, VSS_E_WRITERERROR_TIMEOUT, NULL, "it did not stand still in time");
        if (!more)
            return err_prefix(err, "%s could not be stopped", inplace->server->what);
    }
    return 0;
}

static int start_server(struct inplace *inplace, int64_t give_up_ms, bool patient, struct err *err)
{
    if (service_run(inplace->start, give_up_ms, patient, err) == 0)
        return 0;
    return err_prefix(err, "%s could not be started", inplace->server->what);
}

/* It would be ended with our session, and not gently. */
static int check_independent(struct err *err)
{
    pid_t left = service_left_behind();
    if (!left)
        return 0;
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                   "Let start ask a service manager (systemctl start); it must not become the server's parent.",
                   "start left process %d behind as its child, which ends with this session", (int)left);
}

/* --- undo --- */

/* A service manager may be about to try once more: it is told to stop even when nothing runs at this moment. 0: proven that
 * nothing runs. */
static int stop_for_undo(struct inplace *inplace, int64_t give_up_ms, struct err *err)
{
    pid_t process = inplace->server->running(inplace->arg);
    if (!process && !inplace->started)
        return 0;
    if (process > 0)
        service_find(process, &inplace->stop, &inplace->start);
    if (!inplace->stop)
        return process ? err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "there is no command to stop it") : 0;
    if (stop_server(inplace, give_up_ms, true, err) == 0)
        return 0;
    return inplace->server->running(inplace->arg) ? -1 : 0;
}

/* The end of a sentence that begins with the server's name. */
static char *start_for_undo(struct inplace *inplace, int64_t give_up_ms)
{
    struct err err = {0};
    if (!inplace->ran)
        return str_dup("is stopped, as it was before");
    if (start_server(inplace, give_up_ms, true, &err) != 0)
        return str_new("%s: %s", inplace->server->running(inplace->arg) ? "runs" : "is stopped", err.text);
    return check_independent(&err) == 0 ? str_dup("was started again") : str_new("was started again, but %s", err.text);
}

/* The old data back, and the server as it was; what cannot be done now is owed until the session's end. keep: what was
 * restored stays beside it, for people to look at. Says what was done, as the end of a message. Caller frees. */
static char *undo(struct inplace *inplace, int64_t give_up_ms, bool keep)
{
    struct err err = {0};
    AUTO_FREE char *before = aside_where(inplace->aside);
    give_up_ms = service_until(give_up_ms);
    inplace->state = OWED;
    if (stop_for_undo(inplace, give_up_ms, &err) != 0)
        return str_new("%s still runs on what lies in its place (%s); the old data lies in %s", inplace->server->what, err.text,
                       before[0] ? before : "its place");
    if (aside_put_back(inplace->aside, &err) != 0)
        return str_new("%s is stopped: %s", inplace->server->what, err.text);
    AUTO_FREE char *state = start_for_undo(inplace, give_up_ms);
    inplace->state = AT_REST;
    if (!keep)
        aside_remove(inplace->aside, give_up_ms);
    AUTO_FREE char *where = aside_where(inplace->aside);
    return str_new("the old data is in its place again, %s %s%s%s", inplace->server->what, state,
                   where[0] ? "; what was restored lies in " : "", where);
}

void inplace_undo(struct inplace *inplace, int64_t deadline_ms)
{
    if (inplace->state == TAKEN || inplace->state == OWED) {
        AUTO_FREE char *done = undo(inplace, writer_give_up_ms(deadline_ms), inplace->state == OWED);
        struct log_context where = context(inplace);
        log_line(LOG_LEVEL_WARNING, &where, "the restore came to no end: %s", done);
    }
    if (inplace->state != OWED)
        forget(inplace);
}

/* --- what is asked for --- */

static json_t *facts_of(const json_t *component)
{
    const char *text = json_str(component, "metadata", json_str(component, "backup_metadata", NULL));
    struct err ignored = {0};
    return text ? json_parse_strict(text, strlen(text), 8, &ignored) : NULL;
}

static const json_t *targets_of(const struct writer_event *event, const json_t *component)
{
    const json_t *targets = json_object_get(component, "new_targets");
    return json_array_size(targets) ? targets : json_object_get(event->request, "new_targets");
}

static const char *target_of(const json_t *targets, const json_t *set)
{
    size_t i;
    const json_t *target;
    json_array_foreach(targets, i, target) if (str_eq(json_str(target, "path", NULL), json_str(set, "path", "")) &&
                                               str_eq(json_str(target, "spec", "*"), json_str(set, "spec", "*")))
        return json_str(target, "new_path", NULL);
    return NULL;
}

/* A half of the files beside the living server's other half is no database. */
static int check_targets(const json_t *targets, const json_t *sets, struct err *err)
{
    size_t i;
    const json_t *set;
    json_array_foreach(sets, i, set) if (!target_of(targets, set)) return err_set(
        err, VSS_E_WRITERERROR_NONRETRYABLE, "Give every file set of the component a new target, or none.",
        "%s has no new target, and other files of the same server have", json_str(set, "path", "?"));
    return 0;
}

/* Both, also when it is down: post_restore starts it, and an undo must be able to stop it again. */
static int check_commands(const struct inplace *inplace, bool runs, struct err *err)
{
    const char *lacks = !inplace->stop ? "stop" : !inplace->start ? "start" : NULL;
    if (!lacks)
        return 0;
    AUTO_FREE char *hint = str_new("Add %s: [systemctl, %s, NAME.service] to the writer's configuration.", lacks, lacks);
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, hint,
                   "%s %s, no %s command is configured, and no systemd unit of it was found; nothing was changed",
                   inplace->server->what, runs ? "runs" : "is stopped", lacks);
}

/* What we cannot see we cannot see stand still either: a server of another machine, or of another user. */
static int check_visible(const struct inplace *inplace, pid_t process, struct err *err)
{
    if (process || !inplace->server->answers(inplace->arg))
        return 0;
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                   "The writer must run on the server's machine, as the server's user.",
                   "%s answers, but no process of it is to be seen in %s; nothing was changed", inplace->server->what,
                   inplace->directory);
}

/* A writer that was killed in a restore could not put the old data back. */
static void tell_leftovers(const struct inplace *inplace)
{
    AUTO_FREE char *left = aside_left(inplace->directory);
    struct log_context log = context(inplace);
    if (left[0])
        log_line(LOG_LEVEL_WARNING, &log, "an earlier restore came to no end: the data of before it lies in %s", left);
}

/* --- pre_restore --- */

static json_t *answer_of(const json_t *component)
{
    json_t *answers = json_array();
    json_add(answers, json_pack("{s:s, s:s, s:s}", "logical_path", json_str(component, "logical_path", ""), "name",
                                json_str(component, "name", ""), "restore_target", "original"));
    return answers;
}

/* Stopped, and out of the way; on failure as before, or OWED: it is not started on half of its data. */
static int take(struct inplace *inplace, const json_t *sets, const struct writer_event *event, struct err *err)
{
    int64_t give_up_ms = work_until(event->deadline_ms);
    tell_leftovers(inplace);
    inplace->aside = aside_new();
    inplace->server->let_go(inplace->arg);
    if ((!inplace->ran || stop_server(inplace, give_up_ms, false, err) == 0) &&
        aside_take(inplace->aside, sets, err) == 0)
        return 0;
    struct err again = {0};
    AUTO_FREE char *where = aside_where(inplace->aside);
    if (where[0]) {
        inplace->state = OWED;
        return err_prefix(err, "%s is stopped until its old data is in its place again, of which some lies in %s",
                          inplace->server->what, where);
    }
    /* A stop that failed half way may still come to its end: a start does no harm to a server that runs. */
    if (inplace->ran && start_server(inplace, writer_give_up_ms(event->deadline_ms), true, &again) != 0)
        err_prefix(err, "%s may be stopped now (%s)", inplace->server->what, again.text);
    forget(inplace);
    return -1;
}

static void tell_taken(const struct inplace *inplace)
{
    AUTO_FREE char *where = aside_where(inplace->aside);
    struct log_context log = context(inplace);
    log_line(LOG_LEVEL_INFO, &log, "%s %s; its data until post_restore: %s", inplace->server->what,
             inplace->ran ? "is stopped for a restore" : "was stopped already", where[0] ? where : "(there was none)");
}

/* What another component would be restored by; not what the first answer has added to it. */
static json_t *essence_of(const json_t *component, const json_t *targets)
{
    static const char *const members[] = {"name", "file_sets", "metadata", "backup_metadata", "additional_restores", "chain", "roll_forward"};
    json_t *essence = json_object();
    for (size_t i = 0; i < ELEMENTS(members); i++)
        if (json_object_get(component, members[i]))
            json_put(essence, members[i], json_deep_copy(json_object_get(component, members[i])));
    if (targets)
        json_put(essence, "new_targets", json_deep_copy(targets));
    return essence;
}

/* A PreRestore that failed, of another writer perhaps, may be repeated. 1: it was done already. */
static int come_again(struct inplace *inplace, const json_t *essence, struct err *err)
{
    if (inplace->state == ELSEWHERE)
        forget(inplace); /* nothing was done */
    if (inplace->state == AT_REST)
        return 0;
    if (inplace->state == TAKEN && json_equal(inplace->asked, essence))
        return 1;
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "End this session: the old data comes back. Then begin another one.",
                   inplace->state == TAKEN ? "%s is stopped for another restore already"
                                           : "an earlier restore of %s came to no end, and is not undone yet",
                   inplace->server->what);
}

/* Files are moved into a new target while whatever works in it goes on. */
static int check_new_targets(const struct inplace *inplace, const json_t *targets, const json_t *sets, const json_t *living,
                             struct err *err)
{
    size_t i;
    const json_t *target;
    if (check_targets(targets, sets, err) != 0 || target_check_apart(targets, living, inplace->server->what, err) != 0)
        return -1;
    json_array_foreach(targets, i, target)
    {
        AUTO_FREE char *place = target_resolved(json_str(target, "new_path", "/"));
        if (inplace->server->works_in(inplace->arg, place))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Stop it, or give another new target.",
                           "a server works in the new target %s", place);
    }
    return 0;
}

/* In its place: may it be stopped, started, and is it ours alone? */
static int check_place(struct inplace *inplace, struct err *err)
{
    if (target_lock(inplace->directory, &inplace->lock_fd, err) != 0)
        return -1;
    pid_t process = inplace->server->running(inplace->arg);
    if (process > 0)
        service_find(process, &inplace->stop, &inplace->start);
    inplace->ran = process != 0;
    return check_visible(inplace, process, err) == 0 ? check_commands(inplace, inplace->ran, err) : -1;
}

int inplace_pre_restore(struct inplace *inplace, const struct writer_event *event, const json_t *component,
                        const json_t *file_sets, json_t **ret_components, struct err *err)
{
    AUTO_JSON json_t *facts = facts_of(component);
    const json_t *own = json_object_get(component, "file_sets"), *targets = targets_of(event, component);
    const json_t *sets = json_array_size(own) ? own : file_sets;
    const json_t *first = json_array_get(sets, 0);
    bool elsewhere = json_array_size(targets) > 0;
    struct inplace_job job = {.component = component,
                              .facts = facts,
                              .elsewhere = elsewhere,
                              .directory = elsewhere ? target_of(targets, first) : json_str(first, "path", NULL),
                              .give_up_ms = work_until(event->deadline_ms)};
    AUTO_JSON json_t *essence = essence_of(component, targets);
    int again = come_again(inplace, essence, err);
    if (again > 0)
        *ret_components = answer_of(component);
    if (again != 0)
        return again > 0 ? 0 : -1;
    if (elsewhere && check_new_targets(inplace, targets, sets, file_sets, err) != 0)
        return -1;
    if (!job.directory)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "the component has no file sets");
    if (inplace->server->fits(inplace->arg, &job, err) != 0)
        return -1;
    inplace->directory = str_dup(job.directory);
    inplace->state = ELSEWHERE;
    if (elsewhere)
        return 0;
    if (check_place(inplace, err) != 0 || take(inplace, sets, event, err) != 0) {
        if (inplace->state != OWED)
            forget(inplace);
        return -1;
    }
    inplace->state = TAKEN;
    inplace->asked = TAKE_PTR(essence);
    tell_taken(inplace);
    *ret_components = answer_of(component);
    return 0;
}

/* --- post_restore --- */

/* "all", and VSS's own word for it. */
static bool all_restored(const json_t *component)
{
    const char *status = json_str(component, "file_restore_status", "none");
    return str_eq(status, "all") || str_eq(status, "VSS_RS_ALL");
}

static int bring_up(struct inplace *inplace, const struct inplace_job *job, struct err *err)
{
    const struct inplace_server *server = inplace->server;
    if (server->running(inplace->arg))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Nobody may start it between pre_restore and post_restore.",
                       "somebody started %s while its files were restored", server->what);
    if (server->ready(inplace->arg, job, err) != 0)
        return -1;
    inplace->started = true;
    if (start_server(inplace, job->give_up_ms, false, err) == 0 && server->verify(inplace->arg, job, err) == 0 &&
        check_independent(err) == 0)
        return 0;
    server->let_go(inplace->arg);
    return -1;
}

static void drop_old(struct inplace *inplace, int64_t give_up_ms)
{
    bool all = aside_remove(inplace->aside, give_up_ms);
    AUTO_FREE char *where = aside_where(inplace->aside);
    struct log_context log = context(inplace);
    log_line(LOG_LEVEL_INFO, &log, "%s is restored, runs and was verified%s%s", inplace->server->what,
             all ? "" : "; the old data could not be removed: ", all ? "" : where);
    forget(inplace);
}

static int end_undo(struct inplace *inplace, const char *done, struct err *err)
{
    if (inplace->state == OWED)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "the files were not restored: %s", done);
    forget(inplace);
    return 0;
}

/* What ready removes as stale is a living server's when somebody started one on it meanwhile. */
static int look_at_target(const struct inplace *inplace, const struct inplace_job *job, struct err *err)
{
    AUTO_FREE char *place = target_resolved(job->directory);
    if (inplace->server->works_in(inplace->arg, place))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Nobody may start it between pre_restore and post_restore.",
                       "a server works in the new target %s", place);
    return inplace->server->ready(inplace->arg, job, err);
}

int inplace_post_restore(struct inplace *inplace, const struct writer_event *event, const json_t *component,
                         struct err *err)
{
    AUTO_JSON json_t *facts = facts_of(component);
    struct inplace_job job = {.component = component,
                              .facts = facts,
                              .directory = inplace->directory,
                              .elsewhere = inplace->state == ELSEWHERE,
                              .give_up_ms = work_until(event->deadline_ms)};
    if (inplace->state != TAKEN && inplace->state != ELSEWHERE)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "post_restore came without pre_restore");
    if (job.elsewhere) {
        int result = all_restored(component) ? look_at_target(inplace, &job, err) : 0;
        forget(inplace);
        return result;
    }
    int64_t undo_until = writer_give_up_ms(event->deadline_ms);
    if (!all_restored(component)) {
        AUTO_FREE char *done = undo(inplace, undo_until, false);
        struct log_context log = context(inplace);
        log_line(LOG_LEVEL_WARNING, &log, "the files were not restored: %s", done);
        return end_undo(inplace, done, err);
    }
    if (bring_up(inplace, &job, err) == 0) {
        drop_old(inplace, undo_until);
        return 0;
    }
    AUTO_FREE char *done = undo(inplace, undo_until, !writer_abandoned()); /* for nobody to look at when it was given up */
    char cause[sizeof(err->text) / 2]; /* what was done matters as much as why */
    str_copy(cause, sizeof(cause), err->text);
    str_format(err->text, sizeof(err->text), "%s; %s", cause, done);
    end_undo(inplace, done, NULL);
    return -1;
}
