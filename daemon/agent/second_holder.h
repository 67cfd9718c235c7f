#pragma once
/* A short-lived child of the agent that thaws what a record marks as ours, whatever the guardian does: FITHAW may have
 * to wait for a FIFREEZE that still runs, and the agent's loop must not. */
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

struct second_holder {
    int guardian_pidfd;
    int record_fd;
    const char *record_path;
    const int *fds;
    size_t n;
};

/* Forks (no exec: the program's file may lie on what is frozen). The child kills the guardian, thaws, waits until the
 * guardian is really gone, thaws what that has still frozen, removes the record, exits with 0 (1: something is still
 * frozen). To be reaped by the caller. */
int second_holder_start(const struct second_holder *holder, pid_t *ret_pid, struct err *err);
