/* The whole session without volumes: order, statuses, failures of writers. */
#include "worker_fixture.h"

static void a_session_tells_every_event_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "front", "recorder", "LEVEL", "front_end", "STAMP", "stamp-1", NULL);
    add_writer(f, "back", "recorder", "LEVEL", "back_end", NULL);
    add_writer(f, "base", "recorder", "LEVEL", "system", NULL);
    fixture_start(f);
    bring_to(f, "prepare");
    assert_int_equal(json_array_size(json_object_get(f->metadata, "writers")), 3);
    AUTO_JSON json_t *prepared = fixture_run(f, "prepare", set_args(f, "fail"));
    assert_succeeded(prepared);
    const json_t *components = json_object_get(json_object_get(prepared, "result"), "components");
    assert_string_equal(json_str(json_array_get(components, 0), "backup_stamp", ""), "stamp-1");
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_succeeded(taken);
    assert_status(taken, "front", "VSS_WS_WAITING_FOR_BACKUP_COMPLETE", "S_OK");
    const json_t *freeze = json_object_get(json_object_get(taken, "result"), "freeze");
    assert_true(json_real_value(json_object_get(freeze, "window_ms")) > 0);
    AUTO_JSON json_t *completed = fixture_run(f, "complete", set_args(f, "fail"));
    assert_succeeded(completed);
    assert_int_equal(json_int(json_object_get(completed, "result"), "told", 0), 3);
    assert_status(completed, "back", "VSS_WS_STABLE", "S_OK");
    AUTO_JSON json_t *released = fixture_run(f, "release", NULL);
    assert_succeeded(released);
    assert_int_equal(fixture_wait(f), 0);
    static const char *const order[][2] = {
        {"front", "prepare_backup"},
        {"front", "prepare_snapshot"},
        {"front", "freeze"},
        {"back", "freeze"},
        {"base", "freeze"},
        {"base", "thaw"},
        {"back", "thaw"},
        {"front", "thaw"},
        {"front", "post_snapshot"},
        {"front", "backup_complete"},
        {"front", "backup_shutdown"},
        {"front", "end_of_file"},
    };
    for (size_t i = 0; i + 1 < ELEMENTS(order); i++)
        if (position(f, order[i][0], order[i][1]) >= position(f, order[i + 1][0], order[i + 1][1]))
            fail_msg("%s of %s is not before %s of %s", order[i][1], order[i][0], order[i + 1][1], order[i + 1][0]);
    assert_false(saw(f, "front", "abort"));
}

static void only_chosen_writers_take_part_in_component_mode(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "chosen", "recorder", NULL);
    add_writer(f, "idle", "recorder", NULL);
    fixture_start(f);
    gather(f);
    json_t *args = set_args(f, "fail");
    json_array_remove(json_object_get(args, "components"), 1);
    AUTO_JSON json_t *done = fixture_run(f, "prepare", json_incref(args));
    assert_succeeded(done);
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", args);
    assert_succeeded(taken);
    assert_true(saw(f, "chosen", "thaw"));
    assert_false(saw(f, "idle", "prepare_backup"));
    assert_false(saw(f, "idle", "freeze"));
}

static void all_writers_take_part_without_component_mode(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "one", "recorder", NULL);
    fixture_start(f);
    gather(f);
    json_t *args = set_args(f, "fail");
    json_array_clear(json_object_get(args, "components"));
    json_put(json_object_get(args, "backup_state"), "component_mode", json_false());
    AUTO_JSON json_t *done = fixture_run(f, "prepare", args);
    assert_succeeded(done);
    assert_true(saw(f, "one", "prepare_backup"));
}

static void a_writer_that_cannot_identify_is_missing_and_the_job_finishes(void **state)
{
    static const char *const lies[] = {"garbage",          "array",        "deep", "no_id", "wrong_types",
                                       "twice_components", "relative_path"};
    struct fixture *f = *state;
    char names[ELEMENTS(lies)][32];
    add_writer(f, "good", "recorder", NULL);
    for (size_t i = 0; i < ELEMENTS(lies); i++) {
        str_format(names[i], sizeof(names[i]), "liar-%zu", i);
        add_writer(f, names[i], "lying", "BAD_AT", "identify", "LIE", lies[i], NULL);
    }
    add_writer(f, "dead", "dying", "BAD_AT", "identify", NULL);
    add_writer(f, "flood", "flooding", "BAD_AT", "identify", NULL);
    add_writer(f, "absent", "there-is-no-such-program", NULL);
    fixture_start(f);
    gather(f);
    assert_int_equal(json_array_size(json_object_get(f->metadata, "writers")), 1);
    size_t i;
    const json_t *item;
    json_array_foreach (json_object_get(f->metadata, "missing"), i, item) {
        const char *want = str_eq(json_str(item, "name", ""), "dead") ? "VSS_E_WRITER_NOT_RESPONDING"
                                                                      : "VSS_E_WRITERERROR_NONRETRYABLE";
        if (!str_eq(json_str(item, "name", ""), "absent"))
            assert_string_equal(json_str(json_object_get(item, "error"), "hresult", ""), want);
    }
    assert_int_equal(i, ELEMENTS(lies) + 3);
}

static void the_filter_enables_and_disables(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "a", "recorder", "CLASS_ID", "00000000-0000-8000-8000-00000000000a", NULL);
    add_writer(f, "b", "recorder", "CLASS_ID", "00000000-0000-8000-8000-00000000000b", NULL);
    fixture_start(f);
    AUTO_JSON json_t *only = fixture_run(
        f, "metadata", json_pack("{s:{s:[s]}}", "filter", "enable", "00000000-0000-8000-8000-00000000000b"));
    assert_succeeded(only);
    const json_t *writers = json_object_get(json_object_get(only, "result"), "writers");
    assert_int_equal(json_array_size(writers), 1);
    assert_string_equal(json_str(json_array_get(writers, 0), "name", ""), "b");
    AUTO_JSON json_t *but = fixture_run(f, "metadata",
                                        json_pack("{s:{s:[s]}}", "filter", "disable_instances",
                                                  json_str(json_array_get(writers, 0), "instance_id", "")));
    writers = json_object_get(json_object_get(but, "result"), "writers");
    assert_int_equal(json_array_size(writers), 1);
    assert_string_equal(json_str(json_array_get(writers, 0), "name", ""), "a");
}

/* Bad writers at Freeze: the code, the thaw and the Abort of the others. */
static void fails_at_freeze(struct fixture *f, const char *program, const char *key, const char *value,
                            const char *code)
{
    add_writer(f, "good", "recorder", NULL);
    add_writer(f, "bad", program, key, value, "FREEZE_TIMEOUT_MS", "1500", NULL);
    add_writer(f, "later", "recorder", "LEVEL", "system", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *done = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_string_equal(error_name(done), code);
    const json_t *failed = json_object_get(done, "writers");
    assert_int_equal(json_array_size(failed), 1);
    assert_string_equal(json_str(json_array_get(failed, 0), "name", ""), "bad");
    assert_status(done, "bad", "VSS_WS_FAILED_AT_FREEZE", code);
    assert_true(position(f, "good", "thaw") > position(f, "good", "freeze"));
    assert_true(position(f, "good", "abort") > position(f, "good", "thaw"));
    assert_false(saw(f, "later", "freeze"));
    assert_true(saw(f, "later", "abort"));
    assert_false(saw(f, "good", "post_snapshot"));
}

static void a_writer_that_refuses_to_freeze_fails_the_set(void **state)
{
    fails_at_freeze(*state, "recorder", "FAIL_FREEZE", "VSS_E_WRITERERROR_RETRYABLE", "VSS_E_WRITERERROR_RETRYABLE");
    assert_true(saw(*state, "bad", "abort"));
    assert_false(saw(*state, "bad", "thaw"));
}
static void a_writer_that_hangs_in_freeze_is_timed_out(void **state)
{
    fails_at_freeze(*state, "hanging", "BAD_AT", "freeze", "VSS_E_WRITERERROR_TIMEOUT");
}
static void a_writer_that_dies_in_freeze_does_not_respond(void **state)
{
    fails_at_freeze(*state, "dying", "BAD_AT", "freeze", "VSS_E_WRITER_NOT_RESPONDING");
}
static void a_writer_that_floods_in_freeze_is_not_retried(void **state)
{
    fails_at_freeze(*state, "flooding", "BAD_AT", "freeze", "VSS_E_WRITERERROR_NONRETRYABLE");
}
static void a_writer_that_talks_garbage_in_freeze_is_not_retried(void **state)
{
    fails_at_freeze(*state, "lying", "LIE", "garbage", "VSS_E_WRITERERROR_NONRETRYABLE");
}
static void a_writer_that_answers_for_others_is_not_retried(void **state)
{
    fails_at_freeze(*state, "lying", "LIE", "foreign_component", "VSS_E_WRITERERROR_NONRETRYABLE");
}
static void a_writer_that_answers_out_of_turn_is_not_retried(void **state)
{
    fails_at_freeze(*state, "out-of-turn", "TURN", "wrong_id", "VSS_E_WRITERERROR_NONRETRYABLE");
}

static void a_writer_that_adds_a_foreign_file_is_refused(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "liar", "lying", "LIE", "foreign_file", "BAD_AT", "post_snapshot", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *done = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_string_equal(error_name(done), "VSS_E_WRITERERROR_NONRETRYABLE");
    assert_status(done, "liar", "VSS_WS_FAILED_AT_POST_SNAPSHOT", "VSS_E_WRITERERROR_NONRETRYABLE");
}

/* The grade of the component of writer `index`, and whether its freeze window is told. */
static void assert_grade(const json_t *taken, size_t index, const char *grade, bool frozen)
{
    const json_t *consistency = json_object_get(json_object_get(taken, "result"), "consistency");
    const json_t *told = json_array_get(json_object_get(consistency, "components"), index);
    assert_string_equal(json_str(told, "grade", ""), grade);
    assert_true(json_str(told, "reason", "")[0]);
    const json_t *window = json_object_get(told, "freeze");
    assert_int_equal(json_is_object(window), frozen);
    if (frozen)
        assert_true(json_real_value(json_object_get(window, "window_ms")) > 0);
}

static bool one_instant(const json_t *taken)
{
    return json_bool(json_object_get(json_object_get(taken, "result"), "consistency"), "one_instant", false);
}

static bool told_of_snapshot(const struct fixture *f, const char *writer)
{
    AUTO_JSON json_t *events = recorded(f);
    size_t i;
    const json_t *event;
    json_array_foreach(events, i, event)
    {
        if (str_eq(json_str(event, "writer", ""), writer) && str_eq(json_str(event, "event", ""), "thaw"))
            return json_bool(json_object_get(event, "request"), "snapshot_taken", false);
    }
    fail_msg("%s heard no thaw", writer);
    return false;
}

static void a_writer_that_holds_nothing_freezes_last_and_thaws_first(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "logged", "recorder", "LEVEL", "front_end", "POINT", "thaw", "COMPONENTS",
               "[{\"name\":\"main\",\"hold\":\"log\"}]", NULL);
    add_writer(f, "held", "recorder", "LEVEL", "system", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_succeeded(taken);
    assert_true(position(f, "held", "freeze") < position(f, "logged", "freeze"));
    assert_true(position(f, "logged", "thaw") < position(f, "held", "thaw"));
    assert_true(told_of_snapshot(f, "logged"));
    assert_grade(taken, 0, "application", true);
    assert_grade(taken, 1, "application", true);
    assert_true(one_instant(taken));
}

static void a_log_that_says_no_moment_is_at_no_others_instant(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "logged", "recorder", "COMPONENTS", "[{\"name\":\"main\",\"hold\":\"log\"}]", NULL);
    add_writer(f, "held", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_succeeded(taken);
    assert_grade(taken, 0, "crash", true);
    assert_grade(taken, 1, "application", true);
    assert_false(one_instant(taken));
}

static void a_thaw_after_a_failure_tells_that_nothing_was_taken(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "good", "recorder", "LEVEL", "front_end", NULL);
    add_writer(f, "bad", "recorder", "LEVEL", "system", "FAIL_FREEZE", "VSS_E_WRITERERROR_RETRYABLE", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_string_equal(error_name(taken), "VSS_E_WRITERERROR_RETRYABLE");
    assert_false(told_of_snapshot(f, "good"));
}

static void in_report_mode_the_job_succeeds_and_the_status_tells(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "good", "recorder", NULL);
    add_writer(f, "bad", "recorder", "FAIL_FREEZE", "VSS_E_WRITERERROR_OUTOFRESOURCES", NULL);
    fixture_start(f);
    gather(f);
    AUTO_JSON json_t *prepared = fixture_run(f, "prepare", set_args(f, "report"));
    assert_succeeded(prepared);
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", set_args(f, "report"));
    assert_succeeded(taken);
    assert_status(taken, "bad", "VSS_WS_FAILED_AT_FREEZE", "VSS_E_WRITERERROR_OUTOFRESOURCES");
    assert_status(taken, "good", "VSS_WS_WAITING_FOR_BACKUP_COMPLETE", "S_OK");
    assert_true(saw(f, "bad", "abort"));
    assert_false(saw(f, "good", "abort"));
    assert_grade(taken, 0, "application", true);
    assert_grade(taken, 1, "none", false);
    AUTO_JSON json_t *completed = fixture_run(f, "complete", set_args(f, "report"));
    assert_succeeded(completed);
    assert_false(saw(f, "bad", "backup_complete"));
    assert_true(saw(f, "good", "backup_complete"));
}

static void a_veto_in_prepare_fails_the_job_and_raises_no_abort(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "veto", "recorder", "FAIL_PREPARE_BACKUP", "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", NULL);
    fixture_start(f);
    gather(f);
    AUTO_JSON json_t *done = fixture_run(f, "prepare", set_args(f, "fail"));
    assert_string_equal(error_name(done), "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT");
    assert_status(done, "veto", "VSS_WS_FAILED_AT_PREPARE_BACKUP", "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT");
    assert_false(saw(f, "veto", "abort"));
    AUTO_JSON json_t *aborted = fixture_run(f, "abort", NULL);
    assert_succeeded(aborted);
    assert_true(saw(f, "veto", "abort"));
}

static void a_writer_that_died_before_prepare_is_not_passed_over(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "dead", "dying", "BAD_AT", "prepare_backup", NULL);
    fixture_start(f);
    gather(f);
    for (int attempt = 0; attempt < 2; attempt++) {
        AUTO_JSON json_t *done = fixture_run(f, "prepare", set_args(f, "fail"));
        assert_string_equal(error_name(done), "VSS_E_WRITER_NOT_RESPONDING");
    }
}

static void a_context_without_writers_tells_nobody(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "idle", "recorder", NULL);
    fixture_start(f);
    gather(f);
    json_t *args = set_args(f, "fail");
    json_put(args, "context", json_string("file_share_backup"));
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", args);
    assert_succeeded(taken);
    assert_false(saw(f, "idle", "prepare_snapshot"));
    assert_false(saw(f, "idle", "freeze"));
}

static void failures_of_components_are_partial_failures(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "part", "recorder", "PARTIAL_POST_SNAPSHOT", "VSS_E_WRITERERROR_RETRYABLE", NULL);
    add_writer(f, "soft", "recorder", "SOFT_PREPARE_SNAPSHOT", "VSS_E_WRITERERROR_RETRYABLE", NULL);
    fixture_start(f);
    gather(f);
    AUTO_JSON json_t *prepared = fixture_run(f, "prepare", set_args(f, "report"));
    assert_succeeded(prepared);
    AUTO_JSON json_t *taken = fixture_run(f, "snapshot", set_args(f, "report"));
    assert_succeeded(taken);
    assert_status(taken, "part", "VSS_WS_FAILED_AT_POST_SNAPSHOT", "VSS_E_WRITERERROR_PARTIAL_FAILURE");
    assert_status(taken, "soft", "VSS_WS_FAILED_AT_PREPARE_SNAPSHOT", "VSS_E_WRITERERROR_RETRYABLE");
    assert_true(saw(f, "soft", "post_snapshot")); /* not fatal: it goes on */
    const json_t *component = json_array_get(json_object_get(json_object_get(taken, "result"), "components"), 0);
    assert_string_equal(json_str(component, "failure", ""), "VSS_E_WRITERERROR_RETRYABLE");
    assert_int_equal(json_int(component, "application_code", 0), 7);
}

static void a_window_that_is_exceeded_is_a_failure_at_thaw(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "short", "recorder", "FREEZE_TIMEOUT_MS", "400", NULL);
    add_writer(f, "slow", "recorder", "LEVEL", "system", "DELAY_FREEZE", "0.7", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *done = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_string_equal(error_name(done), "VSS_E_WRITERERROR_TIMEOUT");
    assert_status(done, "short", "VSS_WS_FAILED_AT_THAW", "VSS_E_WRITERERROR_TIMEOUT");
    assert_true(saw(f, "short", "abort"));
    assert_true(saw(f, "slow", "thaw"));
}

static void a_flood_of_log_lines_neither_blocks_nor_fails_the_writer(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "loud", "flooding", "FLOOD", "stderr", "BAD_AT", "freeze", NULL);
    fixture_start(f);
    bring_to(f, "snapshot");
    AUTO_JSON json_t *done = fixture_run(f, "snapshot", set_args(f, "fail"));
    assert_succeeded(done);
}

static void a_failure_reported_in_complete_leaves_the_operation_successful(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "sad", "recorder", "FAIL_BACKUP_COMPLETE", "VSS_E_WRITERERROR_NONRETRYABLE", NULL);
    add_writer(f, "good", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "complete");
    AUTO_JSON json_t *done = fixture_run(f, "complete", set_args(f, "fail"));
    assert_succeeded(done);
    assert_status(done, "sad", "VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITERERROR_NONRETRYABLE");
    assert_int_equal(json_array_size(f->incidents), 0);
}

static void a_writer_that_cannot_be_told_fails_complete_and_all_others_are_told(void **state)
{
    static const char *const programs[] = {"dying", "lying", "flooding", "out-of-turn"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ELEMENTS(programs); i++)
        add_writer(f, programs[i], programs[i], "BAD_AT", "backup_complete", NULL);
    add_writer(f, "slow", "recorder", "DELAY_BACKUP_COMPLETE", "0.5", NULL);
    fixture_start(f);
    bring_to(f, "complete");
    AUTO_JSON json_t *done = fixture_run(f, "complete", set_args(f, "fail"));
    assert_string_equal(error_name(done), "VSS_E_UNEXPECTED_WRITER_ERROR");
    assert_true(saw(f, "slow", "backup_complete.answered"));
    assert_status(done, "slow", "VSS_WS_STABLE", "S_OK");
    assert_status(done, "dying", "VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITER_NOT_RESPONDING");
    assert_int_equal(json_array_size(f->incidents), ELEMENTS(programs));
    assert_string_equal(json_str(json_array_get(f->incidents, 0), "code", ""), "VSS_E_UNEXPECTED_WRITER_ERROR");
}

static void a_writer_that_died_after_the_snapshot_fails_complete(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "gone", "recorder", NULL);
    add_writer(f, "there", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "complete");
    AUTO_JSON json_t *events = recorded(f);
    const json_t *event = json_array_get(events, (size_t)position(f, "gone", "freeze"));
    assert_int_equal(kill((pid_t)json_int(event, "pid", 0), SIGKILL), 0);
    AUTO_JSON json_t *done = fixture_run(f, "complete", set_args(f, "fail"));
    assert_string_equal(error_name(done), "VSS_E_UNEXPECTED_WRITER_ERROR");
    assert_status(done, "gone", "VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITER_NOT_RESPONDING");
    assert_true(saw(f, "there", "backup_complete.answered"));
}

static void a_writer_that_closes_its_input_does_not_respond(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "deaf", "dying", "DEATH", "input", "BAD_AT", "post_snapshot", NULL);
    fixture_start(f);
    bring_to(f, "complete");
    AUTO_JSON json_t *done = fixture_run(f, "complete", set_args(f, "fail"));
    assert_string_equal(error_name(done), "VSS_E_UNEXPECTED_WRITER_ERROR");
    assert_status(done, "deaf", "VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITER_NOT_RESPONDING");
}

static void succeeded_flags_reach_the_writers_and_unset_is_false(void **state)
{
    struct fixture *f = *state;
    add_writer(f, "one", "recorder", NULL);
    add_writer(f, "two", "recorder", NULL);
    fixture_start(f);
    bring_to(f, "complete");
    json_t *args = set_args(f, "fail");
    json_object_del(json_array_get(json_object_get(args, "components"), 1), "succeeded");
    AUTO_JSON json_t *done = fixture_run(f, "complete", args);
    assert_succeeded(done);
    AUTO_JSON json_t *events = recorded(f);
    for (int which = 0; which < 2; which++) {
        const json_t *event = json_array_get(events, (size_t)position(f, which ? "two" : "one", "backup_complete"));
        const json_t *components = json_object_get(json_object_get(event, "request"), "components");
        assert_int_equal(json_bool(json_array_get(components, 0), "succeeded", which), which == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        worker_test(a_session_tells_every_event_once_and_in_order),
        worker_test(only_chosen_writers_take_part_in_component_mode),
        worker_test(all_writers_take_part_without_component_mode),
        worker_test(a_writer_that_cannot_identify_is_missing_and_the_job_finishes),
        worker_test(the_filter_enables_and_disables),
        worker_test(a_writer_that_refuses_to_freeze_fails_the_set),
        worker_test(a_writer_that_hangs_in_freeze_is_timed_out),
        worker_test(a_writer_that_dies_in_freeze_does_not_respond),
        worker_test(a_writer_that_floods_in_freeze_is_not_retried),
        worker_test(a_writer_that_talks_garbage_in_freeze_is_not_retried),
        worker_test(a_writer_that_answers_for_others_is_not_retried),
        worker_test(a_writer_that_answers_out_of_turn_is_not_retried),
        worker_test(a_writer_that_adds_a_foreign_file_is_refused),
        worker_test(a_writer_that_holds_nothing_freezes_last_and_thaws_first),
        worker_test(a_log_that_says_no_moment_is_at_no_others_instant),
        worker_test(a_thaw_after_a_failure_tells_that_nothing_was_taken),
        worker_test(in_report_mode_the_job_succeeds_and_the_status_tells),
        worker_test(a_veto_in_prepare_fails_the_job_and_raises_no_abort),
        worker_test(a_writer_that_died_before_prepare_is_not_passed_over),
        worker_test(a_context_without_writers_tells_nobody),
        worker_test(failures_of_components_are_partial_failures),
        worker_test(a_window_that_is_exceeded_is_a_failure_at_thaw),
        worker_test(a_flood_of_log_lines_neither_blocks_nor_fails_the_writer),
        worker_test(a_failure_reported_in_complete_leaves_the_operation_successful),
        worker_test(a_writer_that_cannot_be_told_fails_complete_and_all_others_are_told),
        worker_test(a_writer_that_died_after_the_snapshot_fails_complete),
        worker_test(a_writer_that_closes_its_input_does_not_respond),
        worker_test(succeeded_flags_reach_the_writers_and_unset_is_false),
    };
    return cmocka_run_group_tests_name("worker lifecycle", tests, NULL, NULL);
}
