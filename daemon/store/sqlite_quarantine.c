/* Records that cannot be read are moved aside, whole, and told. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/utf8.h"
#include "store/sqlite.h"

enum { NEWEST = 1000 };

/* SQL: text_is_utf8(TEXT). json_valid does not look at it, the parser that reads the records does. */
static void text_is_utf8(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    (void)argc;
    const char *text = (const char *)sqlite3_value_text(argv[0]);
    size_t length = (size_t)sqlite3_value_bytes(argv[0]);
    bool good = text && strlen(text) == length;
    for (size_t at = 0, step; good && at < length; at += step) {
        step = utf8_span(text + at, length - at);
        good = step > 0;
    }
    sqlite3_result_int(context, good);
}

int sqlite_bad_ids(const struct sqlite_store *store, sqlite3 *db, enum store_kind kind, const char *where, json_t *ret,
                   struct err *err)
{
    char sql[1024];
    const char *rest = sqlite_rest_column(kind);
    sqlite3_stmt *statement = NULL;
    sqlite3_create_function(db, "text_is_utf8", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, text_is_utf8, NULL, NULL);
    str_format(sql, sizeof(sql),
               "SELECT rowid, id FROM %s WHERE (%s) AND NOT (text_is_utf8(id) AND text_is_utf8(doc) AND json_valid(doc) AND"
               " json_type(doc) = 'object' AND"
               " (%s IS NULL OR (text_is_utf8(%s) AND json_valid(%s) AND json_type(%s) = 'object')) AND"
               " %s = id)",
               sqlite_tables[kind], where ? where : "1", rest, rest, rest, rest,
               /* `id` of an audit record is that of what the call was about */
               kind == STORE_AUDIT ? "printf('%016d', json_extract(doc, '$.seq'))" : "coalesce(json_extract(doc, '$.id'), json_extract(doc, '$.name'), id)");
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        return sqlite_fail(store, db, err, "look for damaged records");
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(statement, 1);
        json_t *name = json_string(id ? id : "");
        json_add(ret, json_pack("{s:s, s:I, s:o}", "kind", sqlite_tables[kind], "rowid",
                                (json_int_t)sqlite3_column_int64(statement, 0), "id", name ? name : json_string("?")));
    }
    sqlite3_finalize(statement);
    return rc == SQLITE_DONE ? 0 : sqlite_fail(store, db, err, "look for damaged records");
}

static const char *rest_of(const char *table)
{
    enum store_kind kind = 0;
    while (kind < STORE_KIND_COUNT - 1 && !str_eq(sqlite_tables[kind], table))
        kind++;
    return sqlite_rest_column(kind);
}

static int move_one(const struct sqlite_store *store, const json_t *bad, struct err *err)
{
    const char *table = json_string_value(json_object_get(bad, "kind"));
    long long rowid = json_integer_value(json_object_get(bad, "rowid"));
    char *sql = sqlite3_mprintf(
        "INSERT INTO quarantine (kind, id, at_ms, session_id, job_id, owner, state, operation, created_ms, expires_ms, hidden, doc, rest)"
        " SELECT %Q, id, %lld, session_id, job_id, owner, state, operation, created_ms, expires_ms, hidden, doc, %s"
        " FROM %s WHERE rowid = %lld; DELETE FROM %s WHERE rowid = %lld;",
        table, (long long)clock_real_ms(), rest_of(table), table, rowid, table, rowid);
    int rc = sqlite3_exec(store->writer, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    return rc == SQLITE_OK ? 0 : sqlite_fail(store, store->writer, err, "move a damaged record aside");
}

/* SQL that is true of what the start reads of a large store, and of its newest records; false where all are read: such
 * tables are small. */
static bool where_first(enum store_kind kind, char *ret, size_t size)
{
    static const char *const open_states[STORE_KIND_COUNT] = {
        [STORE_SESSION] = "'initialized', 'identified', 'set_open', 'prepared', 'snapshotted', 'snapshot_failed', 'pre_restored'",
        [STORE_JOB] = "'pending', 'running', 'cancelling'",
        [STORE_BACKUP] = "'unsealed'",
        [STORE_ERROR_ROW] = "",
        [STORE_AUDIT] = "'open'",
    };
    const char *table = sqlite_tables[kind];
    return open_states[kind] && str_format(ret, size,
                                           "rowid IN (SELECT rowid FROM %s WHERE rowid > (SELECT max(rowid) FROM %s) - %d"
                                           " UNION SELECT rowid FROM %s WHERE hidden = 0 AND state IN (%s))",
                                           table, table, NEWEST, table, open_states[kind]);
}

int sqlite_quarantine(void *state, json_t **ret_moved, struct err *err)
{
    const struct sqlite_store *store = state;
    AUTO_JSON json_t *moved = json_array();
    size_t i;
    const json_t *bad;
    for (enum store_kind kind = 0; kind < STORE_KIND_COUNT; kind++) {
        char where[512];
        bool some = store->check_is_due && where_first(kind, where, sizeof(where));
        if (sqlite_bad_ids(store, store->writer, kind, some ? where : NULL, moved, err) != 0)
            return -1;
    }
    if (json_array_size(moved) > 0) {
        if (sqlite3_exec(store->writer, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
            return sqlite_fail(store, store->writer, err, "move a damaged record aside");
        int result = 0;
        json_array_foreach(moved, i, bad) result = result ? result : move_one(store, bad, err);
        if (result == 0 && sqlite3_exec(store->writer, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
            result = sqlite_fail(store, store->writer, err, "move a damaged record aside");
        if (result != 0) {
            sqlite3_exec(store->writer, "ROLLBACK", NULL, NULL, NULL);
            return -1;
        }
    }
    *ret_moved = TAKE_PTR(moved);
    return 0;
}

int sqlite_quarantined(void *state, enum store_kind kind, json_t **ret_ids, struct err *err)
{
    const struct sqlite_store *store = state;
    sqlite3_stmt *statement = NULL;
    AUTO_JSON json_t *ids = json_array();
    if (sqlite3_prepare_v2(store->reader, "SELECT id FROM quarantine WHERE kind = ?1", -1, &statement, NULL) !=
        SQLITE_OK)
        return sqlite_fail(store, store->reader, err, "read the quarantine");
    sqlite3_bind_text(statement, 1, sqlite_tables[kind], -1, SQLITE_STATIC);
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        json_t *id = json_string((const char *)sqlite3_column_text(statement, 0));
        if (id)
            json_add(ids, id);
    }
    sqlite3_finalize(statement);
    if (rc != SQLITE_DONE)
        return sqlite_fail(store, store->reader, err, "read the quarantine");
    *ret_ids = TAKE_PTR(ids);
    return 0;
}
