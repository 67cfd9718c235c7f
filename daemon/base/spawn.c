/* proc_spawn. Between fork and exec other threads' locks may be held for ever in the child, so that only
 * async-signal-safe functions (signal-safety(7)) are called there; everything is looked up before. */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/str.h"

enum spawn_step { STEP_FDS, STEP_GROUP, STEP_IDENTITY, STEP_PRIVILEGES, STEP_DIRECTORY, STEP_EXEC };

static const char *const step_words[] = {
    [STEP_FDS] = "arrange its descriptors",  [STEP_GROUP] = "enter a process group of its own",
    [STEP_IDENTITY] = "become user",         [STEP_PRIVILEGES] = "set its privileges",
    [STEP_DIRECTORY] = "enter its directory", [STEP_EXEC] = "execute it",
};

struct spawn_failure {
    int step;
    int errnum;
};

/* Everything that the child needs, prepared by the parent. */
struct spawn_plan {
    const struct proc_spec *spec;
    const char *const *environment;
    int *parked; /* per entry of spec->fds: the source, moved out of the way of all targets */
    int first_free;
    int report_fd;
    bool change_identity;
    gid_t *groups;
    int n_groups;
    pid_t parent;
};

static void plan_free(struct spawn_plan *plan)
{
    free(plan->parked);
    free(plan->groups);
}

__attribute__((noreturn)) static void child_fail(const struct spawn_plan *plan, enum spawn_step step)
{
    struct spawn_failure failure = {.step = (int)step, .errnum = errno};
    while (write(plan->report_fd, &failure, sizeof(failure)) < 0 && errno == EINTR)
        ;
    _exit(127);
}

/* Marks every descriptor close-on-exec; the targets lose the mark again by dup2. */
static void child_mark_all(void)
{
    if (syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    struct rlimit limit; /* kernels before 5.11 */
    int most = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1048576 ? (int)limit.rlim_cur : 1048576;
    for (int fd = 0; fd < most; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static bool child_maps(const struct proc_spec *spec, int to)
{
    for (size_t i = 0; i < spec->n_fds; i++)
        if (spec->fds[i].to == to)
            return true;
    return false;
}

/* Sources and targets may overlap (5 to 3 while 3 is to become 4): first move every source above all targets. */
static void child_fds(struct spawn_plan *plan)
{
    const struct proc_spec *spec = plan->spec;
    int report_fd = fcntl(plan->report_fd, F_DUPFD_CLOEXEC, plan->first_free);
    if (report_fd < 0)
        child_fail(plan, STEP_FDS);
    plan->report_fd = report_fd;
    child_mark_all();
    for (size_t i = 0; i < spec->n_fds; i++) {
        plan->parked[i] = fcntl(spec->fds[i].from, F_DUPFD_CLOEXEC, plan->first_free);
        if (plan->parked[i] < 0)
            child_fail(plan, STEP_FDS);
    }
    for (size_t i = 0; i < spec->n_fds; i++)
        if (dup2(plan->parked[i], spec->fds[i].to) < 0)
            child_fail(plan, STEP_FDS);
    /* A program that is started with 0, 1 or 2 closed would open its first file there. */
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        if (child_maps(spec, fd))
            continue;
        int null_fd = open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
        if (null_fd < 0 || (null_fd != fd && (dup2(null_fd, fd) < 0 || close(null_fd) < 0)))
            child_fail(plan, STEP_FDS);
    }
    if (!child_maps(spec, STDERR_FILENO))
        fcntl(STDERR_FILENO, F_SETFD, 0);
}

/* The system calls themselves: glibc's wrappers synchronise threads, which a forked child does not have. */
static void child_identity(const struct spawn_plan *plan)
{
    if (!plan->change_identity)
        return;
    uid_t uid = plan->spec->identity->uid;
    gid_t gid = plan->spec->identity->gid;
    if (syscall(SYS_setgroups, plan->n_groups, plan->groups) != 0 || syscall(SYS_setresgid, gid, gid, gid) != 0 ||
        syscall(SYS_setresuid, uid, uid, uid) != 0)
        child_fail(plan, STEP_IDENTITY);
    if (uid != 0 && syscall(SYS_setresuid, -1, 0, -1) == 0) { /* the way back must be closed */
        errno = EPERM;
        child_fail(plan, STEP_IDENTITY);
    }
}

static void child_signals_default(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int signo = 1; signo < NSIG; signo++)
        sigaction(signo, &action, NULL); /* fails for SIGKILL, SIGSTOP and libc's own */
}

__attribute__((noreturn)) static void child_run(struct spawn_plan *plan)
{
    const struct proc_spec *spec = plan->spec;
    child_signals_default();
    child_fds(plan);
    /* Opened as who we are: the new user need not be able to walk there (a build below a home directory of mode 0700). */
    int program = plan->change_identity ? open(spec->argv[0], O_PATH | O_CLOEXEC) : -1;
    if (spec->new_group && setpgid(0, 0) != 0)
        child_fail(plan, STEP_GROUP);
    child_identity(plan);
    if (spec->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        child_fail(plan, STEP_PRIVILEGES);
    if (spec->die_with_parent) { /* after the change of user, which clears it (prctl(2)) */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
            child_fail(plan, STEP_PRIVILEGES);
        if (getppid() != plan->parent) /* it died before the call */
            _exit(127);
    }
    if (chdir(spec->directory ? spec->directory : "/") != 0)
        child_fail(plan, STEP_DIRECTORY);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(spec->argv[0], (char *const *)(uintptr_t)spec->argv, (char *const *)(uintptr_t)plan->environment);
    if (errno == EACCES && program >= 0) { /* the file's own mode must still allow it */
        syscall(SYS_execveat, program, "", spec->argv, plan->environment, AT_EMPTY_PATH);
        errno = EACCES;
    }
    child_fail(plan, STEP_EXEC);
}

/* Nothing to change when an unprivileged caller names itself; everything else is tried, and fails loudly. */
static int plan_identity(struct spawn_plan *plan, struct err *err)
{
    const struct proc_identity *identity = plan->spec->identity;
    plan->change_identity =
        identity && (geteuid() == 0 || identity->uid != geteuid() || identity->gid != getegid());
    if (!plan->change_identity)
        return 0;
    for (plan->n_groups = 64;;) {
        int room = plan->n_groups;
        plan->groups = mem_resize(plan->groups, (size_t)room * sizeof(gid_t));
        if (getgrouplist(identity->name, identity->gid, plan->groups, &plan->n_groups) >= 0)
            return 0;
        if (plan->n_groups <= room || plan->n_groups > 65536) /* NGROUPS_MAX */
            return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "user %s: cannot look its groups up",
                           identity->name);
    }
}

static void plan_fds(struct spawn_plan *plan)
{
    int most = STDERR_FILENO;
    for (size_t i = 0; i < plan->spec->n_fds; i++)
        most = plan->spec->fds[i].to > most ? plan->spec->fds[i].to : most;
    plan->first_free = most + 1;
    plan->parked = mem_new(plan->spec->n_fds * sizeof(int));
}

/* Waits for the exec: end-of-file means that it succeeded. */
static int parent_check(const struct proc_spec *spec, pid_t pid, int report_fd, struct err *err)
{
    struct spawn_failure failure;
    ssize_t n;
    do
        n = read(report_fd, &failure, sizeof(failure));
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (n != (ssize_t)sizeof(failure) || failure.step < 0 || failure.step >= (int)ELEMENTS(step_words))
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "%s: the child ended before it started",
                       spec->argv[0]);
    const char *user = failure.step == STEP_IDENTITY ? spec->identity->name : "";
    const char *hint = failure.step == STEP_IDENTITY ? "Only root can start programs as another user." : NULL;
    return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, failure.errnum, hint, "%s: cannot %s%s%s", spec->argv[0],
                     step_words[failure.step], *user ? " " : "", user);
}

static pid_t fork_child(struct spawn_plan *plan, int parent_end)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* no handler of ours may run in the child */
    pid_t pid = fork();
    if (pid == 0) {
        close(parent_end);
        child_run(plan);
    }
    int errnum = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = errnum;
    return pid;
}

int proc_spawn(const struct proc_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
    static const char *const minimal[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                          "LANG=C.UTF-8", NULL};
    CLEANUP(plan_free)
    struct spawn_plan plan = {.spec = spec, .environment = spec->environment ? spec->environment : minimal,
                              .parent = getpid()};
    if (fault_role("spawn"))
        return err_errno(err, (uint32_t)E_OUTOFMEMORY, EAGAIN, NULL, "%s: cannot fork", spec->argv[0]);
    if (plan_identity(&plan, err) != 0)
        return -1;
    plan_fds(&plan);
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return err_errno(err, (uint32_t)E_OUTOFMEMORY, errno, NULL, "%s: cannot create a pipe", spec->argv[0]);
    AUTO_FD int report_fd = pipe_fds[0];
    plan.report_fd = pipe_fds[1];
    pid_t pid = fork_child(&plan, report_fd);
    int errnum = errno;
    close(pipe_fds[1]);
    if (pid < 0)
        return err_errno(err, (uint32_t)E_OUTOFMEMORY, errnum, NULL, "%s: cannot fork", spec->argv[0]);
    if (parent_check(spec, pid, report_fd, err) != 0)
        return -1;
    /* A child that has already ended is still there, unreaped: pid cannot have been given away. */
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        errnum = errno;
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errnum, "quiesced needs Linux 5.3 or later.",
                         "%s: cannot watch process %d", spec->argv[0], (int)pid);
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}
