#pragma once
/* A database server's life in others' hands: the commands that stop and start it, and the proof that it stands still. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* The systemd unit that a process belongs to, from the text of its /proc/PID/cgroup: a system service, not one of a user's
 * manager, not a login's scope. Returns ret, or NULL when there is none. */
char *service_unit_of(const char *cgroup, char *ret, size_t size);
/* Fills *stop and *start (argument lists; each stays when it is not NULL: it is configured) with systemctl's for the unit of
 * process pid, where systemd runs and there is one that is not our own. New references. */
void service_find(pid_t pid, json_t **stop, json_t **start);
/* Runs a command (no shell; the first argument is looked up in PATH's usual places when it is no path) and waits for its
 * end until give_up_ms (CLOCK_MONOTONIC), then ends it. What it says goes to standard error. Its environment is a small one
 * of its own. patient: goes on although the requester has gone. */
int service_run(const json_t *command, int64_t give_up_ms, bool patient, struct err *err);
/* How long something that must be brought to its end may take: until give_up_ms (CLOCK_MONOTONIC), or a little less than a
 * minute from when the requester was found gone, for then we are ended. */
int64_t service_until(int64_t give_up_ms);
/* A living process whose working directory is `directory` (canonical): servers stay in their data directory. 0 = none
 * that we may look at. */
pid_t service_process_in(const char *directory);
/* pid, when process pid lives and is seen to work in `directory` (canonical); -1: it lives and may be ours, but where it works
 * we may not see; 0: it is gone, works elsewhere, or is another user's, whom the number came to after the server's end. */
pid_t service_process_known(pid_t pid, const char *directory);
/* A living process that a command of ours left behind (service_run makes us the reaper of what it starts): it would end
 * with our session. 0 = none. */
pid_t service_left_behind(void);
