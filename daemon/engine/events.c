/* What is told to those who watch. An event is durable: it is appended with the change that it tells, and has an id. A notice is
 * what is true just now (a job's progress, a freeze): memory alone, so that it goes on while the store is parked. */
#include <search.h>

#include "base/log.h"
#include "engine/engine_private.h"
#include "engine/session/session.h"
#include "engine/webhook/webhooks.h"

/* --- events --- */

void event_session(struct store_batch *batch, const json_t *doc)
{
    const struct store_event event = {.type = "session.changed", .session_id = json_str(doc, "id", NULL), .owner = json_str(doc, "owner", NULL)};
    AUTO_JSON json_t *data = json_pack("{s:s, s:s, s:s?}", "kind", json_str(doc, "kind", ""), "state", json_str(doc, "state", ""), "reason",
                                       json_str(doc, "reason", NULL));
    store_batch_event(batch, &event, data);
}

void event_job(struct store_batch *batch, const json_t *doc, const char *type)
{
    const struct store_event event = {.type = type,
                                      .session_id = json_str(doc, "session_id", NULL),
                                      .job_id = json_str(doc, "id", NULL),
                                      .owner = json_str(doc, "owner", NULL)};
    AUTO_JSON json_t *data = json_pack("{s:s, s:s, s:s, s:s}", "operation", json_str(doc, "operation", ""), "state", json_str(doc, "state", ""),
                                       "hresult", json_str(doc, "hresult", ""), "code", json_str(doc, "code", ""));
    store_batch_event(batch, &event, data);
}

static json_t *snapshot_data(const json_t *doc)
{
    return json_pack("{s:s, s:s?, s:s?}", "snapshot", json_str(doc, "id", ""), "volume", json_str(doc, "volume", NULL), "exposed_path",
                     json_str(doc, "exposed_path", NULL));
}

void event_snapshot(struct store_batch *batch, const char *type, const json_t *doc)
{
    const struct store_event event = {.type = type, .session_id = json_str(doc, "session_id", NULL), .owner = json_str(doc, "owner", NULL)};
    AUTO_JSON json_t *data = snapshot_data(doc);
    store_batch_event(batch, &event, data);
}

void snapshot_batch_delete(struct store_batch *batch, const json_t *doc)
{
    const struct store_event event = {.type = "snapshot.deleted", .session_id = json_str(doc, "session_id", NULL), .owner = json_str(doc, "owner", NULL)};
    AUTO_JSON json_t *data = snapshot_data(doc);
    store_batch_delete_told(batch, STORE_SNAPSHOT, json_str(doc, "id", ""), &event, data);
}

void event_backup(struct store_batch *batch, const char *type, const json_t *doc)
{
    const struct store_event event = {.type = type, .session_id = json_str(doc, "session_id", NULL), .owner = json_str(doc, "owner", NULL)};
    AUTO_JSON json_t *data = json_pack("{s:s, s:b}", "backup", json_str(doc, "id", ""), "complete", json_bool(doc, "complete", false));
    store_batch_event(batch, &event, data);
}

/* --- who sees what: as in the lists --- */

/* GLOB for "backup.…" and "snapshot.…", of which restorers see everybody's. */
#define OF_BACKUPS "[bs][an][ca][kp]*.*"

bool engine_event_visible(const struct principal *principal, const char *type, const char *owner)
{
    bool of_backups = str_starts(type, "backup.") || str_starts(type, "snapshot.");
    return (of_backups ? principal_sees_backup : principal_sees)(principal, owner ? owner : "");
}

void engine_event_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    struct store_event_page page;
    const struct principal *who = request->principal;
    struct store_event_query query = {.after = json_int(request->query, "after", 0),
                                      .session_id = json_str(request->query, "session", NULL),
                                      .job_id = json_str(request->query, "job", NULL),
                                      .limit = (int)json_int(request->query, "limit", 50)};
    if (!principal_sees(who, "")) {
        query.owner = who->name;
        query.others = principal_sees_backup(who, "") ? OF_BACKUPS : NULL;
    }
    if (store_events(engine->store, &query, &page, &err) != STORE_OK)
        answer_error(answer, arg, &err);
    else
        answer_body(answer, arg, 200, json_pack("{s:o, s:I, s:I, s:I}", "items", page.rows, "to", (json_int_t)page.to, "oldest",
                                                (json_int_t)page.oldest, "newest", (json_int_t)page.newest));
}

/* --- notices --- */

/* Of committed ones; it must not submit. */
static void on_event(void *arg, const struct store_event *event)
{
    struct engine *engine = arg;
    webhooks_wake(engine);
    if (engine->watcher.event)
        engine->watcher.event(engine->watcher_arg, event);
}

void events_tell(struct engine *engine)
{
    store_on_event(engine->store, on_event, engine);
}

void engine_watch(struct engine *engine, const struct engine_watcher *watcher, void *arg)
{
    engine->watcher = *watcher;
    engine->watcher_arg = arg;
}

static void notice(const struct engine *engine, const struct engine_notice *what)
{
    if (engine->watcher.notice)
        engine->watcher.notice(engine->watcher_arg, what);
}

void notice_job(const struct job *job)
{
    AUTO_JSON json_t *data = NULL;
    if (!job_state_terminal(job->state))
        data = json_pack("{s:s, s:s, s:O?}", "operation", job->kind->name, "state", job_state_name(job->state), "progress", job->progress);
    notice(job->engine, &(struct engine_notice){.type = "job.progress",
                                                .key = job->id,
                                                .session_id = job->session ? job->session->id : NULL,
                                                .job_id = job->id,
                                                .owner = json_str(job->doc, "owner", NULL),
                                                .data = data});
}

void notice_frozen(const struct engine *engine, const char *session_id, const char *job_id, const char *owner, json_t *frozen)
{
    notice(engine, &(struct engine_notice){
                       .type = "session.frozen", .key = session_id, .session_id = session_id, .job_id = job_id, .owner = owner, .data = frozen});
}
