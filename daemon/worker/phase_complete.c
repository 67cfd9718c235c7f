/* BackupComplete, and the three ways to stop: abort, release, loss. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/mover_client.h"

/* The writers' components of this event: with what the requester says of each, unset is false. */
static void set_succeeded(struct worker *worker, const json_t *chosen)
{
    struct writer_entry *entry = writers_by_instance(&worker->writers, json_str(chosen, "instance_id", ""));
    size_t i;
    json_t *component;
    json_array_foreach (entry ? entry->components : NULL, i, component)
        if (str_eq(json_str(component, "name", ""), json_str(chosen, "name", "")) &&
            str_eq(json_str(component, "logical_path", ""), json_str(chosen, "logical_path", "")))
            json_put(component, "succeeded", json_boolean(json_bool(chosen, "succeeded", false)));
}

static void take_results(struct worker *worker, const json_t *args)
{
    size_t i, k;
    json_t *component;
    const json_t *chosen, *state = json_object_get(args, "backup_state");
    if (json_is_object(state)) {
        json_decref(worker->backup_state);
        worker->backup_state = json_deep_copy(state);
    }
    for (i = 0; i < worker->writers.n; i++)
        json_array_foreach (worker->writers.entries[i].components, k, component)
            json_put(component, "succeeded", json_false());
    json_array_foreach (json_object_get(args, "components"), i, chosen)
        set_succeeded(worker, chosen);
}

/* Every writer has been told. Those that could not be spoken to make the operation fail; each is one incident. */
static int unreachable(struct worker *worker, const bool *reachable, struct err *err)
{
    int result = 0;
    for (size_t i = 0; i < worker->writers.n; i++) {
        const struct writer_entry *entry = &worker->writers.entries[i];
        if (!reachable[i] || !entry->client.broken)
            continue;
        worker_incident(worker, VSS_E_UNEXPECTED_WRITER_ERROR, entry->name, entry->client.err.text);
        if (result == 0)
            result = err_set(err, VSS_E_UNEXPECTED_WRITER_ERROR, "See GET /errors; the data already copied is kept.",
                             "writer %s could not be told that the backup is complete: %s", entry->name,
                             entry->client.err.text);
    }
    return result;
}

int operation_complete(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct writers *writers = &worker->writers;
    take_results(worker, args);
    worker_phase(worker, "backup_complete");
    if (worker->has_copied) /* the seal comes next: its mover is loaded while the writers are told */
        mover_client_ready(worker);
    size_t told = 0;
    AUTO_FREE bool *asked = mem_new(writers->n + 1);
    for (size_t i = 0; i < writers->n; i++) {
        struct writer_entry *entry = &writers->entries[i];
        /* A writer that died after a snapshot that it took part in cannot be told: that is a failure, not an absence.
         */
        asked[i] = entry->components && entry->metadata && !entry->out;
        if (asked[i])
            entry->asked = WRITER_BACKUP_COMPLETE;
        told += asked[i];
    }
    writers_tell(worker, TELL_STOPPABLE);
    if (!wait_stopped(&worker->wait))
        undo_drop(&worker->undo, HOLD_PREPARED);
    json_put(result, "writers", writers_status(writers));
    json_put(result, "told", json_integer((json_int_t)told));
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (worker_fault(worker, "worker.complete.done"))
        return worker_fault_error("complete", err);
    return unreachable(worker, asked, err);
}

int operation_abort(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    (void)args;
    (void)err;
    json_t *cleanup = undo_cleanup_new();
    undo_all(worker, HOLD_SNAPSHOTS, cleanup);
    writers_end_orphans(worker, NULL); /* the session is over: no doubt whose they are may keep a hold alive */
    json_put(result, "writers", writers_status(&worker->writers));
    json_put(result, "cleanup", cleanup);
    return 0;
}

int operation_release(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    (void)args;
    (void)err;
    json_t *cleanup = undo_cleanup_new();
    undo_drop(&worker->undo, HOLD_PREPARED); /* Release sends BackupShutdown only (vss-model 2.5) */
    undo_all(worker, HOLD_STAGING, cleanup);
    json_put(result, "cleanup", cleanup);
    worker->released = true;
    return 0;
}
