#include "engine/engine.h"

#include "base/log.h"
#include "engine/engine_private.h"

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

struct engine *engine_new(struct loop *loop, const json_t *start, int agent_fd, struct err *err)
{
    struct engine *engine = mem_new(sizeof *engine);
    engine->loop = loop;
    engine->config = json_deep_copy(json_object_get(start, "config"));
    str_copy(engine->node, sizeof engine->node, json_str(start, "node", "localhost"));
    engine->store = store_open(loop, json_str(start, "store_dir", ""), err);
    if (!engine->store) {
        close(agent_fd);
        engine_free(engine);
        return NULL;
    }
    engine->agent = agent_link_new(loop, agent_fd, on_incident, agent_lost, engine);
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
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    loop_timer_free(engine->housekeeping);
    loop_timer_free(engine->drain_timer);
    agent_link_free(engine->agent);
    store_close(engine->store);
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
