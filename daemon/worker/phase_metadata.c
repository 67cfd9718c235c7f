/* GatherWriterMetadata and GatherWriterStatus. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "worker/context.h"

int operation_metadata(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *cleanup = undo_cleanup_new();
    undo_all(worker, HOLD_STAGING, cleanup); /* a repeated gather begins afresh */
    worker_phase(worker, "identify");
    if (writers_gather(worker, json_object_get(args, "filter"), err) < 0) {
        /* Nobody has seen more than identify, which keeps no state: no BackupShutdown is owed. */
        undo_drop(&worker->undo, HOLD_WRITERS);
        writers_close(worker);
        return -1;
    }
    json_t *writers = json_array();
    for (size_t i = 0; i < worker->writers.n; i++)
        if (worker->writers.entries[i].metadata)
            json_add(writers, json_incref(worker->writers.entries[i].metadata));
    json_put(result, "writers", writers);
    json_put(result, "missing", json_incref(worker->writers.missing));
    return 0;
}

int operation_status(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    (void)args;
    (void)err;
    json_put(result, "writers", writers_status(&worker->writers));
    return 0;
}
