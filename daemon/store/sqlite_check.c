/* Is the store sound? A small one is looked through before it is opened. A large one must not make the start wait: it is
 * looked through behind it, and what is found makes the next start look first. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "store/sqlite.h"

enum {
    CHECK_FIRST_MAX = 32 * 1024 * 1024, /* bytes: tenths of a second */
    STOP_EVERY = 10000,                 /* steps of SQLite's machine between two looks at whether to stop */
};

static char *suspect_path(const struct sqlite_store *store)
{
    return str_new("%s-suspect", store->path);
}

static void suspect_set(const struct sqlite_store *store)
{
    AUTO_FREE char *path = suspect_path(store);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    (void)fd; /* not made: the check behind the next start finds it again */
}

static int quick_check(const struct sqlite_store *store, sqlite3 *db, struct err *err)
{
    if (sqlite_pragma(store, db, "PRAGMA quick_check(1)", "ok", err) == 0)
        return 0;
    if (err)
        str_copy(err->hint, sizeof(err->hint),
                 "The store is damaged: put a copy of it in its place, or move it away to start anew.");
    return err_prefix(err, "the integrity check failed");
}

int sqlite_check_first(struct sqlite_store *store, struct err *err)
{
    AUTO_FREE char *suspect = suspect_path(store);
    struct stat file = {.st_size = 0};
    (void)stat(store->path, &file);
    if (file.st_size > CHECK_FIRST_MAX && access(suspect, F_OK) != 0) {
        store->check_is_due = true;
        return 0;
    }
    if (quick_check(store, store->writer, err) != 0)
        return -1;
    (void)unlink(suspect);
    return 0;
}

bool sqlite_check_due(void *state)
{
    const struct sqlite_store *store = state;
    return store->check_is_due;
}

static int is_stopped(void *arg)
{
    struct sqlite_store *store = arg;
    return atomic_load(&store->check_stopped);
}

static int look_for_bad_records(const struct sqlite_store *store, sqlite3 *db, struct err *err)
{
    AUTO_JSON json_t *bad = json_array();
    for (enum store_kind kind = 0; kind < STORE_KIND_COUNT; kind++)
        if (sqlite_bad_ids(store, db, kind, NULL, bad, err) != 0)
            return -1;
    size_t n = json_array_size(bad);
    const json_t *first = json_array_get(bad, 0);
    if (n == 0)
        return 0;
    return err_set(err, (uint32_t)VSS_E_UNEXPECTED, "Restart the daemon: it moves them aside, to the table quarantine.",
                   "store %s: %zu damaged records, the first of them %s in %s", store->path, n, json_str(first, "id", ""),
                   json_str(first, "kind", ""));
}

/* On a thread of its own, with a connection of its own. */
enum store_check sqlite_check(void *state, struct err *err)
{
    struct sqlite_store *store = state;
    sqlite3 *db = NULL;
    enum store_check found = STORE_CHECK_SOUND;
    if (sqlite3_open_v2(store->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, NULL) ==
        SQLITE_OK) {
        sqlite3_progress_handler(db, STOP_EVERY, is_stopped, store);
        if (quick_check(store, db, err) != 0)
            found = STORE_CHECK_DAMAGED;
        else if (look_for_bad_records(store, db, err) != 0)
            found = STORE_CHECK_RECORDS;
    }
    sqlite3_close(db);
    if (is_stopped(store))
        return STORE_CHECK_SOUND; /* whatever it says is that it was interrupted */
    if (found != STORE_CHECK_SOUND)
        suspect_set(store);
    return found;
}

void sqlite_check_stop(void *state)
{
    struct sqlite_store *store = state;
    atomic_store(&store->check_stopped, true);
}
