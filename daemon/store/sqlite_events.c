/* Events, as readers that come back ask for them. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "store/sqlite.h"

enum { P_AFTER = 1, P_LIMIT, P_OWNER, P_OTHERS, P_SESSION, P_JOB, P_LOOK };

#define COLUMNS "SELECT id, at_ms, type, session_id, job_id, data, owner FROM events"
#define ALLOWED " AND (?3 IS NULL OR owner = ?3 OR type GLOB ?4) AND (?5 IS NULL OR session_id = ?5)"

static json_t *column_text(sqlite3_stmt *statement, int column)
{
    return json_text((const char *)sqlite3_column_text(statement, column));
}

/* Damaged data is left out: nobody's stream may hang at one event. */
static json_t *row_read(const struct sqlite_store *store, sqlite3_stmt *statement)
{
    char when[CLOCK_RFC3339_SIZE];
    json_t *row = json_object(), *data = NULL;
    if (sqlite3_column_type(statement, 5) != SQLITE_NULL)
        data = sqlite_column_json(store, statement, 5, NULL);
    json_put(row, "id", json_integer(sqlite3_column_int64(statement, 0)));
    json_put(row, "time", json_string(clock_rfc3339(sqlite3_column_int64(statement, 1), when)));
    json_put(row, "type", column_text(statement, 2));
    json_put(row, "session_id", column_text(statement, 3));
    json_put(row, "job_id", column_text(statement, 4));
    json_put(row, "owner", column_text(statement, 6));
    json_put(row, "data", data ? data : json_null());
    return row;
}

/* sqlite_sequence knows the last id, whatever was expired since. */
static enum store_result span(struct sqlite_store *store, struct store_event_page *ret, struct err *err)
{
    static const char sql[] = "SELECT (SELECT min(id) FROM events), (SELECT seq FROM sqlite_sequence WHERE name = 'events')";
    BORROWED_STATEMENT statement = sqlite_statement(store, store->reader, &store->events_span, sql, err);
    if (!statement)
        return STORE_ERROR;
    if (sqlite3_step(statement) != SQLITE_ROW)
        return sqlite_read_failed(store, err);
    ret->newest = sqlite3_column_int64(statement, 1);
    ret->oldest = sqlite3_column_type(statement, 0) == SQLITE_NULL ? ret->newest + 1 : sqlite3_column_int64(statement, 0);
    return STORE_OK;
}

static sqlite3_stmt *select_statement(struct sqlite_store *store, const struct store_event_query *query, int64_t after, struct err *err)
{
    static const char any[] = COLUMNS " WHERE id > ?1 AND id <= ?1 + ?7" ALLOWED " ORDER BY id LIMIT ?2";
    static const char of_job[] = COLUMNS " WHERE job_id = ?6 AND id > ?1" ALLOWED " ORDER BY id LIMIT ?2";
    sqlite3_stmt *statement = query->job_id ? sqlite_statement(store, store->reader, &store->events_of_job, of_job, err)
                                            : sqlite_statement(store, store->reader, &store->events, any, err);
    if (!statement)
        return NULL;
    sqlite3_bind_int64(statement, P_AFTER, after);
    sqlite3_bind_int64(statement, P_LIMIT, query->limit > 0 ? query->limit : 1);
    const struct {
        int parameter;
        const char *text;
    } texts[] = {{P_OWNER, query->owner}, {P_OTHERS, query->others}, {P_SESSION, query->session_id}, {P_JOB, query->job_id}};
    for (size_t i = 0; i < ELEMENTS(texts); i++)
        if (texts[i].text && (texts[i].parameter != P_JOB || query->job_id))
            sqlite3_bind_text(statement, texts[i].parameter, texts[i].text, -1, SQLITE_STATIC);
    if (!query->job_id)
        sqlite3_bind_int(statement, P_LOOK, STORE_EVENTS_LOOKED_AT);
    return statement;
}

enum store_result sqlite_events(void *state, const struct store_event_query *query, struct store_event_page *ret, struct err *err)
{
    struct sqlite_store *store = state;
    size_t limit = query->limit > 0 ? (size_t)query->limit : 1;
    *ret = (struct store_event_page){0};
    if (span(store, ret, err) != STORE_OK)
        return STORE_ERROR;
    int64_t after = query->after < ret->oldest - 1 ? ret->oldest - 1 : query->after; /* there is nothing before */
    BORROWED_STATEMENT statement = select_statement(store, query, after, err);
    if (!statement)
        return STORE_ERROR;
    AUTO_JSON json_t *rows = json_array();
    int64_t last = after;
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        last = sqlite3_column_int64(statement, 0);
        json_add(rows, row_read(store, statement));
    }
    if (rc != SQLITE_DONE)
        return sqlite_read_failed(store, err);
    int64_t looked = query->job_id || after > ret->newest - STORE_EVENTS_LOOKED_AT ? ret->newest : after + STORE_EVENTS_LOOKED_AT;
    ret->to = json_array_size(rows) == limit || looked < last ? last : looked;
    ret->rows = TAKE_PTR(rows);
    return STORE_OK;
}
