#pragma once
/* Writers' processes whose worker has died. End-of-file has told them to undo what they hold and to exit: they get
 * SURVIVORS_MS for it, or RESTORE_UNDO_WORKER_MS in a restore. What is left then (it hangs, or has left its writer's hands) is killed: found by its mark.
 * Children look for them: to read a stranger's environment can take as long as a freeze that the caller is to end. */
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/loop.h"

enum { SURVIVORS_MS = 12000 }; /* an abort (limits.writer_seconds.abort, 10 s), and a little */

struct survivors;

/* fewer: those of a worker, or all, are gone. */
struct survivors *survivors_new(struct loop *loop, void (*fewer)(void *arg), void *arg);
void survivors_free(struct survivors *survivors); /* NULL is fine; whoever is left lives on */
/* mark: of a worker that has died (base/offspring.h). restoring: one of its writers may have stopped its application. */
void survivors_add(struct survivors *survivors, const char *mark, bool restoring);
bool survivors_restoring(const struct survivors *survivors); /* is any of them given the time of a restore's undo? */
/* Those of earlier generations whose worker is gone. start: serve's message ("installation", "restoring"). Before anything is
 * launched. */
void survivors_adopt(struct survivors *survivors, const json_t *start);
/* The time is over, for those with this mark; NULL: for all. */
void survivors_kill(struct survivors *survivors, const char *mark);
bool survivors_have(const struct survivors *survivors, const char *mark); /* of this worker */
bool survivors_own(const struct survivors *survivors, pid_t pid); /* a child that looks for them? */
bool survivors_none(const struct survivors *survivors);
