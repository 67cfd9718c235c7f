#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "store/sqlite.h"

enum { BUSY_MS = 5000 }; /* for an administrator's sqlite3 that holds a lock for a moment */

/* The directory and the file are made readable for their owner only; SQLite gives -wal and -shm the same mode. */
static int files_prepare(struct sqlite_store *store, const char *directory, struct err *err)
{
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errno, NULL, "store: cannot create the directory %s",
                         directory);
    AUTO_FREE char *lock_path = str_new("%s/lock", directory);
    store->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock_fd < 0)
        return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errno,
                         "Let the user of the daemon write the store's directory and files.", "store: cannot open %s",
                         lock_path);
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errno,
                         "Stop the other daemon, or name another state directory.", "store %s: is in use", directory);
    AUTO_FD int fd = open(store->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errno,
                         "Let the user of the daemon write the store's directory and files.",
                         "store: cannot open %s for writing", store->path);
    return 0;
}

static int connection_open(struct sqlite_store *store, sqlite3 **slot, struct err *err)
{
    /* NOMUTEX: each connection is used by one thread only. */
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
    if (sqlite3_open_v2(store->path, slot, flags, NULL) != SQLITE_OK)
        return sqlite_fail(store, *slot, err, "open it");
    sqlite3_busy_timeout(*slot, BUSY_MS);
    sqlite3_db_config(*slot, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(*slot, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    if (sqlite3_db_readonly(*slot, "main") == 1)
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED,
                       "Let the user of the daemon write the store's directory and files.", "store %s: is read-only",
                       store->path);
    return 0;
}

int sqlite_pragma(const struct sqlite_store *store, sqlite3 *db, const char *sql, const char *expected,
                  struct err *err)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        return sqlite_fail(store, db, err, "read it");
    int rc = sqlite3_step(statement);
    const char *answer = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    int result = 0;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        result = sqlite_fail(store, db, err, "read it");
    else if (expected && !str_eq(answer, expected))
        result = err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store %s: %s answers \"%s\" instead of \"%s\"",
                         store->path, sql, answer ? answer : "", expected);
    sqlite3_finalize(statement);
    return result;
}

static int connections_open(struct sqlite_store *store, struct err *err)
{
    if (connection_open(store, &store->writer, err) != 0 || sqlite_check_first(store, err) != 0 ||
        sqlite_migrate_all(store, err) != 0 ||
        sqlite_pragma(store, store->writer, "PRAGMA journal_mode = WAL", "wal", err) != 0 ||
        sqlite_pragma(store, store->writer, "PRAGMA synchronous = FULL", NULL, err) != 0 ||
        sqlite_pragma(store, store->writer, "PRAGMA journal_size_limit = 67108864", NULL, err) != 0)
        return -1;
    if (connection_open(store, &store->reader, err) != 0 ||
        sqlite_pragma(store, store->reader, "PRAGMA query_only = 1", NULL, err) != 0)
        return -1;
    return 0;
}

void *sqlite_store_open(const char *directory, struct err *err)
{
    if (!directory || !*directory) {
        err_set(err, (uint32_t)E_INVALIDARG, NULL, "store: no directory is given");
        return NULL;
    }
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* its counters take one lock for all threads; refused once in use */
    struct sqlite_store *store = mem_new(sizeof(*store));
    store->path = str_new("%s/quiesced.db", directory);
    store->lock_fd = -1;
    if (files_prepare(store, directory, err) != 0 || connections_open(store, err) != 0) {
        sqlite_store_close(store);
        return NULL;
    }
    return store;
}

void sqlite_store_close(void *state)
{
    struct sqlite_store *store = state;
    for (size_t kind = 0; kind < STORE_KIND_COUNT; kind++) {
        sqlite3_finalize(store->get[kind]);
        sqlite3_finalize(store->put[kind]);
        sqlite3_finalize(store->remove[kind]);
        for (size_t i = 0; i < SQLITE_LISTS; i++)
            sqlite3_finalize(store->list[kind][i]);
    }
    sqlite3_finalize(store->events);
    sqlite3_finalize(store->events_of_job);
    sqlite3_finalize(store->events_span);
    sqlite3_finalize(store->event);
    sqlite3_finalize(store->chain.insert);
    sqlite3_finalize(store->chain.close);
    sqlite3_close(store->reader);
    sqlite3_close(store->writer); /* the last one folds the WAL into the file */
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store->path);
    free(store);
}
