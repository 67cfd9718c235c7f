#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "store/sqlite.h"

enum store_result sqlite_read_failed(const struct sqlite_store *store, struct err *err)
{
    bool again = (sqlite3_errcode(store->reader) & 0xff) == SQLITE_BUSY;
    sqlite_fail(store, store->reader, err, "read it");
    return again ? STORE_RETRY : STORE_ERROR;
}

json_t *sqlite_column_json(const struct sqlite_store *store, sqlite3_stmt *statement, int column, struct err *err)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    size_t length = (size_t)sqlite3_column_bytes(statement, column);
    json_t *doc = text ? json_loadb(text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    if (!doc)
        err_set(err, (uint32_t)VSS_E_UNEXPECTED, "Run PRAGMA integrity_check on the store.",
                "store %s: a record is damaged", store->path);
    return doc;
}

json_t *sqlite_record_json(const struct sqlite_store *store, sqlite3_stmt *statement, int doc, int rest, struct err *err)
{
    AUTO_JSON json_t *whole = sqlite_column_json(store, statement, doc, err);
    if (!whole || sqlite3_column_type(statement, rest) == SQLITE_NULL)
        return TAKE_PTR(whole);
    AUTO_JSON json_t *more = sqlite_column_json(store, statement, rest, err);
    if (!more)
        return NULL;
    if (json_object_update_recursive(whole, more) == 0)
        return TAKE_PTR(whole);
    err_set(err, (uint32_t)VSS_E_UNEXPECTED, "Run PRAGMA integrity_check on the store.", "store %s: a record is damaged", store->path);
    return NULL;
}

enum store_result sqlite_get(void *state, enum store_kind kind, const char *id, json_t **ret_doc, bool *ret_hidden,
                             struct err *err)
{
    struct sqlite_store *store = state;
    char sql[128];
    str_format(sql, sizeof(sql), "SELECT doc, %s, hidden FROM %s WHERE id = ?1", sqlite_rest_column(kind), sqlite_tables[kind]);
    BORROWED_STATEMENT statement = sqlite_statement(store, store->reader, &store->get[kind], sql, err);
    if (!statement)
        return STORE_ERROR;
    sqlite3_bind_text(statement, 1, id, -1, SQLITE_STATIC);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_DONE)
        return STORE_NONE;
    if (rc != SQLITE_ROW)
        return sqlite_read_failed(store, err);
    json_t *doc = sqlite_record_json(store, statement, 0, 1, err);
    if (!doc)
        return STORE_ERROR;
    *ret_doc = doc;
    if (ret_hidden)
        *ret_hidden = sqlite3_column_int(statement, 2) != 0;
    return STORE_OK;
}

static const char *const filter_columns[SQLITE_FILTERS] = {"session_id", "job_id", "owner", "state", "operation"};
enum { PARAMETER_AFTER = SQLITE_FILTERS + 1, PARAMETER_LIMIT };
enum { MASK_AFTER = 1 << SQLITE_FILTERS, MASK_OLDEST = 1 << (SQLITE_FILTERS + 1), MASK_BRIEF = 1 << (SQLITE_FILTERS + 2) };

static sqlite3_stmt *list_statement(struct sqlite_store *store, const struct store_query *query,
                                    const char *const filters[SQLITE_FILTERS], struct err *err)
{
    unsigned mask = (query->after ? MASK_AFTER : 0) | (query->oldest_first ? MASK_OLDEST : 0) | (query->brief ? MASK_BRIEF : 0);
    for (size_t i = 0; i < SQLITE_FILTERS; i++)
        mask |= filters[i] ? 1u << i : 0;
    sqlite3_stmt **slot = &store->list[query->kind][mask];
    if (*slot)
        return *slot;
    char sql[512];
    str_format(sql, sizeof(sql), "SELECT doc, %s FROM %s WHERE hidden = 0", query->brief ? "NULL" : sqlite_rest_column(query->kind),
               sqlite_tables[query->kind]);
    for (size_t i = 0; i < SQLITE_FILTERS; i++)
        if (filters[i]) {
            size_t used = strlen(sql);
            str_format(sql + used, sizeof(sql) - used, " AND %s = ?%zu", filter_columns[i], i + 1);
        }
    size_t used = strlen(sql);
    if (query->after)
        str_format(sql + used, sizeof(sql) - used, " AND id %c ?%d", query->oldest_first ? '>' : '<', PARAMETER_AFTER);
    used = strlen(sql);
    str_format(sql + used, sizeof(sql) - used, " ORDER BY id %s LIMIT ?%d", query->oldest_first ? "ASC" : "DESC",
               PARAMETER_LIMIT);
    return sqlite_statement(store, store->reader, slot, sql, err);
}

enum store_result sqlite_list(void *state, const struct store_query *query, json_t **ret_rows, bool *ret_more,
                              struct err *err)
{
    struct sqlite_store *store = state;
    const char *const filters[SQLITE_FILTERS] = {query->session_id, query->job_id, query->owner, query->state,
                                                 query->operation};
    BORROWED_STATEMENT statement = list_statement(store, query, filters, err);
    if (!statement)
        return STORE_ERROR;
    size_t limit = query->limit > 0 ? (size_t)query->limit : 1;
    for (size_t i = 0; i < SQLITE_FILTERS; i++)
        if (filters[i])
            sqlite3_bind_text(statement, (int)i + 1, filters[i], -1, SQLITE_STATIC);
    if (query->after)
        sqlite3_bind_text(statement, PARAMETER_AFTER, query->after, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, PARAMETER_LIMIT, (sqlite3_int64)limit + 1);
    AUTO_JSON json_t *rows = json_array();
    bool more = false;
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        more = json_array_size(rows) == limit;
        if (more)
            break;
        json_t *doc = sqlite_record_json(store, statement, 0, 1, err);
        if (!doc)
            return STORE_ERROR;
        json_add(rows, doc);
    }
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        return sqlite_read_failed(store, err);
    *ret_rows = TAKE_PTR(rows);
    if (ret_more)
        *ret_more = more;
    return STORE_OK;
}
