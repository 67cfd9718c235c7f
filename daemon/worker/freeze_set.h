#pragma once
/* The file systems that are frozen in the window: one per superblock of the volumes whose provider wants it, leaf
 * before outer. A guardian and the agent hold the freeze (docs/architecture.md, "A freeze"); the worker asks for it. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct worker;

enum { FREEZE_SET_MAX_FILE_SYSTEMS = 28 }; /* guardian/record.h: FREEZE_SET_MAX, what one message carries */

/* Why a file system may still be frozen, and the way out. */
#define FREEZE_SET_STUCK "neither guardian nor agent says that it is thawed; run `quiesced thaw-all`"

struct freeze_set {
    json_t *file_systems; /* [{"device","mount_point","source","fs_type"}] in the order of freezing; NULL = nothing to
                             freeze */
    json_t *superblocks;
    json_t *spans;   /* [[from_us,until_us] or null] (CLOCK_MONOTONIC), as the guardian told after the thaw; or NULL */
    int fds[FREEZE_SET_MAX_FILE_SYSTEMS];
    size_t n;
    int guardian_fd; /* the channel to the guardian; -1 = it is gone */
    json_t *answer;  /* the guardian's newest word */
    bool announced;  /* core has been told: it wants to hear of the thaw */
    bool frozen;
    bool stuck;      /* nobody says that it is thawed */
    bool held;           /* thawed by us, and frozen until then */
    bool late_release; /* a hold was not released before its deadline: its caller was late, not a provider */
    int64_t deadline_us; /* of the guardian */
};

/* Before the window: opens and orders, writes dirty data out (syncfs), gets a guardian, lets core park its store.
 * Nothing when no volume wants a freeze. */
int freeze_set_prepare(struct worker *worker, struct err *err);
/* VSS_E_VOLUME_IN_USE (frozen by somebody else), VSS_E_FLUSH_WRITES_TIMEOUT, VSS_E_VOLUME_NOT_SUPPORTED and others.
 * Whatever comes out, HOLD_FILE_SYSTEMS is to be released. */
int freeze_set_freeze(struct worker *worker, struct err *err);
/* Row of the undo stack: thaws, whatever it takes; then `held` says whether the freeze held to its end. */
void freeze_set_thaw(struct worker *worker, json_t *cleanup);
/* provider_environment.await_release; arg is the worker. Tells core ("holding") first. */
const json_t *freeze_set_await_release(void *arg, struct err *err);
/* After the thaw: VSS_E_HOLD_WRITES_TIMEOUT when the freeze did not hold. Nothing to freeze is 0. */
int freeze_set_verdict(const struct freeze_set *set, struct err *err);
/* After the thaw: [{"mount_point","fs_type","started_at","ended_at","window_ms"}] in the order of freezing, of those whose freeze held
 * (FIFREEZE asked to FITHAW answered); wall_us: what to add to the monotonic clock, in microseconds, for the wall clock. New reference, NULL
 * when nothing was to be frozen. */
json_t *freeze_set_windows(const struct freeze_set *set, int64_t wall_us);
/* Lets go of fds and guardian, and tells core. Not before the thaw. */
void freeze_set_close(struct worker *worker);
