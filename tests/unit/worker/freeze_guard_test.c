/* The thread that ends frozen writers when the worker itself is stuck in a system call. */
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/freeze_guard.h"

static pid_t start_sleeper(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        for (;;)
            pause();
    }
    setpgid(pid, pid);
    return pid;
}

static void a_writer_past_its_window_is_killed_while_we_are_in_a_system_call(void **state)
{
    (void)state;
    pid_t early = start_sleeper(), late = start_sleeper();
    assert_int_equal(freeze_guard_watch(late, clock_mono_us() + 3600 * 1000000LL), 0);
    assert_int_equal(freeze_guard_watch(early, clock_mono_us() + 100000), 0);
    int status = 0;
    assert_int_equal(waitpid(early, &status, 0), early);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(kill(late, 0), 0);
    freeze_guard_forget(late);
    kill(late, SIGKILL);
    assert_int_equal(waitpid(late, &status, 0), late);
}

/* Until a child of vfork ends its parent waits without hearing any signal, as it does for a disk that does not answer. */
static void a_writer_past_its_window_is_killed_while_we_hear_no_signal(void **state)
{
    enum { GONE, STILL_THERE, PATIENCE_MS = 20000 };
    (void)state;
    pid_t writer = start_sleeper();
    int status = 0, pidfd = (int)syscall(SYS_pidfd_open, writer, 0);
    assert_true(pidfd >= 0);
    assert_int_equal(freeze_guard_watch(writer, clock_mono_us() + 100000), 0);
    pid_t witness = (pid_t)syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
    if (witness == 0) {
        struct pollfd ends = {.fd = pidfd, .events = POLLIN};
        _exit(poll(&ends, 1, PATIENCE_MS) == 1 ? GONE : STILL_THERE);
    }
    assert_int_equal(waitpid(witness, &status, 0), witness);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), GONE);
    assert_true(freeze_guard_killed(writer));
    close(pidfd);
    kill(writer, SIGKILL);
    assert_int_equal(waitpid(writer, &status, 0), writer);
}

static void a_thawed_writer_is_left_alone(void **state)
{
    (void)state;
    pid_t thawed = start_sleeper(), marker = start_sleeper();
    int status = 0;
    assert_int_equal(freeze_guard_watch(thawed, clock_mono_us() + 50000), 0);
    freeze_guard_forget(thawed);
    assert_int_equal(freeze_guard_watch(marker, clock_mono_us() + 100000), 0); /* later than the other's deadline */
    assert_int_equal(waitpid(marker, &status, 0), marker);
    assert_int_equal(waitpid(thawed, &status, WNOHANG), 0);
    kill(thawed, SIGKILL);
    waitpid(thawed, &status, 0);
}

/* Told to thaw, it has some time more, and no more: it may be stopped and never hear of it. */
static void one_that_was_told_to_let_go_is_killed_all_the_same(void **state)
{
    (void)state;
    pid_t told = start_sleeper(), marker = start_sleeper();
    int status = 0;
    assert_int_equal(freeze_guard_watch(told, clock_mono_us() + 50000), 0);
    int64_t until = clock_mono_us() + 200000;
    freeze_guard_extend(told, until);
    freeze_guard_extend(told, until - 100000); /* never sooner */
    assert_int_equal(freeze_guard_watch(marker, until - 50000), 0);
    assert_int_equal(waitpid(marker, &status, 0), marker);
    assert_int_equal(waitpid(told, &status, 0), told);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && clock_mono_us() >= until);
}

/* As many as a configuration may have (conf_spec.c); one more than the table holds is refused, so that its caller can. */
static void every_writer_of_a_configuration_finds_room(void **state)
{
    enum { CONFIGURED_MAX = 1000, FAKE = 1 << 24 /* above every pid */ };
    int64_t far = clock_mono_us() + 3600 * 1000000LL;
    (void)state;
    for (pid_t i = 0; i < CONFIGURED_MAX; i++)
        assert_int_equal(freeze_guard_watch(FAKE + i, far), 0);
    for (pid_t i = CONFIGURED_MAX; i < FREEZE_GUARD_MAX; i++)
        assert_int_equal(freeze_guard_watch(FAKE + i, far), 0);
    assert_int_equal(freeze_guard_watch(FAKE + FREEZE_GUARD_MAX, far), -1);
    for (pid_t i = 0; i < FREEZE_GUARD_MAX; i++)
        freeze_guard_forget(FAKE + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_past_its_window_is_killed_while_we_are_in_a_system_call),
        cmocka_unit_test(a_writer_past_its_window_is_killed_while_we_hear_no_signal),
        cmocka_unit_test(a_thawed_writer_is_left_alone),
        cmocka_unit_test(one_that_was_told_to_let_go_is_killed_all_the_same),
        cmocka_unit_test(every_writer_of_a_configuration_finds_room),
    };
    return cmocka_run_group_tests_name("freeze guard", tests, NULL, NULL);
}
