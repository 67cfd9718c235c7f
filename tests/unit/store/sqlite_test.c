#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sqlite3.h>
#include <sys/file.h>

#include "store/sqlite.h"
#include "store_world.h"

enum { NEWEST = 17 }; /* the number of the last file in daemon/store/migrations */
#define KEPT ".v17-"  /* a copy of a store of that version */

static void sql(const char *text)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static int64_t sql_number(const char *path, const char *text)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

static void refused(const char *words)
{
    struct err err = {.hr = 0};
    assert_null(store_open(world.loop, world.directory, &err));
    if (!strstr(err.text, words))
        fail_msg("\"%s\" is not in: %s", words, err.text);
    assert_string_not_equal(err.hint, "");
}

static void close_world(void)
{
    store_close(world.store);
    world.store = NULL;
}

static void a_new_store_belongs_to_us_and_only_its_owner_may_read_it(void **state)
{
    (void)state;
    world_open();
    close_world();
    assert_int_equal(sql_number(world.path, "PRAGMA application_id"), SQLITE_STORE_APPLICATION);
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), NEWEST);
    struct stat file;
    assert_int_equal(stat(world.path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
}

static void commits_are_synced_and_in_wal_mode(void **state)
{
    (void)state;
    struct err err;
    struct sqlite_store *store = sqlite_store_open(world.directory, &err);
    assert_non_null(store);
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_prepare_v2(store->writer, "PRAGMA synchronous", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(statement, 0), 2); /* FULL */
    sqlite3_finalize(statement);
    assert_int_equal(sqlite3_prepare_v2(store->writer, "PRAGMA journal_mode", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(statement, 0), "wal");
    sqlite3_finalize(statement);
    sqlite_store_close(store);
}

static void a_newer_store_is_refused_and_left_alone(void **state)
{
    (void)state;
    world_open();
    put_job("a", NULL, NULL);
    close_world();
    sql("PRAGMA user_version = 1000");
    refused("was written by a newer program (version 1000");
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM jobs"), 1);
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), 1000);
}

static void a_database_of_another_program_is_refused_and_left_alone(void **state)
{
    (void)state;
    sql("CREATE TABLE bookmarks (url TEXT)");
    refused("is the database of another program");
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM sqlite_schema"), 1);
}

static void a_file_that_is_no_database_is_refused(void **state)
{
    (void)state;
    FILE *file = fopen(world.path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("This is a text file.\n", file);
    fclose(file);
    refused("file is not a database");
}

static void a_damaged_store_is_told(void **state)
{
    (void)state;
    world_open();
    struct store_batch *batch = store_batch_new();
    for (int i = 0; i < 500; i++) {
        char id[16];
        str_format(id, sizeof(id), "%05d", i);
        batch_job(batch, id, "session", "running");
    }
    world_submit(batch);
    close_world();
    struct stat file;
    assert_int_equal(stat(world.path, &file), 0);
    assert_int_equal(world_files("-wal", false), 0); /* closing folds the log into the file */
    AUTO_FD int fd = open(world.path, O_WRONLY);
    char noise[4096];
    memset(noise, 0x5a, sizeof(noise));
    for (off_t at = 4096; at < file.st_size; at += 4096) /* everything but the first page */
        assert_int_equal(pwrite(fd, noise, sizeof(noise), at), (ssize_t)sizeof(noise));
    refused("the integrity check failed");
}

static void a_store_that_cannot_be_created_is_told(void **state)
{
    (void)state;
    assert_int_equal(mkdir(world.path, 0700), 0);
    refused("cannot open");
    assert_int_equal(rmdir(world.path), 0);
    struct err err;
    assert_null(store_open(world.loop, "/nonexistent/deep/store", &err));
    assert_non_null(strstr(err.text, "cannot create the directory /nonexistent/deep/store"));
    assert_null(store_open(world.loop, "", &err));
}

static void a_store_that_may_not_be_written_is_told(void **state)
{
    (void)state;
    world_open();
    close_world();
    assert_int_equal(chmod(world.path, 0400), 0);
    bool root = geteuid() == 0; /* who may write everything: ask as nobody */
    AUTO_FREE char *lock = str_new("%s/lock", world.directory);
    const char *const paths[] = {world.directory, world.path, lock};
    for (size_t i = 0; root && i < ELEMENTS(paths); i++)
        assert_int_equal(chown(paths[i], 65534, 65534), 0);
    if (root)
        assert_int_equal(seteuid(65534), 0);
    refused("for writing: Permission denied");
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(world.path, 0600), 0);
}

static void a_second_daemon_on_the_same_store_is_refused(void **state)
{
    (void)state;
    world_open();
    refused("is in use");
    close_world();
    world_open(); /* and the lock goes with its owner */
}

static void what_the_catalog_knew_of_chains_is_taken_over(void **state)
{
    static const char *const counts[] = {
        "SELECT count(*) FROM links WHERE id = 'log:0:on' AND session_id = 'log' AND operation = 'on' || char(10) || 'full'",
        "SELECT count(*) FROM links WHERE id = 'full:0:own' AND operation = 'own' || char(10) || 'i' || char(10) || char(10) || 'main' || char(10) || '7'",
        "SELECT count(*) FROM links WHERE id = 'kept:0:on' AND operation = 'on' || char(10) || 'i' || char(10) || char(10) || 'main' || char(10) || '7'",
    };
    (void)state;
    world_open();
    close_world();
    sql("DROP TABLE links; DROP TABLE repository_marks; ALTER TABLE sessions DROP COLUMN rest; ALTER TABLE backups DROP COLUMN rest;"
        " ALTER TABLE quarantine DROP COLUMN rest; PRAGMA user_version = 14; INSERT INTO backups (id, created_ms, expires_ms, hidden, doc) VALUES"
        " ('full', 1, 0, 0, '{\"id\":\"full\",\"components\":[{\"instance_id\":\"i\",\"name\":\"main\",\"backup_type\":\"full\",\"backup_stamp\":\"7\"}]}'),"
        " ('log', 2, 0, 0, '{\"id\":\"log\",\"components\":[{\"instance_id\":\"i\",\"name\":\"main\",\"backup_type\":\"log\",\"previous_stamp\":\"7\","
        "\"previous_backup_id\":\"full\"}]}'),"
        " ('kept', 3, 0, 0, '{\"id\":\"kept\",\"components\":[{\"instance_id\":\"i\",\"name\":\"main\",\"backup_type\":\"log\",\"previous_stamp\":\"7\"}]}'),"
        " ('none', 4, 0, 0, '{\"id\":\"none\",\"components\":[{\"instance_id\":\"i\",\"name\":\"main\",\"previous_stamp\":\"7\"}]}')");
    world_open();
    close_world();
    for (size_t i = 0; i < ELEMENTS(counts); i++)
        assert_int_equal(sql_number(world.path, counts[i]), 1);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM links"), 3);
}

static const struct migration later[] = {
    {1, "0001-initial", "SELECT 1;"},
    {90, "0090-more", "ALTER TABLE jobs ADD COLUMN extra TEXT; CREATE TABLE more (id INTEGER);"},
    {91, "0091-again", "INSERT INTO more (id) VALUES (7);"},
};
static const struct migration broken[] = {
    {1, "0001-initial", "SELECT 1;"},
    {90, "0090-broken", "CREATE TABLE more (id INTEGER); DROP TABLE absent;"},
};

static void an_older_store_is_copied_and_migrated(void **state)
{
    (void)state;
    world_open();
    put_job("a", NULL, NULL);
    close_world();
    struct err err;
    struct sqlite_store *store = sqlite_store_open(world.directory, &err);
    assert_int_equal(sqlite_migrate(store, later, ELEMENTS(later), &err), 0);
    assert_int_equal(sqlite_migrate(store, later, ELEMENTS(later), &err), 0); /* nothing left to do */
    sqlite_store_close(store);
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), 91);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM more"), 1);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM jobs WHERE id = 'a' AND extra IS NULL"), 1);
    assert_int_equal(world_files(KEPT, false), 1);
    DIR *directory = opendir(world.directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strstr(entry->d_name, KEPT)) {
            AUTO_FREE char *copy = str_new("%s/%s", world.directory, entry->d_name);
            assert_int_equal(sql_number(copy, "PRAGMA user_version"), NEWEST);
            assert_int_equal(sql_number(copy, "SELECT count(*) FROM jobs"), 1);
        }
    closedir(directory);
}

static void a_migration_that_fails_leaves_the_store_as_it_was(void **state)
{
    (void)state;
    struct err err;
    struct sqlite_store *store = sqlite_store_open(world.directory, &err);
    assert_int_equal(sqlite_migrate(store, broken, ELEMENTS(broken), &err), -1);
    assert_non_null(strstr(err.text, "migration 0090-broken: "));
    sqlite_store_close(store);
    if (!strstr(err.text, "no such table: absent"))
        fail_msg("%s", err.text);
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), NEWEST);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM sqlite_schema WHERE name = 'more'"), 0);
    world_open();
}

static void a_damaged_record_is_told_and_not_passed_off_as_missing(void **state)
{
    (void)state;
    world_open();
    put_job("a", NULL, NULL);
    sql("UPDATE jobs SET doc = '{broken'");
    json_t *doc = NULL, *rows = NULL;
    bool more;
    struct err err;
    assert_int_equal(store_get(world.store, STORE_JOB, "a", &doc, NULL, &err), STORE_ERROR);
    assert_non_null(strstr(err.text, "a record is damaged"));
    struct store_query query = {.kind = STORE_JOB, .limit = 5};
    assert_int_equal(store_list(world.store, &query, &rows, &more, &err), STORE_ERROR);
}

static void a_damaged_record_is_moved_aside_at_the_next_start(void **state)
{
    static const char *const damages[] = {"'{broken'", "CAST(X'7b226964223a22ff227d' AS TEXT)", "'{\"id\":\"b\"}'", "'[]'", "''"};
    (void)state;
    for (size_t i = 0; i < ELEMENTS(damages); i++) {
        AUTO_FREE char *damage = str_new("UPDATE jobs SET doc = %s WHERE id = 'a'", damages[i]);
        AUTO_JSON json_t *ids = NULL;
        world_open();
        assert_int_equal(json_array_size(store_moved(world.store)), 0);
        put_job("a", NULL, NULL);
        put_job("sound", NULL, NULL);
        close_world();
        sql(damage);
        world_open();
        assert_int_equal(get_job("a"), STORE_NONE);
        assert_int_equal(get_job("sound"), STORE_OK);
        assert_int_equal(json_array_size(store_moved(world.store)), 1);
        assert_string_equal(json_str(json_array_get(store_moved(world.store), 0), "id", ""), "a");
        assert_int_equal(store_quarantined(world.store, STORE_JOB, &ids, NULL), 0);
        assert_int_equal(json_array_size(ids), i + 1);
        close_world();
    }
    world_open();
}

static void put_session(const char *id)
{
    AUTO_JSON json_t *doc = json_pack("{s:s, s:{s:i}}", "id", id, "_", "small", 1), *rest = json_pack("{s:{s:[s]}}", "_", "writers", "one");
    const struct store_record record = {.id = id, .doc = doc, .rest = rest};
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_SESSION, &record);
    world_submit(batch);
    assert_int_equal(world.failed, 0);
}

static void a_records_rest_is_told_as_damaged_and_moved_aside_with_it(void **state)
{
    (void)state;
    json_t *doc = NULL;
    struct err err;
    world_open();
    put_session("a");
    put_session("sound");
    sql("UPDATE sessions SET rest = '{broken' WHERE id = 'a'");
    assert_int_equal(store_get(world.store, STORE_SESSION, "a", &doc, NULL, &err), STORE_ERROR);
    assert_non_null(strstr(err.text, "a record is damaged"));
    world_reopen();
    assert_int_equal(json_array_size(store_moved(world.store)), 1);
    assert_int_equal(store_get(world.store, STORE_SESSION, "a", &doc, NULL, &err), STORE_NONE);
    assert_int_equal(store_get(world.store, STORE_SESSION, "sound", &doc, NULL, &err), STORE_OK);
    json_decref(doc);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM quarantine WHERE id = 'a' AND kind = 'sessions' AND rest = '{broken'"), 1);
}

static void a_record_of_before_is_read_whole_and_comes_apart_when_it_is_written(void **state)
{
    (void)state;
    AUTO_JSON json_t *old = NULL, *rows = NULL;
    const struct store_query brief = {.kind = STORE_SESSION, .limit = 5, .brief = true};
    world_open();
    put_session("a");
    sql("UPDATE sessions SET doc = '{\"id\":\"a\",\"_\":{\"small\":1,\"writers\":[\"one\"]}}', rest = NULL");
    assert_int_equal(store_get(world.store, STORE_SESSION, "a", &old, NULL, NULL), STORE_OK);
    assert_int_equal(json_array_size(json_object_get(json_object_get(old, "_"), "writers")), 1);
    assert_int_equal(store_list(world.store, &brief, &rows, NULL, NULL), STORE_OK);
    assert_true(json_equal(json_array_get(rows, 0), old));
    put_session("a");
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM sessions WHERE rest IS NOT NULL AND doc NOT LIKE '%writers%'"), 1);
}

/* A store that is looked through behind its start, and what that found. */
static struct {
    enum store_check found;
    struct err err;
} checked;

static void on_check(void *arg, enum store_check found, const struct err *err)
{
    (void)arg;
    checked.found = found;
    checked.err = *err;
    loop_quit(world.loop, 0);
}

/* Over the bound; the first records are neither new nor open. */
static void make_large(void)
{
    world_open();
    struct store_batch *batch = store_batch_new();
    for (int i = 0; i < 3000; i++) {
        char id[16];
        str_format(id, sizeof(id), "%05d", i);
        batch_job(batch, id, "session", i == 7 ? "running" : "succeeded");
    }
    world_submit(batch);
    close_world();
    sql("CREATE TABLE ballast (b BLOB); INSERT INTO ballast VALUES (zeroblob(34000000))");
}

static void a_large_store_does_not_wait_for_its_check_and_the_next_start_moves_what_it_found(void **state)
{
    (void)state;
    make_large();
    sql("UPDATE jobs SET doc = '{broken' WHERE id IN ('00005', '00007', '02999')");
    world_open();
    assert_int_equal(json_array_size(store_moved(world.store)), 2); /* the open one and the new one */
    assert_int_equal(get_job("00007"), STORE_NONE);
    assert_int_equal(get_job("02999"), STORE_NONE);
    assert_int_equal(get_job("00005"), STORE_ERROR);
    store_on_check(world.store, on_check, NULL);
    loop_run(world.loop);
    assert_int_equal(checked.found, STORE_CHECK_RECORDS);
    assert_non_null(strstr(checked.err.text, "00005"));
    world_reopen();
    assert_int_equal(json_array_size(store_moved(world.store)), 1);
    assert_int_equal(get_job("00005"), STORE_NONE);
    assert_int_equal(world_files("-suspect", false), 0);
}

static void damage_in_a_large_store_is_told_and_refused_at_the_next_start(void **state)
{
    (void)state;
    make_large();
    int64_t page = sql_number(world.path, "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_owner'");
    char noise[4096];
    memset(noise, 0x5a, sizeof(noise));
    AUTO_FD int fd = open(world.path, O_WRONLY);
    assert_int_equal(pwrite(fd, noise, sizeof(noise), (page - 1) * 4096), (ssize_t)sizeof(noise));
    world_open();
    store_on_check(world.store, on_check, NULL);
    loop_run(world.loop);
    assert_int_equal(checked.found, STORE_CHECK_DAMAGED);
    assert_non_null(strstr(checked.err.text, "the integrity check failed"));
    close_world();
    refused("the integrity check failed");
}

static void closing_a_large_store_does_not_wait_for_its_check(void **state)
{
    (void)state;
    make_large();
    world_open();
    close_world();
    assert_int_equal(world_files("-suspect", false), 0);
}

static void reading_answers_while_another_program_writes(void **state)
{
    (void)state;
    world_open();
    put_job("a", NULL, NULL);
    sqlite3 *other = NULL;
    assert_int_equal(sqlite3_open(world.path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE; DELETE FROM jobs", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(get_job("a"), STORE_OK);
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
}

/* How the statement is carried out, one step a line. */
static void plan_of(struct sqlite_store *store, const char *statement, char *ret, size_t size)
{
    AUTO_FREE char *text = str_new("EXPLAIN QUERY PLAN %s", statement);
    sqlite3_stmt *plan = NULL;
    assert_int_equal(sqlite3_prepare_v2(store->reader, text, -1, &plan, NULL), SQLITE_OK);
    ret[0] = '\0';
    while (sqlite3_step(plan) == SQLITE_ROW) {
        size_t used = strlen(ret);
        assert_true(str_format(ret + used, size - used, "%s\n", (const char *)sqlite3_column_text(plan, 3)));
    }
    sqlite3_finalize(plan);
}

/* The plan of the statement that this query has had prepared, and of no other. */
static void plan_of_query(struct sqlite_store *store, const struct store_query *query, char *ret, size_t size)
{
    AUTO_JSON json_t *rows = NULL;
    bool before[SQLITE_LISTS];
    int n = 0;
    for (size_t i = 0; i < SQLITE_LISTS; i++)
        before[i] = store->list[query->kind][i] != NULL;
    assert_int_equal(sqlite_list(store, query, &rows, NULL, NULL), STORE_OK);
    for (size_t i = 0; i < SQLITE_LISTS; i++)
        if (store->list[query->kind][i] && !before[i]) {
            plan_of(store, sqlite3_sql(store->list[query->kind][i]), ret, size);
            n++;
        }
    assert_int_equal(n, 1);
}

static void a_list_is_read_from_one_index_in_either_order(void **state)
{
    static const struct {
        struct store_query query;
        const char *index;
    } rows[] = {
        {{.kind = STORE_SESSION}, "sessions_visible"},
        {{.kind = STORE_SESSION, .state = "x"}, "sessions_by_state"},
        {{.kind = STORE_SESSION, .owner = "x"}, "sessions_by_owner"},
        {{.kind = STORE_SESSION, .job_id = "x"}, "sessions_by_label"},
        {{.kind = STORE_JOB}, "jobs_visible"},
        {{.kind = STORE_JOB, .session_id = "x"}, "jobs_by_session"},
        {{.kind = STORE_JOB, .state = "x"}, "jobs_by_state"},
        {{.kind = STORE_JOB, .operation = "x"}, "jobs_by_operation"},
        {{.kind = STORE_SNAPSHOT}, "snapshots_visible"},
        {{.kind = STORE_SNAPSHOT, .job_id = "x"}, "snapshots_by_set"},
        {{.kind = STORE_SNAPSHOT, .operation = "x"}, "snapshots_by_volume"},
        {{.kind = STORE_BACKUP}, "backups_visible"},
        {{.kind = STORE_BACKUP, .job_id = "x"}, "backups_by_label"},
        {{.kind = STORE_BACKUP, .operation = "x"}, "backups_by_repository"},
        {{.kind = STORE_ERROR_ROW}, "errors_visible"},
        {{.kind = STORE_ERROR_ROW, .session_id = "x"}, "errors_by_session"},
        {{.kind = STORE_DELIVERY, .session_id = "x"}, "deliveries_by_webhook"},
        {{.kind = STORE_DELIVERY, .session_id = "x", .state = "x"}, "deliveries_by_webhook_and_state"},
    };
    (void)state;
    struct err err;
    struct sqlite_store *store = sqlite_store_open(world.directory, &err);
    assert_non_null(store);
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        for (int way = 0; way < 8; way++) {
            struct store_query query = rows[i].query;
            char plan[512];
            AUTO_FREE char *words = str_new("USING INDEX %s", rows[i].index);
            query.limit = 50;
            query.oldest_first = way & 1;
            query.after = way & 2 ? "m" : NULL;
            query.brief = way & 4;
            plan_of_query(store, &query, plan, sizeof(plan));
            if (!strstr(plan, words) || strchr(plan, '\n')[1]) /* a second step would sort */
                fail_msg("not by %s: %s", rows[i].index, plan);
        }
    sqlite_store_close(store);
}

#define CLOSED_TEST(f) cmocka_unit_test_setup_teardown(f, world_begin_closed, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLOSED_TEST(a_new_store_belongs_to_us_and_only_its_owner_may_read_it),
        CLOSED_TEST(commits_are_synced_and_in_wal_mode),
        CLOSED_TEST(a_newer_store_is_refused_and_left_alone),
        CLOSED_TEST(a_database_of_another_program_is_refused_and_left_alone),
        CLOSED_TEST(a_file_that_is_no_database_is_refused),
        CLOSED_TEST(a_damaged_store_is_told),
        CLOSED_TEST(a_store_that_cannot_be_created_is_told),
        CLOSED_TEST(a_store_that_may_not_be_written_is_told),
        CLOSED_TEST(a_second_daemon_on_the_same_store_is_refused),
        CLOSED_TEST(what_the_catalog_knew_of_chains_is_taken_over),
        CLOSED_TEST(an_older_store_is_copied_and_migrated),
        CLOSED_TEST(a_migration_that_fails_leaves_the_store_as_it_was),
        CLOSED_TEST(a_damaged_record_is_told_and_not_passed_off_as_missing),
        CLOSED_TEST(a_damaged_record_is_moved_aside_at_the_next_start),
        CLOSED_TEST(a_records_rest_is_told_as_damaged_and_moved_aside_with_it),
        CLOSED_TEST(a_record_of_before_is_read_whole_and_comes_apart_when_it_is_written),
        CLOSED_TEST(a_large_store_does_not_wait_for_its_check_and_the_next_start_moves_what_it_found),
        CLOSED_TEST(damage_in_a_large_store_is_told_and_refused_at_the_next_start),
        CLOSED_TEST(closing_a_large_store_does_not_wait_for_its_check),
        CLOSED_TEST(a_list_is_read_from_one_index_in_either_order),
        CLOSED_TEST(reading_answers_while_another_program_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
