#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "model/job_model.h"
#include "store/sqlite.h"

enum {
    EXPIRE_AT_ONCE = 1000 /* rows in one commit: whoever waits for the next one waits some milliseconds, not minutes */
};

static int bind_text(sqlite3_stmt *statement, int parameter, const char *text)
{
    return text ? sqlite3_bind_text(statement, parameter, text, -1, SQLITE_STATIC)
                : sqlite3_bind_null(statement, parameter);
}

static int run(const struct sqlite_store *store, sqlite3_stmt *statement, struct err *err)
{
    int result = sqlite3_step(statement) == SQLITE_DONE ? 0 : sqlite_fail(store, store->writer, err, "change it");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return result;
}

static int apply_put(struct sqlite_store *store, struct store_op *op, struct err *err)
{
    char sql[768];
    bool apart = str_eq(sqlite_rest_column(op->kind), "rest");
    if (op->rest && !apart)
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store: records of %s have no rest", sqlite_tables[op->kind]);
    /* An update in place touches only the indexes whose columns change. */
    str_format(sql, sizeof(sql),
               "INSERT INTO %s (id, session_id, job_id, owner, state, operation, created_ms, expires_ms, hidden, doc%s)"
               " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10%s) ON CONFLICT (id) DO UPDATE SET"
               " session_id = ?2, job_id = ?3, owner = ?4, state = ?5, operation = ?6, created_ms = ?7,"
               " expires_ms = ?8, hidden = ?9, doc = ?10%s",
               sqlite_tables[op->kind], apart ? ", rest" : "", apart ? ", ?11" : "", apart ? ", rest = ?11" : "");
    sqlite3_stmt *statement = sqlite_statement(store, store->writer, &store->put[op->kind], sql, err);
    if (!statement)
        return -1;
    const char *const texts[] = {op->id, op->session_id, op->job_id, op->owner, op->state, op->operation};
    for (size_t i = 0; i < ELEMENTS(texts); i++)
        bind_text(statement, (int)i + 1, texts[i]);
    sqlite3_bind_int64(statement, 7, op->created_ms);
    sqlite3_bind_int64(statement, 8, op->expires_ms);
    sqlite3_bind_int(statement, 9, op->hidden);
    bind_text(statement, 10, op->doc);
    if (apart)
        bind_text(statement, 11, op->rest);
    return run(store, statement, err);
}

static int apply_delete(struct sqlite_store *store, struct store_op *op, struct err *err)
{
    char sql[128];
    str_format(sql, sizeof(sql), "DELETE FROM %s WHERE id = ?1", sqlite_tables[op->kind]);
    sqlite3_stmt *statement = sqlite_statement(store, store->writer, &store->remove[op->kind], sql, err);
    if (!statement)
        return -1;
    bind_text(statement, 1, op->id);
    return run(store, statement, err);
}

static int apply_event(struct sqlite_store *store, struct store_op *op, struct err *err)
{
    static const char sql[] = "INSERT INTO events (at_ms, type, session_id, job_id, owner, data)"
                              " VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    op->event_id = 0;
    if (op->if_deleted && sqlite3_changes(store->writer) == 0)
        return 0;
    sqlite3_stmt *statement = sqlite_statement(store, store->writer, &store->event, sql, err);
    if (!statement)
        return -1;
    sqlite3_bind_int64(statement, 1, op->created_ms);
    bind_text(statement, 2, op->operation);
    bind_text(statement, 3, op->session_id);
    bind_text(statement, 4, op->job_id);
    bind_text(statement, 5, op->owner);
    bind_text(statement, 6, op->doc);
    int result = run(store, statement, err);
    op->event_id = sqlite3_last_insert_rowid(store->writer);
    return result;
}

/* Deletes at most EXPIRE_AT_ONCE rows. Rare enough to be prepared each time. */
static int expire_some(const struct sqlite_store *store, struct store_op *op, const char *sql, int64_t number, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(store->writer, sql, -1, &statement, NULL) != SQLITE_OK)
        return sqlite_fail(store, store->writer, err, "change it");
    sqlite3_bind_int64(statement, 1, number);
    sqlite3_bind_int(statement, 2, EXPIRE_AT_ONCE);
    int result = run(store, statement, err);
    op->more = op->more || (result == 0 && sqlite3_changes(store->writer) == EXPIRE_AT_ONCE);
    sqlite3_finalize(statement);
    return result;
}

/* The newest keep_at_most terminal jobs stay; a job that still runs is never dropped. The distance of the row numbers
 * tells, without a count, that there cannot be more. */
static int drop_surplus_jobs(const struct sqlite_store *store, struct store_op *op, struct err *err)
{
    char states[256] = "";
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        if (job_state_terminal((enum job_state)i)) {
            size_t used = strlen(states);
            str_format(states + used, sizeof(states) - used, "%s'%s'", used ? ", " : "",
                       job_state_name((enum job_state)i));
        }
    char sql[512];
    str_format(sql, sizeof(sql),
               "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state IN (%s)"
               " ORDER BY id DESC LIMIT CASE WHEN (SELECT max(rowid) FROM jobs) - (SELECT min(rowid) FROM jobs) >= ?1"
               " THEN ?2 ELSE 0 END OFFSET ?1)",
               states);
    return expire_some(store, op, sql, op->keep_at_most, err);
}

static int apply_expire(struct sqlite_store *store, struct store_op *op, struct err *err)
{
    char expired[192];
    str_format(expired, sizeof(expired),
               "DELETE FROM %s WHERE id IN (SELECT id FROM %s WHERE expires_ms > 0 AND expires_ms <= ?1 LIMIT ?2)",
               sqlite_tables[op->kind], sqlite_tables[op->kind]);
    if (expire_some(store, op, expired, op->created_ms, err) != 0)
        return -1;
    return op->kind == STORE_JOB && op->keep_at_most > 0 ? drop_surplus_jobs(store, op, err) : 0;
}

/* Ids go with time: the oldest ones are looked at, and no others. */
static int apply_expire_events(struct sqlite_store *store, struct store_op *op, struct err *err)
{
    static const char surplus[] =
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= (SELECT max(id) FROM events) - ?1 ORDER BY id LIMIT ?2)";
    static const char old[] =
        "DELETE FROM events WHERE id IN (SELECT id FROM (SELECT id, at_ms FROM events ORDER BY id LIMIT ?2) WHERE at_ms < ?1)";
    if (expire_some(store, op, surplus, op->keep_at_most, err) != 0)
        return -1;
    return expire_some(store, op, old, op->created_ms, err);
}

static int (*const appliers[])(struct sqlite_store *store, struct store_op *op, struct err *err) = {
    [STORE_OP_PUT] = apply_put,
    [STORE_OP_DELETE] = apply_delete,
    [STORE_OP_EVENT] = apply_event,
    [STORE_OP_EXPIRE] = apply_expire,
    [STORE_OP_EXPIRE_EVENTS] = apply_expire_events,
    [STORE_OP_AUDIT] = sqlite_apply_audit,
};

static int execute(const struct sqlite_store *store, const char *sql, const char *what, struct err *err)
{
    return sqlite3_exec(store->writer, sql, NULL, NULL, NULL) == SQLITE_OK
               ? 0
               : sqlite_fail(store, store->writer, err, what);
}

static int apply_batches(struct sqlite_store *store, struct store_batch *const *batches, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < batches[i]->n_ops; k++)
            if (appliers[batches[i]->ops[k].op](store, &batches[i]->ops[k], err) != 0)
                return -1;
    return 0;
}

static int transaction(struct sqlite_store *store, struct store_batch *const *batches, size_t n, struct err *err)
{
    if (execute(store, "BEGIN IMMEDIATE", "begin a transaction", err) != 0)
        return -1;
    if (apply_batches(store, batches, n, err) == 0 && execute(store, "COMMIT", "commit", err) == 0)
        return 0;
    store->chain.known = false;
    if (!sqlite3_get_autocommit(store->writer)) /* some failures have already rolled it back */
        sqlite3_exec(store->writer, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}

void sqlite_commit(void *state, struct store_batch *const *batches, size_t n)
{
    struct sqlite_store *store = state;
    if (transaction(store, batches, n, n == 1 ? &batches[0]->err : NULL) == 0)
        return;
    if (n == 1) {
        batches[0]->failed = true;
        return;
    }
    /* One of them is bad: its neighbours must not suffer. */
    for (size_t i = 0; i < n; i++)
        batches[i]->failed = transaction(store, &batches[i], 1, &batches[i]->err) != 0;
}
