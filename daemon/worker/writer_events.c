/* Telling writers: one request to each, all at once, and what their answers mean for their state. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/ipc.h"
#include "base/str.h"
#include "base/undo_bounds.h"
#include "worker/context.h"
#include "worker/freeze_guard.h"
#include "worker/staging.h"
#include "worker/writer_metadata.h"

enum {
    THAW_GRACE_MS = 5000, /* one that holds nothing and was told to thaw has at least so long, even past its window */
    HELD_GRACE_MS = 450,  /* one that holds: until before the guard kills it */
    LOST_GRACE_MS =
        1000, /* nobody waits for us any more: let a writer finish its sentence, so that it can hear Abort */
    GUARD_GRACE_US = 700000, /* past the window: its kill is done within the second that is promised (design, section 2) */
    LATE_THAW_US = 200000,   /* a Thaw that comes at its end: two levels of stopped writers are gone within that second, too */
};

/* Deadlines: design, section 5, "Writer failure codes". Freeze and Thaw have the writer's own window instead. */
static const struct event_row {
    const char *name, *ok_state, *failed_state;
    int64_t seconds;
} rows[WRITER_EVENT_COUNT] = {
    [WRITER_IDENTIFY] = {"identify", "VSS_WS_STABLE", "VSS_WS_FAILED_AT_IDENTIFY", 10},
    [WRITER_PREPARE_BACKUP] = {"prepare_backup", "VSS_WS_STABLE", "VSS_WS_FAILED_AT_PREPARE_BACKUP", 300},
    [WRITER_PREPARE_SNAPSHOT] = {"prepare_snapshot", "VSS_WS_WAITING_FOR_FREEZE", "VSS_WS_FAILED_AT_PREPARE_SNAPSHOT",
                                 60},
    [WRITER_FREEZE] = {"freeze", "VSS_WS_WAITING_FOR_THAW", "VSS_WS_FAILED_AT_FREEZE", 0},
    [WRITER_THAW] = {"thaw", "VSS_WS_WAITING_FOR_POST_SNAPSHOT", "VSS_WS_FAILED_AT_THAW", 0},
    [WRITER_POST_SNAPSHOT] = {"post_snapshot", "VSS_WS_WAITING_FOR_BACKUP_COMPLETE", "VSS_WS_FAILED_AT_POST_SNAPSHOT",
                              60},
    [WRITER_BACKUP_COMPLETE] = {"backup_complete", "VSS_WS_STABLE", "VSS_WS_FAILED_AT_BACKUP_COMPLETE", 60},
    [WRITER_PRE_RESTORE] = {"pre_restore", "VSS_WS_STABLE", "VSS_WS_FAILED_AT_PRE_RESTORE", 600},
    [WRITER_POST_RESTORE] = {"post_restore", "VSS_WS_STABLE", "VSS_WS_FAILED_AT_POST_RESTORE", 600},
    [WRITER_ABORT] = {"abort", "VSS_WS_STABLE", NULL, 10},
    [WRITER_BACKUP_SHUTDOWN] = {"backup_shutdown", NULL, "VSS_WS_FAILED_AT_BACKUPSHUTDOWN", 10},
};

void writers_fail(struct writers *writers, struct writer_entry *entry, enum writer_event at, const struct err *err)
{
    if (entry->failure.hr)
        return; /* the first failure is the one that counts */
    entry->failure = *err;
    entry->failed_order = ++writers->failures;
    if (rows[at].failed_state)
        entry->state = rows[at].failed_state;
}

static json_t *set_request(struct worker *worker, const struct writer_entry *entry, json_t *request)
{
    const json_t *state = worker->backup_state;
    json_put(request, "backup_type", json_string(json_str(state, "type", "full")));
    json_put(request, "component_mode", json_boolean(json_bool(state, "component_mode", true)));
    json_put(request, "bootable_system_state", json_boolean(json_bool(state, "bootable_system_state", false)));
    json_put(request, "partial_files", json_boolean(json_bool(state, "partial_files", false)));
    json_put(request, "components", entry->components ? json_deep_copy(entry->components) : json_array());
    json_put(request, "volumes", snapshots_for_writers(&worker->set));
    if (json_object_get(state, "restore_type"))
        json_put(request, "restore_type", json_incref(json_object_get(state, "restore_type")));
    if (entry->staging[0])
        json_put(request, "staging", json_string(entry->staging));
    return request;
}

static json_t *request_for(struct worker *worker, const struct writer_entry *entry, enum writer_event event)
{
    json_t *request = json_pack("{s:s, s:s}", "event", rows[event].name, "session", worker->session);
    if (worker->traceparent[0])
        json_put(request, "traceparent", json_string(worker->traceparent));
    if (event == WRITER_IDENTIFY) {
        json_put(request, "configuration", json_deep_copy(entry->configuration));
        return request;
    }
    json_put(request, "snapshot_set", worker->set.id[0] ? json_string(worker->set.id) : json_null());
    if (event == WRITER_THAW) /* else there is nothing to bring to an end, and others wait for their thaw */
        json_put(request, "snapshot_taken", json_boolean(worker->set.created && !wait_stopped(&worker->wait)));
    return set_request(worker, entry, request);
}

/* Killed half way through a restore, such a writer would leave its application stopped and the data moved aside. */
static bool stops_application(const struct writer_entry *entry)
{
    const char *method = json_str(entry->metadata, "restore_method", "");
    return str_starts(method, "stop_restore") || str_starts(method, "restore_stop");
}

static int64_t timeout_for(const struct worker *worker, const struct writer_entry *entry, enum writer_event event)
{
    if (event == WRITER_FREEZE)
        return entry->freeze_timeout_ms;
    if (event == WRITER_THAW) {
        int64_t left = entry->freeze_timeout_ms - (clock_mono_us() - entry->freeze_us) / 1000;
        if (entry->level != LEVEL_UNHELD)
            return (left > 0 ? left : 0) + HELD_GRACE_MS;
        return left > THAW_GRACE_MS ? left : THAW_GRACE_MS;
    }
    if (event == WRITER_BACKUP_SHUTDOWN && entry->restoring && stops_application(entry))
        return RESTORE_UNDO_MS;
    const json_t *seconds = json_object_get(json_object_get(worker->config, "limits"), "writer_seconds");
    const json_t *own = json_object_get(seconds, rows[event].name);
    if (json_is_real(own) && json_real_value(own) > 0)
        return (int64_t)(json_real_value(own) * 1000);
    return json_int(seconds, rows[event].name, rows[event].seconds) * 1000;
}

/* It lets go for a writer that does not: one that was stopped hears neither Thaw nor Abort, and holds on. */
static int guard(struct writer_entry *entry, int64_t now_us)
{
    if (entry->client.pid <= 0)
        return 0;
    entry->guarded =
        freeze_guard_watch(entry->client.pid, now_us + entry->freeze_timeout_ms * 1000 + GUARD_GRACE_US) == 0;
    return entry->guarded ? 0 : -1;
}

static void unguard(struct writer_entry *entry)
{
    if (entry->guarded)
        freeze_guard_forget(entry->client.pid);
    entry->guarded = false;
}

static bool lets_go(enum writer_event event)
{
    return event == WRITER_THAW || event == WRITER_ABORT;
}

static void send_to(struct worker *worker, struct writer_entry *entry)
{
    enum writer_event event = entry->asked;
    if (worker_fault(worker, "writer.%s.before", rows[event].name))
        writer_client_reject(&entry->client, "fault injected");
    json_t *request = request_for(worker, entry, event);
    int64_t now = clock_mono_us();
    if (event == WRITER_FREEZE) {
        entry->freeze_us = now;
        entry->freeze_ms = clock_real_ms();
        entry->late = false;
        if (guard(entry, now) < 0)
            writer_client_reject(&entry->client, "nobody can watch over it while it is frozen: too many writers are, or no thread is to be had");
    }
    if (event == WRITER_PREPARE_BACKUP) {
        entry->saw_prepare = true;
        entry->done_post = false;
    }
    if (event ==
        WRITER_THAW) /* the window runs to the receipt of Thaw (vss-model 2.6), so it is judged before the answer */
        entry->late = now - entry->freeze_us > entry->freeze_timeout_ms * 1000;
    writer_client_send(&entry->client, request, timeout_for(worker, entry, event));
    if (lets_go(event) && entry->level == LEVEL_UNHELD)
        unguard(entry);
    else if (lets_go(event) && entry->guarded)
        freeze_guard_extend(entry->client.pid, clock_mono_us() + LATE_THAW_US);
}

static bool any_pending(const struct writers *writers, int64_t *ret_deadline)
{
    bool pending = false;
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_client *client = &writers->entries[i].client;
        if (!client->pending)
            continue;
        pending = true;
        if (client->deadline_ms < *ret_deadline)
            *ret_deadline = client->deadline_ms;
    }
    return pending;
}

/* The end of its input tells a writer in the middle of a restore's event to undo what it did; it has time for that. */
static int64_t patience_when_stopped(struct worker *worker)
{
    int64_t patience_ms = worker->wait.cancelled ? 0 : LOST_GRACE_MS;
    for (size_t i = 0; i < worker->writers.n; i++) {
        struct writer_entry *entry = &worker->writers.entries[i];
        bool restores = entry->asked == WRITER_PRE_RESTORE || entry->asked == WRITER_POST_RESTORE;
        if (!restores || !entry->client.pending || !stops_application(entry))
            continue;
        writer_client_hang_up(&entry->client);
        patience_ms = RESTORE_UNDO_MS;
    }
    return patience_ms;
}

static void await_answers(struct worker *worker, enum tell_mode mode)
{
    int64_t give_up = INT64_MAX;
    for (;;) {
        if (mode == TELL_STOPPABLE && wait_stopped(&worker->wait) && give_up == INT64_MAX)
            give_up = clock_mono_ms() + patience_when_stopped(worker);
        int64_t deadline = give_up;
        if (!any_pending(&worker->writers, &deadline))
            return;
        int64_t now = clock_mono_ms();
        for (size_t i = 0; i < worker->writers.n; i++) {
            struct writer_entry *entry = &worker->writers.entries[i];
            if (now >= give_up)
                writer_client_abandon(&entry->client);
            writer_client_expire(&entry->client, now);
            if (lets_go(entry->asked) && !entry->client.pending)
                unguard(entry); /* now: the others' answers may take longer than its guard waits */
        }
        writers_turn(worker, NULL, 0, deadline);
    }
}

static uint32_t failure_code(const char *name)
{
    uint32_t hr;
    if (name && hresult_by_name(name, &hr) && hr != S_OK && strncmp(name, "VSS_E_WRITER", 12) == 0)
        return hr;
    return VSS_E_WRITERERROR_NONRETRYABLE; /* a code that no writer may give */
}

static bool has_failure(const json_t *object)
{
    const char *failure = json_str(object, "failure", NULL);
    return failure && failure[0] && !str_eq(failure, "S_OK");
}

static void keep_application(struct writer_entry *entry, const json_t *from)
{
    json_t *code = json_object_get(from, "application_code");
    if (json_is_integer(code) && !entry->application_code)
        entry->application_code = json_incref(code);
    if (!entry->application_message[0])
        str_copy(entry->application_message, sizeof(entry->application_message),
                 json_str(from, "application_message", ""));
}

/* Where the files belong that the writer adds: a restore of the component brings them, whatever its file sets name. */
static json_t *added_files(const json_t *component)
{
    const json_t *files = json_object_get(component, "extra_files"), *file;
    json_t *added = json_array_size(files) ? json_array() : NULL;
    size_t i;
    json_array_foreach (files, i, file)
        json_add(added, json_string(json_str(file, "path", "")));
    return added;
}

#define AT(event) (1u << (event))
enum {
    OF_BACKUP = AT(WRITER_PREPARE_BACKUP) | AT(WRITER_POST_SNAPSHOT),
    OF_RESTORE = AT(WRITER_PRE_RESTORE) | AT(WRITER_POST_RESTORE),
    ALWAYS = AT(WRITER_EVENT_COUNT) - 1,
};

/* What a component's answer says goes into writers.answers under (instance, path, name), and on to core. The backup's part of the
 * document is open to writers in PrepareForBackup and PostSnapshot (vss-model 4.1), the places of its files in PreRestore; its metadata is set
 * once, the first stays (4.9). */
static void collect(struct writers *writers, const struct writer_entry *entry, const json_t *component)
{
    static const struct {
        const char *from, *to;
        unsigned open; /* at these events */
        bool once;
    } members[] = {{"stamp", "backup_stamp", OF_BACKUP, false},
                   {"metadata", "backup_metadata", OF_BACKUP, true},
                   {"failure", "failure", ALWAYS, false},
                   {"consistent_at", "consistent_at", OF_BACKUP, false},
                   {"restore_target", "restore_target", AT(WRITER_PRE_RESTORE), false},
                   {"directed_targets", "directed_targets", AT(WRITER_PRE_RESTORE), false},
                   {"chain_target", "chain_target", AT(WRITER_PRE_RESTORE), false},
                   {"restore_metadata", "restore_metadata", OF_RESTORE, false},
                   {"application_code", "application_code", ALWAYS, false},
                   {"application_message", "application_message", ALWAYS, false}};
    AUTO_FREE char *key = str_new("%s\n%s\n%s", entry->instance_id, json_str(component, "logical_path", ""),
                                  json_str(component, "name", ""));
    json_t *kept = json_object_get(writers->answers, key);
    if (!kept) {
        kept = json_object();
        json_put(writers->answers, key, kept);
    }
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        json_t *value = json_object_get(component, members[i].from);
        bool taken = (members[i].open & AT(entry->asked)) && !(members[i].once && json_object_get(kept, members[i].to));
        if (value && !json_is_null(value) && taken)
            json_put(kept, members[i].to, json_incref(value));
    }
    json_t *added = entry->asked == WRITER_POST_SNAPSHOT ? added_files(component) : NULL;
    if (added)
        json_put(kept, "added_files", added);
}

static bool judge_components(struct worker *worker, struct writer_entry *entry, const json_t *answered,
                             enum writer_event event)
{
    size_t i;
    const json_t *component;
    struct err err = {0};
    if (writer_components_check(answered, entry->components, &err) < 0) {
        writer_client_reject(&entry->client, err.text);
        return false;
    }
    bool partial = false;
    json_array_foreach(answered, i, component)
    {
        collect(&worker->writers, entry, component);
        if (event == WRITER_POST_SNAPSHOT && staging_adopt(worker, entry, component, &err) < 0) {
            writer_client_reject(&entry->client, err.text);
            return false;
        }
        if (!has_failure(component))
            continue;
        partial = true;
        keep_application(entry, component);
    }
    if (partial) {
        err_set(&err, VSS_E_WRITERERROR_PARTIAL_FAILURE, NULL, "writer %s: a component failed", entry->name);
        writers_fail(&worker->writers, entry, event, &err);
    }
    return true;
}

/* true: the writer said "ok", perhaps with a failure that is not fatal. One that it reports at Freeze or Thaw is: Abort
 * follows (vss-model 2.6). */
static bool judge_answer(struct worker *worker, struct writer_entry *entry, enum writer_event event)
{
    struct err err = {0};
    struct writer_client *client = &entry->client;
    const json_t *answer = client->answer;
    if (!client->broken && event != WRITER_IDENTIFY)
        judge_components(worker, entry, json_object_get(answer, "components"), event);
    if (client->broken) {
        err = client->err;
        err_prefix(&err, "writer %s", entry->name);
        writers_fail(&worker->writers, entry, event, &err);
        return false;
    }
    bool ok = json_bool(answer, "ok", false);
    if (!ok || has_failure(answer)) {
        err_set(&err, failure_code(json_str(answer, "failure", NULL)), NULL, "writer %s: %s", entry->name,
                json_str(answer, "message", ok ? "it reported a failure" : "it refused"));
        keep_application(entry, answer);
        if (!entry->application_message[0])
            str_copy(entry->application_message, sizeof(entry->application_message), json_str(answer, "message", ""));
        writers_fail(&worker->writers, entry, event, &err);
    }
    return ok && !(has_failure(answer) && (event == WRITER_FREEZE || event == WRITER_THAW));
}

static void settle(struct worker *worker, struct writer_entry *entry)
{
    enum writer_event event = entry->asked;
    bool ok = judge_answer(worker, entry, event);
    if (worker_fault(worker, "writer.%s.after", rows[event].name))
        writer_client_reject(&entry->client, "fault injected");
    if (event == WRITER_THAW && entry->late) {
        struct err err = {0};
        err_set(&err, VSS_E_WRITERERROR_TIMEOUT, "Raise limits.freeze_seconds, or use a faster provider.",
                "writer %s: it was frozen longer than its %lld ms", entry->name, (long long)entry->freeze_timeout_ms);
        if (entry->failure.hr ==
            (uint32_t)VSS_E_WRITER_NOT_RESPONDING) /* the guard killed it: the window is the cause */
            entry->failure.hr = 0;
        writers_fail(&worker->writers, entry, event, &err);
        ok = false;
    }
    if (event == WRITER_FREEZE)
        entry->frozen = ok;
    if (event == WRITER_THAW) {
        entry->frozen = false;
        entry->frozen_once = true;
        entry->thaw_us = clock_mono_us();
        entry->thaw_ms = clock_real_ms();
    }
    if (event == WRITER_POST_SNAPSHOT && !entry->client.broken)
        entry->done_post = true; /* OnAbort is not called once OnPostSnapshot has been (W/onabort) */
    if (event == WRITER_PRE_RESTORE || event == WRITER_POST_RESTORE)
        entry->restoring = ok == (event == WRITER_PRE_RESTORE); /* a PostRestore that failed may owe its undo */
    if (event == WRITER_BACKUP_SHUTDOWN || entry->client.broken)
        entry->restoring = false; /* it has undone what it could, or is dead */
    if (event == WRITER_ABORT)
        entry->saw_prepare = entry->frozen = false;
    if (!ok && event != WRITER_ABORT && event != WRITER_BACKUP_SHUTDOWN)
        entry->out = true;
    if (entry->client.broken)
        entry->frozen = false;
    if (entry->client.broken || lets_go(event))
        unguard(entry);
    if (ok && !entry->failure.hr && rows[event].ok_state)
        entry->state = rows[event].ok_state;
}

size_t writers_ask_all(struct writers *writers, enum writer_event event)
{
    size_t n = 0;
    for (size_t i = 0; i < writers->n; i++) {
        struct writer_entry *entry = &writers->entries[i];
        if (!entry->metadata || !entry->components || entry->out)
            continue;
        entry->asked = event;
        n++;
    }
    return n;
}

static bool any_restores(const struct writers *writers)
{
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_entry *entry = &writers->entries[i];
        bool asked = entry->asked == WRITER_PRE_RESTORE || entry->asked == WRITER_POST_RESTORE;
        if ((asked || entry->restoring) && stops_application(entry))
            return true;
    }
    return false;
}

/* If we die now, or the agent is to end us, an application has to be started again first: that takes longer than any other undo. */
static void tell_agent(struct worker *worker)
{
    bool restores = any_restores(&worker->writers);
    if (restores == worker->told_restoring || worker->wait.agent_fd < 0)
        return;
    AUTO_JSON json_t *message = json_pack("{s:s, s:b}", "type", "restoring", "active", restores);
    if (ipc_send(worker->wait.agent_fd, message, NULL, 0, NULL) == 0)
        worker->told_restoring = restores;
}

size_t writers_tell(struct worker *worker, enum tell_mode mode)
{
    struct writers *writers = &worker->writers;
    bool skip = mode == TELL_STOPPABLE && wait_stopped(&worker->wait);
    tell_agent(worker);
    for (size_t i = 0; !skip && i < writers->n; i++)
        if (writers->entries[i].asked != WRITER_EVENT_COUNT)
            send_to(worker, &writers->entries[i]);
    if (!skip)
        await_answers(worker, mode);
    unsigned before = writers->failures;
    for (size_t i = 0; i < writers->n; i++) {
        struct writer_entry *entry = &writers->entries[i];
        if (!skip && entry->asked != WRITER_EVENT_COUNT)
            settle(worker, entry);
        entry->asked = WRITER_EVENT_COUNT;
        if (entry->client.broken && entry->started && !entry->swept) {
            entry->swept = true;
            writers_end_orphans(worker, entry);
        }
    }
    tell_agent(worker);
    return writers->failures - before;
}

/* ---- rows of the undo stack ---- */

static void name_thawed(const struct writers *writers, json_t *cleanup)
{
    for (size_t i = 0; i < writers->n; i++)
        if (writers->entries[i].frozen)
            json_add(json_object_get(cleanup, "thawed"), json_string(writers->entries[i].name));
}

/* Whoever failed at Freeze may be half frozen, and whoever failed at Thaw may still hold. */
static void abort_failed(struct writers *writers)
{
    for (size_t i = 0; i < writers->n; i++) {
        struct writer_entry *entry = &writers->entries[i];
        if (entry->out && entry->saw_prepare && !entry->client.broken && entry->freeze_us && !entry->done_post)
            entry->asked = WRITER_ABORT;
    }
}

/* Reverse order of freezing; Abort goes with the next round, and with one more after the last. */
void writers_thaw(struct worker *worker, json_t *cleanup)
{
    struct writers *writers = &worker->writers;
    name_thawed(writers, cleanup);
    for (int level = LEVEL_COUNT - 1; level >= -1; level--) {
        abort_failed(writers);
        for (size_t i = 0; level >= 0 && i < writers->n; i++) {
            struct writer_entry *entry = &writers->entries[i];
            if (entry->frozen && entry->level == (enum writer_level)level)
                entry->asked = WRITER_THAW;
        }
        writers_tell(worker, TELL_SHIELDED);
    }
}

void writers_abort(struct worker *worker, json_t *cleanup)
{
    struct writers *writers = &worker->writers;
    (void)cleanup;
    for (size_t i = 0; i < writers->n; i++) {
        struct writer_entry *entry = &writers->entries[i];
        if (entry->saw_prepare && !entry->done_post && !entry->client.broken)
            entry->asked = WRITER_ABORT;
    }
    writers_tell(worker, TELL_SHIELDED);
}

void writers_shut_down(struct worker *worker, json_t *cleanup)
{
    struct writers *writers = &worker->writers;
    (void)cleanup;
    for (size_t i = 0; i < writers->n; i++)
        if (writers->entries[i].metadata && !writers->entries[i].client.broken)
            writers->entries[i].asked = WRITER_BACKUP_SHUTDOWN;
    writers_tell(worker, TELL_SHIELDED);
    writers_close(worker);
}
