/* The SQLite writer: BEGIN IMMEDIATE on every selected database from freeze to thaw. The lock is a POSIX record lock,
 * so a dead process holds nothing. For the same reason nobody here may open a database file but SQLite itself: closing
 * any other descriptor of it drops the process's locks (sqlite.org/howtocorrupt.html, 2.2). */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/sqlite/restore.h"
#include "writers/writer.h"

enum {
    FREEZE_TIMEOUT_MS = 60 * 1000, /* VSS: a writer holds 60 seconds at most */
    BUSY_SLEEP_US =
        300, /* shorter than any pause of SQLite's own busy_timeout (1 ms and more), so that we win the race */
};

struct database {
    char *configured;
    char path[PATH_MAX];
    char name[NAME_MAX + 16]; /* the component */
    sqlite3 *db;
    bool selected;
    bool held;
    bool done; /* was held from freeze to thaw without a break */
    char journal_mode[16];
    int64_t page_count;
    int64_t schema_version;
    struct sqlite_restore restore;
    char stamp[CLOCK_RFC3339_SIZE];
};

struct sqlite_state {
    char *name;
    struct database *databases; /* ordered by configured path, so that two writers never wait crosswise */
    size_t n;
    int64_t freeze_timeout_ms;
    int64_t give_up_ms; /* of the event in hand */
};

static int busy(void *arg, int tries)
{
    (void)tries;
    const struct sqlite_state *state = arg;
    if (clock_mono_ms() >= state->give_up_ms || writer_abandoned())
        return 0;
    nanosleep(&(struct timespec){.tv_nsec = BUSY_SLEEP_US * 1000L}, NULL);
    return 1;
}

static int sqlite_err(struct err *err, const struct database *database, const char *doing)
{
    static const struct {
        int code;
        uint32_t hr;
        const char *hint;
    } rows[] = {
        {SQLITE_BUSY, VSS_E_WRITERERROR_RETRYABLE,
         "Other writers held the lock until the deadline: raise it, or lower the load."},
        {SQLITE_NOTADB, VSS_E_WRITERERROR_NONRETRYABLE, "Name only SQLite databases; an encrypted one cannot be read."},
        {SQLITE_CORRUPT, VSS_E_WRITERERROR_NONRETRYABLE, "Check it with PRAGMA integrity_check."},
        {SQLITE_CANTOPEN, VSS_E_WRITERERROR_NONRETRYABLE, "Set the writer's user to the database's owner."},
        {SQLITE_READONLY, VSS_E_WRITERERROR_NONRETRYABLE, "Set the writer's user to the database's owner."},
        {SQLITE_PERM, VSS_E_WRITERERROR_NONRETRYABLE, "Set the writer's user to the database's owner."},
        {SQLITE_NOMEM, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL},
        {SQLITE_FULL, VSS_E_WRITERERROR_OUTOFRESOURCES, "The file system is full."},
    };
    int code = sqlite3_errcode(database->db) & 0xff;
    uint32_t hr = VSS_E_WRITERERROR_RETRYABLE;
    const char *hint = NULL;
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (rows[i].code == code) {
            hr = rows[i].hr;
            hint = rows[i].hint;
        }
    return err_set(err, hr, hint, "database %s: %s: %s", database->path, doing, sqlite3_errmsg(database->db));
}

static void database_release(struct database *database)
{
    if (database->db && !sqlite3_get_autocommit(database->db))
        sqlite3_exec(database->db, "ROLLBACK", NULL, NULL, NULL);
    database->held = false;
}

static void database_close(struct database *database)
{
    database_release(database);
    sqlite3_close(database->db);
    database->db = NULL;
    database->selected = false;
    database->done = false;
}

static void release_all(struct sqlite_state *state)
{
    for (size_t i = 0; i < state->n; i++)
        database_release(&state->databases[i]);
}

/* Without the usual suffix: the name that people know. */
static void component_name(const char *path, char ret[NAME_MAX + 1])
{
    static const char *const suffixes[] = {".db", ".sqlite", ".sqlite3"};
    const char *base = strrchr(path, '/');
    str_copy(ret, NAME_MAX + 1, base ? base + 1 : path);
    size_t length = strlen(ret);
    for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
        size_t cut = strlen(suffixes[i]);
        if (length > cut && str_eq(ret + length - cut, suffixes[i])) {
            ret[length - cut] = '\0';
            return;
        }
    }
}

static void name_uniquely(struct sqlite_state *state, size_t index)
{
    char base[NAME_MAX + 1];
    struct database *own = &state->databases[index];
    component_name(own->configured, base);
    str_copy(own->name, sizeof(own->name), base);
    for (unsigned number = 2;; number++) {
        bool taken = false;
        for (size_t i = 0; i < index; i++)
            taken = taken || str_eq(state->databases[i].name, own->name);
        if (!taken)
            return;
        str_format(own->name, sizeof(own->name), "%s-%u", base, number);
    }
}

/* SQLite follows symbolic links and keeps the journals beside the real file; so do the file sets. A database that is
 * not there yet keeps its configured path: only a backup of it fails. */
static void database_resolve(struct database *database)
{
    if (!realpath(database->configured, database->path))
        str_copy(database->path, sizeof(database->path), database->configured);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct database *)a)->path, ((const struct database *)b)->path);
}

static int database_add(struct sqlite_state *state, const json_t *value, struct err *err)
{
    const char *path = json_string_value(value);
    if (!path || !path_is_canonical(path))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "databases: \"%s\" is not an absolute path",
                       path ? path : "");
    if (strpbrk(strrchr(path, '/'), "*?[\\"))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Rename it.",
                       "databases: the file name of %s would be read as a pattern", path);
    struct database *database = &state->databases[state->n];
    database->configured = str_dup(path);
    name_uniquely(state, state->n++);
    database_resolve(database);
    return 0;
}

static void sqlite_close(void *arg)
{
    struct sqlite_state *state = arg;
    for (size_t i = 0; i < state->n; i++) {
        database_close(&state->databases[i]);
        sqlite_restore_drop(&state->databases[i].restore);
        free(state->databases[i].configured);
    }
    free(state->databases);
    free(state->name);
    free(state);
}
DEFINE_CLEANUP(struct sqlite_state *, sqlite_close)

static int sqlite_open(const json_t *configuration, void **ret_state, struct err *err)
{
    const json_t *list = json_object_get(configuration, "databases");
    if (json_array_size(list) == 0)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                       "Add databases: [/path/to/app.db] to the writer's configuration.",
                       "no databases are configured");
    CLEANUP(sqlite_close_p) struct sqlite_state *state = mem_new(sizeof(*state));
    state->name = str_dup(json_str(configuration, "name", "sqlite"));
    state->freeze_timeout_ms = json_int(configuration, "freeze_timeout_ms", FREEZE_TIMEOUT_MS);
    state->databases = mem_new(json_array_size(list) * sizeof(*state->databases));
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value) if (database_add(state, value, err) != 0) return -1;
    qsort(state->databases, state->n, sizeof(*state->databases), by_path);
    for (i = 1; i < state->n; i++)
        if (str_eq(state->databases[i].path, state->databases[i - 1].path))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Name it once.", "databases: %s is named twice",
                           state->databases[i].path);
    *ret_state = TAKE_PTR(state);
    return 0;
}

/* Never NAME-shm: it is rebuilt from the WAL, and a stale one would lie. */
static json_t *database_file_sets(const struct database *database)
{
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    const char *slash = strrchr(database->path, '/');
    AUTO_FREE char *directory =
        slash == database->path ? str_dup("/") : strndup(database->path, (size_t)(slash - database->path));
    json_t *sets = json_array();
    for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
        AUTO_FREE char *spec = str_new("%s%s", slash + 1, suffixes[i]);
        json_t *set = json_object();
        json_put(set, "path", json_text(directory));
        json_put(set, "spec", json_text(spec));
        json_put(set, "recursive", json_false());
        json_add(sets, set);
    }
    return sets;
}

static int sqlite_identify(void *arg, int64_t deadline_ms, json_t **ret_metadata, struct err *err)
{
    (void)deadline_ms, (void)err; /* looks at names only */
    struct sqlite_state *state = arg;
    json_t *components = json_array();
    for (size_t i = 0; i < state->n; i++) {
        struct database *database = &state->databases[i];
        if (!database->db)
            database_resolve(database);
        json_t *component = json_pack("{s:s, s:s, s:b, s:b}", "type", "database", "logical_path", "", "selectable", 1,
                                      "selectable_for_restore", 0);
        AUTO_FREE char *caption = str_new("SQLite database %s", database->path);
        json_put(component, "name", json_text(database->name));
        json_put(component, "caption", json_text(caption));
        json_put(component, "file_sets", database_file_sets(database));
        json_put(component, "dependencies", json_array());
        json_add(components, component);
    }
    /* class_id: ours, fixed for ever. */
    json_t *metadata = json_pack("{s:s, s:s, s:s, s:I, s:s}", "class_id", "b3f5a1c0-6d1e-4a57-9c0b-5a1170000001",
                                 "usage", "user_data", "level", "back_end", "freeze_timeout_ms",
                                 (json_int_t)state->freeze_timeout_ms, "restore_method", "restore_if_can_replace");
    json_put(metadata, "name", json_text(state->name));
    json_put(metadata, "instance_name", json_text(state->name));
    json_put(metadata, "backup_schema", json_pack("[s]", "new_target"));
    json_put(metadata, "components", components);
    json_put(metadata, "exclude", json_array());
    *ret_metadata = metadata;
    return 0;
}

/* As root SQLite would create -wal and -shm files, and the application would then be refused its own database. */
static int check_owner(const struct database *database, struct err *err)
{
    struct stat stat_of;
    if (stat(database->path, &stat_of) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "database %s", database->path);
    if (!S_ISREG(stat_of.st_mode))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "database %s: not a regular file", database->path);
    if (geteuid() != 0 || stat_of.st_uid == 0)
        return 0;
    const struct passwd *owner = getpwuid(stat_of.st_uid);
    AUTO_FREE char *hint = owner ? str_new("Set the writer's user to %s.", owner->pw_name)
                                 : str_new("Set the writer's user to the owner (uid %u).", stat_of.st_uid);
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, hint,
                   "database %s: its owner is not root, and root would leave files there that the owner cannot open",
                   database->path);
}

static int database_prepare(struct sqlite_state *state, struct database *database, struct err *err)
{
    database_close(database);
    database_resolve(database);
    if (check_owner(database, err) != 0)
        return -1;
    database->selected = true;
    if (sqlite3_open_v2(database->path, &database->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return sqlite_err(err, database, "cannot open");
    sqlite3_busy_handler(database->db, busy, state);
    /* Reads the header and, after a crash of the application, recovers as every client does. */
    if (sqlite3_exec(database->db, "PRAGMA schema_version", NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_err(err, database, "cannot read");
    if (sqlite3_db_readonly(database->db, "main"))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Set the writer's user to the database's owner.",
                       "database %s: may only be read, so it cannot be held", database->path);
    return 0;
}

static int prepare_backup(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    for (size_t i = 0; i < state->n; i++)
        database_close(&state->databases[i]);
    for (size_t i = 0; i < state->n; i++)
        if (writer_selected(event, state->databases[i].name) && database_prepare(state, &state->databases[i], err) != 0)
            return -1;
    return 0;
}

static int64_t pragma_integer(struct database *database, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;
    if (sqlite3_prepare_v2(database->db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* Inside the transaction, so that they are facts of the snapshot; -1 or "" when SQLite does not say. */
static void read_facts(struct database *database)
{
    sqlite3_stmt *statement = NULL;
    database->journal_mode[0] = '\0';
    if (sqlite3_prepare_v2(database->db, "PRAGMA journal_mode", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        str_copy(database->journal_mode, sizeof(database->journal_mode),
                 (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    database->page_count = pragma_integer(database, "PRAGMA page_count");
    database->schema_version = pragma_integer(database, "PRAGMA schema_version");
    clock_rfc3339(clock_real_ms(), database->stamp);
}

/* A file that was replaced under our feet: our lock would hold the old one. */
static int check_in_place(struct database *database, struct err *err)
{
    int moved = 0;
    if (sqlite3_file_control(database->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && !moved)
        return 0;
    return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Start a new session.",
                   "database %s: was replaced or removed meanwhile", database->path);
}

static int database_hold(struct sqlite_state *state, struct database *database, struct err *err)
{
    int result;
    do
        result = sqlite3_exec(database->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    while ((result & 0xff) == SQLITE_BUSY && busy(state, 0));
    if (result != SQLITE_OK)
        return sqlite_err(err, database, "cannot hold (BEGIN IMMEDIATE)");
    database->held = true;
    if (check_in_place(database, err) != 0)
        return -1;
    read_facts(database);
    return 0;
}

/* The selection of prepare_backup is the one that counts; an event that selects more came out of turn. */
static int check_selection(const struct sqlite_state *state, const struct writer_event *event, struct err *err)
{
    for (size_t i = 0; i < state->n; i++)
        if (!state->databases[i].selected && writer_selected(event, state->databases[i].name))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Send prepare_backup with it first.",
                           "%s: component %s was not prepared", event->name, state->databases[i].name);
    return 0;
}

static int freeze(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (check_selection(state, event, err) != 0)
        return -1;
    for (size_t i = 0; i < state->n; i++) {
        struct database *database = &state->databases[i];
        database->done = false;
        if (!database->selected || database->held || database_hold(state, database, err) == 0)
            continue;
        release_all(state);
        return -1;
    }
    return 0;
}

static int thaw(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret;
    int result = 0;
    for (size_t i = 0; i < state->n; i++) {
        struct database *database = &state->databases[i];
        if (!database->held)
            continue;
        bool kept = !sqlite3_get_autocommit(database->db);
        if (!kept)
            result = err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, NULL,
                             "database %s: the hold did not last until thaw", database->path);
        else if (check_in_place(database, err) != 0)
            result = -1;
        else
            database->done = true;
        database_release(database);
    }
    return result;
}

static json_t *component_answer(const struct database *database)
{
    AUTO_JSON json_t *facts =
        json_pack("{s:s, s:I, s:I}", "journal_mode", database->journal_mode, "page_count",
                  (json_int_t)database->page_count, "schema_version", (json_int_t)database->schema_version);
    AUTO_FREE char *metadata = json_dumps(facts, JSON_COMPACT);
    json_t *answer = json_object();
    json_put(answer, "logical_path", json_string(""));
    json_put(answer, "name", json_text(database->name));
    json_put(answer, "stamp", json_string(database->stamp));
    json_put(answer, "metadata", json_string(metadata));
    return answer;
}

static int post_snapshot(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    if (check_selection(state, event, err) != 0)
        return -1;
    AUTO_JSON json_t *answers = json_array();
    for (size_t i = 0; i < state->n; i++) {
        struct database *database = &state->databases[i];
        if (!database->selected)
            continue;
        if (!database->done)
            return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Start a new session.",
                           "database %s: was not held from freeze to thaw", database->path);
        json_add(answers, component_answer(database));
    }
    for (size_t i = 0; i < state->n; i++)
        database_close(&state->databases[i]);
    *ret = TAKE_PTR(answers);
    return 0;
}

static int release(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret, (void)err;
    for (size_t i = 0; i < state->n; i++) {
        database_close(&state->databases[i]);
        sqlite_restore_drop(&state->databases[i].restore);
    }
    return 0;
}

/* --- restore (sqlite/restore.h) --- */

static const json_t *component_of(const struct writer_event *event, const char *name)
{
    size_t i;
    const json_t *component;
    json_array_foreach(event->components, i, component) if (str_eq(json_str(component, "name", NULL), name) &&
                                                            str_eq(json_str(component, "logical_path", ""), ""))
        return component;
    return NULL;
}

/* SQLite would make journals as root here too; a database that is gone has no owner. */
static int may_restore(const struct database *database, struct err *err)
{
    return access(database->path, F_OK) == 0 ? check_owner(database, err) : 0;
}

static int pre_restore(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *answers = json_array();
    for (size_t i = 0; i < state->n; i++) {
        struct database *database = &state->databases[i];
        const json_t *component = component_of(event, database->name);
        if (!component)
            continue;
        json_t *answer = json_object();
        json_add(answers, answer);
        json_put(answer, "logical_path", json_string(""));
        json_put(answer, "name", json_text(database->name));
        database_close(database);
        database_resolve(database);
        if (may_restore(database, err) == 0 &&
            sqlite_restore_begin(&database->restore, database->path, component, answer, err) == 0)
            continue;
        for (size_t k = 0; k <= i; k++)
            sqlite_restore_drop(&state->databases[k].restore);
        return -1;
    }
    *ret = TAKE_PTR(answers);
    return 0;
}

/* Each database for itself: one that fails does not undo another one. */
static int post_restore(struct sqlite_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *answers = json_array();
    size_t asked = 0;
    for (size_t i = 0; i < state->n; i++) {
        struct database *database = &state->databases[i];
        const json_t *component = component_of(event, database->name);
        struct err why = {0};
        asked += component ? 1 : 0;
        if (!component || sqlite_restore_end(&database->restore, database->path, component, state->give_up_ms, &why) == 0)
            continue;
        json_t *answer = json_pack("{s:s, s:s}", "logical_path", "", "failure", hresult_name(why.hr));
        json_put(answer, "name", json_text(database->name));
        json_put(answer, "application_message", json_text(why.text));
        json_add(answers, answer);
        *err = why;
    }
    if (asked > 0 && json_array_size(answers) == asked)
        return -1;
    *ret = TAKE_PTR(answers);
    return 0;
}

static int sqlite_event(void *arg, const struct writer_event *event, json_t **ret_components, struct err *err)
{
    static const struct {
        const char *name;
        int (*handle)(struct sqlite_state *, const struct writer_event *, json_t **, struct err *);
    } rows[] = {
        {"prepare_backup", prepare_backup}, {"freeze", freeze}, {"thaw", thaw},
        {"post_snapshot", post_snapshot},   {"abort", release}, {"backup_shutdown", release},
        {"pre_restore", pre_restore},       {"post_restore", post_restore},
    };
    struct sqlite_state *state = arg;
    state->give_up_ms = writer_give_up_ms(event->deadline_ms);
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (str_eq(rows[i].name, event->name))
            return rows[i].handle(state, event, ret_components, err);
    return 0;
}

static const struct writer writer_sqlite = {
    .abi = WRITER_ABI,
    .name = "sqlite",
    .open = sqlite_open,
    .identify = sqlite_identify,
    .event = sqlite_event,
    .close = sqlite_close,
    .leased = true,
};
WRITER_EXPORT(sqlite);
