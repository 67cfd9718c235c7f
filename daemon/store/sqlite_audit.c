/* The audit trail's end. Numbers and hashes are given in the transaction, on the one thread that writes: whatever fails, the chain
 * has neither a gap nor a fork. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/str.h"
#include "crypto/chain.h"
#include "store/sqlite.h"

static int unwritable(struct err *err)
{
    if (!err->reason[0]) /* a full disk is told as such */
        str_copy(err->reason, sizeof(err->reason), STORE_REASON_AUDIT);
    return -1;
}

/* What lies there is taken as it is: a record that was tampered with keeps the hash that it says, and audit-verify names it. */
static int find_end(struct sqlite_store *store, struct err *err)
{
    /* The number of one that could not be read and was put aside is never given again: its place stays empty, and audit-verify names it. */
    static const char sql[] = "SELECT max(coalesce((SELECT max(id) FROM audit), ''), coalesce((SELECT max(id) FROM quarantine WHERE kind = 'audit'), '')),"
                              " (SELECT doc FROM audit ORDER BY id DESC LIMIT 1)";
    sqlite3_stmt *statement = NULL;

    if (store->chain.known)
        return 0;
    if (sqlite3_prepare_v2(store->writer, sql, -1, &statement, NULL) != SQLITE_OK)
        return sqlite_fail(store, store->writer, err, "read the audit trail");
    int rc = sqlite3_step(statement);
    store->chain.seq = 0;
    strcpy(store->chain.hash, CHAIN_BEGIN);
    if (rc == SQLITE_ROW) {
        const char *doc = (const char *)sqlite3_column_text(statement, 1);
        store->chain.seq = strtoull((const char *)sqlite3_column_text(statement, 0), NULL, 10);
        if (doc)
            chain_holds(doc, store->chain.hash);
    }
    store->chain.known = rc == SQLITE_ROW || rc == SQLITE_DONE;
    sqlite3_finalize(statement);
    return store->chain.known ? 0 : sqlite_fail(store, store->writer, err, "read the audit trail");
}

static int run(const struct sqlite_store *store, sqlite3_stmt *statement, struct err *err)
{
    int result = sqlite3_step(statement) == SQLITE_DONE ? 0 : sqlite_fail(store, store->writer, err, "append to the audit trail");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return result;
}

static int insert(struct sqlite_store *store, const struct store_op *op, const char *record, struct err *err)
{
    static const char sql[] = "INSERT INTO audit (id, session_id, job_id, owner, state, operation, created_ms, expires_ms, hidden, doc)"
                              " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8)";
    sqlite3_stmt *statement = sqlite_statement(store, store->writer, &store->chain.insert, sql, err);
    char id[24];

    if (!statement)
        return -1;
    str_format(id, sizeof(id), "%016" PRIu64, store->chain.seq + 1);
    const char *const texts[] = {id, op->session_id, op->job_id, op->owner, op->state, op->operation};
    for (size_t i = 0; i < ELEMENTS(texts); i++)
        if (texts[i])
            sqlite3_bind_text(statement, (int)i + 1, texts[i], -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 7, op->created_ms);
    sqlite3_bind_text(statement, 8, record, -1, SQLITE_STATIC);
    return run(store, statement, err);
}

/* The intent has its outcome. */
static int close_intent(struct sqlite_store *store, const struct store_op *op, struct err *err)
{
    static const char sql[] = "UPDATE audit SET state = 'done' WHERE job_id = ?1 AND hidden = 0 AND state = 'open'";
    sqlite3_stmt *statement;

    if (str_eq(op->state, "open") || !op->job_id)
        return 0;
    statement = sqlite_statement(store, store->writer, &store->chain.close, sql, err);
    if (!statement)
        return -1;
    sqlite3_bind_text(statement, 1, op->job_id, -1, SQLITE_STATIC);
    return run(store, statement, err);
}

int sqlite_apply_audit(struct sqlite_store *store, struct store_op *op, struct err *err)
{
    struct err own, *told = err ? err : &own; /* of a group nobody asks: each batch is tried again alone */
    char hash[HASH_HEX_SIZE];

    if (fault("store.audit")) {
        err_set(told, (uint32_t)VSS_E_UNEXPECTED, NULL, "audit trail: fault injected");
        return unwritable(told);
    }
    if (find_end(store, told) != 0 || !op->doc)
        return unwritable(told);
    AUTO_FREE char *record = chain_record(store->chain.seq + 1, store->chain.hash, op->doc, hash);
    if (insert(store, op, record, told) != 0 || close_intent(store, op, told) != 0)
        return unwritable(told);
    store->chain.seq++;
    str_copy(store->chain.hash, sizeof(store->chain.hash), hash);
    return 0;
}
