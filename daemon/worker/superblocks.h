#pragma once
/* The mounted file systems of this host as a freeze sees them: which stands on which, and how much a freeze would have
 * to write. */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "model/planner.h"

struct volume;

struct superblocks {
    struct volume *mounts; /* one per mount; owns the strings of items */
    struct planner_superblock *items;
    size_t n;
};

/* Every superblock once, with the one on whose file system it stands. Nothing is measured (sync_ms -1). */
int superblocks_read(struct superblocks *ret, struct err *err);
void superblocks_clear(struct superblocks *superblocks);

/* syncfs of the superblock called name, in a child process and for at most limit_ms, since it cannot be interrupted:
 * fills sync_ms, sync_bytes and dirty_bytes. Dirty data is counted for the whole host (/proc/meminfo, Dirty and
 * Writeback), an upper bound for the one file system. Does nothing when it is not mounted. */
void superblocks_measure(struct superblocks *superblocks, const char *name, int64_t limit_ms);

/* A child that does nothing but syncfs of fd's file system: its exit status is 0 or errno, and it holds nothing else of ours open. Its pid, and a
 * pidfd that the caller closes; -1: none could be started. */
pid_t superblocks_sync(int fd, int *ret_pidfd);

/* On how many file systems it stands: of two stacked ones the leaf, the deeper one, is frozen first. */
unsigned superblocks_depth(const struct superblocks *superblocks, const char *name);

/* Every superblock that blocks while those in frozen (JSON array of names) are frozen: them, and what stands on them.
 * New reference. */
json_t *superblocks_blocked(const struct superblocks *superblocks, const json_t *frozen);
