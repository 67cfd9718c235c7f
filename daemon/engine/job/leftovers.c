/* The end of what a session holds. Its worker undoes it; a worker that died undid nothing: the snapshots and the staging directory
 * of its session are removed by another one. What stays behind all the same is told, and stays in the list of snapshots. */
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

enum { TRIES_MAX = 3 };

struct leftovers {
    struct leftovers *next;
    struct engine *engine;
    char session_id[UUID_SIZE];
    struct worker_link *worker;
    json_t *known;
    int tries;
    void (*then)(struct task *task);
    struct task *task;
};

static void forget(struct leftovers *wanted)
{
    for (struct leftovers **at = &wanted->engine->leftovers; *at; at = &(*at)->next) {
        if (*at == wanted) {
            *at = wanted->next;
            break;
        }
    }
    json_decref(wanted->known);
    free(wanted);
}

static void look(struct leftovers *leftovers);

static void cleared(void *arg, const struct worker_reply *reply)
{
    struct leftovers *leftovers = arg;
    struct task *task = leftovers->task;
    void (*then)(struct task *task) = leftovers->then;
    json_t **cleanup = cleanup_of(task);
    AUTO_JSON json_t *told = json_copy(reply->result);
    bool failed = reply->err || json_array_size(json_object_get(told, "failed")) > 0;
    if (failed && ++leftovers->tries < TRIES_MAX) { /* whatever killed the worker may have killed this one too, or be at work still */
        json_object_del(told, "failed");
        cleanup_take(cleanup, told);
        worker_link_close(leftovers->worker);
        look(leftovers);
        return;
    }
    cleanup_take(cleanup, told);
    if (reply->err)
        cleanup_fail(cleanup, LEFT_ALL, reply->err->text);
    worker_link_close(leftovers->worker);
    forget(leftovers);
    then(task);
}

static void look(struct leftovers *leftovers)
{
    static const struct worker_handlers handlers = {.done = cleared};
    leftovers->worker = worker_link_new(leftovers->engine->agent, NULL, NULL, NULL);
    worker_link_run(leftovers->worker, "recover", json_pack("{s:s, s:O}", "session", leftovers->session_id, "known", leftovers->known), &handlers,
                    leftovers);
}

/* Persistent snapshots that were made outlive their session, and its worker. */
static json_t *kept(const struct session *session)
{
    json_t *ids = json_array();
    const struct session_context *context = session_context_by_name(json_str(session->doc, "context", ""));
    enum session_state state = session_state(session->doc);
    size_t i;
    const json_t *volume;
    if (!context || !context->persistent || state == SESSION_SET_OPEN || state == SESSION_PREPARED)
        return ids;
    json_array_foreach(json_object_get(session_private(session->doc), "volumes"), i, volume)
        json_add(ids, json_string(json_str(volume, "snapshot_id", "")));
    return ids;
}

void leftovers_clear(struct task *task, void (*then)(struct task *task))
{
    struct engine *engine = task->engine;
    struct leftovers *leftovers = mem_new(sizeof *leftovers);
    *leftovers = (struct leftovers){.next = engine->leftovers, .engine = engine, .then = then, .task = task};
    str_copy(leftovers->session_id, sizeof leftovers->session_id, task->session->id);
    engine->leftovers = leftovers;
    leftovers->known = kept(task->session);
    look(leftovers);
}

void leftovers_free(struct engine *engine)
{
    while (engine->leftovers)
        forget(engine->leftovers); /* the agent link owns the worker; the next start finds what is left */
}

/* --- the end of a session --- */

json_t **cleanup_of(struct task *task)
{
    return task->job ? &task->job->cleanup : &task->cleanup;
}

static void begin_cleanup(json_t **cleanup)
{
    if (!*cleanup)
        *cleanup = json_pack("{s:[], s:[], s:[]}", "thawed", "removed", "failed");
}

void cleanup_take(json_t **cleanup, const json_t *more)
{
    const char *key;
    json_t *names;
    if (!json_is_object(more))
        return;
    begin_cleanup(cleanup);
    json_object_foreach((json_t *)more, key, names)
        json_array_extend(json_object_get(*cleanup, key), names);
}

void cleanup_fail(json_t **cleanup, const char *object, const char *reason)
{
    begin_cleanup(cleanup);
    json_add(json_object_get(*cleanup, "failed"), json_pack("{s:s, s:o}", "object", object, "reason", json_text(reason)));
}

bool cleanup_try_again(json_t *cleanup)
{
    json_t *failed = json_object_get(cleanup, "failed");
    size_t before = json_array_size(failed);
    for (size_t i = before; i-- > 0;)
        if (!json_bool(json_array_get(failed, i), "outside", false))
            json_array_remove(failed, i);
    return json_array_size(failed) < before;
}

size_t leftovers_tell(struct task *task)
{
    const json_t *failed = json_object_get(*cleanup_of(task), "failed"), *one;
    size_t i;
    json_array_foreach(failed, i, one)
    {
        AUTO_FREE char *text = str_new("%s is left behind: %s", json_str(one, "object", ""), json_str(one, "reason", ""));
        incident(task->engine, task->session ? task->session->id : NULL, task->job ? task->job->id : NULL, NULL, VSS_E_UNEXPECTED, text);
    }
    return json_array_size(failed);
}

static void take_word(struct task *task, const struct worker_reply *reply)
{
    json_t *writers = reply->writers ? reply->writers : json_object_get(reply->result, "writers");
    cleanup_take(cleanup_of(task), json_object_get(reply->result, "cleanup"));
    if (json_is_array(writers)) {
        json_decref(task->scratch);
        task->scratch = json_incref(writers);
    }
}

static void aborted(void *arg, const struct worker_reply *reply)
{
    take_word(arg, reply); /* what it did not undo, Release does, or whoever looks after it */
}

static void undone(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    take_word(task, reply);
    if (!reply->err) {
        task->then(task);
        return;
    }
    worker_link_close(TAKE_PTR(task->session->worker)); /* one that lives undoes what it holds by that */
    leftovers_clear(task, task->then);
}

void session_undo(struct task *task, const char *reason, bool release, void (*then)(struct task *task))
{
    static const struct worker_handlers first = {.done = aborted}, last = {.done = undone};
    struct worker_link *worker = task->session->worker;
    task->then = then;
    snapshot_streams_end(task->engine, task->session->id);
    if (worker && !worker_link_alive(worker)) {
        leftovers_clear(task, then);
        return;
    }
    if (worker && reason)
        worker_link_run(worker, "abort", json_pack("{s:s}", "reason", reason), release ? &first : &last, task);
    if (worker && release)
        worker_link_run(worker, "release", NULL, &last, task);
    if (!worker || !(reason || release)) /* it was never needed: nothing is held */
        then(task);
}
