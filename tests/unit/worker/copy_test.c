/* Sessions with a volume: snapshot, copy by the archive mover, restore; what is left behind after a cancel or a loss.
 */
#include "worker_fixture.h"

#include <dirent.h>

#include "base/proc.h"
#include "movers/mover_child.h"

static void write_file(const char *dir, const char *name, const char *text)
{
    AUTO_FREE char *path = str_new("%s/%s", dir, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void assert_file(const char *root, const char *path, const char *text)
{
    AUTO_FREE char *whole = str_new("%s%s", root, path);
    char have[256] = "";
    FILE *file = fopen(whole, "re");
    if (!file)
        fail_msg("%s is not there", whole);
    size_t n = fread(have, 1, sizeof(have) - 1, file);
    have[n] = '\0';
    fclose(file);
    assert_string_equal(have, text);
}

static size_t entries_in(const char *dir)
{
    DIR *open_dir = opendir(dir);
    size_t n = 0;
    for (const struct dirent *item; open_dir && (item = readdir(open_dir));)
        n += item->d_name[0] != '.';
    if (open_dir)
        closedir(open_dir);
    return n;
}

struct site {
    char data[96], repository[96], restored[96], staging[96];
};

static struct site make_site(struct fixture *f)
{
    struct site site;
    str_format(site.data, sizeof(site.data), "%s/data", f->dir);
    str_format(site.repository, sizeof(site.repository), "%s/repository", f->dir);
    str_format(site.restored, sizeof(site.restored), "%s/restored", f->dir);
    str_format(site.staging, sizeof(site.staging), "%s/staging", f->dir);
    mkdir(site.data, 0755);
    mkdir(site.restored, 0755);
    write_file(site.data, "a", "alpha");
    write_file(site.data, "b.tmp", "left out");
    AUTO_FREE char *deep = str_new("%s/deep", site.data);
    mkdir(deep, 0755);
    write_file(deep, "c.tmp", "kept: the exclusion is not recursive");
    return site;
}

static json_t *volume_args(struct fixture *f, const struct site *site)
{
    json_t *args = set_args(f, "fail");
    json_put(args, "volumes",
             json_pack("[{s:s, s:s, s:s}]", "snapshot_id", "0193b5a0-0000-7000-8000-0000000000aa", "volume", site->data,
                       "provider", "copy"));
    return args;
}

static json_t *repository_of(const struct site *site)
{
    return json_pack("{s:s, s:s, s:s}", "name", "main", "mover", "archive", "path", site->repository);
}

static json_t *copy_args(const struct site *site)
{
    return json_pack("{s:s, s:o, s:{s:i}, s:[]}", "backup_id", "0193b5a0-0000-7000-8000-0000000000bb", "repository",
                     repository_of(site), "document", "version", 1, "paths");
}

static void start_with_data(struct fixture *f, const struct site *site)
{
    AUTO_FREE char *exclude = str_new("[{\"path\":\"%s\",\"spec\":\"*.tmp\",\"recursive\":false}]", site->data);
    add_writer(f, "files", "recorder", "FILES", site->data, "EXCLUDE", exclude, NULL);
    fixture_start(f);
    gather(f);
    AUTO_JSON json_t *opened =
        fixture_run(f, "open_repository", json_pack("{s:o, s:b}", "repository", repository_of(site), "create", 1));
    assert_succeeded(opened);
    static const char *const operations[] = {"prepare", "snapshot"};
    for (size_t i = 0; i < ELEMENTS(operations); i++) {
        AUTO_JSON json_t *done = fixture_run(f, operations[i], volume_args(f, site));
        assert_succeeded(done);
    }
}

/* Core says where to, and which roots it knows: ours alone count. */
static void assert_confined(struct fixture *f, const struct site *site, const char *data_id)
{
    AUTO_FREE char *outside = str_new("%s/outside", f->dir);
    AUTO_JSON json_t *restored =
        fixture_run(f, "restore",
                    json_pack("{s:o, s:s, s:s, s:s, s:[s], s:[], s:b}", "repository", repository_of(site), "backup_id",
                              "0193b5a0-0000-7000-8000-0000000000bb", "data_id", data_id, "target", outside, "roots", "/", "paths",
                              "overwrite", 0));
    assert_string_equal(error_name(restored), "E_INVALIDARG");
    AUTO_JSON json_t *files = fixture_run(
        f, "restore_files",
        json_pack("{s:o, s:s, s:s, s:[s], s:[s], s:[{s:s, s:s, s:s, s:s}]}", "repository", repository_of(site), "backup_id",
                  "0193b5a0-0000-7000-8000-0000000000bb", "data_id", data_id, "roots", "/", "components", "c", "items", "component", "c",
                  "path", site->data, "spec", "*", "to", outside));
    assert_string_equal(error_name(files), "E_ACCESSDENIED");
    assert_int_equal(access(outside, F_OK), -1);
}

static void what_is_copied_is_what_the_snapshot_held(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    json_add(f->restore_roots, json_string(site.restored));
    start_with_data(f, &site);
    write_file(site.data, "a", "changed after the snapshot");
    AUTO_JSON json_t *copied = fixture_run(f, "copy", copy_args(&site));
    assert_succeeded(copied);
    const char *data_id = json_str(json_object_get(copied, "result"), "data_id", "");
    assert_true(data_id[0]);
    AUTO_JSON json_t *completed = fixture_run(f, "complete", volume_args(f, &site));
    assert_succeeded(completed);
    AUTO_JSON json_t *restored =
        fixture_run(f, "restore",
                    json_pack("{s:o, s:s, s:s, s:s, s:[], s:b}", "repository", repository_of(&site), "backup_id",
                              "0193b5a0-0000-7000-8000-0000000000bb", "data_id", data_id, "target", site.restored, "paths", "overwrite", 0));
    assert_succeeded(restored);
    AUTO_FREE char *a = str_new("%s/a", site.data);
    AUTO_FREE char *b = str_new("%s%s/b.tmp", site.restored, site.data);
    AUTO_FREE char *c = str_new("%s/deep/c.tmp", site.data);
    assert_file(site.restored, a, "alpha");
    assert_file(site.restored, c, "kept: the exclusion is not recursive");
    assert_int_equal(access(b, F_OK), -1);
    assert_confined(f, &site, data_id);
    AUTO_JSON json_t *verified =
        fixture_run(f, "verify",
                    json_pack("{s:o, s:s, s:s}", "repository", repository_of(&site), "backup_id",
                              "0193b5a0-0000-7000-8000-0000000000bb", "data_id", data_id));
    assert_succeeded(verified);
    assert_int_equal(json_array_size(json_object_get(json_object_get(verified, "result"), "damaged")), 0);
    AUTO_JSON json_t *scanned = fixture_run(f, "scan", json_pack("{s:o}", "repository", repository_of(&site)));
    assert_int_equal(json_array_size(json_object_get(json_object_get(scanned, "result"), "items")), 1);
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    const json_t *cleanup = json_object_get(json_object_get(released, "result"), "cleanup");
    assert_int_equal(json_array_size(json_object_get(cleanup, "removed")), 1);
    assert_int_equal(json_array_size(json_object_get(cleanup, "failed")), 0);
    assert_int_equal(fixture_wait(f), 0);
    assert_int_equal(entries_in(site.staging), 0);
}

static void a_failed_set_leaves_no_snapshot(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    add_writer(f, "late", "recorder", "FILES", site.data, "FAIL_THAW", "VSS_E_WRITERERROR_RETRYABLE", NULL);
    fixture_start(f);
    gather(f);
    AUTO_JSON json_t *prepared = fixture_run(f, "prepare", volume_args(f, &site));
    assert_succeeded(prepared);
    AUTO_JSON json_t *done = fixture_run(f, "snapshot", volume_args(f, &site));
    assert_string_equal(error_name(done), "VSS_E_WRITERERROR_RETRYABLE");
    assert_status(done, "late", "VSS_WS_FAILED_AT_THAW", "VSS_E_WRITERERROR_RETRYABLE");
    const json_t *cleanup = json_object_get(json_object_get(done, "result"), "cleanup");
    assert_int_equal(json_array_size(json_object_get(cleanup, "removed")), 1);
    assert_true(saw(f, "late", "abort"));
}

static void the_loss_of_core_removes_the_snapshots_and_keeps_the_repository(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    start_with_data(f, &site);
    AUTO_JSON json_t *copied = fixture_run(f, "copy", copy_args(&site));
    assert_succeeded(copied);
    fd_cleanup(&f->core);
    f->core = -1;
    assert_int_equal(fixture_wait(f), 0);
    assert_int_equal(entries_in(site.staging), 0);
    assert_true(saw(f, "files", "backup_shutdown"));
    assert_false(saw(f, "files", "backup_complete"));
    assert_false(saw(f, "files", "abort"));
}

static void a_copy_cancelled_at_any_time_leaves_nothing_and_can_be_repeated(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    for (int i = 0; i < 2000; i++) {
        char name[32];
        str_format(name, sizeof(name), "file-%d", i);
        write_file(site.data, name, name);
    }
    start_with_data(f, &site);
    for (int round = 0; round < 10; round++) {
        int id = fixture_send(f, "copy", copy_args(&site));
        usleep((useconds_t)round * 10000);
        fixture_cancel(f, id);
        AUTO_JSON json_t *done = fixture_done(f, id);
        AUTO_JSON json_t *scanned = fixture_run(f, "scan", json_pack("{s:o}", "repository", repository_of(&site)));
        assert_succeeded(scanned);
        size_t found = json_array_size(json_object_get(json_object_get(scanned, "result"), "items"));
        if (json_object_get(done, "error")) { /* the cancel came in time */
            assert_string_equal(error_name(done), "VSS_S_ASYNC_CANCELLED");
            assert_int_equal(found, 0);
            continue;
        }
        assert_int_equal(found, 1);
        return;
    }
    AUTO_JSON json_t *copied = fixture_run(f, "copy", copy_args(&site));
    assert_succeeded(copied);
}

static void a_path_outside_of_the_set_is_not_copied(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    start_with_data(f, &site);
    json_t *args = copy_args(&site);
    json_put(args, "paths", json_pack("[s]", "/etc"));
    AUTO_JSON json_t *done = fixture_run(f, "copy", args);
    assert_string_equal(error_name(done), "VSS_E_OBJECT_NOT_FOUND");
}

static void inventory_and_plan_name_what_there_is(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    add_writer(f, "files", "recorder", "FILES", site.data, NULL);
    add_writer(f, "dead", "dying", "BAD_AT", "identify", NULL);
    fixture_start(f);
    AUTO_JSON json_t *inventory = fixture_run(f, "inventory", NULL);
    assert_succeeded(inventory);
    const json_t *writers = json_object_get(json_object_get(inventory, "result"), "writers");
    assert_true(json_bool(json_array_get(writers, 0), "available", false));
    assert_false(json_bool(json_array_get(writers, 1), "available", true));
    assert_true(json_str(json_array_get(writers, 1), "reason", "")[0]);
    assert_true(json_array_size(json_object_get(json_object_get(inventory, "result"), "providers")) >= 3);
    gather(f);
    AUTO_JSON json_t *args = set_args(f, "fail");
    AUTO_JSON json_t *plan =
        fixture_run(f, "plan", json_pack("{s:O, s:[]}", "components", json_object_get(args, "components"), "paths"));
    assert_succeeded(plan);
    const json_t *volumes = json_object_get(json_object_get(plan, "result"), "volumes");
    assert_int_equal(json_array_size(volumes), 1);
    AUTO_JSON json_t *resolved =
        fixture_run(f, "resolve", json_pack("{s:s, s:s}", "path", site.data, "provider", "copy"));
    assert_succeeded(resolved);
    assert_string_equal(json_str(json_object_get(resolved, "result"), "volume", ""), site.data);
}

/* Makes a database of `nobody` when we are root, so that the writer has to become its owner. */
static void make_database(const struct site *site, const char *path)
{
    static const char script[] =
        "import sqlite3, sys, os\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "db.executescript('PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (42);')\n"
        "db.close()\n"
        "if os.getuid() == 0: os.chown(sys.argv[1], 65534, 65534)\n";
    const char *argv[] = {"/usr/bin/python3", "-c", script, path, NULL};
    const struct proc_spec spec = {.argv = argv};
    pid_t pid;
    int pidfd, status = -1;
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, NULL), 0);
    assert_true(proc_reap(pid, pidfd, FIXTURE_PATIENCE_MS, &status));
    close(pidfd);
    assert_int_equal(status, 0);
    if (geteuid() == 0)
        assert_int_equal(chown(site->data, 65534, 65534), 0);
}

static void the_sqlite_writer_runs_as_the_owner_of_its_database(void **state)
{
    struct fixture *f = *state;
    const struct site site = make_site(f);
    AUTO_FREE char *database = str_new("%s/app.db", site.data);
    assert_int_equal(chmod(f->dir, 0711), 0);
    make_database(&site, database);
    json_add(f->writers, json_pack("{s:s, s:s, s:[s]}", "name", "app", "type", "sqlite", "databases", database));
    fixture_start(f);
    gather(f);
    if (json_array_size(json_object_get(f->metadata, "writers")) != 1)
        fail_msg("the writer is missing: %s", json_dumps(json_object_get(f->metadata, "missing"), JSON_COMPACT));
    static const char *const operations[] = {"prepare", "snapshot", "complete"};
    for (size_t i = 0; i < ELEMENTS(operations); i++) {
        AUTO_JSON json_t *done = fixture_run(f, operations[i], volume_args(f, &site));
        assert_succeeded(done);
        assert_status(done, "app", i == 1 ? "VSS_WS_WAITING_FOR_BACKUP_COMPLETE" : "VSS_WS_STABLE", "S_OK");
    }
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    assert_succeeded(released);
    assert_int_equal(fixture_wait(f), 0);
}

#ifdef QUIESCED_FAULTS
static void an_operation_that_fails_at_its_fault_point_is_an_incident(void **state)
{
    static const char *const points[][2] = {{"prepare", "worker.prepare"},
                                            {"snapshot", "worker.snapshot"},
                                            {"copy", "worker.copy"},
                                            {"complete", "worker.complete"}};
    struct fixture *f = *state;
    const struct site site = make_site(f);
    for (size_t i = 0; i < ELEMENTS(points); i++)
        write_file(f->dir, points[i][1], "once");
    setenv("QUIESCED_FAULT_DIR", f->dir, 1);
    add_writer(f, "files", "recorder", "FILES", site.data, NULL);
    fixture_start(f);
    gather(f);
    for (size_t i = 0; i < ELEMENTS(points); i++) {
        bool copy = str_eq(points[i][0], "copy");
        AUTO_JSON json_t *done = fixture_run(f, points[i][0], copy ? copy_args(&site) : volume_args(f, &site));
        assert_string_equal(error_name(done), "VSS_E_UNEXPECTED");
        assert_int_equal(json_array_size(f->incidents), i + 1);
    }
}
#endif

int main(int argc, char **argv)
{
    if (argc > 1 && str_eq(argv[1], "--role=mover")) /* the worker starts its own binary again */
        return mover_main();
    const struct CMUnitTest tests[] = {
        worker_test(what_is_copied_is_what_the_snapshot_held),
        worker_test(a_failed_set_leaves_no_snapshot),
        worker_test(the_loss_of_core_removes_the_snapshots_and_keeps_the_repository),
        worker_test(a_copy_cancelled_at_any_time_leaves_nothing_and_can_be_repeated),
        worker_test(a_path_outside_of_the_set_is_not_copied),
        worker_test(the_sqlite_writer_runs_as_the_owner_of_its_database),
        worker_test(inventory_and_plan_name_what_there_is),
#ifdef QUIESCED_FAULTS
        worker_test(an_operation_that_fails_at_its_fault_point_is_an_incident),
#endif
    };
    return cmocka_run_group_tests_name("worker with volumes", tests, NULL, NULL);
}
