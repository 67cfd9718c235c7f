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
    for (int kind = 0; kind < STORE_AUDIT; kind++) { /* the audit trail makes its records itself: tests/flow/test_audit.py */
        struct store_batch *batch = store_batch_new();
        const struct store_record record = {.id = "j1", .created_ms = 5, .doc = doc};
        store_batch_put(batch, (enum store_kind)kind, &record);
        world_submit(batch);
    }
    assert_int_equal(world.failed, 0);
    world_reopen();
    for (int kind = 0; kind < STORE_AUDIT; kind++) {
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

static void a_brief_list_leaves_out_what_was_put_beside_the_record(void **state)
{
    (void)state;
    AUTO_JSON json_t *doc = json_pack("{s:s, s:{s:i}}", "id", "a", "_", "small", 1), *rest = json_pack("{s:{s:[s, s]}}", "_", "writers", "one", "two");
    AUTO_JSON json_t *whole = json_pack("{s:s, s:{s:i, s:[s, s]}}", "id", "a", "_", "small", 1, "writers", "one", "two"), *rows = NULL, *brief_rows = NULL, *got = NULL;
    const struct store_record record = {.id = "a", .doc = doc, .rest = rest}, without = {.id = "a", .doc = doc};
    struct store_query query = {.kind = STORE_SESSION, .limit = 5};
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_SESSION, &record);
    world_submit(batch);
    assert_int_equal(store_get(world.store, STORE_SESSION, "a", &got, NULL, NULL), STORE_OK);
    assert_true(json_equal(got, whole));
    assert_int_equal(store_list(world.store, &query, &rows, NULL, NULL), STORE_OK);
    assert_true(json_equal(json_array_get(rows, 0), whole));
    query.brief = true;
    assert_int_equal(store_list(world.store, &query, &brief_rows, NULL, NULL), STORE_OK);
    assert_true(json_equal(json_array_get(brief_rows, 0), doc));
    batch = store_batch_new(); /* a record that has none any more */
    store_batch_put(batch, STORE_SESSION, &without);
    world_submit(batch);
    json_decref(TAKE_PTR(got));
    assert_int_equal(store_get(world.store, STORE_SESSION, "a", &got, NULL, NULL), STORE_OK);
    assert_true(json_equal(got, doc));
    batch = store_batch_new();
    store_batch_put(batch, STORE_JOB, &record); /* jobs have no place for it: nothing is lost silently */
    world_submit(batch);
    assert_int_equal(world.failed, 1);
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

/* A page shows what was there when it was read, once; what has come in before the place is of no page behind it, either way. */
static void what_comes_in_between_disturbs_no_page(void **state)
{
    static const struct {
        bool oldest_first;
        const char *pages[3];
    } rows[] = {{false, {"s6 s5 +", "s4 s3 +", "s2 s1 s0"}}, {true, {"s2 s3 +", "s4 s5 +", "s6 s7 s8"}}};
    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        struct store_query query = {.kind = STORE_JOB, .session_id = i ? "b" : "a", .limit = 2, .oldest_first = rows[i].oldest_first};
        char ids[16][4], after[4];
        for (int k = 0; k < 9; k++)
            str_format(ids[k], sizeof(ids[k]), "s%d", k);
        struct store_batch *clear = store_batch_new();
        for (int k = 0; k < 9; k++)
            store_batch_delete(clear, STORE_JOB, ids[k]);
        world_submit(clear);
        for (int k = 2; k < 7; k++)
            put_job(ids[k], query.session_id, NULL);
        assert_string_equal(page(&query), rows[i].pages[0]);
        put_job(ids[7], query.session_id, NULL);
        put_job(ids[1], query.session_id, NULL);
        str_format(after, sizeof(after), "%.2s", rows[i].pages[0] + 3);
        query.after = after;
        assert_string_equal(page(&query), rows[i].pages[1]);
        put_job(ids[8], query.session_id, NULL);
        put_job(ids[0], query.session_id, NULL);
        str_format(after, sizeof(after), "%.2s", rows[i].pages[1] + 3);
        query.limit = 3;
        assert_string_equal(page(&query), rows[i].pages[2]);
    }
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

/* In parts, so that nobody waits for long; but to the end. */
static void many_expired_rows_all_go(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    for (int i = 0; i < 3500; i++) {
        char id[16];
        str_format(id, sizeof(id), "%05d", i);
        AUTO_JSON json_t *doc = json_pack("{s:s}", "id", id);
        const struct store_record record = {.id = id, .state = "failed", .expires_ms = i < 2500 ? 1000 : 0, .doc = doc};
        store_batch_put(batch, STORE_JOB, &record);
    }
    world_submit(batch);
    store_expire(world.store, STORE_JOB, 1000, 300);
    const struct store_query query = {.kind = STORE_JOB, .limit = 4000};
    for (size_t left = 3500; left > 300;) { /* 2,500 by their time, 700 by their number */
        AUTO_JSON json_t *rows = NULL;
        bool more;
        world_submit(store_batch_new());
        assert_int_equal(store_list(world.store, &query, &rows, &more, NULL), STORE_OK);
        assert_true(json_array_size(rows) >= 300 && json_array_size(rows) < left);
        left = json_array_size(rows);
    }
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

static struct store_event_page events_page(const struct store_event_query *query)
{
    struct store_event_page got;
    assert_int_equal(store_events(world.store, query, &got, NULL), STORE_OK);
    return got;
}

static void events_have_ever_increasing_ids_and_can_be_read_on(void **state)
{
    (void)state;
    AUTO_JSON json_t *data = json_pack("{s:i}", "n", 1);
    for (int round = 0; round < 2; round++) {
        struct store_batch *batch = store_batch_new();
        store_batch_event(batch, &(struct store_event){.type = "job.changed", .session_id = "s", .job_id = "j"}, data);
        store_batch_event(batch, &(struct store_event){.type = "session.changed", .session_id = "s"}, NULL);
        world_submit(batch);
        world_reopen();
    }
    struct store_event_page got = events_page(&(struct store_event_query){.limit = 3});
    AUTO_JSON json_t *rows = got.rows;
    assert_int_equal(json_array_size(rows), 3);
    const json_t *first = json_array_get(rows, 0), *second = json_array_get(rows, 1);
    assert_true(json_int(first, "id", 0) < json_int(second, "id", 0));
    assert_string_equal(json_str(first, "type", ""), "job.changed");
    assert_string_equal(json_str(first, "job_id", ""), "j");
    assert_true(json_is_null(json_object_get(second, "job_id")));
    assert_true(json_equal(json_object_get(first, "data"), data));
    assert_true(json_is_null(json_object_get(second, "data")));
    assert_int_equal(strlen(json_str(first, "time", "")), strlen("2026-11-24T00:00:00.000Z"));
    assert_int_equal(got.to, json_int(json_array_get(rows, 2), "id", 0));
    struct store_event_page rest = events_page(&(struct store_event_query){.after = got.to, .limit = 9});
    AUTO_JSON json_t *rest_rows = rest.rows;
    assert_int_equal(json_array_size(rest_rows), 1);
    assert_int_equal(rest.to, rest.newest);
}

static void events_are_found_by_owner_session_and_job_and_passed_over_otherwise(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    for (int i = 0; i < STORE_EVENTS_LOOKED_AT + 10; i++)
        store_batch_event(batch, &(struct store_event){.type = "job.changed", .job_id = "other", .owner = "other"}, NULL);
    store_batch_event(batch, &(struct store_event){.type = "backup.changed", .session_id = "s", .owner = "other"}, NULL);
    store_batch_event(batch, &(struct store_event){.type = "job.changed", .session_id = "s", .job_id = "mine", .owner = "me"}, NULL);
    world_submit(batch);
    static const struct {
        struct store_event_query query;
        size_t n;
        bool at_once;
    } rows[] = {
        {{.owner = "me", .limit = 9}, 1, false},
        {{.owner = "me", .others = "b*", .limit = 9}, 2, false},
        {{.owner = "me", .session_id = "s", .limit = 9}, 1, false},
        {{.owner = "me", .job_id = "other", .limit = 9}, 0, true},
        {{.job_id = "mine", .limit = 9}, 1, true},
        {{.owner = "nobody", .limit = 9}, 0, false},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        struct store_event_query query = rows[i].query;
        size_t n = 0, pages = 0;
        struct store_event_page got;
        do {
            got = events_page(&query);
            n += json_array_size(got.rows);
            json_decref(got.rows);
            assert_true(got.to > query.after);
            query.after = got.to;
            pages++;
        } while (got.to < got.newest);
        assert_int_equal(n, rows[i].n);
        assert_int_equal(pages, rows[i].at_once ? 1 : 2);
    }
}

static int64_t told[8];
static size_t n_told;

static void tell(void *arg, const struct store_event *event)
{
    assert_ptr_equal(arg, told);
    assert_string_equal(event->owner, "me");
    assert_true(event->at_ms > 0);
    told[n_told++] = event->id;
}

static void events_are_told_in_order_once_they_are_durable(void **state)
{
    (void)state;
    n_told = 0;
    store_on_event(world.store, tell, told);
    for (int round = 0; round < 2; round++) {
        struct store_batch *batch = store_batch_new();
        for (int i = 0; i < 2; i++)
            store_batch_event(batch, &(struct store_event){.type = "job.changed", .owner = "me"}, NULL);
        if (round == 1)
            batch_job(batch, "", NULL, NULL); /* refused: none of it happened */
        world_submit(batch);
    }
    struct store_event_page got = events_page(&(struct store_event_query){.limit = 9});
    AUTO_JSON json_t *rows = got.rows;
    assert_int_equal(json_array_size(rows), 2);
    assert_int_equal(n_told, 2);
    for (size_t i = 0; i < n_told; i++)
        assert_int_equal(told[i], json_int(json_array_get(rows, i), "id", 0));
}

static void events_expire_by_number_and_by_age_and_ids_go_on(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    for (int i = 0; i < 10; i++)
        store_batch_event(batch, &(struct store_event){.type = "job.changed"}, NULL);
    world_submit(batch);
    store_expire_events(world.store, 0, 3);
    world_submit(store_batch_new());
    struct store_event_page got = events_page(&(struct store_event_query){.limit = 99});
    assert_int_equal(json_array_size(got.rows), 3);
    assert_int_equal(got.oldest, got.newest - 2);
    json_decref(got.rows);
    int64_t newest = got.newest;
    store_expire_events(world.store, INT64_MAX, 3);
    world_submit(store_batch_new());
    got = events_page(&(struct store_event_query){.limit = 99});
    assert_int_equal(json_array_size(got.rows), 0);
    assert_int_equal(got.newest, newest);
    assert_int_equal(got.oldest, newest + 1);
    json_decref(got.rows);
}

static void an_event_of_a_failed_batch_does_not_exist(void **state)
{
    (void)state;
    struct store_batch *batch = store_batch_new();
    store_batch_event(batch, &(struct store_event){.type = "job.changed"}, NULL);
    batch_job(batch, "", NULL, NULL);
    world_submit(batch);
    assert_int_equal(world.failed, 1);
    struct store_event_page got = events_page(&(struct store_event_query){.limit = 9});
    assert_int_equal(json_array_size(got.rows), 0);
    json_decref(got.rows);
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

static void parked_now(void *arg)
{
    (void)arg;
}

static void a_kept_text_goes_with_every_change_of_its_record(void **state)
{
    (void)state;
    const char *owner = NULL;
    put_job("a", NULL, "succeeded");
    put_job("b", NULL, "succeeded");
    assert_null(store_kept(world.store, STORE_JOB, "a", &owner));
    store_keep(world.store, STORE_JOB, "a", "somebody", "text of a");
    store_keep(world.store, STORE_JOB, "b", "nobody", "text of b");
    assert_null(store_kept(world.store, STORE_SESSION, "a", &owner));
    assert_string_equal(store_kept(world.store, STORE_JOB, "a", &owner), "text of a");
    assert_string_equal(owner, "somebody");
    put_job("a", NULL, "succeeded");
    assert_null(store_kept(world.store, STORE_JOB, "a", &owner));
    assert_string_equal(store_kept(world.store, STORE_JOB, "b", &owner), "text of b");
    store_park(world.store, parked_now, NULL);
    assert_null(store_kept(world.store, STORE_JOB, "b", &owner));
    store_resume(world.store);
    store_expire(world.store, STORE_JOB, 0, 0);
    put_job("c", NULL, NULL); /* committed after the expiry */
    assert_null(store_kept(world.store, STORE_JOB, "b", &owner));
    store_keep(world.store, STORE_JOB, "b", "nobody", "text of b");
    struct store_batch *batch = store_batch_new();
    store_batch_delete(batch, STORE_JOB, "b");
    world_submit(batch);
    assert_null(store_kept(world.store, STORE_JOB, "b", &owner));
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(what_is_committed_survives_close_and_open),
        STORE_TEST(a_batch_submitted_just_before_closing_is_committed),
        STORE_TEST(what_was_reported_as_committed_survives_a_kill),
        STORE_TEST(completions_come_on_the_loop_in_the_order_of_submission),
        STORE_TEST(a_brief_list_leaves_out_what_was_put_beside_the_record),
        STORE_TEST(a_completion_may_submit_again),
        STORE_TEST(a_failing_batch_fails_alone_and_whole),
        STORE_TEST(a_record_without_a_document_is_refused),
        STORE_TEST(deleting_is_idempotent),
        STORE_TEST(lists_are_newest_first_and_continue_after_a_cursor),
        STORE_TEST(what_comes_in_between_disturbs_no_page),
        STORE_TEST(filters_combine),
        STORE_TEST(hidden_records_can_be_got_but_are_not_listed),
        STORE_TEST(many_expired_rows_all_go),
        STORE_TEST(what_has_expired_goes_and_what_has_no_end_stays),
        STORE_TEST(only_terminal_jobs_beyond_the_number_are_dropped_oldest_first),
        STORE_TEST(events_have_ever_increasing_ids_and_can_be_read_on),
        STORE_TEST(events_are_found_by_owner_session_and_job_and_passed_over_otherwise),
        STORE_TEST(events_are_told_in_order_once_they_are_durable),
        STORE_TEST(events_expire_by_number_and_by_age_and_ids_go_on),
        STORE_TEST(an_event_of_a_failed_batch_does_not_exist),
        STORE_TEST(a_kept_text_goes_with_every_change_of_its_record),
        STORE_TEST(ten_thousand_batches_from_the_loop_are_all_committed_in_order),
#ifdef QUIESCED_FAULTS
        STORE_TEST(an_injected_fault_fails_the_batches_in_hand),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
