/* The hold of the providers `external` and `guest`: file systems stay frozen until the session's owner says that the outside
 * snapshot is taken. All of it lives in memory: the store may be parked meanwhile. */
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

#include <search.h>

static struct session *session_of(struct engine *engine, const struct worker_link *worker)
{
    struct session *session = session_find(engine, worker_link_session(worker));
    return session && session->worker == worker ? session : NULL;
}

void hold_begun(void *arg, struct worker_link *worker, const json_t *message)
{
    struct session *session = session_of(arg, worker);
    if (session && !message)
        json_decref(TAKE_PTR(session->hold));
    if (!session || !session->pending || !message)
        return;
    json_decref(session->hold);
    session->hold =
        json_pack("{s:s, s:s}", "since", json_str(message, "since", ""), "deadline", json_str(message, "deadline", ""));
    session->hold_released = false;
    json_decref(session->held);
    session->held = json_incref(session->hold);
    AUTO_JSON json_t *progress = json_pack("{s:s}", "phase", "hold");
    job_progress(session->pending, progress);
}

void hold_over(struct engine *engine, const struct worker_link *worker)
{
    struct session *session = session_of(engine, worker);
    if (session)
        json_decref(TAKE_PTR(session->hold));
}

/* --- POST /sessions/{id}/snapshot-set/release --- */

/* DoSnapshotSet has ended: its outcome says whether the freeze held until the release. */
static void run_answer(struct task *task)
{
    task_answer(task, 200, job_view(task->job));
}

static bool known_snapshot(const struct session *session, const char *id)
{
    size_t i;
    json_t *volume;
    json_array_foreach(json_object_get(session_private(session->doc), "volumes"), i, volume)
    {
        if (str_eq(json_str(volume, "snapshot_id", ""), id))
            return true;
    }
    return false;
}

static int check_snapshots(const struct task *task, struct err *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(task->request->body, "snapshots"), i, item)
    {
        char pointer[64];
        str_format(pointer, sizeof pointer, "/snapshots/%zu/snapshot_id", i);
        if (!known_snapshot(task->session, json_str(item, "snapshot_id", "")))
            return err_invalid(err, pointer, "is no snapshot of this set");
    }
    return 0;
}

static void run_release(struct task *task)
{
    struct session *session = task->session;
    struct job *job = session->pending;
    struct err err;
    if (check_snapshots(task, &err)) {
        task_fail(task, &err);
        return;
    }
    if (!session->hold || session->hold_released || !job) {
        err_set(&err, VSS_E_BAD_STATE, "GET /sessions/{id} shows `hold` while there is one.", "session %s: %s",
                session->id,
                session->hold_released && session->hold ? "its hold has been released"
                                                        : "nothing is held frozen for an outside snapshot");
        task_fail(task, &err);
        return;
    }
    session->hold_released = true;
    AUTO_JSON json_t *message = json_copy((json_t *)task->request->body);
    json_put(message, "type", json_string("release_hold"));
    worker_link_tell(session->worker, message);
    task_hold_job(task, job);
    task->run = run_answer;
    task->next = job->parked;
    job->parked = task;
    task_park(task);
}

void engine_snapshot_set_release(struct engine *engine, const struct engine_request *request, engine_answer_fn answer,
                                 void *arg)
{
    session_task(engine, request, answer, arg, run_release);
}

/* --- GET /holds --- */

struct holds {
    const struct engine_request *request;
    json_t *items;
};

static void take_hold(const void *node, VISIT visit, void *arg)
{
    const struct session *session = *(struct session *const *)node;
    struct holds *holds = arg;
    const char *label = json_str(holds->request->query, "label", NULL);
    if ((visit != postorder && visit != leaf) || session->gone || !session->held)
        return;
    if (!principal_sees(holds->request->principal, json_str(session->doc, "owner", "")) || (label && !str_eq(label, json_str(session->doc, "label", ""))))
        return;
    json_add(holds->items, json_pack("{s:s, s:O?, s:s, s:s, s:b, s:s, s:s}", "session_id", session->id, "label", json_object_get(session->doc, "label"),
                                     "owner", json_str(session->doc, "owner", ""), "state", json_str(session->doc, "state", ""), "frozen",
                                     session->hold && !session->hold_released, "since", json_str(session->held, "since", ""), "deadline",
                                     json_str(session->held, "deadline", "")));
}

/* From memory alone: who asks may hold the store's own file system. */
void engine_hold_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct holds holds = {.request = request, .items = json_array()};
    twalk_r(engine->sessions, take_hold, &holds);
    answer_body(answer, arg, 200, json_pack("{s:o, s:n}", "items", holds.items, "next_cursor"));
}
