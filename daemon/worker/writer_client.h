#pragma once
/* One writer process: writer protocol 1 (design, section 6) over three pipes. One request at a time; whatever the
 * process does wrong ends in a failure code of ours, never in a wait without end: died or closed its pipe
 * VSS_E_WRITER_NOT_RESPONDING past its deadline                  VSS_E_WRITERERROR_TIMEOUT        (its process group is
 * killed) garbage, out of turn, line > 1 MiB VSS_E_WRITERERROR_NONRETRYABLE   (its process group is killed) */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/proc.h"
#include "worker/lines.h"
#include "worker/wait.h"

struct writer_client {
    char name[128]; /* for the log */
    char session[40];
    pid_t pid; /* 0 = no process */
    int pidfd, in_fd, out_fd, err_fd;
    struct lines out, log;
    unsigned log_lines; /* logged of the event in hand */
    char *outgoing;     /* what the pipe has not taken yet */
    size_t outgoing_used, outgoing_sent;
    json_int_t next_id;
    bool pending;        /* a request waits for its answer */
    int64_t deadline_ms; /* of the pending request, CLOCK_MONOTONIC */
    json_t *answer;      /* last answer ({"id","ok",...}, shape checked), or NULL */
    bool broken;         /* cannot be spoken to any more: err says why */
    struct err err;
};

enum { WRITER_CLIENT_SOURCES = 3 };

/* Zeroes client and starts the process. spec: argv, environment, identity (the rest is filled here). */
int writer_client_start(struct writer_client *client, const char *name, const char *session, struct proc_spec *spec,
                        struct err *err);
/* Queues a request ("id" is added); the answer is due within timeout_ms. request is taken. */
void writer_client_send(struct writer_client *client, json_t *request, int64_t timeout_ms);
/* What to poll for this client: fills up to WRITER_CLIENT_SOURCES sources and returns their number. */
size_t writer_client_sources(struct writer_client *client, struct wait_source *ret);
/* Past its deadline? Then it is killed. */
void writer_client_expire(struct writer_client *client, int64_t now_ms);
/* The operation no longer waits for the pending answer: kill the group, so that no late answer confuses anyone. */
void writer_client_abandon(struct writer_client *client);
/* What it said is a lie: it is killed and has failed for good (VSS_E_WRITERERROR_NONRETRYABLE). */
void writer_client_reject(struct writer_client *client, const char *text);
/* End-of-file on its input: it must undo everything and exit. */
void writer_client_hang_up(struct writer_client *client);
/* Has it gone? Reaps without waiting. */
bool writer_client_gone(struct writer_client *client);
/* Kills what is left of the group, closes everything. Idempotent. */
void writer_client_clear(struct writer_client *client);
