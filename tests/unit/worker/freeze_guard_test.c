/* The timer that ends frozen writers when the worker itself is stuck in a system call. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
    assert_int_equal(waitpid(early, &status, 0), early); /* restarted after the signal, ends with the child */
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(kill(late, 0), 0);
    freeze_guard_forget(late);
    kill(late, SIGKILL);
    assert_int_equal(waitpid(late, &status, 0), late);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_past_its_window_is_killed_while_we_are_in_a_system_call),
        cmocka_unit_test(a_thawed_writer_is_left_alone),
    };
    return cmocka_run_group_tests_name("freeze guard", tests, NULL, NULL);
}
