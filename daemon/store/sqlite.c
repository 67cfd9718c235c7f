/* The embedded store: one file, WAL, every commit synced. */
#include "store/sqlite.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/str.h"

const struct store_backend store_sqlite = {
    .open = sqlite_store_open,
    .close = sqlite_store_close,
    .commit = sqlite_commit,
    .get = sqlite_get,
    .list = sqlite_list,
    .events = sqlite_events,
    .quarantine = sqlite_quarantine,
    .quarantined = sqlite_quarantined,
    .check_due = sqlite_check_due,
    .check = sqlite_check,
    .check_stop = sqlite_check_stop,
};

const char *const sqlite_tables[STORE_KIND_COUNT] = {
    [STORE_SESSION] = "sessions", [STORE_JOB] = "jobs",                [STORE_SNAPSHOT] = "snapshots",
    [STORE_BACKUP] = "backups",   [STORE_REPOSITORY] = "repositories", [STORE_ERROR_ROW] = "errors",
    [STORE_TOKEN] = "tokens",     [STORE_CERTIFICATE] = "certificates", [STORE_ENROLMENT] = "enrolments",
    [STORE_IDEMPOTENCY] = "idempotency",
    [STORE_SUCCESS] = "successes",
    [STORE_LOGIN] = "logins",
    [STORE_WEBHOOK] = "webhooks", [STORE_DELIVERY] = "deliveries",
    [STORE_LINK] = "links",
    [STORE_MARK] = "repository_marks",
    [STORE_AUDIT] = "audit",
    [STORE_SEAL] = "seals",
};

const char *sqlite_rest_column(enum store_kind kind)
{
    return kind == STORE_SESSION || kind == STORE_BACKUP ? "rest" : "NULL";
}

/* Causes that people can do something about. */
static const struct cause_row {
    int code;
    enum hresult hr;
    const char *hint;
} cause_rows[] = {
    {SQLITE_READONLY, VSS_E_UNEXPECTED, "Let the user of the daemon write the store's directory and files."},
    {SQLITE_CANTOPEN, VSS_E_UNEXPECTED, "Let the user of the daemon write the store's directory and files."},
    {SQLITE_PERM, VSS_E_UNEXPECTED, "Let the user of the daemon write the store's directory and files."},
    {SQLITE_CORRUPT, VSS_E_UNEXPECTED,
     "The store is damaged: put a copy of it in its place, or move it away to start anew."},
    {SQLITE_NOTADB, VSS_E_UNEXPECTED, "This is no store: move it away, or name another state directory."},
    {SQLITE_BUSY, VSS_E_UNEXPECTED, "Another program has the store open."},
};

/* The index of the WAL is grown by ftruncate: that failure is no SQLITE_FULL. */
static bool is_full(sqlite3 *db, int code)
{
    int cause = db ? sqlite3_system_errno(db) : 0;
    return code == SQLITE_FULL || (code == SQLITE_IOERR && (cause == ENOSPC || cause == EDQUOT));
}

int sqlite_fail(const struct sqlite_store *store, sqlite3 *db, struct err *err, const char *what)
{
    int code = db ? sqlite3_errcode(db) & 0xff : SQLITE_NOMEM;
    const char *cause = db ? sqlite3_errmsg(db) : "out of memory";
    if (is_full(db, code)) {
        err_set(err, (uint32_t)VSS_E_UNEXPECTED, "Free space on the file system of the store; it goes on by itself then.",
                "store %s: cannot %s: its file system is full", store->path, what);
        if (err)
            str_copy(err->reason, sizeof(err->reason), STORE_REASON_FULL);
        return -1;
    }
    for (size_t i = 0; i < ELEMENTS(cause_rows); i++)
        if (cause_rows[i].code == code)
            return err_set(err, (uint32_t)cause_rows[i].hr, cause_rows[i].hint, "store %s: cannot %s: %s", store->path,
                           what, cause);
    return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store %s: cannot %s: %s", store->path, what, cause);
}

void sqlite_statement_release(sqlite3_stmt **statement)
{
    if (*statement) {
        sqlite3_reset(*statement);
        sqlite3_clear_bindings(*statement);
    }
}

sqlite3_stmt *sqlite_statement(const struct sqlite_store *store, sqlite3 *db, sqlite3_stmt **slot, const char *sql,
                               struct err *err)
{
    if (!*slot && sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL) != SQLITE_OK)
        sqlite_fail(store, db, err, "prepare a statement");
    return *slot;
}
