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
    /* The operation hands its output out while it runs: the reading end of a pipe, the callee's. NULL: it is closed. */
    void (*stream)(void *arg, int fd);
    void (*done)(void *arg, const struct worker_reply *reply);
};

typedef void (*worker_incident_fn)(void *arg, const char *session_id, json_t *incident);
typedef void (*agent_lost_fn)(void *arg);

/* A worker is about to freeze file systems, or has thawed them. freezing must be answered with worker_link_parked, perhaps
 * later; thawed comes once for each freezing: by the worker's word, or, when that ends without one, by the agent's. */
struct freeze_handlers {
    void (*freezing)(void *arg, struct worker_link *worker, const json_t *superblocks /* borrowed */);
    /* It holds them frozen until worker_link_tell says release_hold: {"since","deadline"}; NULL: it cannot be told any more. */
    void (*holding)(void *arg, struct worker_link *worker, const json_t *message /* borrowed */);
    void (*thawed)(void *arg, struct worker_link *worker);
    /* {"open":true,"since","deadline","file_systems","writers"} before a worker's first Freeze, {"open":false,"until","window_ms"}
     * after its last Thaw; NULL when it ends without that word: what it held is not known. {"open":true,"stuck":reason,"file_systems"}
     * instead of the latter: nobody says that these are thawed. "set" names the freeze set, if there is one. */
    void (*window)(void *arg, struct worker_link *worker, const json_t *message /* borrowed */);
    /* The agent's word, also of workers that are closed: the freeze set is thawed; set NULL: the worker is gone, with all that it left. */
    void (*settled)(void *arg, const char *worker, const char *set);
    /* The sets of earlier runs that are still frozen, all of them: [{"session","set","since_ms","freeze_ms","file_systems"}]. */
    void (*left)(void *arg, const json_t *sets /* borrowed */);
};

/* fd is owned. */
struct agent_link *agent_link_new(struct loop *loop, int fd, worker_incident_fn incident, agent_lost_fn lost, void *arg);
void agent_link_free(struct agent_link *agent);
size_t agent_link_workers(const struct agent_link *agent);
/* arg is that of agent_link_new. Without handlers every freeze is answered at once. */
void agent_link_on_freeze(struct agent_link *agent, const struct freeze_handlers *handlers);
/* While held, ends of operations and deaths of workers are kept back: their owners would need the store. Letting go reports
 * them on the loop's next turn. */
void agent_link_hold(struct agent_link *agent, bool hold);

/* Launches a worker. lost: it died or could not be started while no operation was running (an operation in hand fails instead). */
struct worker_link *worker_link_new(struct agent_link *agent, const char *session_id, void (*lost)(void *arg, const struct err *err), void *arg);
/* Runs an operation; handlers->done is called exactly once, never inside this call. One at a time: a second one while busy is queued. */
void worker_link_run(struct worker_link *worker, const char *operation, json_t *args /* taken */, const struct worker_handlers *handlers, void *arg);
/* Asks the operation in hand to end; its done still comes. */
void worker_link_cancel(struct worker_link *worker);
/* Cancels it, and does not report its end: nobody waits for it any more. */
void worker_link_abandon(struct worker_link *worker);
/* Answers `freezing`: the worker may freeze now. */
void worker_link_parked(struct worker_link *worker);
/* Any message beside the operations; nothing when it is gone. */
void worker_link_tell(struct worker_link *worker, const json_t *message);
const char *worker_link_id(const struct worker_link *worker);
/* Has the agent said that the set is thawed, or (NULL) that nothing of this worker's is left? */
bool worker_link_settled(const struct worker_link *worker, const char *set);
const char *worker_link_session(const struct worker_link *worker); /* NULL: of none */
/* Closes the channel: the worker undoes what it holds and exits. done is not called any more. NULL is fine. */
void worker_link_close(struct worker_link *worker);
bool worker_link_alive(const struct worker_link *worker);
