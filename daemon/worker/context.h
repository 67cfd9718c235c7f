#pragma once
/* Everything that one worker process knows: its channels, its configuration, the writers, the snapshot set, what is
 * held. */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "base/err.h"
#include "providers/provider.h"
#include "worker/freeze_set.h"
#include "worker/snapshots.h"
#include "worker/undo.h"
#include "worker/wait.h"
#include "worker/writers.h"

struct worker {
    struct wait wait;
    json_t *config;
    char node[256];
    char owner[304]; /* host and installation: the ownership mark of our snapshots */
    char staging[PATH_MAX];         /* root's staging directory */
    char session[64];               /* session id, or "job-PID" */
    char session_staging[PATH_MAX]; /* staging/SESSION, "" until it exists */
    int staging_fd; /* holds the lock on session_staging; -1 */
    bool root;
    bool told_restoring; /* the agent knows that a writer may have stopped its application for a restore */
    bool released; /* the worker ends after the operation in hand */
    struct writers writers;
    char traceparent[56];  /* of the operation in hand, for its writers; "" = none */
    pid_t mover_pid;       /* of the mover child in hand, or 0 */
    struct {
        pid_t pid; /* 0: none */
        int pidfd, in_fd, out_fd;
    } ready_mover; /* started ahead, without a request (mover_client_ready) */
    bool has_copied;
    char installation[64]; /* names our state directory: part of the mark on writers' processes */
    struct snapshot_set set;
    struct freeze_set freeze;
    struct undo undo;
    json_t *components; /* args.components of prepare and snapshot: what was chosen */
    json_t *backup_state;
    json_t *extra_files;   /* [{"path","source"}]: files that writers add, adopted from their staging */
    int64_t window_end_us; /* while frozen: when the first writer's window, or the guardian's, ends; else 0 */
    bool strict;           /* writer_failure "fail" */
};

/* Where restores may go, by our own configuration: core's word is not enough to write anywhere. A list; new reference. */
json_t *worker_restore_roots(const struct worker *worker);

/* An operation: fills result (an object) and returns 0, or -1 with err (result is then still reported). */
typedef int (*operation_fn)(struct worker *worker, const json_t *args, json_t *result, struct err *err);

/* Phases of a session: phase_*.c */
int operation_metadata(struct worker *, const json_t *, json_t *, struct err *);
int operation_prepare(struct worker *, const json_t *, json_t *, struct err *);
int operation_snapshot(struct worker *, const json_t *, json_t *, struct err *);
int operation_copy(struct worker *, const json_t *, json_t *, struct err *);
int operation_complete(struct worker *, const json_t *, json_t *, struct err *);
int operation_status(struct worker *, const json_t *, json_t *, struct err *);
int operation_abort(struct worker *, const json_t *, json_t *, struct err *);
int operation_release(struct worker *, const json_t *, json_t *, struct err *);
int operation_pre_restore(struct worker *, const json_t *, json_t *, struct err *);
int operation_restore_files(struct worker *, const json_t *, json_t *, struct err *);
int operation_post_restore(struct worker *, const json_t *, json_t *, struct err *);
/* Catalog and host: catalog.c, inventory.c, covered.c, stored.c, browse.c, read_out.c, recover.c */
int operation_restore(struct worker *, const json_t *, json_t *, struct err *);
int operation_verify(struct worker *, const json_t *, json_t *, struct err *);
int operation_scan(struct worker *, const json_t *, json_t *, struct err *);
int operation_seal(struct worker *, const json_t *, json_t *, struct err *);
int operation_remove_backup(struct worker *, const json_t *, json_t *, struct err *);
int operation_open_repository(struct worker *, const json_t *, json_t *, struct err *);
int operation_inventory(struct worker *, const json_t *, json_t *, struct err *);
int operation_resolve(struct worker *, const json_t *, json_t *, struct err *);
int operation_covered(struct worker *, const json_t *, json_t *, struct err *);
int operation_root(struct worker *, const json_t *, json_t *, struct err *);
int operation_plan(struct worker *, const json_t *, json_t *, struct err *);
int operation_remove_snapshot(struct worker *, const json_t *, json_t *, struct err *);
int operation_expose(struct worker *, const json_t *, json_t *, struct err *);
int operation_unexpose(struct worker *, const json_t *, json_t *, struct err *);
int operation_list_files(struct worker *, const json_t *, json_t *, struct err *);
int operation_list_backup_files(struct worker *, const json_t *, json_t *, struct err *);
int operation_archive(struct worker *, const json_t *, json_t *, struct err *);
int operation_revert_check(struct worker *, const json_t *, json_t *, struct err *);
int operation_revert(struct worker *, const json_t *, json_t *, struct err *);
int operation_revert_outcome(struct worker *, const json_t *, json_t *, struct err *);
int operation_sweep(struct worker *, const json_t *, json_t *, struct err *);
int operation_recover(struct worker *, const json_t *, json_t *, struct err *);

/* Messages to core; nothing is sent once core is gone. Never called between Freeze and Thaw. */
void worker_progress(struct worker *worker, json_t *progress /* taken */);
/* Any message: only for what has to be told around a freeze. */
void worker_say(struct worker *worker, json_t *message /* taken */);
void worker_phase(struct worker *worker, const char *phase);
void worker_incident(struct worker *worker, uint32_t hr, const char *writer, const char *text);
/* VSS_S_ASYNC_CANCELLED, or VSS_E_UNEXPECTED "interrupted" when core or agent is gone. Returns -1. */
int worker_stopped(struct worker *worker, struct err *err);
/* Fault point (base/fault.h), formatted: must this call fail? A worker that is held there goes on hearing its channels and
 * writers, and goes on by itself when it has to stop. */
bool worker_fault(struct worker *worker, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* VSS_E_UNEXPECTED. Returns -1. */
int worker_fault_error(const char *what, struct err *err);
/* What the providers need to know; the callback ends long calls when the operation has to stop. */
struct provider_environment worker_environment(struct worker *worker);
/* A limit of the configuration: limits.KEY seconds, in milliseconds. */
int64_t worker_limit_ms(const struct worker *worker, const char *key, int64_t fallback_seconds);
