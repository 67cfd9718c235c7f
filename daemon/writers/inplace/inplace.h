#pragma once
/* The restore of a server into its own place: pre_restore stops it, proves that it stands still and moves the old data
 * aside; post_restore has the new data looked at, starts it and has it verified. What fails is undone: the old data comes
 * back, and a server that ran before runs again. One component per server. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "writers/writer.h"

/* What a restore is about. */
struct inplace_job {
    const json_t *component; /* of the request; borrowed, NULL outside an event */
    const json_t *facts;     /* what post_snapshot answered as "metadata", NULL = unknown */
    const char *directory;   /* where the server's data is, or is put: its own place, or the new target */
    bool elsewhere;          /* a new target: the server is not touched */
    int64_t give_up_ms;      /* CLOCK_MONOTONIC */
};

/* What differs between servers. arg is the writer's state. */
struct inplace_server {
    const char *what; /* "PostgreSQL", for messages */
    /* pre_restore, before anything is changed: may this backup take this place? */
    int (*fits)(void *arg, const struct inplace_job *job, struct err *err);
    /* Its process; -1 = it runs, and nobody can tell as which; 0 = proven that it does not run. */
    pid_t (*running)(void *arg);
    /* Is our own session of it open? Then it runs, whatever else is to be seen of it. */
    bool (*answers)(void *arg);
    /* The process of whatever server works in a new target; -1 and 0 as running. */
    pid_t (*works_in)(void *arg, const char *directory);
    /* Ends our own session, so that the server does not wait for it. */
    void (*let_go)(void *arg);
    /* The files are there: are they all that is needed, and nothing stale beside them? May correct both. */
    int (*ready)(void *arg, const struct inplace_job *job, struct err *err);
    /* It was started: waits until it answers, and looks whether it is whole. */
    int (*verify)(void *arg, const struct inplace_job *job, struct err *err);
};

struct inplace;

/* configuration: "stop" and "start" (argument lists; else those of the server's systemd unit), "name". server and arg are
 * borrowed. */
struct inplace *inplace_new(const struct inplace_server *server, void *arg, const json_t *configuration);
/* As inplace_undo, in a minute; then frees. NULL is fine. */
void inplace_free(struct inplace *inplace);
/* file_sets: the component's as identify told them; those of the request's component win. The first one is the server's data
 * directory. ret_components: one answer. Refuses new targets in which this or another server lives, and what another session
 * restores. The same again gives the same answer. On -1 nothing has changed, or err says what has. */
int inplace_pre_restore(struct inplace *inplace, const struct writer_event *event, const json_t *component,
                        const json_t *file_sets, json_t **ret_components, struct err *err);
/* component: with file_restore_status; anything but "all" means that the old data comes back. */
int inplace_post_restore(struct inplace *inplace, const struct writer_event *event, const json_t *component,
                         struct err *err);
/* The requester has gone, or has ended the session between the two: the old data comes back. Logs what it did; nothing when
 * there is nothing to undo. deadline_ms: CLOCK_MONOTONIC. */
void inplace_undo(struct inplace *inplace, int64_t deadline_ms);
/* The request's component of that name, or NULL. only: any component will do, for the writer has no more than one and could
 * not ask the server for its name. Borrowed. */
const json_t *inplace_component(const struct writer_event *event, const char *name, bool only);
/* Waits a little: false when it is time to give up (err is set). For loops that wait for a server. */
bool inplace_wait(int64_t give_up_ms, const char *what, struct err *err);
