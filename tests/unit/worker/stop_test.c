/* The ways to stop: cancel in every phase, the loss of either channel and SIGTERM in every phase, abort, release. */
#include "worker_fixture.h"

/* Which operation is in hand while a writer takes its time over which event. */
struct point {
    const char *operation, *event, *delay;
};
static const struct point points[] = {
    {"metadata", "identify", "DELAY_IDENTIFY"},
    {"prepare", "prepare_backup", "DELAY_PREPARE_BACKUP"},
    {"snapshot", "prepare_snapshot", "DELAY_PREPARE_SNAPSHOT"},
    {"snapshot", "freeze", "DELAY_FREEZE"},
    {"snapshot", "post_snapshot", "DELAY_POST_SNAPSHOT"},
    {"complete", "backup_complete", "DELAY_BACKUP_COMPLETE"},
};

/* "quick" answers at once and freezes first; "slow" holds the phase open. */
static int open_phase(struct fixture *f, const struct point *point)
{
    add_writer(f, "quick", "recorder", NULL);
    add_writer(f, "slow", "recorder", "LEVEL", "back_end", point->delay, "600", NULL);
    fixture_start(f);
    json_t *args = NULL;
    if (!str_eq(point->operation, "metadata")) {
        bring_to(f, point->operation);
        args = set_args(f, "fail");
    }
    int id = fixture_send(f, point->operation, args);
    await_event(f, "slow", point->event);
    AUTO_FREE char *answered = str_new("%s.answered", point->event);
    await_event(f, "quick", answered);
    return id;
}

static void cancel_at(struct fixture *f, const struct point *point)
{
    int id = open_phase(f, point);
    fixture_cancel(f, id);
    AUTO_JSON json_t *done = fixture_done(f, id); /* the slow writer would need ten minutes */
    assert_string_equal(error_name(done), "VSS_S_ASYNC_CANCELLED");
}

static void no_later_event(const struct fixture *f, const char *event)
{
    AUTO_JSON json_t *events = recorded(f);
    size_t i;
    const json_t *item;
    json_array_foreach (events, i, item)
        if (str_eq(json_str(item, "event", ""), event))
            fail_msg("%s saw %s", json_str(item, "writer", ""), event);
}

static void a_cancelled_gather_can_be_repeated(void **state)
{
    struct fixture *f = *state;
    cancel_at(f, &points[0]);
    int id = fixture_send(f, "metadata", NULL);
    fixture_cancel(f, id);
    AUTO_JSON json_t *again = fixture_done(f, id);
    assert_string_equal(error_name(again), "VSS_S_ASYNC_CANCELLED");
    no_later_event(f, "backup_shutdown");
}

static void a_cancelled_prepare_aborts_those_that_were_told(void **state)
{
    struct fixture *f = *state;
    cancel_at(f, &points[1]);
    assert_true(saw(f, "quick", "abort"));
}

static void a_cancel_before_the_freeze_freezes_nobody(void **state)
{
    struct fixture *f = *state;
    cancel_at(f, &points[2]);
    assert_true(saw(f, "quick", "abort"));
    no_later_event(f, "freeze");
}

static void a_cancel_inside_the_window_thaws_first(void **state)
{
    struct fixture *f = *state;
    cancel_at(f, &points[3]);
    assert_true(saw(f, "quick", "thaw"));
    assert_true(position(f, "quick", "abort") > position(f, "quick", "thaw"));
    no_later_event(f, "post_snapshot");
}

static void a_cancel_after_post_snapshot_aborts_nobody_who_has_finished(void **state)
{
    struct fixture *f = *state;
    cancel_at(f, &points[4]);
    assert_false(saw(f, "quick", "abort"));
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    assert_succeeded(released);
    assert_true(saw(f, "quick", "backup_shutdown"));
}

static void a_cancelled_complete_keeps_the_acknowledgements(void **state)
{
    struct fixture *f = *state;
    int id = open_phase(f, &points[5]);
    fixture_cancel(f, id);
    AUTO_JSON json_t *done = fixture_done(f, id);
    assert_string_equal(error_name(done), "VSS_S_ASYNC_CANCELLED");
    assert_status(done, "quick", "VSS_WS_STABLE", "S_OK");
    assert_status(done, "slow", "VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITERERROR_RETRYABLE");
    no_later_event(f, "abort");
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    assert_succeeded(released);
    assert_int_equal(fixture_wait(f), 0);
    assert_false(saw(f, "slow", "backup_shutdown")); /* it was ended: no late answer confuses anyone */
}

static void a_cancel_of_another_operation_changes_nothing(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "one", "recorder", "DELAY_PREPARE_BACKUP", "0.3", NULL);
    fixture_start(f);
    bring_to(f, "prepare");
    int id = fixture_send(f, "prepare", set_args(f, "fail"));
    fixture_cancel(f, id + 100);
    AUTO_JSON json_t *done = fixture_done(f, id);
    assert_succeeded(done);
}

enum loss { LOSE_CORE, LOSE_AGENT, LOSE_BY_SIGNAL, LOSS_COUNT };

static void lose(struct fixture *f, enum loss how)
{
    if (how == LOSE_BY_SIGNAL)
        kill(f->pid, SIGTERM);
    else if (how == LOSE_CORE)
        fd_cleanup(&f->core);
    else
        fd_cleanup(&f->agent);
    if (how == LOSE_CORE)
        f->core = -1;
    if (how == LOSE_AGENT)
        f->agent = -1;
    assert_int_equal(fixture_wait(f), 0);
}

/* Whatever was told before, after the loss: thawed, aborted when owed, shut down; never BackupComplete. */
static void lost_at(struct fixture *f, const struct point *point, enum loss how)
{
    open_phase(f, point);
    lose(f, how);
    AUTO_FREE char *staging = str_new("%s/staging/0193b5a0-0000-7000-8000-000000000001", f->dir);
    assert_int_not_equal(access(staging, F_OK), 0);
    if (str_eq(point->operation, "metadata"))
        return;
    assert_true(saw(f, "quick", "backup_shutdown.answered"));
    bool done_post = str_eq(point->operation, "complete") || str_eq(point->event, "post_snapshot");
    assert_int_equal(saw(f, "quick", "abort"), !done_post);
    if (str_eq(point->event, "freeze")) {
        assert_true(position(f, "quick", "thaw") > position(f, "quick", "freeze"));
        assert_true(position(f, "quick", "abort") > position(f, "quick", "thaw"));
    }
    if (!str_eq(point->operation, "complete"))
        no_later_event(f, "backup_complete");
    assert_true(saw(f, "quick", "end_of_file"));
}

static void lost_everywhere(void **state, enum loss how)
{
    for (size_t i = 0; i < ELEMENTS(points); i++) {
        void *own = NULL;
        fixture_setup(&own);
        lost_at(own, &points[i], how);
        fixture_teardown(&own);
    }
    (void)state;
}

static void the_loss_of_core_undoes_every_phase(void **state)
{
    lost_everywhere(state, LOSE_CORE);
}
static void the_loss_of_the_agent_undoes_every_phase(void **state)
{
    lost_everywhere(state, LOSE_AGENT);
}
static void sigterm_undoes_every_phase(void **state)
{
    lost_everywhere(state, LOSE_BY_SIGNAL);
}

static void the_loss_between_operations_aborts_and_shuts_down(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "one", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    lose(f, LOSE_CORE);
    assert_true(saw(f, "one", "abort"));
    assert_true(saw(f, "one", "backup_shutdown"));
    assert_false(saw(f, "one", "backup_complete"));
}

static void a_worker_without_a_start_message_ends(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "one", "recorder", NULL);
    fixture_start(f);
    lose(f, LOSE_AGENT);
    assert_false(saw(f, "one", "identify"));
}

static void release_ends_a_writer_that_ignores_the_end_of_its_input(void **state)
{
    struct fixture *f = *state;
    json_put(f->limits, "writer_seconds", json_pack("{s:i}", "backup_shutdown", 1));
    add_writer(f, "deaf", "hanging", "BAD_AT", "backup_shutdown", NULL);
    add_writer(f, "good", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "complete");
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    assert_succeeded(released);
    assert_int_equal(fixture_wait(f), 0);
    assert_true(saw(f, "good", "end_of_file"));
    AUTO_JSON json_t *events = recorded(f);
    const json_t *event = json_array_get(events, (size_t)position(f, "deaf", "identify"));
    assert_int_equal(kill((pid_t)json_int(event, "pid", 0), 0), -1);
}

static void abort_tells_who_prepared_and_the_session_can_be_released(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "one", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *aborted = fixture_run(f, "abort", json_pack("{s:s}", "reason", "lease_expired"));
    assert_succeeded(aborted);
    assert_true(saw(f, "one", "abort"));
    AUTO_JSON json_t *again = fixture_run(f, "abort", NULL);
    assert_succeeded(again);
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    assert_succeeded(released);
    assert_int_equal(fixture_wait(f), 0);
    assert_false(saw(f, "one", "backup_complete"));
}

static void an_unknown_operation_is_refused_and_the_worker_lives_on(void **state)
{
    struct fixture *f = *state;
    fixture_start(f);
    AUTO_JSON json_t *done = fixture_run(f, "no_such_operation", NULL);
    assert_string_equal(error_name(done), "E_NOTIMPL");
    AUTO_JSON json_t *status = fixture_run(f, "status", NULL);
    assert_succeeded(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        worker_test(a_cancelled_gather_can_be_repeated),
        worker_test(a_cancelled_prepare_aborts_those_that_were_told),
        worker_test(a_cancel_before_the_freeze_freezes_nobody),
        worker_test(a_cancel_inside_the_window_thaws_first),
        worker_test(a_cancel_after_post_snapshot_aborts_nobody_who_has_finished),
        worker_test(a_cancelled_complete_keeps_the_acknowledgements),
        worker_test(a_cancel_of_another_operation_changes_nothing),
        cmocka_unit_test(the_loss_of_core_undoes_every_phase),
        cmocka_unit_test(the_loss_of_the_agent_undoes_every_phase),
        cmocka_unit_test(sigterm_undoes_every_phase),
        worker_test(the_loss_between_operations_aborts_and_shuts_down),
        worker_test(a_worker_without_a_start_message_ends),
        worker_test(release_ends_a_writer_that_ignores_the_end_of_its_input),
        worker_test(abort_tells_who_prepared_and_the_session_can_be_released),
        worker_test(an_unknown_operation_is_refused_and_the_worker_lives_on),
    };
    return cmocka_run_group_tests_name("worker stops", tests, NULL, NULL);
}
