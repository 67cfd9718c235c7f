#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>

#include "model/job_model.h"
#include "store_world.h"

static void what_is_committed_survives_close_and_open(void **state)
{
    (void)state;
    AUTO_JSON json_t *doc = json_pack("{s:s, s:[i,n,f], s:s}", "id", "j1", "list", 1, 2.5, "text", "\xc3\xa4\n\"");
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++) {
        struct store_batch *batch = store_batch_new();
        const struct store_record record = {.id = "j1", .created_ms = 5, .doc = doc};
        store_batch_put(batch, (enum store_kind)kind, &record);
        world_submit(batch);
    }
    assert_int_equal(world.failed, 0);
    world_reopen();
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++) {
        AUTO_JSON json_t *back = NULL;
        bool hidden = true;
        assert_int_equal(store_get(world.store, (enum store_kind)kind, "j1", &back, &hidden, NULL), STORE_OK);
        assert_true(json_equal(back, doc));
        assert_false(hidden);
    }
    assert_int_equal(get_job("j2"), STORE_NONE);
}

static void a_batch_submitted_just_before_closing_is_committed(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    batch_job(batch, "late", NULL, "running");
    store_submit(world.store, batch, world_done, NULL);
    world_reopen();
    assert_int_equal(world.done, 0);
    assert_int_equal(get_job("late"), STORE_OK);
}

static void tell_and_wait_for_the_end(void *arg, const struct err *err)
{
    int fd = (int)(intptr_t)arg;
    if (!err && write(fd, "c", 1) == 1)
        pause();
    _exit(1);
}

static void what_was_reported_as_committed_survives_a_kill(void **state)
{
    (void)state;
    store_close(world.store);
    world.store = NULL;
    int told[2];
    assert_int_equal(pipe(told), 0);
    pid_t pid = fork();
    if (pid == 0) {
        world_open();
        struct store_batch *batch = store_batch_new();
        batch_job(batch, "killed", NULL, "running");
        store_submit(world.store, batch, tell_and_wait_for_the_end, (void *)(intptr_t)told[1]);
        loop_run(world.loop);
        _exit(1);
    }
    close(told[1]);
    char byte;
    assert_int_equal(read(told[0], &byte, 1), 1);
    close(told[0]);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    world_open();
    assert_int_equal(get_job("killed"), STORE_OK);
}

static void completions_come_on_the_loop_in_the_order_of_submission(void **state)
{
    (void)state;
    for (intptr_t i = 0; i < 10; i++) {
        struct store_batch *batch = store_batch_new();
        if (i % 3) /* an empty batch keeps its place, too */
            batch_job(batch, "same", NULL, i == 8 ? "succeeded" : "running");
        store_submit(world.store, batch, world_done, (void *)i);
    }
    assert_int_equal(world.done, 0);
    world_await(10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(world.order[i], i);
    AUTO_JSON json_t *doc = NULL;
    assert_int_equal(store_get(world.store, STORE_JOB, "same", &doc, NULL, NULL), STORE_OK);
    assert_string_equal(json_str(doc, "state", ""), "succeeded"); /* the last writer won */
}

static void submit_another(void *arg, const struct err *err)
{
    assert_null(err);
    struct store_batch *batch = store_batch_new();
    batch_job(batch, "second", NULL, NULL);
    store_submit(world.store, batch, world_done, arg);
}

static void a_completion_may_submit_again(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    batch_job(batch, "first", NULL, NULL);
    store_submit(world.store, batch, submit_another, NULL);
    world_await(1);
    assert_int_equal(get_job("first"), STORE_OK);
    assert_int_equal(get_job("second"), STORE_OK);
}

static void a_failing_batch_fails_alone_and_whole(void **state)
{
    (void)state;
    struct store_batch *good = store_batch_new(), *bad = store_batch_new(), *after = store_batch_new();
    batch_job(good, "good", NULL, NULL);
    batch_job(bad, "half", NULL, NULL);
    batch_job(bad, "", NULL, NULL); /* no id: refused */
    batch_job(after, "after", NULL, NULL);
    store_submit(world.store, good, world_done, (void *)1);
    store_submit(world.store, bad, world_done, (void *)2);
    store_submit(world.store, after, world_done, (void *)3);
    world_await(3);
    assert_int_equal(world.failed, 1);
    assert_int_equal(world.err.hr, (uint32_t)VSS_E_UNEXPECTED);
    assert_non_null(strstr(world.err.text, "cannot change it: CHECK constraint failed"));
    assert_int_equal(get_job("good"), STORE_OK);
    assert_int_equal(get_job("after"), STORE_OK);
    assert_int_equal(get_job("half"), STORE_NONE);
}

static void a_record_without_a_document_is_refused(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    const struct store_record record = {.id = "x"};
    store_batch_put(batch, STORE_JOB, &record);
    world_submit(batch);
    assert_int_equal(world.failed, 1);
    assert_int_equal(get_job("x"), STORE_NONE);
}

static void deleting_is_idempotent(void **state)
{
    (void)state;
    put_job("a", NULL, NULL);
    for (int i = 0; i < 2; i++) {
        struct store_batch *batch = store_batch_new();
        store_batch_delete(batch, STORE_JOB, "a");
        world_submit(batch);
        assert_int_equal(world.failed, 0);
        assert_int_equal(get_job("a"), STORE_NONE);
    }
}

static void lists_are_newest_first_and_continue_after_a_cursor(void **state)
{
    (void)state;
    const char *const ids[] = {"c", "a", "e", "b", "d"};
    for (size_t i = 0; i < ELEMENTS(ids); i++)
        put_job(ids[i], NULL, NULL);
    struct store_query query = {.kind = STORE_JOB, .limit = 2};
    assert_string_equal(page(&query), "e d +");
    query.after = "d";
    assert_string_equal(page(&query), "c b +");
    query.after = "b";
    assert_string_equal(page(&query), "a");
    query.after = "a";
    assert_string_equal(page(&query), "");
    query.after = "ca"; /* a cursor whose record is gone still works */
    assert_string_equal(page(&query), "c b +");
    query = (struct store_query){.kind = STORE_JOB, .limit = 3, .oldest_first = true};
    assert_string_equal(page(&query), "a b c +");
    query.after = "c";
    assert_string_equal(page(&query), "d e");
    query = (struct store_query){.kind = STORE_JOB, .limit = 5};
    assert_string_equal(page(&query), "e d c b a"); /* exactly full: no further page */
    query.kind = STORE_SESSION;
    assert_string_equal(page(&query), "");
}

static void filters_combine(void **state)
{
    (void)state;
    for (int i = 0; i < 32; i++) {
        char id[8];
        str_format(id, sizeof(id), "%02d", i);
        AUTO_JSON json_t *doc = json_pack("{s:s}", "id", id);
        struct store_batch *batch = store_batch_new();
        const struct store_record record = {.id = id,
                                            .session_id = i & 1 ? "s" : "t",
                                            .job_id = i & 2 ? "j" : NULL,
                                            .owner = i & 4 ? "o" : "p",
                                            .state = i & 8 ? "running" : "failed",
                                            .operation = i & 16 ? "copy" : "prepare",
                                            .doc = doc};
        store_batch_put(batch, STORE_ERROR_ROW, &record);
        world_submit(batch);
    }
    struct store_query query = {.kind = STORE_ERROR_ROW, .limit = 32, .session_id = "s", .job_id = "j", .owner = "o"};
    assert_string_equal(page(&query), "31 23 15 07");
    query.state = "running";
    query.operation = "copy";
    assert_string_equal(page(&query), "31");
    query = (struct store_query){.kind = STORE_ERROR_ROW, .limit = 3, .operation = "prepare", .after = "15"};
    assert_string_equal(page(&query), "14 13 12 +");
    query = (struct store_query){.kind = STORE_ERROR_ROW, .limit = 3, .state = "' OR 1=1 --"};
    assert_string_equal(page(&query), "");
}

static void hidden_records_can_be_got_but_are_not_listed(void **state)
{
    (void)state;
    put_job("a", NULL, NULL);
    put_job("b", NULL, NULL);
    AUTO_JSON json_t *doc = json_pack("{s:s}", "id", "b");
    struct store_batch *batch = store_batch_new();
    const struct store_record record = {.id = "b", .hidden = true, .doc = doc};
    store_batch_put(batch, STORE_JOB, &record);
    world_submit(batch);
    struct store_query query = {.kind = STORE_JOB, .limit = 10};
    assert_string_equal(page(&query), "a");
    AUTO_JSON json_t *back = NULL;
    bool hidden = false;
    assert_int_equal(store_get(world.store, STORE_JOB, "b", &back, &hidden, NULL), STORE_OK);
    assert_true(hidden);
}

static void put_expiring(const char *id, int64_t expires_ms)
{
    AUTO_JSON json_t *doc = json_pack("{s:s}", "id", id);
    struct store_batch *batch = store_batch_new();
    const struct store_record record = {.id = id, .state = "running", .expires_ms = expires_ms, .doc = doc};
    store_batch_put(batch, STORE_JOB, &record);
    world_submit(batch);
}

static void what_has_expired_goes_and_what_has_no_end_stays(void **state)
{
    (void)state;
    put_expiring("kept", 0);
    put_expiring("past", 1000);
    put_expiring("future", 1001);
    store_expire(world.store, STORE_JOB, 1000, 0);
    world_submit(store_batch_new());
    assert_int_equal(get_job("kept"), STORE_OK);
    assert_int_equal(get_job("past"), STORE_NONE);
    assert_int_equal(get_job("future"), STORE_OK);
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++)
        store_expire(world.store, (enum store_kind)kind, 2000, 5);
    world_submit(store_batch_new());
    assert_int_equal(get_job("future"), STORE_NONE);
}

static void only_terminal_jobs_beyond_the_number_are_dropped_oldest_first(void **state)
{
    (void)state;
    int terminal = 0;
    for (int i = 0; i < JOB_STATE_COUNT; i++) {
        char id[8];
        str_format(id, sizeof(id), "%02d", i);
        put_job(id, NULL, job_state_name((enum job_state)i));
        terminal += job_state_terminal((enum job_state)i);
    }
    put_job("zz", NULL, "failed");
    put_job("zy", NULL, "succeeded");
    store_expire(world.store, STORE_JOB, 1, 2);
    world_submit(store_batch_new());
    assert_true(terminal > 0);
    for (int i = 0; i < JOB_STATE_COUNT; i++) {
        char id[8];
        str_format(id, sizeof(id), "%02d", i);
        assert_int_equal(get_job(id), job_state_terminal((enum job_state)i) ? STORE_NONE : STORE_OK);
    }
    assert_int_equal(get_job("zz"), STORE_OK);
    assert_int_equal(get_job("zy"), STORE_OK);
}

static void events_have_ever_increasing_ids_and_can_be_read_on(void **state)
{
    (void)state;
    AUTO_JSON json_t *data = json_pack("{s:i}", "n", 1);
    for (int round = 0; round < 2; round++) {
        struct store_batch *batch = store_batch_new();
        store_batch_event(batch, "job.changed", "s", "j", data);
        store_batch_event(batch, "session.changed", "s", NULL, NULL);
        world_submit(batch);
        world_reopen();
    }
    AUTO_JSON json_t *rows = NULL;
    assert_int_equal(store_events(world.store, 0, 3, &rows, NULL), STORE_OK);
    assert_int_equal(json_array_size(rows), 3);
    const json_t *first = json_array_get(rows, 0), *second = json_array_get(rows, 1);
    assert_true(json_int(first, "id", 0) < json_int(second, "id", 0));
    assert_string_equal(json_str(first, "type", ""), "job.changed");
    assert_string_equal(json_str(first, "job_id", ""), "j");
    assert_true(json_is_null(json_object_get(second, "job_id")));
    assert_true(json_equal(json_object_get(first, "data"), data));
    assert_true(json_is_null(json_object_get(second, "data")));
    assert_int_equal(strlen(json_str(first, "time", "")), strlen("2026-11-24T00:00:00.000Z"));
    AUTO_JSON json_t *rest = NULL;
    assert_int_equal(store_events(world.store, json_int(json_array_get(rows, 2), "id", 0), 9, &rest, NULL), STORE_OK);
    assert_int_equal(json_array_size(rest), 1);
}

static void an_event_of_a_failed_batch_does_not_exist(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    store_batch_event(batch, "job.changed", NULL, NULL, NULL);
    batch_job(batch, "", NULL, NULL);
    world_submit(batch);
    assert_int_equal(world.failed, 1);
    AUTO_JSON json_t *rows = NULL;
    assert_int_equal(store_events(world.store, 0, 9, &rows, NULL), STORE_OK);
    assert_int_equal(json_array_size(rows), 0);
}

static void ten_thousand_batches_from_the_loop_are_all_committed_in_order(void **state)
{
    (void)state;
    enum { MANY = 10000 };
    for (intptr_t i = 0; i < MANY; i++) {
        char id[16];
        str_format(id, sizeof(id), "%05d", (int)i);
        struct store_batch *batch = store_batch_new();
        batch_job(batch, i % 1000 == 999 ? "" : id, "s", "running"); /* ten bad ones among them */
        store_submit(world.store, batch, world_done, (void *)i);
        if (i % 100 == 0) { /* reading goes on meanwhile */
            enum store_result result = get_job("00000");
            assert_true(result == STORE_OK || result == STORE_NONE);
        }
    }
    world_await(MANY);
    assert_int_equal(world.failed, 10);
    world_reopen();
    struct store_query query = {.kind = STORE_JOB, .limit = MANY, .session_id = "s"};
    AUTO_JSON json_t *rows = NULL;
    bool more = true;
    assert_int_equal(store_list(world.store, &query, &rows, &more, NULL), STORE_OK);
    assert_int_equal(json_array_size(rows), MANY - 10);
    assert_false(more);
}

#ifdef QUIESCED_FAULTS
static void an_injected_fault_fails_the_batches_in_hand(void **state)
{
    (void)state;
    AUTO_FREE char *point = str_new("%s/store.commit", world.directory);
    close(open(point, O_WRONLY | O_CREAT, 0600));
    setenv("QUIESCED_FAULT_DIR", world.directory, 1);
    struct store_batch *batch = store_batch_new();
    batch_job(batch, "a", NULL, NULL);
    world_submit(batch);
    assert_int_equal(world.failed, 1);
    assert_string_equal(world.err.text, "store: cannot commit: fault injected");
    assert_int_equal(world.err.hr, (uint32_t)VSS_E_UNEXPECTED);
    assert_int_equal(get_job("a"), STORE_NONE);
    unlink(point);
    world.failed = 0;
    put_job("a", NULL, NULL);
    assert_int_equal(get_job("a"), STORE_OK);
}
#endif

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(what_is_committed_survives_close_and_open),
        STORE_TEST(a_batch_submitted_just_before_closing_is_committed),
        STORE_TEST(what_was_reported_as_committed_survives_a_kill),
        STORE_TEST(completions_come_on_the_loop_in_the_order_of_submission),
        STORE_TEST(a_completion_may_submit_again),
        STORE_TEST(a_failing_batch_fails_alone_and_whole),
        STORE_TEST(a_record_without_a_document_is_refused),
        STORE_TEST(deleting_is_idempotent),
        STORE_TEST(lists_are_newest_first_and_continue_after_a_cursor),
        STORE_TEST(filters_combine),
        STORE_TEST(hidden_records_can_be_got_but_are_not_listed),
        STORE_TEST(what_has_expired_goes_and_what_has_no_end_stays),
        STORE_TEST(only_terminal_jobs_beyond_the_number_are_dropped_oldest_first),
        STORE_TEST(events_have_ever_increasing_ids_and_can_be_read_on),
        STORE_TEST(an_event_of_a_failed_batch_does_not_exist),
        STORE_TEST(ten_thousand_batches_from_the_loop_are_all_committed_in_order),
#ifdef QUIESCED_FAULTS
        STORE_TEST(an_injected_fault_fails_the_batches_in_hand),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
