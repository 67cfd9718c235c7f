/* PreRestore, the files themselves, PostRestore. Nothing of it is undone by an event: there is no Abort in a restore. What
 * a writer holds ends with BackupShutdown, or with the end of its input. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/mover_client.h"
#include "worker/participation.h"
#include "worker/restore_groups.h"

/* They hear nothing more before the requester goes on: what they did stays done. */
static json_t *still_held(const struct writers *writers)
{
    json_t *held = json_array();
    for (size_t i = 0; i < writers->n; i++)
        if (writers->entries[i].restoring)
            json_add(held, json_pack("{s:s, s:s}", "object", writers->entries[i].name, "reason",
                                     "this writer answered PreRestore: its application may be stopped until PreRestore is repeated and the "
                                     "restore goes on, or the session ends"));
    return held;
}

int operation_pre_restore(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    if (participation_take_restore(worker, args, err) < 0)
        return -1;
    writers_begin(&worker->writers);
    json_object_clear(worker->writers.answers); /* of an earlier attempt */
    worker_phase(worker, "pre_restore");
    writers_ask_all(&worker->writers, WRITER_PRE_RESTORE);
    size_t failed = writers_tell(worker, TELL_STOPPABLE);
    json_put(result, "writers", writers_status(&worker->writers));
    json_put(result, "components", participation_answers(worker));
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (!failed || !worker->strict)
        return 0;
    json_put(result, "left_behind", still_held(&worker->writers));
    return writers_first_failure(&worker->writers, err);
}

/* --- files --- */

struct restoring {
    struct worker *worker;
    const json_t *args;
    json_t *states;  /* per component id: {"groups","whole","touched"} */
    json_t *result;
    json_t *placed;  /* targets of the groups that are whole: what a bad end of the job leaves there all the same */
    struct err first; /* what failed first; hr 0: nothing */
};

static void count(struct restoring *restoring, const json_t *group, const char *key)
{
    size_t i;
    const json_t *id;
    json_array_foreach (json_object_get(group, "components"), i, id) {
        json_t *state = json_object_get(restoring->states, json_string_value(id));
        if (!state)
            json_put(restoring->states, json_string_value(id), state = json_object());
        json_put(state, key, json_integer(json_int(state, key, 0) + 1));
    }
}

static void add_up(json_t *result, const json_t *done)
{
    static const char *const sums[] = {"files", "bytes"};
    for (size_t i = 0; i < ELEMENTS(sums); i++)
        json_put(result, sums[i], json_integer(json_int(result, sums[i], 0) + json_int(done, sums[i], 0)));
    json_array_extend(json_object_get(result, "warnings"), json_object_get(done, "warnings"));
}

static json_t *group_request(const struct restoring *restoring, const json_t *group)
{
    static const char *const taken[] = {"repository", "backup_id", "data_id"};
    json_t *request = json_copy((json_t *)group);
    int64_t from = json_int(group, "from", -1); /* of a chain, one of several backups */
    const json_t *source = from < 0 ? restoring->args : json_array_get(json_object_get(restoring->args, "links"), (size_t)from);
    for (size_t i = 0; i < ELEMENTS(taken); i++)
        json_put(request, taken[i], json_incref(json_object_get(source, taken[i])));
    json_put(request, "roots", worker_restore_roots(restoring->worker));
    json_put(request, "verb", json_string("restore"));
    json_put(request, "mover", json_string(json_str(json_object_get(source, "repository"), "mover", "archive")));
    return request;
}

static void leave(struct restoring *restoring, const char *target, const char *reason)
{
    json_add(json_object_get(restoring->result, "left_behind"), json_pack("{s:s, s:s}", "object", target, "reason", reason));
}

/* Which backup it was whose reading failed: core judges by the error what that says of it. */
static void tell_unread(const struct restoring *restoring, const json_t *request, const struct err *err)
{
    json_t *unread = json_object_get(restoring->result, "unread");
    if (!unread)
        json_put(restoring->result, "unread", unread = json_array());
    json_add(unread, json_pack("{s:s, s:o}", "backup_id", json_str(request, "backup_id", ""), "error", err_to_json(err)));
}

static void restore_group(struct restoring *restoring, const json_t *group)
{
    struct worker *worker = restoring->worker;
    AUTO_JSON json_t *request = group_request(restoring, group), *done = NULL;
    struct err err = {0};
    bool published = false;
    worker_phase(worker, "restore");
    if (mover_client_restore(worker, request, &published, &done, &err) == 0) {
        count(restoring, group, "whole");
        json_add(restoring->placed, json_incref(json_object_get(group, "target")));
        add_up(restoring->result, done);
        if (worker_fault(worker, "worker.restore_files.next"))
            worker_fault_error("restore_files", &restoring->first);
        return;
    }
    mover_client_tidy(worker, request);
    tell_unread(restoring, request, &err);
    if (published) {
        count(restoring, group, "touched");
        leave(restoring, json_str(group, "target", ""),
              "some of the restored files may be at their places, each of them whole: the end came while they were moved");
    }
    if (!restoring->first.hr)
        restoring->first = err;
}

/* none: nothing of it came; failed: something came, not all. A component without files has all of them. */
static const char *status_of(const json_t *state)
{
    int64_t groups = json_int(state, "groups", 0), whole = json_int(state, "whole", 0);
    if (whole == groups)
        return "all";
    return whole || json_int(state, "touched", 0) ? "failed" : "none";
}

static void tell_statuses(struct restoring *restoring)
{
    json_t *told = json_array();
    size_t i;
    const json_t *id;
    json_array_foreach (json_object_get(restoring->args, "components"), i, id) {
        const json_t *state = json_object_get(restoring->states, json_string_value(id));
        json_add(told, json_pack("{s:O, s:s}", "id", id, "file_restore_status", status_of(state)));
    }
    json_put(restoring->result, "components", told);
}

int operation_restore_files(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    size_t i;
    const json_t *group;
    AUTO_JSON json_t *states = json_object(), *placed = json_array();
    const json_t *target;
    struct restoring restoring = {.worker = worker, .args = args, .states = states, .placed = placed, .result = result};
    AUTO_JSON json_t *roots = worker_restore_roots(worker), *groups = restore_groups(json_object_get(args, "items"), roots, err);
    if (!groups)
        return -1;
    static const char *const lists[] = {"warnings", "left_behind", "targets"};
    for (i = 0; i < ELEMENTS(lists); i++)
        json_put(result, lists[i], json_array());
    add_up(result, NULL);
    json_array_foreach (groups, i, group)
        count(&restoring, group, "groups");
    json_array_foreach (groups, i, group) {
        if (wait_look(&worker->wait))
            break;
        json_add(json_object_get(result, "targets"), json_incref(json_object_get(group, "target")));
        restore_group(&restoring, group);
    }
    tell_statuses(&restoring);
    bool stopped = wait_look(&worker->wait);
    if (!stopped && !restoring.first.hr)
        return 0;
    json_array_foreach (placed, i, target)
        leave(&restoring, json_string_value(target), "everything restored is at its place, and verified");
    if (stopped)
        return worker_stopped(worker, err);
    *err = restoring.first;
    return -1;
}

/* --- PostRestore --- */

/* The requester's last word on each component: what became of its files. */
static void take_statuses(struct worker *worker, const json_t *args)
{
    static const char *const members[] = {"file_restore_status", "alternate_location_mappings", "partial_files"};
    size_t i, k, m;
    json_t *component;
    const json_t *chosen;
    json_array_foreach (json_object_get(args, "components"), i, chosen) {
        struct writer_entry *entry = writers_by_instance(&worker->writers, json_str(chosen, "instance_id", ""));
        json_array_foreach (entry ? entry->components : NULL, k, component) {
            if (!str_eq(json_str(component, "name", ""), json_str(chosen, "name", "")) ||
                !str_eq(json_str(component, "logical_path", ""), json_str(chosen, "logical_path", "")))
                continue;
            for (m = 0; m < ELEMENTS(members); m++) {
                json_t *value = json_object_get(chosen, members[m]);
                if (value && !json_is_null(value))
                    json_put(component, members[m], json_incref(value));
            }
        }
    }
}

/* A writer that heard PreRestore and is no longer there. With writer_failure "fail" its own code counts. */
static int vanished(const struct worker *worker, const bool *asked, struct err *err)
{
    for (size_t i = 0; i < worker->writers.n; i++) {
        const struct writer_entry *entry = &worker->writers.entries[i];
        if (asked[i] && entry->client.broken)
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "See GET /sessions/{id}/writer-status; look after the application by hand.",
                           "writer %s, which took part in PreRestore, is gone: %s", entry->name, entry->client.err.text);
    }
    return 0;
}

int operation_post_restore(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct writers *writers = &worker->writers;
    take_statuses(worker, args);
    worker_phase(worker, "post_restore");
    writers_ask_all(writers, WRITER_POST_RESTORE);
    AUTO_FREE bool *asked = mem_new(writers->n + 1);
    for (size_t i = 0; i < writers->n; i++)
        asked[i] = writers->entries[i].asked == WRITER_POST_RESTORE;
    size_t failed = writers_tell(worker, TELL_STOPPABLE);
    json_put(result, "writers", writers_status(writers));
    json_put(result, "components", participation_answers(worker));
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (failed && worker->strict)
        return writers_first_failure(writers, err);
    return vanished(worker, asked, err);
}
