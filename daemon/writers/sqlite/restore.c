#include "writers/sqlite/restore.h"

#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "writers/inplace/target.h"
#include "writers/writer.h"

enum {
    PAGES_PER_STEP = 2000, /* between two looks at the clock; the write lock is held from the first to the last */
    BUSY_SLEEP_MS = 1,     /* as often as SQLite's own busy_timeout at most */
};

/* Never -shm: it is rebuilt from the WAL. */
static const char *const suffixes[] = {"", "-wal", "-journal"};

static void sqlite_close_cleanup(sqlite3 **db)
{
    sqlite3_close(*db);
}

static const char *name_of(const char *path)
{
    return strrchr(path, '/') + 1;
}

/* --- begin and drop --- */

/* The first file set's, which is the database itself. */
static const char *new_target(const json_t *component, const char *name)
{
    size_t i;
    const json_t *target;
    json_array_foreach(json_object_get(component, "new_targets"), i, target) if (str_eq(json_str(target, "spec", NULL), name))
        return json_str(target, "new_path", NULL);
    return NULL;
}

static void add_targets(const char *path, const char *directory, json_t *answer)
{
    json_t *targets = json_array();
    for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
        AUTO_FREE char *from = str_new("%s%s", path, suffixes[i]);
        AUTO_FREE char *to = str_new("%s/%s%s", directory, name_of(path), suffixes[i]);
        json_t *target = json_object();
        json_put(target, "path", json_text(from));
        json_put(target, "new_path", json_text(to));
        json_add(targets, target);
    }
    json_put(answer, "restore_target", json_string("directed"));
    json_put(answer, "directed_targets", targets);
}

/* Files would be moved over the living database's, beneath the application that has it open. */
static int check_target(const char *path, const char *target, struct err *err)
{
    struct stat living, there;
    AUTO_FREE char *file = str_new("%s/%s", target, name_of(path));
    AUTO_FREE char *real = target_resolved(file);
    AUTO_FREE char *own = target_resolved(path);
    bool same = str_eq(real, own) || (stat(path, &living) == 0 && stat(file, &there) == 0 &&
                                      living.st_dev == there.st_dev && living.st_ino == there.st_ino);
    return same ? err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                          "Give no new target: then its content is restored in its place. Or give another one.",
                          "database %s: lives in the new target %s", path, target)
                : 0;
}

int sqlite_restore_begin(struct sqlite_restore *restore, const char *path, const json_t *component, json_t *ret_answer,
                         struct err *err)
{
    bool elsewhere = json_array_size(json_object_get(component, "new_targets")) > 0;
    if (json_bool(component, "additional_restores", false))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Restore full backups, without additional restores.",
                       "database %s: no restore can follow another one", path);
    if (restore->directory && (restore->elsewhere || elsewhere))
        sqlite_restore_drop(restore); /* asked for anew, and something else perhaps */
    if (elsewhere) {
        const char *target = new_target(component, name_of(path));
        if (!target)
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Give all three file sets the same new target.",
                           "database %s: its file has no new target, and its journals have", path);
        if (check_target(path, target, err) != 0)
            return -1;
        restore->directory = str_dup(target);
        restore->elsewhere = true;
        return 0;
    }
    if (restore->directory) { /* a PreRestore that failed, of another writer perhaps, is repeated */
        add_targets(path, restore->directory, ret_answer);
        return 0;
    }
    AUTO_FREE char *directory =
        str_new("%.*s/.quiesced-incoming-XXXXXX", (int)(name_of(path) - 1 - path), path);
    if (!mkdtemp(directory))
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno,
                         "The writer's user must be able to write beside the database, as SQLite itself must.", "%s",
                         directory);
    restore->directory = TAKE_PTR(directory);
    add_targets(path, restore->directory, ret_answer);
    return 0;
}

void sqlite_restore_drop(struct sqlite_restore *restore)
{
    DIR *dir = restore->directory && !restore->elsewhere ? opendir(restore->directory) : NULL;
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir) {
        closedir(dir);
        if (rmdir(restore->directory) != 0)
            log_line(LOG_LEVEL_WARNING, &(struct log_context){.writer = "sqlite"}, "%s could not be removed: %s",
                     restore->directory, strerror(errno));
    }
    free(restore->directory);
    *restore = (struct sqlite_restore){0};
}

/* --- SQLite --- */

static int failed(struct err *err, sqlite3 *db, const char *path, const char *doing)
{
    int code = sqlite3_errcode(db) & 0xff;
    bool again = code == SQLITE_BUSY || code == SQLITE_LOCKED;
    return err_set(err, again ? VSS_E_WRITERERROR_RETRYABLE : VSS_E_WRITERERROR_NONRETRYABLE,
                   again ? "Others use the database: end their transactions, or raise the deadline." : NULL,
                   "database %s: %s: %s", path, doing, sqlite3_errmsg(db));
}

struct patience {
    int64_t give_up_ms;
};

static int busy(void *arg, int tries)
{
    const struct patience *patience = arg;
    (void)tries;
    if (clock_mono_ms() >= patience->give_up_ms || writer_abandoned())
        return 0;
    nanosleep(&(struct timespec){.tv_nsec = BUSY_SLEEP_MS * 1000000L}, NULL);
    return 1;
}

/* A check that reads a whole database must end in time too. */
static int progress(void *arg)
{
    const struct patience *patience = arg;
    return clock_mono_ms() >= patience->give_up_ms || writer_abandoned();
}

static int open_database(const char *path, int flags, struct patience *patience, sqlite3 **ret, struct err *err)
{
    int result = sqlite3_open_v2(path, ret, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | flags, NULL);
    if (result != SQLITE_OK)
        return *ret ? failed(err, *ret, path, "cannot open") : err_set(err, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL, "%s", path);
    sqlite3_busy_handler(*ret, busy, patience);
    sqlite3_progress_handler(*ret, 100000, progress, patience);
    return 0;
}

static int first_value(sqlite3 *db, const char *path, const char *sql, char ret[256], struct err *err)
{
    sqlite3_stmt *statement = NULL;
    bool got = sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    str_copy(ret, 256, got && sqlite3_column_text(statement, 0) ? (const char *)sqlite3_column_text(statement, 0) : "");
    int result = got ? 0 : failed(err, db, path, sql);
    sqlite3_finalize(statement);
    return result;
}

static int check_sound(sqlite3 *db, const char *path, struct err *err)
{
    char found[256];
    if (first_value(db, path, "PRAGMA integrity_check(1)", found, err) != 0)
        return -1;
    return str_eq(found, "ok") ? 0
                               : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "database %s: integrity_check: %s", path, found);
}

/* The numbers that the writer noted under its hold: a WAL that is missing or cut off would show the database of before. */
static int check_facts(sqlite3 *db, const char *path, const json_t *component, struct err *err)
{
    static const char *const names[] = {"page_count", "schema_version"};
    const char *text = json_str(component, "backup_metadata", NULL);
    struct err ignored = {0};
    AUTO_JSON json_t *facts = text ? json_parse_strict(text, strlen(text), 8, &ignored) : NULL;
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        char found[256];
        int64_t noted = json_int(facts, names[i], -1), value;
        AUTO_FREE char *sql = str_new("PRAGMA %s", names[i]);
        if (first_value(db, path, sql, found, err) != 0)
            return -1;
        if (noted >= 0 && (!str_to_int(found, INT64_MIN, INT64_MAX, &value) || value != noted))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "The files were not all restored.",
                           "database %s: its %s is %s, and was %lld in the backup", path, names[i], found, (long long)noted);
    }
    return 0;
}

/* Opening it also does what SQLite does after a crash: a WAL or hot journal is taken in. */
static int open_copy(const char *copy, const json_t *component, struct patience *patience, sqlite3 **ret, struct err *err)
{
    if (open_database(copy, 0, patience, ret, err) != 0 || check_sound(*ret, copy, err) != 0)
        return -1;
    return check_facts(*ret, copy, component, err);
}

/* --- the content, in one transaction --- */

static int copy_pages(sqlite3 *from, sqlite3 *to, const char *path, struct patience *patience, struct err *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    if (!backup)
        return failed(err, to, path, "cannot be written");
    int result;
    do
        result = sqlite3_backup_step(backup, PAGES_PER_STEP);
    while (result == SQLITE_OK ? !progress(patience) : (result == SQLITE_BUSY || result == SQLITE_LOCKED) && busy(patience, 0));
    int ended = sqlite3_backup_finish(backup); /* rolls back what is not done */
    if (result == SQLITE_DONE && ended == SQLITE_OK)
        return 0;
    if (result == SQLITE_OK)
        return err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Raise limits.writer_seconds.post_restore.",
                       "database %s: its content could not be written in time", path);
    if (result == SQLITE_BUSY || result == SQLITE_LOCKED)
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "End the application's transactions, or raise the deadline.",
                       "database %s: others held it until the deadline", path);
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "database %s: its content cannot be written: %s", path,
                   sqlite3_errstr(result == SQLITE_DONE ? ended : result));
}

/* A WAL database keeps its page size, and SQLite refuses another one: it must leave WAL mode, which needs it for itself. */
static int same_page_size(sqlite3 *from, sqlite3 *to, const char *path, struct err *err)
{
    char theirs[256], ours[256], mode[256];
    if (first_value(from, path, "PRAGMA page_size", theirs, err) != 0 || first_value(to, path, "PRAGMA page_size", ours, err) != 0 ||
        first_value(to, path, "PRAGMA journal_mode", mode, err) != 0)
        return -1;
    if (str_eq(theirs, ours) || !str_eq(mode, "wal"))
        return 0;
    if (first_value(to, path, "PRAGMA journal_mode = DELETE", mode, err) == 0 && str_eq(mode, "delete"))
        return 0;
    return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Stop the application for the restore.",
                   "database %s: has pages of %s bytes and the backup of %s, and others have it open", path, ours, theirs);
}

/* 1: there is no database that could take the content. */
static int replace_content(sqlite3 *copy, const char *path, struct patience *patience, struct err *err)
{
    CLEANUP(sqlite_close_cleanup) sqlite3 *db = NULL;
    char ignored[256];
    struct err why = {0};
    if (access(path, F_OK) != 0)
        return 1;
    if (open_database(path, 0, patience, &db, &why) != 0 || first_value(db, path, "PRAGMA schema_version", ignored, &why) != 0) {
        int code = db ? sqlite3_errcode(db) & 0xff : SQLITE_NOMEM;
        if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
            return 1;
        *err = why;
        return -1;
    }
    if (same_page_size(copy, db, path, err) != 0 || copy_pages(copy, db, path, patience, err) != 0)
        return -1;
    return check_sound(db, path, err);
}

/* --- the file, when what is there is no database --- */

static void with_suffix(const char *path, const char *suffix, const char *end, char ret[PATH_MAX])
{
    str_format(ret, PATH_MAX, "%s%s%s", path, suffix, end);
}

static int move_old_aside(const char *path, const char *end, struct err *err)
{
    static const char *const all[] = {"", "-wal", "-shm", "-journal"};
    char from[PATH_MAX], to[PATH_MAX];
    for (size_t i = 0; i < ELEMENTS(all); i++) {
        with_suffix(path, all[i], "", from);
        with_suffix(path, all[i], end, to);
        if (rename(from, to) != 0 && errno != ENOENT)
            return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s cannot be moved aside", from);
    }
    return 0;
}

/* Journals of the old file must never lie beside the new one: they go first. */
static int replace_file(const char *copy, const char *path, struct err *err)
{
    AUTO_FREE char *end = str_new(".before-restore-%lld", (long long)(clock_real_ms() / 1000));
    bool was_there = access(path, F_OK) == 0;
    struct stat old;
    if (was_there && stat(path, &old) == 0 && chmod(copy, old.st_mode & 07777) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s", copy);
    if (move_old_aside(path, end, err) != 0)
        return -1;
    if (rename(copy, path) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s: the old file lies in %s%s", path, path, end);
    if (was_there)
        log_line(LOG_LEVEL_WARNING, &(struct log_context){.writer = "sqlite"},
                 "%s was no database: it lies in %s%s now, and whoever has it open must open it anew", path, path, end);
    return 0;
}

/* Everything into the one file, which then needs no journal beside it. */
static int settle(sqlite3 *copy, const char *path, struct err *err)
{
    char ignored[256];
    return first_value(copy, path, "PRAGMA wal_checkpoint(TRUNCATE)", ignored, err);
}

/* --- end --- */

static int bring_in(const struct sqlite_restore *restore, const char *path, const json_t *component, struct patience *patience,
                    struct err *err)
{
    CLEANUP(sqlite_close_cleanup) sqlite3 *copy = NULL;
    AUTO_FREE char *file = str_new("%s/%s", restore->directory, name_of(path));
    if (open_copy(file, component, patience, &copy, err) != 0)
        return -1;
    if (restore->elsewhere)
        return 0;
    int result = replace_content(copy, path, patience, err);
    if (result <= 0)
        return result;
    if (settle(copy, file, err) != 0)
        return -1;
    sqlite3_close(copy);
    copy = NULL;
    return replace_file(file, path, err);
}

int sqlite_restore_end(struct sqlite_restore *restore, const char *path, const json_t *component, int64_t give_up_ms,
                       struct err *err)
{
    struct patience patience = {.give_up_ms = give_up_ms};
    bool all = str_eq(json_str(component, "file_restore_status", "none"), "all");
    if (!restore->directory)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "database %s: post_restore came without pre_restore", path);
    int result = all ? bring_in(restore, path, component, &patience, err) : 0;
    sqlite_restore_drop(restore);
    return result;
}
