/* VSS_E_UNEXPECTED and VSS_E_UNEXPECTED_WRITER_ERROR: one log line and one row of GET /errors each. */
#include "engine/engine_private.h"

#include "base/log.h"

enum { ERRORS_KEPT_DAYS = 30 };

void incident(struct engine *engine, const char *session_id, const char *job_id, const char *writer, uint32_t hr, const char *text)
{
    const struct log_context context = {.session_id = session_id, .job_id = job_id, .writer = writer};
    log_line(LOG_LEVEL_ERROR, &context, "%s: %s", hresult_name(hr), text);
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE], hex[11];
    int64_t at = clock_real_ms();
    uuid_v7(id);
    hresult_hex(hr, hex);
    AUTO_JSON json_t *doc = json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:s, s:s}", "id", id, "hresult", hresult_name(hr), "code", hex,
                                      "session_id", session_id, "job_id", job_id, "writer", writer, "time", clock_rfc3339(at, now), "text", text);
    const struct store_record record = {.id = id, .session_id = session_id, .job_id = job_id, .created_ms = at,
                                        .expires_ms = at + ERRORS_KEPT_DAYS * 86400000LL, .doc = doc};
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_ERROR_ROW, &record);
    store_submit(engine->store, batch, NULL, NULL);
}

void engine_error_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_ERROR_ROW, .session_id = json_str(request->query, "session", NULL),
                                .job_id = json_str(request->query, "job", NULL)};
    list_answer(engine, request, answer, arg, &query, NULL);
}
