#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sqlite3.h>
#include <sys/file.h>

#include "store/sqlite.h"
#include "store_world.h"

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
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), 1);
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

static const struct migration later[] = {
    {1, "0001-initial", "SELECT 1;"},
    {2, "0002-more", "ALTER TABLE jobs ADD COLUMN extra TEXT; CREATE TABLE more (id INTEGER);"},
    {3, "0003-again", "INSERT INTO more (id) VALUES (7);"},
};
static const struct migration broken[] = {
    {1, "0001-initial", "SELECT 1;"},
    {2, "0002-broken", "CREATE TABLE more (id INTEGER); DROP TABLE absent;"},
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
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), 3);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM more"), 1);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM jobs WHERE id = 'a' AND extra IS NULL"), 1);
    assert_int_equal(world_files(".v1-", false), 1);
    DIR *directory = opendir(world.directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strstr(entry->d_name, ".v1-")) {
            AUTO_FREE char *copy = str_new("%s/%s", world.directory, entry->d_name);
            assert_int_equal(sql_number(copy, "PRAGMA user_version"), 1);
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
    assert_non_null(strstr(err.text, "migration 0002-broken: "));
    sqlite_store_close(store);
    if (!strstr(err.text, "no such table: absent"))
        fail_msg("%s", err.text);
    assert_int_equal(sql_number(world.path, "PRAGMA user_version"), 1);
    assert_int_equal(sql_number(world.path, "SELECT count(*) FROM sqlite_schema WHERE name = 'more'"), 0);
    world_open();
}

static void a_damaged_record_is_told_and_not_passed_off_as_missing(void **state)
{
    (void)state;
    world_open();
    put_job("a", NULL, NULL);
    close_world();
    sql("UPDATE jobs SET doc = '{broken'");
    world_open();
    json_t *doc = NULL, *rows = NULL;
    bool more;
    struct err err;
    assert_int_equal(store_get(world.store, STORE_JOB, "a", &doc, NULL, &err), STORE_ERROR);
    assert_non_null(strstr(err.text, "a record is damaged"));
    struct store_query query = {.kind = STORE_JOB, .limit = 5};
    assert_int_equal(store_list(world.store, &query, &rows, &more, &err), STORE_ERROR);
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
        CLOSED_TEST(an_older_store_is_copied_and_migrated),
        CLOSED_TEST(a_migration_that_fails_leaves_the_store_as_it_was),
        CLOSED_TEST(a_damaged_record_is_told_and_not_passed_off_as_missing),
        CLOSED_TEST(reading_answers_while_another_program_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
