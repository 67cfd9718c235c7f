/* VSS_E_UNEXPECTED and VSS_E_UNEXPECTED_WRITER_ERROR: one log line and one row of GET /errors each. */
#include "engine/engine_private.h"

#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

struct incident_row {
    struct incident_row *next, **link;
    struct engine *engine;
    json_t *doc;
    int64_t at;
    bool refused; /* by the store: to be offered again */
};

static void row_free(struct incident_row *row)
{
    *row->link = row->next;
    if (row->next)
        row->next->link = row->link;
    json_decref(row->doc);
    free(row);
}

static void row_committed(void *arg, const struct err *err)
{
    struct incident_row *row = arg;
    if (!err) {
        row_free(row);
        return;
    }
    row->refused = true;
    row->engine->n_refused++;
}

static void row_submit(struct incident_row *row)
{
    const struct store_record record = {
        .id = json_str(row->doc, "id", ""),
        .session_id = json_str(row->doc, "session", NULL),
        .job_id = json_str(row->doc, "job", NULL),
        .created_ms = row->at,
        .expires_ms = row->at + retention_ms(row->engine),
        .doc = row->doc,
    };
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_ERROR_ROW, &record);
    store_submit(row->engine->store, batch, row_committed, row);
}

void incidents_save(struct engine *engine)
{
    engine->n_refused = 0;
    for (struct incident_row *row = engine->incidents; row; row = row->next) {
        if (!row->refused)
            continue;
        row->refused = false;
        row_submit(row);
    }
}

void incidents_free(struct engine *engine)
{
    while (engine->incidents)
        row_free(engine->incidents);
}

void incident(struct engine *engine, const char *session_id, const char *job_id, const char *writer, uint32_t hr, const char *text)
{
    const struct job *job = job_find(engine, job_id);
    struct log_context context = job ? job_log_context(job) : (struct log_context){.session_id = session_id, .job_id = job_id};
    context.writer = writer;
    log_line(LOG_LEVEL_ERROR, &context, "%s: %s", hresult_name(hr), text);
    figures_incident(engine);
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE], hex[11];
    struct incident_row *row = mem_new(sizeof *row);
    *row = (struct incident_row){.next = engine->incidents, .link = &engine->incidents, .engine = engine, .at = clock_real_ms()};
    if (row->next)
        row->next->link = &row->next;
    engine->incidents = row;
    uuid_v7(id);
    hresult_hex(hr, hex);
    row->doc = json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:s, s:s}", "id", id, "hresult", hresult_name(hr), "code", hex, "session",
                         session_id, "job", job_id, "writer", writer, "time", clock_rfc3339(row->at, now), "text", text);
    row_submit(row);
}

void engine_error_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_ERROR_ROW, .session_id = json_str(request->query, "session", NULL),
                                .job_id = json_str(request->query, "job", NULL)};
    list_answer(engine, request, answer, arg, &query, NULL);
}
