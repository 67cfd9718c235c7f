/* How a session ends when its worker cannot let go of everything, or dies at it: nothing that is still there is
 * forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/syscall.h>
#include <time.h>

#include "tests/unit/engine/engine_world.h"

enum { FREEZE_SECONDS = 60, TRIES = 3 };

static time_t clock_step; /* seconds by which somebody has set the clock */

/* The whole program's, in the C library's place. */
int clock_gettime(clockid_t id, struct timespec *ret)
{
    long result = syscall(SYS_clock_gettime, id, ret);
    if (result == 0 && id == CLOCK_REALTIME)
        ret->tv_sec += clock_step;
    return (int)result;
}

/* A session with one snapshot that goes with it. */
struct held {
    char session[64], snapshot[64];
    struct fake_worker *worker;
};

static struct fake_worker *running(const char *operation)
{
    for (size_t i = 0; i < world.n_workers; i++)
        if (world.workers[i].channel && str_eq(world.workers[i].operation, operation))
            return &world.workers[i];
    return NULL;
}

/* DoSnapshotSet is in the worker's hands. */
static void begin_snapshot_in(const char *context, struct held *ret, char job[64])
{
    char set[64];
    AUTO_ASKED added;
    ask_for(engine_session_create, NULL,
            json_pack("{s:s, s:s, s:i}", "kind", "backup", "context", context, "lease_seconds", 5), "id",
            ret->session);
    ask_for(engine_snapshot_set_start, ret->session, json_object(), "id", set);
    ask(&added, engine_snapshot_set_add, ret->session, json_pack("{s:s}", "path", "/volume"));
    UNTIL((ret->worker = running("resolve")));
    worker_done_with(ret->worker, NULL, "{\"volume\":\"/volume\",\"provider\":\"btrfs\"}");
    UNTIL(added.answered);
    str_copy(ret->snapshot, sizeof(ret->snapshot), json_str(added.body, "snapshot_id", ""));
    ask_for(engine_job_snapshot, ret->session, NULL, "id", job);
    UNTIL(running("snapshot"));
}

static void begin_snapshot(struct held *ret, char job[64])
{
    begin_snapshot_in("file_share_backup", ret, job);
}

static void take_snapshot(const struct held *held)
{
    AUTO_FREE char *made =
        str_new("{\"snapshots\":[{\"id\":\"%s\",\"volume\":\"/volume\",\"provider\":\"btrfs\",\"path\":\"/s\"}]}",
                held->snapshot);
    worker_done_with(held->worker, NULL, made);
}

static void hold_snapshot(struct held *ret)
{
    char job[64];
    begin_snapshot(ret, job);
    take_snapshot(ret);
    UNTIL(!engine_job_is_pending(world.engine, job));
}

static json_t *items_of(engine_call_fn call)
{
    AUTO_ASKED list;
    ask(&list, call, NULL, NULL);
    UNTIL(list.answered);
    assert_int_equal(list.status, 200);
    return json_incref(json_object_get(list.body, "items"));
}

/* GET /snapshots and GET /errors after a session's end. */
static void assert_left(const struct held *held, bool left)
{
    AUTO_JSON json_t *snapshots = items_of(engine_snapshot_list), *errors = items_of(engine_error_list);
    size_t i, told = 0;
    const json_t *error;
    json_array_foreach(errors, i, error) told +=
        strstr(json_str(error, "text", ""), held->snapshot) && strstr(json_str(error, "text", ""), "left behind");
    assert_int_equal(json_array_size(snapshots), left);
    assert_int_equal(told, left);
}

static char *cleanup_failed(const struct held *held)
{
    return str_new("{\"cleanup\":{\"thawed\":[],\"removed\":[],\"failed\":[{\"object\":\"%s\",\"reason\":\"busy\"}]}}",
                   held->snapshot);
}

/* The worker dies at `operation`; another one looks for what it left, and finds it stubborn or not. */
static void end_by_death(const struct held *held, const char *operation, bool stubborn)
{
    struct fake_worker *worker;
    UNTIL((worker = running(operation)));
    world.by_hand = "recover";
    worker_ends(worker);
    for (int i = 0; i < (stubborn ? TRIES : 1); i++) {
        UNTIL((worker = running("recover")));
        AUTO_FREE char *word =
            str_new(stubborn ? "{\"removed\":[],\"failed\":[{\"object\":\"%s\",\"reason\":\"busy\"}]}"
                             : "{\"removed\":[\"%s\"],\"failed\":[]}",
                    held->snapshot);
        worker_done_with(worker, NULL, word);
    }
}

static void call_ended_by_death(engine_call_fn call, const char *operation, int status, bool stubborn)
{
    struct held held;
    AUTO_ASKED ended;
    world_start(FREEZE_SECONDS);
    hold_snapshot(&held);
    world.by_hand = operation;
    ask(&ended, call, held.session, NULL);
    end_by_death(&held, operation, stubborn);
    UNTIL(ended.answered);
    assert_int_equal(ended.status, status);
    assert_left(&held, stubborn);
}

static void what_a_worker_left_that_died_in_abort_is_removed(void **state)
{
    (void)state;
    call_ended_by_death(engine_session_abort, "abort", 200, false);
}

static void what_a_worker_left_that_died_in_abort_is_told_when_it_stays(void **state)
{
    (void)state;
    call_ended_by_death(engine_session_abort, "abort", 200, true);
}

static void what_a_worker_left_that_died_in_release_is_removed(void **state)
{
    (void)state;
    call_ended_by_death(engine_session_delete, "release", 204, false);
}

static void what_a_worker_left_that_died_in_release_is_told_when_it_stays(void **state)
{
    (void)state;
    call_ended_by_death(engine_session_delete, "release", 204, true);
}

static void the_expiry_of_a_lease_clears_after_a_dead_worker(void **state)
{
    struct held held;
    (void)state;
    world_start(FREEZE_SECONDS);
    hold_snapshot(&held);
    world.by_hand = "release";
    end_by_death(&held, "release", true);
    char reason[64] = "";
    while (!str_eq(reason, "lease_expired")) {
        some_turns();
        ask_for(engine_session_get, held.session, NULL, "reason", reason);
    }
    assert_left(&held, true);
}

static void a_clock_that_is_set_back_does_not_keep_a_lease_alive(void **state)
{
    struct held held;
    char reason[64] = "";
    (void)state;
    world_start(FREEZE_SECONDS);
    hold_snapshot(&held);
    clock_step = -3600;
    while (!str_eq(reason, "lease_expired")) {
        some_turns();
        ask_for(engine_session_get, held.session, NULL, "reason", reason);
    }
    clock_step = 0;
    assert_left(&held, false);
}

static void a_cancelled_job_clears_after_a_worker_that_died_at_undoing(void **state)
{
    struct held held;
    char job[64];
    AUTO_ASKED cancelled, ended;
    (void)state;
    world_start(FREEZE_SECONDS);
    begin_snapshot(&held, job);
    world.by_hand = "abort";
    ask(&cancelled, engine_job_cancel, job, NULL);
    UNTIL(held.worker->cancelled);
    worker_done_with(held.worker, "VSS_S_ASYNC_CANCELLED", NULL);
    end_by_death(&held, "abort", true);
    UNTIL(cancelled.answered && !engine_job_is_pending(world.engine, job));
    ask(&ended, engine_job_get, job, NULL);
    UNTIL(ended.answered);
    assert_string_equal(json_str(ended.body, "state", ""), "cancelled");
    const json_t *cleanup = json_object_get(json_object_get(ended.body, "result"), "cleanup");
    const json_t *failed = json_array_get(json_object_get(cleanup, "failed"), 0);
    assert_string_equal(json_str(failed, "object", ""), held.snapshot);
}

/* The worker does not hold persistent ones any more when it says that they are taken. */
static void persistent_snapshots_of_a_job_that_was_cancelled_at_its_end_are_removed(void **state)
{
    struct held held;
    char job[64];
    struct fake_worker *worker;
    AUTO_ASKED cancelled, ended;
    (void)state;
    world_start(FREEZE_SECONDS);
    begin_snapshot_in("nas_rollback", &held, job);
    ask(&cancelled, engine_job_cancel, job, NULL);
    UNTIL(held.worker->cancelled);
    world.by_hand = "recover";
    take_snapshot(&held);
    UNTIL((worker = running("recover")));
    AUTO_FREE char *word = str_new("{\"removed\":[\"%s\"],\"failed\":[]}", held.snapshot);
    worker_done_with(worker, NULL, word);
    UNTIL(cancelled.answered && !engine_job_is_pending(world.engine, job));
    ask(&ended, engine_job_get, job, NULL);
    UNTIL(ended.answered);
    assert_string_equal(json_str(ended.body, "state", ""), "cancelled");
    const json_t *cleanup = json_object_get(json_object_get(ended.body, "result"), "cleanup");
    assert_true(json_has_string(json_object_get(cleanup, "removed"), held.snapshot));
    assert_left(&held, false);
}

static void what_a_living_worker_could_not_remove_is_told_by_a_204(void **state)
{
    struct held held;
    AUTO_ASKED deleted;
    (void)state;
    world_start(FREEZE_SECONDS);
    hold_snapshot(&held);
    world.by_hand = "release";
    ask(&deleted, engine_session_delete, held.session, NULL);
    UNTIL(running("release"));
    AUTO_FREE char *word = cleanup_failed(&held);
    worker_done_with(held.worker, NULL, word);
    UNTIL(deleted.answered);
    assert_int_equal(deleted.status, 204);
    assert_left(&held, true);
}

/* A Release that takes long is a job. */
static void release_job(bool left, const char *state)
{
    struct held held;
    AUTO_ASKED deleted, job;
    world_start(FREEZE_SECONDS);
    hold_snapshot(&held);
    world.by_hand = "release";
    ask(&deleted, engine_session_delete, held.session, NULL);
    UNTIL(deleted.answered);
    assert_int_equal(deleted.status, 202);
    AUTO_FREE char *word = cleanup_failed(&held);
    worker_done_with(held.worker, NULL, left ? word : NULL);
    UNTIL(!engine_job_is_pending(world.engine, json_str(deleted.body, "id", "")));
    ask(&job, engine_job_get, json_str(deleted.body, "id", ""), NULL);
    UNTIL(job.answered);
    assert_string_equal(json_str(job.body, "state", ""), state);
    const json_t *error = json_object_get(job.body, "error");
    assert_string_equal(json_str(error, "reason", ""), left ? "left_behind" : "");
    assert_left(&held, left);
}

static void a_release_that_left_something_behind_did_not_succeed(void **state)
{
    (void)state;
    release_job(true, "failed");
}

static void a_release_that_removed_everything_succeeds(void **state)
{
    (void)state;
    release_job(false, "succeeded");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_a_worker_left_that_died_in_abort_is_removed),
        TEST(what_a_worker_left_that_died_in_abort_is_told_when_it_stays),
        TEST(what_a_worker_left_that_died_in_release_is_removed),
        TEST(what_a_worker_left_that_died_in_release_is_told_when_it_stays),
        TEST(the_expiry_of_a_lease_clears_after_a_dead_worker),
        TEST(a_clock_that_is_set_back_does_not_keep_a_lease_alive),
        TEST(a_cancelled_job_clears_after_a_worker_that_died_at_undoing),
        TEST(persistent_snapshots_of_a_job_that_was_cancelled_at_its_end_are_removed),
        TEST(what_a_living_worker_could_not_remove_is_told_by_a_204),
        TEST(a_release_that_left_something_behind_did_not_succeed),
        TEST(a_release_that_removed_everything_succeeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
