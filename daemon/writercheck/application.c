/* The only eyes on the application itself: a program of the writer's author, which tries to do what the hold forbids.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "writercheck/talk.h"

enum { CANNOT_RUN = 126 /* and 127: what env(1) and shells say of a command that cannot run */, EXIT_MISUSED = 2 };

bool application_is_free(const struct check *check)
{
    const struct proc_fd fds[] = {{STDERR_FILENO, 1}, {STDERR_FILENO, 2}};
    struct proc_spec spec = {.argv = check->probe, .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true};
    struct err err = {0};
    pid_t pid;
    AUTO_FD int pidfd = -1;
    int status = 0;
    if (proc_spawn(&spec, &pid, &pidfd, &err) < 0) {
        fprintf(stderr, "quiesced writer-check: the probe: %s\n", err.text);
        exit(EXIT_MISUSED);
    }
    if (!proc_reap(pid, pidfd, (int)check->limit_ms, &status)) { /* it waits for the hold to end: held, then */
        proc_kill_group(pid);
        proc_reap(pid, pidfd, -1, NULL);
        return false;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) >= CANNOT_RUN) {
        char text[64];
        fprintf(stderr, "quiesced writer-check: the probe: %s\n", proc_status_text(status, text, sizeof(text)));
        exit(EXIT_MISUSED);
    }
    return WEXITSTATUS(status) == 0;
}
