/* When a restore in place starts the server and when it must not: with a file system and commands that do as they are told. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "writers/inplace/inplace.c"

static struct {
    char done[256];    /* what was called, in order */
    const char *where; /* the old data lies there */
    int take, put_back, stop;
    pid_t process;
} world;

static void note(const char *what)
{
    size_t length = strlen(world.done);
    str_format(world.done + length, sizeof(world.done) - length, "%s ", what);
}

static int result(int value, struct err *err)
{
    return value == 0 ? 0 : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "as told");
}

/* --- what inplace.c asks for --- */

struct aside {
    int nothing;
};

struct aside *aside_new(void)
{
    return mem_new(sizeof(struct aside));
}

void aside_free(struct aside *aside)
{
    free(aside);
}

int aside_take(struct aside *aside, const json_t *file_sets, struct err *err)
{
    (void)aside, (void)file_sets;
    note("take");
    return result(world.take, err);
}

int aside_put_back(struct aside *aside, struct err *err)
{
    (void)aside;
    note("put_back");
    return result(world.put_back, err);
}

bool aside_remove(struct aside *aside, int64_t give_up_ms)
{
    (void)aside, (void)give_up_ms;
    return true;
}

char *aside_left(const char *directory)
{
    (void)directory;
    return str_dup("");
}

char *aside_where(const struct aside *aside)
{
    (void)aside;
    return str_dup(world.where);
}

int service_run(const json_t *command, int64_t give_up_ms, bool patient, struct err *err)
{
    (void)give_up_ms, (void)patient;
    const char *name = json_string_value(json_array_get(command, 0));
    note(name);
    if (str_eq(name, "start"))
        world.process = 1;
    else if (world.stop == 0)
        world.process = 0;
    return str_eq(name, "start") ? 0 : result(world.stop, err);
}

void service_find(pid_t pid, json_t **stop, json_t **start)
{
    (void)pid, (void)stop, (void)start;
}

pid_t service_left_behind(void)
{
    return 0;
}

int64_t service_until(int64_t give_up_ms)
{
    return give_up_ms;
}

char *target_resolved(const char *path)
{
    return str_dup(path);
}

int target_check_apart(const json_t *new_targets, const json_t *places, const char *what, struct err *err)
{
    (void)new_targets, (void)places, (void)what, (void)err;
    return 0;
}

int target_lock(const char *directory, int *ret_fd, struct err *err)
{
    (void)directory, (void)err;
    *ret_fd = -1;
    return 0;
}

bool writer_abandoned(void)
{
    return false;
}

int64_t writer_give_up_ms(int64_t deadline_ms)
{
    return deadline_ms;
}

/* --- the server --- */

static int fine(void *arg, const struct inplace_job *job, struct err *err)
{
    (void)arg, (void)job, (void)err;
    return 0;
}

static int not_whole(void *arg, const struct inplace_job *job, struct err *err)
{
    (void)arg, (void)job;
    return result(-1, err);
}

static pid_t running(void *arg)
{
    (void)arg;
    return world.process;
}

static pid_t nobody_works_in(void *arg, const char *directory)
{
    (void)arg, (void)directory;
    return 0;
}

static bool answers(void *arg)
{
    (void)arg;
    return false;
}

static void let_go(void *arg)
{
    (void)arg;
}

static const struct inplace_server server = {.what = "Server", .fits = fine, .running = running, .answers = answers,
                                             .works_in = nobody_works_in, .let_go = let_go, .ready = fine, .verify = not_whole};

struct fixture {
    json_t *configuration, *component, *sets;
    struct inplace *inplace;
    struct writer_event event;
    struct err err;
};

static int begin(void **state)
{
    static struct fixture fixture;
    memset(&world, 0, sizeof(world));
    world.where = "";
    world.process = 1;
    fixture = (struct fixture){
        .configuration = json_pack("{s:s, s:[s], s:[s]}", "name", "x", "stop", "stop", "start", "start"),
        .component = json_pack("{s:s, s:s}", "name", "main", "file_restore_status", "all"),
        .sets = json_pack("[{s:s}]", "path", "/data"),
        .event = {.deadline_ms = clock_mono_ms() + 60000},
    };
    fixture.inplace = inplace_new(&server, NULL, fixture.configuration);
    *state = &fixture;
    return 0;
}

static int end(void **state)
{
    struct fixture *fixture = *state;
    inplace_free(fixture->inplace);
    json_decref(fixture->configuration);
    json_decref(fixture->component);
    json_decref(fixture->sets);
    return 0;
}

static int pre_restore(struct fixture *fixture)
{
    AUTO_JSON json_t *answer = NULL;
    return inplace_pre_restore(fixture->inplace, &fixture->event, fixture->component, fixture->sets, &answer, &fixture->err);
}

static void what_was_not_taken_is_started_again(void **state)
{
    struct fixture *fixture = *state;
    world.take = -1;
    assert_int_equal(pre_restore(fixture), -1);
    assert_string_equal(world.done, "stop take start ");
    inplace_undo(fixture->inplace, INT64_MAX);
    assert_string_equal(world.done, "stop take start ");
}

static void half_of_the_data_is_not_started(void **state)
{
    struct fixture *fixture = *state;
    world.take = world.put_back = -1;
    world.where = "/data.aside";
    assert_int_equal(pre_restore(fixture), -1);
    assert_string_equal(world.done, "stop take ");
    assert_non_null(strstr(fixture->err.text, "/data.aside"));
    assert_int_equal(pre_restore(fixture), -1);
    inplace_undo(fixture->inplace, INT64_MAX);
    assert_string_equal(world.done, "stop take put_back ");
    world.put_back = 0;
    inplace_undo(fixture->inplace, INT64_MAX);
    assert_string_equal(world.done, "stop take put_back put_back start ");
    inplace_undo(fixture->inplace, INT64_MAX);
    assert_string_equal(world.done, "stop take put_back put_back start ");
}

static void nothing_is_swapped_beneath_a_server_that_does_not_stop(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(pre_restore(fixture), 0);
    assert_int_equal(pre_restore(fixture), 0); /* the same again */
    assert_string_equal(world.done, "stop take ");
    world.stop = -1;
    world.where = "/data.aside";
    assert_int_equal(inplace_post_restore(fixture->inplace, &fixture->event, fixture->component, &fixture->err), -1);
    assert_string_equal(world.done, "stop take start stop ");
    assert_non_null(strstr(fixture->err.text, "Server still runs"));
    assert_non_null(strstr(fixture->err.text, "/data.aside"));
    world.stop = 0;
    inplace_undo(fixture->inplace, INT64_MAX);
    assert_string_equal(world.done, "stop take start stop stop put_back start ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_not_taken_is_started_again, begin, end),
        cmocka_unit_test_setup_teardown(half_of_the_data_is_not_started, begin, end),
        cmocka_unit_test_setup_teardown(nothing_is_swapped_beneath_a_server_that_does_not_stop, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
