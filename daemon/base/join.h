#pragma once
/* A role that has not been started by serve but by a unit of its own: it reports for duty on a socket on which serve listens, one for each
 * role. From then on nothing tells it from a role that serve has started: it finds its channel on the same descriptor. */
#include <stdbool.h>

#include "base/err.h"

/* Connects to path, waits until serve takes us, and puts the channel onto channel_fd; standard error leads to serve's
 * logger afterwards. Who listens must be root or our own user. Returns 1, 0 when serve has let go of us (then there is nothing to do), -1 with err. */
int join_serve(const char *path, int channel_fd, struct err *err);

/* The arguments "--join PATH" of a role: argv[2] and argv[3]. Returns 0 (joined, or there are none), or the exit status: 1 failed and told,
 * 2 usage. role: for messages. *ret_over: let go of before there was anything to do; the role ends with status 0. */
int join_by_arguments(const char *role, int argc, char **argv, int channel_fd, bool *ret_over);
