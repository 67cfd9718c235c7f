/* PrepareForBackup. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "worker/context.h"
#include "worker/participation.h"
#include "worker/plan.h"

static void stop_here(struct worker *worker, json_t *result)
{
    json_t *cleanup = undo_cleanup_new();
    undo_release(worker, HOLD_PREPARED, cleanup);
    json_put(result, "cleanup", cleanup);
}

int operation_prepare(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    if (participation_take(worker, args, err) < 0 || snapshots_open(worker, args, err) < 0 ||
        plan_check_set(worker, args, err) < 0)
        return -1;
    writers_begin(&worker->writers);
    worker_phase(worker, "prepare_backup");
    undo_push(&worker->undo, HOLD_PREPARED);
    writers_ask_all(&worker->writers, WRITER_PREPARE_BACKUP);
    size_t failed = writers_tell(worker, TELL_STOPPABLE);
    bool stopped = wait_stopped(&worker->wait);
    if (stopped)
        stop_here(worker, result); /* a cancelled PrepareForBackup leaves the session aborted */
    json_put(result, "writers", writers_status(&worker->writers));
    json_put(result, "components", participation_answers(worker));
    if (stopped)
        return worker_stopped(worker, err);
    return failed && worker->strict ? writers_first_failure(&worker->writers, err) : 0;
}
