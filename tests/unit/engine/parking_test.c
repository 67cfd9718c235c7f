/* The parked store: what goes on, what waits, and that it always ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>

#include "base/superblock.h"
#include "tests/unit/engine/engine_world.h"

enum { FREEZE_SECONDS = 60 };

/* One session whose GatherWriterMetadata is in its worker's hands. */
struct running {
    char session[64], job[64];
    struct fake_worker *worker;
};

static void run_job(struct running *ret)
{
    ask_for(engine_session_create, NULL, json_pack("{s:s}", "kind", "backup"), "id", ret->session);
    ask_for(engine_job_metadata, ret->session, NULL, "id", ret->job);
    UNTIL((ret->worker = worker_of(ret->session)) && str_eq(ret->worker->operation, "metadata"));
}

static const char *own_superblock(void)
{
    static char name[SUPERBLOCK_NAME_SIZE];
    AUTO_FD int fd = open(world.store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(superblock_name(fd, name));
    return name;
}

static void freeze(struct running *running)
{
    worker_says(running->worker, "freezing", own_superblock());
    UNTIL(running->worker->parked);
    assert_string_equal(json_string_value(running->worker->parked), running->worker->run);
}

struct footprint {
    struct timespec modified[2];
    off_t size[2];
};

static struct footprint footprint(void)
{
    static const char *const files[] = {"quiesced.db", "quiesced.db-wal"};
    struct footprint ret = {0};
    for (size_t i = 0; i < ELEMENTS(files); i++) {
        AUTO_FREE char *path = str_new("%s/%s", world.store, files[i]);
        struct stat stat;
        if (lstat(path, &stat) == 0) {
            ret.modified[i] = stat.st_mtim;
            ret.size[i] = stat.st_size;
        }
    }
    return ret;
}

static void assert_untouched(const struct footprint *before)
{
    struct footprint now = footprint();
    assert_memory_equal(&now, before, sizeof(now));
}

static void assert_state(const char *job, const char *state)
{
    char found[64];
    ask_for(engine_job_get, job, NULL, "state", found);
    assert_string_equal(found, state);
}

static void memory_answers_and_the_store_waits_for_the_thaw(void **state)
{
    struct running running;
    AUTO_ASKED list, created, events;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    struct footprint before = footprint();
    ask(&list, engine_session_list, NULL, NULL);
    ask(&created, engine_session_create, NULL, json_pack("{s:s}", "kind", "backup"));
    ask(&events, engine_event_list, NULL, NULL);
    assert_state(running.job, "running");
    char found[64];
    ask_for(engine_session_get, running.session, NULL, "state", found);
    assert_string_equal(found, "initialized");
    some_turns();
    assert_false(list.answered || created.answered || events.answered);
    assert_untouched(&before);
    worker_says(running.worker, "thawed", NULL);
    UNTIL(list.answered && created.answered && events.answered);
    assert_int_equal(list.status, 200);
    assert_int_equal(created.status, 201);
    worker_done_with(running.worker, NULL, "{\"writers\":[],\"missing\":[]}");
    UNTIL(!engine_job_is_pending(world.engine, running.job));
    assert_state(running.job, "succeeded");
}

static void a_cancel_reaches_the_worker_at_once_and_is_answered_when_it_is_durable(void **state)
{
    struct running running;
    AUTO_ASKED first, second;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    struct footprint before = footprint();
    ask(&first, engine_job_cancel, running.job, NULL);
    ask(&second, engine_job_cancel, running.job, NULL);
    UNTIL(running.worker->cancelled);
    assert_state(running.job, "cancelling");
    some_turns();
    assert_false(first.answered || second.answered);
    assert_untouched(&before);
    worker_says(running.worker, "thawed", NULL);
    worker_done_with(running.worker, "VSS_S_ASYNC_CANCELLED", NULL);
    UNTIL(first.answered && second.answered);
    assert_int_equal(first.status, 202);
    assert_string_equal(json_str(first.body, "cancel", ""), "S_OK");
    assert_string_equal(json_str(second.body, "cancel", ""), "VSS_S_ASYNC_CANCELLED");
    UNTIL(!engine_job_is_pending(world.engine, running.job));
    world_stop();
    world_start(FREEZE_SECONDS); /* from the store alone */
    assert_state(running.job, "cancelled");
}

static void a_cancel_acts_even_when_another_call_waits_on_the_same_session(void **state)
{
    struct running running;
    AUTO_ASKED released, cancelled;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    ask(&released, engine_job_release, running.job, NULL);
    ask(&cancelled, engine_job_cancel, running.job, NULL);
    UNTIL(running.worker->cancelled);
    some_turns();
    assert_false(released.answered || cancelled.answered);
    worker_says(running.worker, "thawed", NULL);
    worker_done_with(running.worker, "VSS_S_ASYNC_CANCELLED", NULL);
    UNTIL(released.answered && cancelled.answered);
    assert_int_equal(released.status, 204);
    assert_int_equal(cancelled.status, 202);
}

/* Abort and DELETE of the session end its frozen job as well. */
static void end_session(engine_call_fn call, int status)
{
    struct running running;
    AUTO_ASKED ended;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    struct footprint before = footprint();
    ask(&ended, call, running.session, NULL);
    UNTIL(running.worker->cancelled);
    some_turns();
    assert_false(ended.answered);
    assert_untouched(&before);
    worker_says(running.worker, "thawed", NULL);
    worker_done_with(running.worker, "VSS_S_ASYNC_CANCELLED", NULL);
    UNTIL(ended.answered);
    assert_int_equal(ended.status, status);
    assert_state(running.job, "cancelled");
}

static void an_abort_of_the_session_ends_the_freeze(void **state)
{
    (void)state;
    end_session(engine_session_abort, 200);
}

static void a_release_of_the_session_ends_the_freeze(void **state)
{
    (void)state;
    end_session(engine_session_delete, 204);
}

/* The store cannot be asked whether it is a repetition: it acts, and its answer is kept. */
static void an_abort_with_a_key_ends_the_freeze_too(void **state)
{
    struct running running;
    AUTO_ASKED first, second, third;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    ask_once(&first, engine_session_abort, running.session, "k");
    ask_once(&second, engine_session_abort, running.session, "k");
    assert_true(second.answered);
    assert_int_equal(second.hr, (uint32_t)VSS_E_BAD_STATE);
    UNTIL(running.worker->cancelled);
    some_turns();
    assert_false(first.answered);
    worker_says(running.worker, "thawed", NULL);
    worker_done_with(running.worker, "VSS_S_ASYNC_CANCELLED", NULL);
    UNTIL(first.answered);
    assert_int_equal(first.status, 200);
    assert_false(first.replayed);
    ask_once(&third, engine_session_abort, running.session, "k");
    UNTIL(third.answered);
    assert_int_equal(third.status, 200);
    assert_true(third.replayed);
    assert_true(json_equal(third.body, first.body));
}

static void the_end_of_another_job_waits_for_the_thaw(void **state)
{
    struct running frozen, other;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&other);
    run_job(&frozen);
    freeze(&frozen);
    struct footprint before = footprint();
    worker_done_with(other.worker, NULL, "{\"writers\":[],\"missing\":[]}");
    some_turns();
    assert_true(engine_job_is_pending(world.engine, other.job));
    assert_untouched(&before);
    worker_says(frozen.worker, "thawed", NULL);
    UNTIL(!engine_job_is_pending(world.engine, other.job));
    assert_state(other.job, "succeeded");
}

static void a_worker_that_dies_meanwhile_fails_its_job_after_the_thaw(void **state)
{
    struct running frozen, other;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&other);
    run_job(&frozen);
    freeze(&frozen);
    worker_ends(other.worker);
    some_turns();
    assert_true(engine_job_is_pending(world.engine, other.job));
    worker_says(frozen.worker, "thawed", NULL);
    UNTIL(!engine_job_is_pending(world.engine, other.job));
    assert_state(other.job, "failed");
}

static void the_end_of_the_freezing_worker_ends_the_parking(void **state)
{
    struct running running;
    AUTO_ASKED list;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    ask(&list, engine_job_list, NULL, NULL);
    some_turns();
    assert_false(list.answered);
    worker_ends(running.worker); /* which alone says nothing of the thaw: the store must not be touched */
    some_turns();
    assert_false(list.answered);
    agent_says_settled(running.worker, NULL);
    UNTIL(list.answered);
    assert_int_equal(list.status, 200);
    UNTIL(!engine_job_is_pending(world.engine, running.job));
    assert_state(running.job, "failed");
}

/* --- what is told as frozen --- */

static void window(const struct running *running, const char *stuck)
{
    AUTO_JSON json_t *msg = json_pack("{s:s, s:b, s:s, s:s, s:s, s:[s], s:[s], s:s*}", "type", "window", "open", 1, "set", "the set", "since",
                                      "2026-01-01T00:00:00.000Z", "deadline", "2026-01-01T00:01:00.000Z", "file_systems", "/srv", "writers", "db",
                                      "stuck", stuck);
    ipc_channel_send(running->worker->channel, msg, NULL, 0);
}

/* New reference: `frozen` of the session, JSON's null when nothing is. */
static json_t *frozen_of(const struct running *running)
{
    AUTO_ASKED asked;
    ask(&asked, engine_session_get, running->session, NULL);
    UNTIL(asked.answered);
    assert_int_equal(asked.status, 200);
    return json_incref(json_object_get(asked.body, "frozen"));
}

static void assert_frozen(const struct running *running, const char *file_system, const char *stuck)
{
    AUTO_JSON json_t *frozen = frozen_of(running);
    if (!file_system) {
        assert_true(json_is_null(frozen));
        return;
    }
    assert_string_equal(json_string_value(json_array_get(json_object_get(frozen, "file_systems"), 0)) ?: "", file_system);
    if (stuck)
        assert_non_null(strstr(json_str(frozen, "stuck", ""), stuck));
    else
        assert_null(json_object_get(frozen, "stuck"));
}

static size_t thaws_told(void)
{
    AUTO_ASKED asked;
    size_t i, n = 0;
    const json_t *event;
    ask(&asked, engine_event_list, NULL, NULL);
    UNTIL(asked.answered);
    json_array_foreach(json_object_get(asked.body, "items"), i, event)
        n += str_eq(json_str(event, "type", ""), "session.thawed");
    return n;
}

static void wait_until_shown(const struct running *running, bool stuck)
{
    for (bool found = false; !found;) {
        AUTO_JSON json_t *frozen = frozen_of(running);
        found = json_is_object(frozen) && (json_object_get(frozen, "stuck") != NULL) == stuck;
        if (!found)
            some_turns();
    }
}

static void wait_until_thawed(const struct running *running)
{
    for (bool thawed = false; !thawed;) {
        AUTO_JSON json_t *frozen = frozen_of(running);
        thawed = json_is_null(frozen);
        if (!thawed)
            some_turns();
    }
}

/* Its worker dies with everything in its hands, and its session ends with that: what it froze stays told, until the agent knows. */
static void a_worker_that_dies_frozen_is_told_as_thawed_on_the_agents_word_alone(void **state)
{
    struct running running;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    window(&running, NULL);
    wait_until_shown(&running, false);
    worker_ends(running.worker);
    UNTIL(!engine_job_is_pending(world.engine, running.job));
    AUTO_ASKED job, health;
    ask(&job, engine_job_get, running.job, NULL);
    UNTIL(job.answered);
    assert_string_equal(json_str(job.body, "state", ""), "failed");
    char found[64];
    ask_for(engine_session_get, running.session, NULL, "state", found);
    assert_string_equal(found, "aborted");
    assert_frozen(&running, "/srv", "no thaw is known");
    assert_int_equal(thaws_told(), 0);
    const json_t *failed = json_object_get(json_object_get(json_object_get(job.body, "result"), "cleanup"), "failed");
    assert_string_equal(json_str(json_array_get(failed, 0), "object", ""), "/srv");
    ask(&health, engine_health, NULL, NULL);
    UNTIL(health.answered);
    assert_int_equal(health.status, 503);
    agent_says_settled(running.worker, "another set");
    agent_says_settled(running.worker, "the set"); /* its writers may hold still */
    some_turns();
    assert_frozen(&running, "", "no thaw is known");
    assert_int_equal(thaws_told(), 0);
    agent_says_settled(running.worker, NULL);
    wait_until_thawed(&running);
    assert_int_equal(thaws_told(), 1);
}

static void an_agent_that_is_faster_than_the_worker_s_end_is_believed(void **state)
{
    struct running running;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    window(&running, NULL);
    wait_until_shown(&running, false);
    agent_says_settled(running.worker, NULL);
    some_turns();
    assert_frozen(&running, "/srv", NULL);
    worker_ends(running.worker);
    UNTIL(!engine_job_is_pending(world.engine, running.job));
    assert_frozen(&running, NULL, NULL);
    assert_int_equal(thaws_told(), 1);
}

/* A worker that lives, and could not thaw: its job has ended long before its session, and before the thaw. */
static void a_thaw_that_failed_outlives_its_session(void **state)
{
    struct running running;
    AUTO_ASKED aborted;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    window(&running, NULL);
    window(&running, "nobody says that it is thawed");
    wait_until_shown(&running, true);
    worker_done_with(running.worker, "VSS_E_HOLD_WRITES_TIMEOUT", NULL);
    UNTIL(!engine_job_is_pending(world.engine, running.job));
    ask(&aborted, engine_session_abort, running.session, NULL);
    UNTIL(aborted.answered);
    assert_int_equal(aborted.status, 200);
    assert_frozen(&running, "/srv", "nobody says");
    assert_int_equal(thaws_told(), 0);
    agent_says_settled(running.worker, "the set");
    wait_until_thawed(&running);
    assert_int_equal(thaws_told(), 1);
}

static void agent_says_left(const struct running *running, bool any)
{
    AUTO_JSON json_t *sets = json_array();
    if (any)
        json_add(sets, json_pack("{s:s, s:s, s:I, s:I, s:[s]}", "session", running->session, "set", "an old set", "since_ms", (json_int_t)1000, "freeze_ms",
                                 (json_int_t)60000, "file_systems", "/old"));
    AUTO_JSON json_t *msg = json_pack("{s:s, s:O}", "type", "left_frozen", "sets", sets);
    ipc_channel_send(world.agent, msg, NULL, 0);
}

static void what_an_earlier_run_left_frozen_is_shown_until_it_is_thawed(void **state)
{
    struct running running;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    world_stop();
    world_start(FREEZE_SECONDS);
    agent_says_left(&running, true);
    agent_says_left(&running, true); /* as it stands: told again, shown once */
    wait_until_shown(&running, true);
    assert_frozen(&running, "/old", "earlier run");
    assert_int_equal(thaws_told(), 0);
    agent_says_left(&running, false);
    wait_until_thawed(&running);
    assert_int_equal(thaws_told(), 1);
}

static void on_seal_asked(void *arg, int fd)
{
    (void)fd;
    ++*(unsigned *)arg;
    turn();
}

static void on_sealed_last(void *arg)
{
    *(bool *)arg = true;
    turn();
}

/* The signer writes beside the store: of what is stuck nobody knows that it is another file system, nor that it is thawed. */
static void nothing_is_sealed_while_a_freeze_is_stuck(void **state)
{
    struct running running;
    struct err err = {0};
    unsigned asked_for = 0;
    bool ended = false;
    (void)state;
    world_start(FREEZE_SECONDS);
    engine_on_seal(world.engine, on_seal_asked, &asked_for);
    run_job(&running);
    agent_says_left(&running, true);
    wait_until_shown(&running, true);
    err_set(&err, E_ACCESSDENIED, NULL, "as the test says");
    struct engine_request request = {.principal = &world_principal, .request_id = "test", .operation = "sessionCreate", .path = "/sessions"};
    const struct engine_answer refused = {.err = &err};
    engine_audit_refused(world.engine, &request, &refused); /* a record without a seal */
    engine_audit_seal_last(world.engine, on_sealed_last, &ended);
    assert_true(ended);
    some_turns();
    assert_int_equal(asked_for, 0);
    agent_says_left(&running, false);
    wait_until_thawed(&running);
    ended = false;
    engine_audit_seal_last(world.engine, on_sealed_last, &ended);
    assert_false(ended);
    UNTIL(asked_for > 0 && ended); /* nobody is there to sign */
}

static void parking_ends_at_its_deadline(void **state)
{
    struct running running;
    AUTO_ASKED list;
    (void)state;
    world_start(0);
    run_job(&running);
    freeze(&running);
    ask(&list, engine_job_list, NULL, NULL);
    UNTIL(list.answered); /* nobody thaws */
    assert_int_equal(list.status, 200);
}

static void a_freeze_elsewhere_parks_nothing(void **state)
{
    struct running running;
    AUTO_ASKED list;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    worker_says(running.worker, "freezing", "999:999");
    UNTIL(running.worker->parked);
    ask(&list, engine_job_list, NULL, NULL);
    UNTIL(list.answered);
    assert_int_equal(list.status, 200);
}

static void a_second_freeze_is_answered_and_its_thaw_ends_nothing(void **state)
{
    struct running first, second;
    AUTO_ASKED list;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&first);
    run_job(&second);
    freeze(&first);
    freeze(&second);
    worker_says(second.worker, "thawed", NULL);
    ask(&list, engine_job_list, NULL, NULL);
    some_turns();
    assert_false(list.answered);
    worker_says(first.worker, "thawed", NULL);
    UNTIL(list.answered);
}

static void stopping_while_parked_loses_nothing_that_was_answered(void **state)
{
    struct running running;
    (void)state;
    world_start(FREEZE_SECONDS);
    run_job(&running);
    freeze(&running);
    world_stop(); /* closes the worker's channel, which thaws, and only then the store */
    world_start(FREEZE_SECONDS);
    char found[64] = "", reason[64];
    while (!str_eq(found, "failed")) /* the recovery's commit may be under way */
        ask_for(engine_job_get, running.job, NULL, "state", found);
    ask_for(engine_session_get, running.session, NULL, "reason", reason);
    assert_string_equal(reason, "interrupted");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(memory_answers_and_the_store_waits_for_the_thaw),
        TEST(a_cancel_reaches_the_worker_at_once_and_is_answered_when_it_is_durable),
        TEST(a_cancel_acts_even_when_another_call_waits_on_the_same_session),
        TEST(an_abort_of_the_session_ends_the_freeze),
        TEST(an_abort_with_a_key_ends_the_freeze_too),
        TEST(a_release_of_the_session_ends_the_freeze),
        TEST(the_end_of_another_job_waits_for_the_thaw),
        TEST(a_worker_that_dies_meanwhile_fails_its_job_after_the_thaw),
        TEST(the_end_of_the_freezing_worker_ends_the_parking),
        TEST(a_worker_that_dies_frozen_is_told_as_thawed_on_the_agents_word_alone),
        TEST(an_agent_that_is_faster_than_the_worker_s_end_is_believed),
        TEST(a_thaw_that_failed_outlives_its_session),
        TEST(what_an_earlier_run_left_frozen_is_shown_until_it_is_thawed),
        TEST(nothing_is_sealed_while_a_freeze_is_stuck),
        TEST(parking_ends_at_its_deadline),
        TEST(a_freeze_elsewhere_parks_nothing),
        TEST(a_second_freeze_is_answered_and_its_thaw_ends_nothing),
        TEST(stopping_while_parked_loses_nothing_that_was_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
