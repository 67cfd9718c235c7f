#include "engine/engine.h"

#include "base/log.h"
#include "engine/access/access.h"
#include "engine/audit/audit.h"
#include "engine/audit/audit_seals.h"
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"
#include "engine/webhook/webhooks.h"

static void on_incident(void *arg, const char *session_id, json_t *doc)
{
    struct engine *engine = arg;
    uint32_t hr = (uint32_t)VSS_E_UNEXPECTED;
    hresult_by_name(json_str(doc, "code", ""), &hr);
    struct session *session = session_id ? session_find(engine, session_id) : NULL;
    incident(engine, session_id, session && session->pending ? session->pending->id : NULL, json_str(doc, "writer", NULL), hr,
             json_str(doc, "text", "no text"));
}

/* Without the agent nothing can be held or released any more: the supervisor starts the generation anew. */
static void agent_lost(void *arg)
{
    struct engine *engine = arg;
    log_line(LOG_LEVEL_ERROR, NULL, "the agent is gone; stopping");
    loop_quit(engine->loop, 1);
}

static int load_credentials(struct engine *engine, struct err *err)
{
    engine->tokens = credentials_new(engine, &credential_token, err);
    engine->certificates = engine->tokens ? credentials_new(engine, &credential_certificate, err) : NULL;
    engine->enrolments = engine->certificates ? credentials_new(engine, &credential_enrolment, err) : NULL;
    engine->logins = engine->enrolments ? credentials_new(engine, &credential_login, err) : NULL;
    return engine->logins ? 0 : -1;
}

/* On a damaged file nothing is to be built: the next start refuses it, with the way out. */
static void on_check(void *arg, enum store_check found, const struct err *err)
{
    struct engine *engine = arg;
    incident(engine, NULL, NULL, NULL, VSS_E_UNEXPECTED, err->text);
    if (found == STORE_CHECK_DAMAGED)
        loop_quit(engine->loop, 1);
}

struct engine *engine_new(struct loop *loop, const json_t *start, int agent_fd, struct err *err)
{
    struct engine *engine = mem_new(sizeof *engine);
    engine->loop = loop;
    engine->config = json_deep_copy(json_object_get(start, "config"));
    str_copy(engine->node, sizeof engine->node, json_str(start, "node", "localhost"));
    str_copy(engine->store_dir, sizeof engine->store_dir, json_str(start, "store_dir", ""));
    str_copy(engine->previous_end, sizeof engine->previous_end, json_str(start, "previous_end", ""));
    engine->store = store_open(loop, engine->store_dir, err);
    if (!engine->store) {
        close(agent_fd);
        engine_free(engine);
        return NULL;
    }
    store_on_check(engine->store, on_check, engine);
    events_tell(engine);
    engine->figures = figures_new();
    engine->successes = successes_new(engine, err);
    if (!engine->successes || load_credentials(engine, err) || webhooks_open(engine, err) ||
        !(engine->seals = audit_seals_new(engine, err))) {
        close(agent_fd);
        engine_free(engine);
        return NULL;
    }
    engine->agent = agent_link_new(loop, agent_fd, on_incident, agent_lost, engine);
    engine->parking = parking_new(engine);
    engine->housekeeping = loop_timer_new(loop, engine_housekeeping, engine);
    if (engine_recover(engine, err)) {
        engine_free(engine);
        return NULL;
    }
    engine_housekeeping(engine);
    return engine;
}

void engine_reload(struct engine *engine, const json_t *config)
{
    json_decref(engine->config);
    engine->config = json_deep_copy(config);
    repositories_look(engine);
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    loop_timer_free(engine->housekeeping);
    loop_timer_free(engine->drain_timer);
    seal_stop(engine);
    slot_clear(engine);
    snapshot_admins_free(engine);
    serial_clear(&engine->repositories);
    jobs_free(engine);
    sessions_free(engine);
    recovery_free(engine);
    leftovers_free(engine);
    agent_link_free(engine->agent); /* workers thaw: only then may the store be able to write */
    freezes_free(engine);
    parking_free(engine->parking);
    signings_free(engine);
    credentials_free(engine, engine->tokens);
    credentials_free(engine, engine->certificates);
    credentials_free(engine, engine->enrolments);
    credentials_free(engine, engine->logins);
    webhooks_free(engine);
    tasks_clear(engine); /* while their ends can still be written into the trail; none hears of the store any more, the loop has ended */
    audits_end(engine);
    store_close(engine->store);
    incidents_free(engine);
    onces_free(engine);
    audits_free(engine);
    audit_seals_free(engine->seals);
    figures_free(engine->figures);
    successes_free(engine->successes);
    json_decref(engine->clashes);
    json_decref(engine->config);
    free(engine);
}

/* --- drain --- */

static void drain_cancel(void *arg)
{
    struct engine *engine = arg;
    log_line(LOG_LEVEL_WARNING, NULL, "draining: the time is over, %zu jobs are cancelled", engine->n_jobs);
    jobs_cancel_all(engine);
}

void engine_drain_check(struct engine *engine)
{
    if (!engine->draining || engine->n_jobs > 0 || !engine->drained)
        return;
    void (*drained)(void *) = engine->drained;
    engine->drained = NULL;
    drained(engine->drained_arg);
}

void engine_drain(struct engine *engine, void (*done)(void *arg), void *arg)
{
    engine->draining = true;
    engine->drained = done;
    engine->drained_arg = arg;
    engine->drain_timer = loop_timer_new(engine->loop, drain_cancel, engine);
    loop_timer_set(engine->drain_timer, 1000 * json_int(json_object_get(engine->config, "limits"), "drain_seconds", 10));
    engine_drain_check(engine);
}
