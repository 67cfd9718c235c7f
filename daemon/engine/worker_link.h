#pragma once
/* Core's end of the way to workers: the agent launches them, one operation runs at a time. Knows nothing of sessions. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/loop.h"

struct agent_link;
struct worker_link;

/* How an operation ended. err NULL = success. writers and result may be NULL. All borrowed. */
struct worker_reply {
    const struct err *err;
    json_t *result;
    json_t *writers;
};

struct worker_handlers {
    void (*progress)(void *arg, json_t *progress);
    void (*done)(void *arg, const struct worker_reply *reply);
};

typedef void (*worker_incident_fn)(void *arg, const char *session_id, json_t *incident);
typedef void (*agent_lost_fn)(void *arg);

/* fd is owned. */
struct agent_link *agent_link_new(struct loop *loop, int fd, worker_incident_fn incident, agent_lost_fn lost, void *arg);
void agent_link_free(struct agent_link *agent);
size_t agent_link_workers(const struct agent_link *agent);

/* Launches a worker. lost: it died or could not be started while no operation was running (an operation in hand fails instead). */
struct worker_link *worker_link_new(struct agent_link *agent, const char *session_id, void (*lost)(void *arg, const struct err *err), void *arg);
/* Runs an operation; handlers->done is called exactly once, never inside this call. One at a time: a second one while busy is queued. */
void worker_link_run(struct worker_link *worker, const char *operation, json_t *args /* taken */, const struct worker_handlers *handlers, void *arg);
/* Asks the operation in hand to end; its done still comes. */
void worker_link_cancel(struct worker_link *worker);
/* Closes the channel: the worker undoes what it holds and exits. done is not called any more. NULL is fine. */
void worker_link_close(struct worker_link *worker);
bool worker_link_alive(const struct worker_link *worker);
