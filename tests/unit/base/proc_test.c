#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"

/* The tests' own child is a small program in awk or cat: Debian's essential packages have them. */

static char *read_all(int fd)
{
    char *text = mem_new(65536);
    size_t used = 0;
    ssize_t n;
    while (used < 65535 && (n = read(fd, text + used, 65535 - used)) > 0)
        used += (size_t)n;
    return text;
}

/* Runs argv with our pipe as its standard output and returns what it wrote. */
static char *output_of(struct proc_spec *spec, int *ret_status)
{
    int out[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct proc_fd fds[8] = {{out[1], 1}};
    for (size_t i = 0; i < spec->n_fds; i++)
        fds[i + 1] = spec->fds[i];
    spec->fds = fds;
    spec->n_fds++;
    pid_t pid;
    int pidfd;
    struct err err = {.hr = 0};
    int rc = proc_spawn(spec, &pid, &pidfd, &err);
    close(out[1]);
    if (rc != 0)
        fail_msg("%s", err.text);
    char *text = read_all(out[0]);
    close(out[0]);
    assert_true(proc_reap(pid, pidfd, -1, ret_status));
    close(pidfd);
    return text;
}

static void a_child_gets_nothing_but_what_it_was_given(void **state)
{
    (void)state;
    int leaked = open("/dev/zero", O_RDONLY); /* not close-on-exec */
    const char *const argv[] = {"/bin/ls", "/proc/self/fd", NULL};
    struct proc_spec spec = {.argv = argv};
    int status;
    AUTO_FREE char *text = output_of(&spec, &status);
    assert_int_equal(status, 0);
    assert_string_equal(text, "0\n1\n2\n3\n"); /* 3 is the directory that it reads */
    close(leaked);
}

static void overlapping_descriptor_maps_do_not_overwrite_each_other(void **state)
{
    (void)state;
    /* 5 becomes 3, 3 becomes 4, 4 becomes 5: a cycle. */
    static const char *const words[] = {"three", "four", "five"};
    int saved[3];
    for (int i = 0; i < 3; i++) {
        int text[2];
        assert_int_equal(pipe(text), 0);
        assert_int_equal(write(text[1], words[i], strlen(words[i])), (ssize_t)strlen(words[i]));
        close(text[1]);
        int high = fcntl(text[0], F_DUPFD_CLOEXEC, 40);
        close(text[0]);
        saved[i] = fcntl(3 + i, F_DUPFD_CLOEXEC, 60);
        assert_true(dup2(high, 3 + i) >= 0);
        close(high);
    }
    const struct proc_fd fds[] = {{5, 3}, {3, 4}, {4, 5}};
    const char *const argv[] = {"/bin/cat", "/dev/fd/3", "/dev/fd/4", "/dev/fd/5", NULL};
    struct proc_spec spec = {.argv = argv, .fds = fds, .n_fds = 3};
    int status;
    AUTO_FREE char *text = output_of(&spec, &status);
    for (int i = 0; i < 3; i++) {
        close(3 + i);
        if (saved[i] >= 0) {
            dup2(saved[i], 3 + i);
            close(saved[i]);
        }
    }
    assert_string_equal(text, "fivethreefour");
    assert_int_equal(status, 0);
}

static void a_descriptor_may_keep_its_number_and_be_given_twice(void **state)
{
    (void)state;
    int text_pipe[2];
    assert_int_equal(pipe2(text_pipe, O_CLOEXEC), 0);
    assert_int_equal(write(text_pipe[1], "same", 4), 4);
    close(text_pipe[1]);
    char own[32];
    str_format(own, sizeof(own), "/dev/fd/%d", text_pipe[0]);
    const struct proc_fd fds[] = {{text_pipe[0], text_pipe[0]}, {text_pipe[0], 0}};
    const char *const argv[] = {"/bin/cat", own, "-", NULL};
    struct proc_spec spec = {.argv = argv, .fds = fds, .n_fds = 2};
    AUTO_FREE char *text = output_of(&spec, NULL);
    close(text_pipe[0]);
    assert_string_equal(text, "same");
}

static void a_program_that_is_not_there_is_told_at_once_and_leaves_no_zombie(void **state)
{
    (void)state;
    const char *const argv[] = {"/nonexistent/program", NULL};
    struct proc_spec spec = {.argv = argv};
    pid_t pid = 0;
    int pidfd = -1;
    struct err err;
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, &err), -1);
    assert_string_equal(err.text, "/nonexistent/program: cannot execute it: No such file or directory");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void a_directory_that_is_not_there_is_told(void **state)
{
    (void)state;
    const char *const argv[] = {"/bin/true", NULL};
    struct proc_spec spec = {.argv = argv, .directory = "/proc/nonexistent" /* nobody can make it */};
    pid_t pid;
    int pidfd;
    struct err err;
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, &err), -1);
    assert_non_null(strstr(err.text, "cannot enter its directory"));
}

static void the_environment_is_minimal_and_the_directory_is_the_root(void **state)
{
    (void)state;
    setenv("SECRET_OF_THE_PARENT", "1", 1);
    const char *const argv[] = {"/usr/bin/env", NULL};
    struct proc_spec spec = {.argv = argv};
    AUTO_FREE char *text = output_of(&spec, NULL);
    assert_string_equal(text, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nLANG=C.UTF-8\n");
    const char *const pwd[] = {"/bin/pwd", NULL};
    struct proc_spec second = {.argv = pwd};
    AUTO_FREE char *where = output_of(&second, NULL);
    assert_string_equal(where, "/\n");
    const char *const own[] = {"A=b", NULL};
    struct proc_spec third = {.argv = argv, .environment = own};
    AUTO_FREE char *given = output_of(&third, NULL);
    assert_string_equal(given, "A=b\n");
}

static char *status_line(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    assert_non_null(line);
    return strndup(line + strlen(name), strcspn(line, "\n") - strlen(name));
}

static void signals_and_privileges_are_reset(void **state)
{
    (void)state;
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    signal(SIGPIPE, SIG_IGN);
    const char *const argv[] = {"/bin/cat", "/proc/self/status", NULL};
    struct proc_spec spec = {.argv = argv, .no_new_privileges = true, .die_with_parent = true, .new_group = true};
    AUTO_FREE char *text = output_of(&spec, NULL);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    AUTO_FREE char *mask = status_line(text, "SigBlk:\t");
    AUTO_FREE char *ignored = status_line(text, "SigIgn:\t");
    AUTO_FREE char *privileges = status_line(text, "NoNewPrivs:\t");
    assert_string_equal(mask, "0000000000000000");
    assert_string_equal(ignored, "0000000000000000");
    assert_string_equal(privileges, "1");
}

static void an_identity_is_dropped_together_with_its_groups(void **state)
{
    (void)state;
    struct proc_identity identity;
    struct err err;
    if (geteuid() != 0)
        skip();
    assert_int_equal(proc_identity_lookup("nobody", &identity, &err), 0);
    const char *const argv[] = {"/bin/cat", "/proc/self/status", NULL};
    struct proc_spec spec = {.argv = argv, .identity = &identity};
    AUTO_FREE char *text = output_of(&spec, NULL);
    char expected[128];
    str_format(expected, sizeof(expected), "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\n", identity.uid, identity.uid,
               identity.uid, identity.uid, identity.gid, identity.gid, identity.gid, identity.gid);
    assert_non_null(strstr(text, expected));
    AUTO_FREE char *groups = status_line(text, "Groups:\t");
    str_format(expected, sizeof(expected), "%u ", identity.gid);
    assert_string_equal(groups, expected);
}

static void users_are_looked_up_by_name_and_unknown_ones_refused(void **state)
{
    (void)state;
    struct proc_identity identity;
    struct err err;
    assert_int_equal(proc_identity_lookup("root", &identity, &err), 0);
    assert_int_equal(identity.uid, 0);
    assert_string_equal(identity.name, "root");
    assert_int_equal(proc_identity_lookup(NULL, &identity, &err), 0);
    assert_int_equal(identity.uid, geteuid());
    assert_int_equal(proc_identity_lookup("no-such-user-here", &identity, &err), -1);
    assert_string_equal(err.text, "user no-such-user-here: does not exist");
    assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
}

static void killing_the_group_reaches_grandchildren(void **state)
{
    (void)state;
    int out[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    /* timeout(1) starts sleep as its child; both hold the pipe. --foreground keeps them in one group. */
    const char *const argv[] = {"/usr/bin/timeout", "--foreground", "600", "/bin/sleep", "500", NULL};
    const struct proc_fd fds[] = {{out[1], 1}};
    struct proc_spec spec = {.argv = argv, .fds = fds, .n_fds = 1, .new_group = true};
    pid_t pid;
    int pidfd;
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, NULL), 0);
    close(out[1]);
    int status = 0;
    assert_false(proc_reap(pid, pidfd, 0, &status));
    assert_int_equal(getpgid(pid), pid);
    proc_kill_group(pid);
    assert_true(proc_reap(pid, pidfd, -1, &status));
    char text[64];
    assert_string_equal(proc_status_text(status, text, sizeof(text)), "signal 9 (Killed)");
    char byte;
    assert_int_equal(read(out[0], &byte, 1), 0); /* returns only when the grandchild has closed it, too */
    close(out[0]);
    close(pidfd);
}

static void an_exit_status_is_told_and_somebody_elses_reaping_is_no_success(void **state)
{
    (void)state;
    const char *const argv[] = {"/bin/false", NULL};
    struct proc_spec spec = {.argv = argv};
    pid_t pid;
    int pidfd, status = 0;
    char text[64];
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, NULL), 0);
    assert_true(proc_reap(pid, -1, -1, &status));
    assert_string_equal(proc_status_text(status, text, sizeof(text)), "exit status 1");
    assert_true(proc_reap(pid, pidfd, -1, &status));
    assert_int_not_equal(status, 0);
    close(pidfd);
}

static void the_own_binary_is_known(void **state)
{
    (void)state;
    assert_true(path_is_canonical(proc_self_path()));
    assert_int_equal(access(proc_self_path(), X_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_gets_nothing_but_what_it_was_given),
        cmocka_unit_test(overlapping_descriptor_maps_do_not_overwrite_each_other),
        cmocka_unit_test(a_descriptor_may_keep_its_number_and_be_given_twice),
        cmocka_unit_test(a_program_that_is_not_there_is_told_at_once_and_leaves_no_zombie),
        cmocka_unit_test(a_directory_that_is_not_there_is_told),
        cmocka_unit_test(the_environment_is_minimal_and_the_directory_is_the_root),
        cmocka_unit_test(signals_and_privileges_are_reset),
        cmocka_unit_test(an_identity_is_dropped_together_with_its_groups),
        cmocka_unit_test(users_are_looked_up_by_name_and_unknown_ones_refused),
        cmocka_unit_test(killing_the_group_reaches_grandchildren),
        cmocka_unit_test(an_exit_status_is_told_and_somebody_elses_reaping_is_no_success),
        cmocka_unit_test(the_own_binary_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
