/* The embedded store: one file, WAL, every commit synced. */
#include "store/sqlite.h"

#include "base/cleanup.h"

const struct store_backend store_sqlite = {
    .open = sqlite_store_open,
    .close = sqlite_store_close,
    .commit = sqlite_commit,
    .get = sqlite_get,
    .list = sqlite_list,
    .events = sqlite_events,
};

const char *const sqlite_tables[STORE_KIND_COUNT] = {
    [STORE_SESSION] = "sessions", [STORE_JOB] = "jobs",                [STORE_SNAPSHOT] = "snapshots",
    [STORE_BACKUP] = "backups",   [STORE_REPOSITORY] = "repositories", [STORE_ERROR_ROW] = "errors",
};

/* Causes that people can do something about. */
static const struct cause_row {
    int code;
    enum hresult hr;
    const char *hint;
} cause_rows[] = {
    {SQLITE_FULL, VSS_E_INSUFFICIENT_STORAGE, "Free space on the file system of the store."},
    {SQLITE_READONLY, VSS_E_UNEXPECTED, "Let the user of the daemon write the store's directory and files."},
    {SQLITE_CANTOPEN, VSS_E_UNEXPECTED, "Let the user of the daemon write the store's directory and files."},
    {SQLITE_PERM, VSS_E_UNEXPECTED, "Let the user of the daemon write the store's directory and files."},
    {SQLITE_CORRUPT, VSS_E_UNEXPECTED,
     "The store is damaged: put a copy of it in its place, or move it away to start anew."},
    {SQLITE_NOTADB, VSS_E_UNEXPECTED, "This is no store: move it away, or name another state directory."},
    {SQLITE_BUSY, VSS_E_UNEXPECTED, "Another program has the store open."},
};

int sqlite_fail(const struct sqlite_store *store, sqlite3 *db, struct err *err, const char *what)
{
    int code = db ? sqlite3_errcode(db) & 0xff : SQLITE_NOMEM;
    const char *cause = db ? sqlite3_errmsg(db) : "out of memory";
    for (size_t i = 0; i < ELEMENTS(cause_rows); i++)
        if (cause_rows[i].code == code)
            return err_set(err, (uint32_t)cause_rows[i].hr, cause_rows[i].hint, "store %s: cannot %s: %s", store->path,
                           what, cause);
    return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store %s: cannot %s: %s", store->path, what, cause);
}

sqlite3_stmt *sqlite_statement(const struct sqlite_store *store, sqlite3 *db, sqlite3_stmt **slot, const char *sql,
                               struct err *err)
{
    if (!*slot && sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL) != SQLITE_OK)
        sqlite_fail(store, db, err, "prepare a statement");
    return *slot;
}
