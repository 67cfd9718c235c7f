#pragma once
/* The session's writers and where each of them stands (VSS_WRITER_STATE, vss-model 4.4). */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ident.h"
#include "worker/writer_client.h"

struct worker;

enum writer_event {
    WRITER_IDENTIFY,
    WRITER_PREPARE_BACKUP,
    WRITER_PREPARE_SNAPSHOT,
    WRITER_FREEZE,
    WRITER_THAW,
    WRITER_POST_SNAPSHOT,
    WRITER_BACKUP_COMPLETE,
    WRITER_PRE_RESTORE,
    WRITER_POST_RESTORE,
    WRITER_ABORT,
    WRITER_BACKUP_SHUTDOWN,
    WRITER_EVENT_COUNT
};

/* In the order of freezing; thawing is the reverse. A writer none of whose components holds its writes comes last
 * whatever level it names: its own moment then lies within everyone else's hold. */
enum writer_level { LEVEL_FRONT_END, LEVEL_BACK_END, LEVEL_SYSTEM, LEVEL_UNHELD, LEVEL_COUNT };

struct writer_entry {
    struct writer_client client;
    const json_t *configuration; /* borrowed from the worker's config */
    char name[128], instance_id[UUID_SIZE], class_id[UUID_SIZE];
    bool swept;   /* what it left was ended */
    bool started; /* its process was started: identify was asked */
    uid_t uid;    /* whom it runs as */
    gid_t gid;
    json_t *metadata; /* the API's shape; NULL = missing */
    json_t *raw;      /* what identify answered */
    enum writer_level level;
    int64_t freeze_timeout_ms;
    char staging[4096];          /* its own directory, "" until it exists */
    json_t *components;          /* what it is asked about: request components, NULL when it takes no part */
    enum writer_event asked;     /* the event in hand; WRITER_EVENT_COUNT = none */
    bool late;                   /* its window was over when Thaw was sent */
    bool guarded;                /* from Freeze to the answer to Thaw or Abort: freeze_guard.h */
    bool saw_prepare, done_post; /* Abort is owed while the first and not the second */
    bool frozen;                 /* Thaw is owed */
    bool restoring;              /* PreRestore went well and PostRestore has not: its application may be stopped */
    bool frozen_once;            /* in this backup: it said yes to Freeze and its window is over */
    int64_t freeze_us, thaw_us;  /* when Freeze was sent and Thaw answered, monotonic */
    int64_t freeze_ms, thaw_ms;  /* the same by the wall clock */
    const char *state;           /* "VSS_WS_STABLE"; static */
    struct err failure;          /* hr 0 = none; text = its message */
    unsigned failed_order;       /* 1 = the first that failed */
    bool out;                    /* failed for good: takes no further part in this backup */
    json_t *application_code;    /* integer or NULL */
    char application_message[1024];
};

struct writers {
    struct writer_entry *entries;
    size_t n;
    json_t *missing; /* [{"name","instance_id","error"}] */
    unsigned failures;
    json_t *answers; /* per component: {"instance_id","logical_path","name",...} collected from answers */
};

/* Which kind of wait: may a cancel or the loss of a channel end it? */
enum tell_mode { TELL_STOPPABLE, TELL_SHIELDED };

/* Start every writer of the configuration that the filter lets through, ask identify, keep what answers. */
int writers_gather(struct worker *worker, const json_t *filter, struct err *err);
/* A (repeated) PrepareForBackup begins with a clean slate; a dead writer fails again instead of being passed over. */
void writers_begin(struct writers *writers);
struct writer_entry *writers_by_instance(struct writers *writers, const char *instance_id);
/* Sends every writer the event that it is marked with (`asked`), waits for all, judges the answers, clears the marks.
 * Returns how many failed. When stopped, whoever has not answered is killed and has failed. */
size_t writers_tell(struct worker *worker, enum tell_mode mode);
/* Marks every writer that takes part, can be spoken to and has not failed for good. Returns how many. */
size_t writers_ask_all(struct writers *writers, enum writer_event event);
/* Serves writers for one turn of waiting, beside extra sources (log lines, early deaths). */
void writers_turn(struct worker *worker, const struct wait_source *extra, size_t n_extra, int64_t deadline_ms);
/* Records a failure that no answer carries (window exceeded). */
void writers_fail(struct writers *writers, struct writer_entry *entry, enum writer_event at, const struct err *err);
/* {"started_at","ended_at","window_ms"}: Freeze sent to Thaw answered; null when it was not frozen. New reference. */
json_t *writers_window(const struct writer_entry *entry);
/* [{"writer","window_ms","failed"}] of those that were frozen. New reference. */
json_t *writers_windows(const struct writers *writers);
/* STATUS of all; and of those that failed. New references. */
json_t *writers_status(const struct writers *writers);
json_t *writers_failed(const struct writers *writers);
/* err = the first failed writer's code and words. Returns -1. */
int writers_first_failure(const struct writers *writers, struct err *err);
/* Ends what entry's process left to us when it was killed: children out of its group, double forks. While another
 * writer of the same user lives nobody can tell whose they are, and they wait for Abort or the end. entry NULL: all of
 * them. */
void writers_end_orphans(struct worker *worker, const struct writer_entry *entry);
/* Closes every process (end-of-file, then kill after 5 s) and forgets them. */
void writers_close(struct worker *worker);

/* The rows of the undo stack. */
void writers_thaw(struct worker *worker, json_t *cleanup);
void writers_abort(struct worker *worker, json_t *cleanup);
void writers_shut_down(struct worker *worker, json_t *cleanup);
