#pragma once
/* What a child of ours has started, wherever it went: out of its process group (setsid), out of its parent's hands (a
 * double fork). Found by descent while the parents live, by a mark in the environment that it inherited afterwards. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Environment entry of every writer's process: OFFSPRING_MARK "INSTALLATION:PID OF ITS WORKER:". */
#define OFFSPRING_MARK "QUIESCED_WRITER="

pid_t offspring_parent(pid_t pid); /* -1: there is no such process */
/* SIGKILL for pid, its process group and all that descend from it. Before pid is reaped. */
void offspring_kill(pid_t pid);
/* Calls fn (NULL is fine) for every process whose environment has an entry that begins with mark ("NAME=value"), with
 * that entry, borrowed; in a child. Returns how many were found. ret_unseen: of how many it could not be read, since their memory waits for
 * a disk, say: whether they are any of them is not known. */
typedef void (*offspring_fn)(void *arg, pid_t pid, const char *entry);
size_t offspring_each_marked(const char *mark, offspring_fn fn, void *arg, size_t *ret_unseen);
/* SIGKILL for each of them. Returns how many were found. */
size_t offspring_kill_marked(const char *mark, size_t *ret_unseen);
/* Children of ours that nobody of us started: what a dead child left, when we are a subreaper (prctl(2)). keep: those that
 * we did start. Only those of user uid. SIGKILL for each and its offspring; they are reaped. Returns how many there were. */
size_t offspring_kill_adopted(const pid_t *keep, size_t n_keep, uid_t uid);
enum { OFFSPRING_ANY_USER = -1 };
