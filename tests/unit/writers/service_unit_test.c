/* Which systemd unit a server's process belongs to: the one that stop and start name when nothing is configured. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "writers/inplace/service.c"

static bool gone;

bool writer_abandoned(void)
{
    return gone;
}

static void a_system_service_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *cgroup, *unit;
    } rows[] = {
        {"0::/system.slice/mariadb.service\n", "mariadb.service"},
        {"0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", "postgresql@15-main.service"},
        {"12:memory:/system.slice/x.service\n1:name=systemd:/system.slice/redis-server.service\n0::/\n", "redis-server.service"},
        {"0::/system.slice/outer.service/inner.service\n", "inner.service"},
        {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/db.service\n", NULL},
        {"0::/user.slice/user-0.slice/session-3.scope\n", NULL},
        {"0::/system.slice/docker-0123.scope\n", NULL},
        {"0::/system.slice/.service\n", NULL},
        {"12:memory:/system.slice/x.service\n", NULL},
        {"0::/\n", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        char unit[64];
        assert_true(str_eq(service_unit_of(rows[i].cgroup, unit, sizeof(unit)), rows[i].unit));
    }
    char little[8];
    assert_null(service_unit_of("0::/system.slice/mariadb.service\n", little, sizeof(little)));
}

static void a_command_is_a_list_that_can_be_run(void **state)
{
    (void)state;
    struct err err = {0};
    json_t *good = json_pack("[s]", "true"), *bad = json_pack("[s]", "false"), *none = json_array(), *slow = json_pack("[s, s]", "sleep", "600");
    assert_int_equal(service_run(good, clock_mono_ms() + 60000, false, &err), 0);
    assert_int_equal(service_run(bad, clock_mono_ms() + 60000, false, &err), -1);
    assert_non_null(strstr(err.text, "exit status 1"));
    assert_int_equal(service_run(none, clock_mono_ms() + 60000, false, &err), -1);
    assert_int_equal(service_run(slow, clock_mono_ms(), false, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_WRITERERROR_TIMEOUT);
    assert_int_equal(service_left_behind(), 0);
    json_decref(good), json_decref(bad), json_decref(none), json_decref(slow);
}

static void a_process_works_in_its_directory(void **state)
{
    (void)state;
    char here[PATH_MAX];
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(service_process_known(getpid(), here), getpid());
    assert_int_equal(service_process_known(getpid(), "/nowhere/at/all"), 0);
    assert_int_equal(service_process_known(0, here), 0);
    assert_int_not_equal(service_process_in(here), 0);
    assert_int_equal(service_process_in("/nowhere/at/all"), 0);
}

/* A pid file that was left behind names a number, which is anybody's by now. */
static void a_process_of_another_user_is_not_the_server(void **state)
{
    (void)state;
    pid_t server = getpid();
    if (geteuid() != 0) {
        print_message("skipped: only root may become another user\n");
        skip();
    }
    pid_t child = fork();
    if (child == 0)
        _exit(setresuid(65534, 65534, 65534) == 0 && service_process_known(server, "/nowhere/at/all") == 0 &&
                      kill(server, 0) != 0 && errno == EPERM
                  ? 0
                  : 1);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* Our worker ends us a minute after: an undo of ten minutes would be cut off in its middle. */
static void patience_ends_after_the_requester_has_gone(void **state)
{
    (void)state;
    int64_t now_ms = clock_mono_ms(), far_ms = now_ms + 600 * 1000;
    assert_int_equal(service_until(far_ms), far_ms);
    gone = true;
    int64_t until_ms = service_until(far_ms);
    assert_true(until_ms > now_ms && until_ms < far_ms);
    assert_int_equal(service_until(far_ms), until_ms);
    assert_int_equal(service_until(now_ms), now_ms);
    gone = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_system_service_is_named),
        cmocka_unit_test(a_command_is_a_list_that_can_be_run),
        cmocka_unit_test(a_process_works_in_its_directory),
        cmocka_unit_test(a_process_of_another_user_is_not_the_server),
        cmocka_unit_test(patience_ends_after_the_requester_has_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
