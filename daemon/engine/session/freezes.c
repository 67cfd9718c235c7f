/* What is frozen now. A session shows it from its worker's first Freeze to its last Thaw. Of a worker that dies in between, and of a
 * thaw that fails, nobody here knows more than that it was frozen: it stays shown, beyond the end of the session, until the agent says that
 * the file systems are thawed and that what the worker left is gone. Memory alone, so that it goes on while the store is parked. */
#include <string.h>

#include "engine/audit/audit.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

#define WORKER_GONE "its worker process is gone; no thaw is known yet of what it held"
#define EARLIER_RUN "left frozen by an earlier run, which could not thaw it; it is tried again, and `quiesced thaw-all` does so, too"

struct stuck_freeze {
    struct stuck_freeze *next;
    char session_id[UUID_SIZE], job_id[UUID_SIZE], owner[256];
    char worker[UUID_SIZE], set[UUID_SIZE]; /* no worker: of an earlier run */
    bool writers;  /* may hold, too: until the worker and all that it left is gone */
    json_t *whole; /* as it began */
    json_t *shown; /* what of it may still be, and why that is so */
};

/* --- the thaw --- */

static void thawed_unsaved(void *arg, const struct err *err)
{
    (void)arg;
    if (err)
        log_err(LOG_LEVEL_WARNING, NULL, err, "the event of a thaw is lost");
}

/* Its event is committed after the thaw, since the store may have been frozen, too. message: the worker's word, or NULL. */
static void tell_thaw(struct engine *engine, const struct store_event *event, const json_t *frozen, const json_t *message)
{
    char now[CLOCK_RFC3339_SIZE];
    AUTO_JSON json_t *data = json_copy((json_t *)frozen);
    json_object_del(data, "deadline");
    json_put(data, "until", json_string(json_str(message, "until", clock_rfc3339(clock_real_ms(), now))));
    json_t *window_ms = json_object_get(message, "window_ms"); /* of a worker that died nobody knows it to the millisecond */
    json_put(data, "window_ms", window_ms ? json_incref(window_ms) : json_null());
    notice_frozen(engine, event->session_id, event->job_id, event->owner, NULL);
    struct store_batch *batch = store_batch_new();
    store_batch_event(batch, event, data);
    store_submit(engine->store, batch, thawed_unsaved, NULL);
}

static const char *pending_id(const struct session *session)
{
    return session->pending ? session->pending->id : NULL;
}

static void thawed(struct session *session, const json_t *message)
{
    AUTO_JSON json_t *frozen = TAKE_PTR(session->frozen);
    const struct store_event event = {
        .type = "session.thawed", .session_id = session->id, .job_id = pending_id(session), .owner = json_str(session->doc, "owner", NULL)};
    tell_thaw(session->engine, &event, frozen, message);
}

/* --- no thaw is known --- */

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

static void show(const struct engine *engine, const struct stuck_freeze *stuck)
{
    notice_frozen(engine, stuck->session_id, or_null(stuck->job_id), stuck->owner, stuck->shown);
}

static void stuck_free(struct stuck_freeze *stuck)
{
    json_decref(stuck->whole);
    json_decref(stuck->shown);
    free(stuck);
}

static struct stuck_freeze *stuck_add(struct engine *engine, const char *session_id, json_t *whole /* taken */, const char *reason)
{
    struct stuck_freeze *stuck = mem_new(sizeof *stuck);
    *stuck = (struct stuck_freeze){.next = engine->stuck_freezes, .whole = whole, .shown = json_copy(whole)};
    str_copy(stuck->session_id, sizeof stuck->session_id, session_id);
    json_put(stuck->shown, "stuck", json_string(reason));
    engine->stuck_freezes = stuck;
    return stuck;
}

/* The session's window ends here without a thaw. told: its worker's word, which lives, of what did not thaw; NULL: the worker is gone. */
static void leave(struct session *session, const json_t *told)
{
    struct engine *engine = session->engine;
    struct stuck_freeze *stuck =
        stuck_add(engine, session->id, TAKE_PTR(session->frozen), told ? json_str(told, "stuck", "") : WORKER_GONE);
    str_copy(stuck->job_id, sizeof stuck->job_id, session->pending ? session->pending->id : "");
    str_copy(stuck->owner, sizeof stuck->owner, json_str(session->doc, "owner", ""));
    str_copy(stuck->worker, sizeof stuck->worker, session->frozen_by);
    str_copy(stuck->set, sizeof stuck->set, session->frozen_set);
    stuck->writers = !told;
    if (told) {
        json_put(stuck->shown, "file_systems", json_incref(json_object_get(told, "file_systems")));
        json_put(stuck->shown, "writers", json_array());
    }
    show(engine, stuck);
}

void freeze_leave(struct session *session)
{
    if (session->frozen)
        leave(session, NULL);
}

/* --- what the worker says --- */

static void begun(struct session *session, const struct worker_link *worker, const json_t *message)
{
    session->frozen = json_pack("{s:O?, s:O?, s:O?, s:O?}", "since", json_object_get(message, "since"), "deadline",
                                json_object_get(message, "deadline"), "file_systems", json_object_get(message, "file_systems"), "writers",
                                json_object_get(message, "writers"));
    str_copy(session->frozen_by, sizeof session->frozen_by, worker_link_id(worker));
    str_copy(session->frozen_set, sizeof session->frozen_set, json_str(message, "set", ""));
    notice_frozen(session->engine, session->id, pending_id(session), json_str(session->doc, "owner", NULL), session->frozen);
    audits_frozen(session->engine);
}

void freeze_window(void *arg, struct worker_link *worker, const json_t *message)
{
    const char *id = worker_link_session(worker);
    struct session *session = id ? session_find(arg, id) : NULL;
    if (!session)
        return;
    bool ours = session->frozen && str_eq(session->frozen_by, worker_link_id(worker));
    bool unknown = !message || json_is_string(json_object_get(message, "stuck"));
    if (ours && unknown && !worker_link_settled(worker, session->frozen_set))
        leave(session, message);
    else if (ours)
        thawed(session, unknown ? NULL : message);
    if (!unknown && !session->frozen && session->worker == worker && json_bool(message, "open", false))
        begun(session, worker, message);
}

/* --- what the agent says --- */

static void stuck_thawed(struct engine *engine, struct stuck_freeze **at)
{
    struct stuck_freeze *stuck = *at;
    *at = stuck->next;
    const struct store_event event = {
        .type = "session.thawed", .session_id = stuck->session_id, .job_id = or_null(stuck->job_id), .owner = stuck->owner};
    tell_thaw(engine, &event, stuck->whole, NULL);
    stuck_free(stuck);
}

/* Its file systems are thawed; its writers may hold their applications until they have heard that it is gone. */
static void writers_left(struct engine *engine, struct stuck_freeze *stuck)
{
    json_t *shown = json_copy(stuck->shown); /* the old one may be in somebody's hand */
    json_put(shown, "file_systems", json_array());
    json_decref(stuck->shown);
    stuck->shown = shown;
    show(engine, stuck);
}

void freeze_settled(void *arg, const char *worker, const char *set)
{
    struct engine *engine = arg;
    for (struct stuck_freeze **at = &engine->stuck_freezes; *at;) {
        struct stuck_freeze *stuck = *at;
        bool concerned = *stuck->worker && str_eq(stuck->worker, worker) && (!set || str_eq(stuck->set, set));
        if (concerned && !(set && stuck->writers)) {
            stuck_thawed(engine, at);
            continue;
        }
        if (concerned)
            writers_left(engine, stuck);
        at = &stuck->next;
    }
}

static bool is_among(const json_t *sets, const struct stuck_freeze *stuck)
{
    size_t i;
    const json_t *set;
    json_array_foreach(sets, i, set)
        if (str_eq(json_str(set, "set", ""), stuck->set))
            return true;
    return false;
}

static bool is_known(const struct engine *engine, const char *set)
{
    for (const struct stuck_freeze *stuck = engine->stuck_freezes; stuck; stuck = stuck->next)
        if (!*stuck->worker && str_eq(stuck->set, set))
            return true;
    return false;
}

static void take_left(struct engine *engine, const json_t *set)
{
    char since[CLOCK_RFC3339_SIZE], deadline[CLOCK_RFC3339_SIZE];
    const char *session_id = json_str(set, "session", "");
    int64_t began = json_int(set, "since_ms", 0);
    clock_rfc3339(began, since);
    clock_rfc3339(began + json_int(set, "freeze_ms", 0), deadline);
    json_t *whole = json_pack("{s:s, s:s, s:O, s:[]}", "since", since, "deadline", deadline, "file_systems", json_object_get(set, "file_systems"), "writers");
    struct stuck_freeze *stuck = stuck_add(engine, session_id, whole, EARLIER_RUN);
    str_copy(stuck->set, sizeof stuck->set, json_str(set, "set", ""));
    AUTO_JSON json_t *doc = NULL;
    if (store_get(engine->store, STORE_SESSION, session_id, &doc, NULL, NULL) == STORE_OK)
        str_copy(stuck->owner, sizeof stuck->owner, json_str(doc, "owner", ""));
    log_line(LOG_LEVEL_ERROR, &(struct log_context){.session_id = stuck->session_id}, "file systems are %s", EARLIER_RUN);
    show(engine, stuck);
}

void freeze_left(void *arg, const json_t *sets)
{
    struct engine *engine = arg;
    size_t i;
    const json_t *set;
    for (struct stuck_freeze **at = &engine->stuck_freezes; *at;) {
        if (!*(*at)->worker && !is_among(sets, *at))
            stuck_thawed(engine, at);
        else
            at = &(*at)->next;
    }
    json_array_foreach(sets, i, set)
        if (!is_known(engine, json_str(set, "set", "")))
            take_left(engine, set);
}

/* --- who asks --- */

json_t *freeze_shown(const struct engine *engine, const char *session_id)
{
    for (const struct stuck_freeze *stuck = engine ? engine->stuck_freezes : NULL; stuck; stuck = stuck->next)
        if (str_eq(stuck->session_id, session_id))
            return stuck->shown;
    return NULL;
}

void freeze_cleanup(struct task *task)
{
    json_t **cleanup = cleanup_of(task);
    const json_t *shown = task->session ? freeze_shown(task->engine, task->session->id) : NULL, *name, *one;
    size_t i, k;
    json_array_foreach(json_object_get(shown, "file_systems"), i, name)
    {
        bool told = false;
        json_array_foreach(json_object_get(*cleanup, "failed"), k, one)
            told = told || str_eq(json_str(one, "object", ""), json_string_value(name));
        if (!told)
            cleanup_fail(cleanup, json_string_value(name), json_str(shown, "stuck", ""));
    }
}

size_t freezes_stuck(const struct engine *engine)
{
    size_t n = 0;
    for (const struct stuck_freeze *stuck = engine->stuck_freezes; stuck; stuck = stuck->next)
        n++;
    return n;
}

void freezes_free(struct engine *engine)
{
    for (struct stuck_freeze *stuck; (stuck = engine->stuck_freezes);) {
        engine->stuck_freezes = stuck->next;
        stuck_free(stuck);
    }
}
