/* The parked store. A worker that is about to freeze file systems says which ones will block. When ours is among them, no
 * store read, commit or spool write happens from `parked` to `thawed`: commits wait in the store's queue, ends of other
 * operations wait in their links, calls that need the store wait here. Parking always ends: with the thaw, with the
 * worker's end, or at the deadline, since no freeze outlives limits.freeze_seconds. */
#include "engine/audit/audit.h"
#include "engine/engine_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/superblock.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

/* Beyond the freeze's own limit: for the guardian's thaw (a second past its deadline) and for messages under way. */
enum { PARKING_MARGIN_MS = 5000 };

struct parked_call {
    struct parked_call *next;
    engine_call_fn call;
    const struct engine_request *request;
    engine_answer_fn answer;
    void *arg;
};

struct parking {
    struct engine *engine;
    char superblock[SUPERBLOCK_NAME_SIZE]; /* of the store; "" = unknown, so that every freeze parks */
    struct worker_link *worker;            /* whose freeze parks the store; NULL = not parked */
    struct loop_timer *deadline, *replay;
    struct parked_call *first, **last;
};

/* --- which freeze concerns us --- */

static bool concerns(const struct parking *parking, const json_t *superblocks)
{
    size_t i;
    json_t *superblock;
    if (!*parking->superblock)
        return true;
    json_array_foreach(superblocks, i, superblock) {
        if (str_eq(json_string_value(superblock), parking->superblock))
            return true;
    }
    return false;
}

static void park_done(void *arg)
{
    struct parking *parking = arg;
    worker_link_parked(parking->worker);
}

static void unpark(struct parking *parking)
{
    if (!parking->worker)
        return;
    parking->worker = NULL;
    loop_timer_stop(parking->deadline);
    store_resume(parking->engine->store);
    agent_link_hold(parking->engine->agent, false);
    loop_timer_set(parking->replay, 0);
}

/* The creation slot makes freezes follow one another; a second one finds the store parked already and does not end it. */
static void freezing(void *arg, struct worker_link *worker, const json_t *superblocks)
{
    struct engine *engine = arg;
    struct parking *parking = engine->parking;
    if (parking->worker || !concerns(parking, superblocks)) {
        worker_link_parked(worker);
        return;
    }
    int64_t limit = json_int(json_object_get(engine->config, "limits"), "freeze_seconds", 60);
    parking->worker = worker;
    agent_link_hold(engine->agent, true);
    loop_timer_set(parking->deadline, limit * 1000 + PARKING_MARGIN_MS);
    store_park(engine->store, park_done, parking);
    audits_frozen(engine);
}

static void thawed(void *arg, struct worker_link *worker)
{
    struct engine *engine = arg;
    hold_over(engine, worker);
    if (engine->parking->worker == worker)
        unpark(engine->parking);
}

static void overdue(void *arg)
{
    struct parking *parking = arg;
    unpark(parking);
    log_line(LOG_LEVEL_WARNING, NULL, "the store goes on: a worker has not reported its thaw within limits.freeze_seconds");
}

/* --- calls --- */

static bool live_session(struct engine *engine, const struct engine_request *request)
{
    return session_find(engine, request->id) != NULL;
}

/* A job in memory that its caller may see: one that he may not see would be looked for in the store. */
static bool live_job(struct engine *engine, const struct engine_request *request)
{
    const struct job *job = job_find(engine, request->id);
    return job && principal_sees(request->principal, json_str(job->doc, "owner", "")) &&
           !json_bool(session_private(job->doc), "released", false);
}

static bool always(struct engine *engine, const struct engine_request *request)
{
    (void)engine;
    (void)request;
    return true;
}

/* What is not listed waits for the thaw. */
static const struct {
    engine_call_fn call;
    bool (*in_memory)(struct engine *engine, const struct engine_request *request);
} awake[] = {
    {engine_job_get, live_job},
    {engine_job_cancel, live_job},
    {engine_job_release, live_job},
    {engine_session_get, live_session},
    {engine_session_renew, live_session},
    {engine_session_abort, live_session},
    {engine_session_delete, live_session},
    {engine_session_writers, live_session},
    {engine_session_writer_status, live_session},
    {engine_session_document, live_session},
    {engine_snapshot_set_release, live_session},
    {engine_component_list, live_session},
    {engine_component_get, live_session},
    {engine_health, always},
    {engine_hold_list, always},
};

bool parking_in_memory(struct engine *engine, engine_call_fn call, const struct engine_request *request)
{
    call = once_call(request, call);
    for (size_t i = 0; i < ELEMENTS(awake); i++)
        if (awake[i].call == call)
            return awake[i].in_memory(engine, request);
    return false;
}

void engine_call(struct engine *engine, engine_call_fn call, const struct engine_request *request, engine_answer_fn answer,
                 void *arg)
{
    struct parking *parking = engine->parking;
    if (!parking->worker || parking_in_memory(engine, call, request)) {
        precondition_call(engine, call, request, answer, arg);
        return;
    }
    struct parked_call *parked = mem_new(sizeof *parked);
    *parked = (struct parked_call){.call = call, .request = request, .answer = answer, .arg = arg};
    *parking->last = parked;
    parking->last = &parked->next;
}

static struct parked_call *parked_take(struct parking *parking)
{
    struct parked_call *parked = parking->first;
    if (!parked)
        return NULL;
    parking->first = parked->next;
    if (!parking->first)
        parking->last = &parking->first;
    return parked;
}

/* In the order in which they came, until the next freeze. */
static void replay(void *arg)
{
    struct parking *parking = arg;
    struct parked_call *parked;
    while (!parking->worker && (parked = parked_take(parking))) {
        precondition_call(parking->engine, parked->call, parked->request, parked->answer, parked->arg);
        free(parked);
    }
}

/* --- life --- */

static const struct freeze_handlers handlers = {freezing, hold_begun, thawed, freeze_window, freeze_settled, freeze_left};

struct parking *parking_new(struct engine *engine)
{
    struct parking *parking = mem_new(sizeof *parking);
    *parking = (struct parking){.engine = engine,
                                .deadline = loop_timer_new(engine->loop, overdue, parking),
                                .replay = loop_timer_new(engine->loop, replay, parking)};
    parking->last = &parking->first;
    AUTO_FD int directory = open(engine->store_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || !superblock_name(directory, parking->superblock))
        log_line(LOG_LEVEL_WARNING, NULL, "%s: its file system cannot be named (%s): every freeze parks the store",
                 engine->store_dir, strerror(errno));
    agent_link_on_freeze(engine->agent, &handlers);
    return parking;
}

json_t *parking_superblocks(const struct parking *parking)
{
    json_t *names = json_array();
    if (*parking->superblock)
        json_add(names, json_string(parking->superblock));
    return names;
}

void parking_free(struct parking *parking)
{
    if (!parking)
        return;
    for (struct parked_call *parked; (parked = parked_take(parking));)
        free(parked);
    loop_timer_free(parking->deadline);
    loop_timer_free(parking->replay);
    free(parking);
}
