#include "worker/undo.h"

#include "worker/context.h"
#include "worker/snapshots.h"
#include "worker/staging.h"
#include "worker/writers.h"

/* One row per hold, lowest first. */
static void (*const releases[HOLD_COUNT])(struct worker *worker, json_t *cleanup) = {
    [HOLD_STAGING] = staging_remove, [HOLD_WRITERS] = writers_shut_down, [HOLD_SNAPSHOTS] = snapshots_remove,
    [HOLD_PREPARED] = writers_abort, [HOLD_FROZEN] = writers_thaw,
    [HOLD_FILE_SYSTEMS] = freeze_set_thaw,
};

json_t *undo_cleanup_new(void)
{
    return json_pack("{s:[], s:[], s:[]}", "thawed", "removed", "failed");
}

void undo_push(struct undo *undo, enum hold hold)
{
    undo->held[hold] = true;
}

void undo_drop(struct undo *undo, enum hold hold)
{
    undo->held[hold] = false;
}

bool undo_holds(const struct undo *undo)
{
    for (int hold = 0; hold < HOLD_COUNT; hold++)
        if (undo->held[hold])
            return true;
    return false;
}

void undo_release(struct worker *worker, enum hold hold, json_t *cleanup)
{
    if (!worker->undo.held[hold])
        return;
    worker->undo.held[hold] = false;
    releases[hold](worker, cleanup);
}

void undo_all(struct worker *worker, enum hold down_to, json_t *cleanup)
{
    for (int hold = HOLD_COUNT - 1; hold >= (int)down_to; hold--)
        undo_release(worker, (enum hold)hold, cleanup);
}
