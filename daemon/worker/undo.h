#pragma once
/* The undo stack: what this worker holds right now, lowest first. Releasing goes from the top down: thaw, Abort, remove
 * snapshots, BackupShutdown and close the writers, remove staging. BackupComplete is no undo and is never sent from
 * here. */
#include <jansson.h>
#include <stdbool.h>

struct worker;

enum hold { HOLD_STAGING, HOLD_WRITERS, HOLD_SNAPSHOTS, HOLD_PREPARED, HOLD_FROZEN, HOLD_FILE_SYSTEMS, HOLD_COUNT };

struct undo {
    bool held[HOLD_COUNT];
};

void undo_push(struct undo *undo, enum hold hold);
/* No longer ours to undo (PostSnapshot is over, a persistent set is finished). */
void undo_drop(struct undo *undo, enum hold hold);
bool undo_holds(const struct undo *undo); /* is there anything to undo? */
/* Release one hold if it is held. cleanup: {"thawed":[],"removed":[],"failed":[]}, filled by each release. */
void undo_release(struct worker *worker, enum hold hold, json_t *cleanup);
/* Release everything down to and including `down_to`. */
void undo_all(struct worker *worker, enum hold down_to, json_t *cleanup);
json_t *undo_cleanup_new(void);
