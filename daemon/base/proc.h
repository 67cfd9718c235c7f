#pragma once
/* Starting children: fork and exec with nothing but async-signal-safe calls in between. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

struct proc_identity {
    uid_t uid;
    gid_t gid;
    char name[64];
    char home[256];
};
/* Looks a user up by name; "" or NULL = the caller's own. */
int proc_identity_lookup(const char *user, struct proc_identity *ret, struct err *err);

struct proc_fd {
    int from; /* ours */
    int to;   /* number in the child (0, 1, 2, 3...) */
};

struct proc_spec {
    const char *const *argv;         /* argv[0] is the path; no shell, ever */
    const char *const *environment;  /* NULL-ended "K=V"; NULL = a minimal one (PATH, LANG=C.UTF-8) */
    const struct proc_fd *fds;       /* everything else is closed */
    size_t n_fds;
    const struct proc_identity *identity; /* NULL = keep; otherwise groups, gid, uid are dropped together */
    const char *directory;           /* NULL = "/" */
    bool new_group;                  /* own process group: proc_kill_group reaches grandchildren */
    bool die_with_parent;            /* PR_SET_PDEATHSIG SIGKILL */
    bool no_new_privileges;
};

/* Returns 0 and the pid and a pidfd (close-on-exec; caller closes), or -1. Exec failure is reported here. */
int proc_spawn(const struct proc_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *err);
/* SIGKILL the group of pid (and pid itself). */
void proc_kill_group(pid_t pid);
/* Reaps pid, waiting up to timeout_ms (-1 for ever); true when it is gone. ret_status as of waitpid, may be NULL. */
bool proc_reap(pid_t pid, int pidfd, int timeout_ms, int *ret_status);
/* Is our child stopped (SIGSTOP, job control) at this moment? Its exit stays to be reaped. */
bool proc_stopped(pid_t pid);
/* Was it killed (SIGKILL) and does not end, since its main thread waits in the kernel for what does not answer? Its other threads are gone. */
bool proc_kill_pending(pid_t pid);
/* "exit status 3", "signal 9 (Killed)". Static buffer per call site not needed: writes into ret. */
char *proc_status_text(int status, char *ret, size_t size);
/* An executable of ours that comes with this one: beside it, or where an installation puts it (libexec/quiesced). false: there is none. ret: PATH_MAX. */
bool proc_find_program(const char *name, char *ret);
/* Path of the running binary (/proc/self/exe resolved once at start). Static storage. */
const char *proc_self_path(void);
