#pragma once
/* A snapshot provider: one file (or folder) that ends in PROVIDER_EXPORT. Runs in the worker, as root or as the caller.
 * All calls are synchronous; long ones poll `cancelled`. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <limits.h>

#include "base/err.h"

/* What the planner and the providers know of one path's volume. */
struct volume {
    char path[PATH_MAX];        /* canonical path that the provider snapshots */
    char requested[PATH_MAX];   /* what the caller asked for */
    char mount_point[PATH_MAX];
    char source[PATH_MAX];      /* device, as mountinfo says */
    char fs_type[32];
    char superblock[64];        /* "major:minor" (btrfs: the file system UUID): what a freeze would freeze */
    const json_t *only;         /* names in path, nothing else of which is wanted; NULL: all of it. Of providers that are by_file. Borrowed */
};

struct provider_environment {
    const char *staging;        /* directory for the copy provider (config providers.copy.staging) */
    const char *node;           /* host name and installation: the ownership mark names it, nobody else's is touched */
    bool root;                  /* effective uid 0 */
    bool (*cancelled)(void *arg);
    void *cancelled_arg;
    const char *storage;        /* the requester's choice of a provider's `storage`, or NULL */
    const json_t *options;      /* the provider's section of the configuration, or NULL */
    /* In create only: waits until the session's owner releases the hold. Returns the body of that call, borrowed, or NULL with err when
     * it was cancelled or the window has ended. */
    const json_t *(*await_release)(void *arg, struct err *err);
    void *await_arg;
    /* In create only: when the window ends, CLOCK_MONOTONIC microseconds; 0 = no window. */
    int64_t window_end_us;
};

struct provider_availability {
    bool available;
    char reason[256];           /* why not, and what would help; "" when available */
};

struct provider_match {
    int score;                  /* 0 = cannot; btrfs subvolume 100, reflink 50, copy 10 */
    char volume[PATH_MAX];      /* canonical path of what would be snapshotted */
    char reason[256];           /* why score is 0 */
};

enum provider_freeze {
    FREEZE_NOT_NEEDED,
    FREEZE_FORBIDDEN,           /* FIFREEZE on the same superblock would hang or lie */
    FREEZE_WANTED,              /* FIFREEZE is what makes it one instant */
    FREEZE_LENT,                /* who takes the snapshot freezes, and thaws; ours is to thaw when he does not */
};

struct provider_plan {
    bool atomic;                /* one instant for the whole volume */
    bool flushed;               /* what was written before create began is in it, fsynced or not */
    int64_t bytes;              /* room needed, estimate; -1 unknown */
    int64_t window_ms;          /* estimated time inside the freeze window */
    enum provider_freeze freeze;
};

/* One snapshot of a set. Filled by create: path, attributes. */
struct provider_snapshot {
    char id[37];
    char set_id[37];
    char session_id[37];
    struct volume volume;
    char path[PATH_MAX];        /* where the snapshot's tree can be read; "" = nowhere on this host */
    char outside_id[256];       /* its name at the array, cloud or hypervisor that took it, or "" */
    enum provider_freeze freeze;
    bool writable;
    bool atomic, flushed;       /* as the plan said */
    int64_t bytes;              /* -1 unknown */
};

/* A revert: what the caller wants, and what came of it. */
struct provider_revert {
    const char *job;            /* id of its job: asked for again after a crash */
    bool force;                 /* also while processes use the volume, and when it is not the one any more that was snapshotted */
    bool only_check;            /* nothing is changed: may it be done? */
    char left[256];             /* what could not be removed behind it, and why, or "" */
};

enum { PROVIDER_ABI = 1 };

struct provider {
    unsigned abi;
    const char *name;           /* "btrfs" */
    const char *title;          /* for people */
    const char *storage;        /* VSS's attribute for what it makes: "differential" (shares blocks), "plex" (a full copy), NULL */
    bool by_name;               /* never chosen by itself */
    bool by_file;               /* it goes file by file: of a volume only what is wanted (volume.only) costs anything */
    bool outside;               /* its snapshots are taken and kept by others: they are never ours to remove once the set is good */
    /* May it run here, and if not, why. Required. */
    void (*probe)(const struct provider_environment *env, struct provider_availability *ret);
    /* How well it fits a path. Required. */
    void (*match)(const struct provider_environment *env, const struct volume *volume, struct provider_match *ret);
    /* Cost of one volume. Required. */
    int (*plan)(const struct provider_environment *env, const struct volume *volume, struct provider_plan *ret, struct err *err);
    /* Work that can precede the window (create staging, syncfs). Optional. */
    int (*prepare)(const struct provider_environment *env, struct provider_snapshot *set, size_t n, struct err *err);
    /* Take all n snapshots (all of this provider). On failure nothing is removed, since the applications are still held: the caller
     * calls remove for each of the n, made or not, after the window. Required.
     * Every snapshot carries an ownership mark (node, snapshot id, set id, session id) that list reads back. */
    int (*create)(const struct provider_environment *env, struct provider_snapshot *set, size_t n, struct err *err);
    /* Our own snapshots that exist now: JSON array of {"id","set_id","session_id","path","volume"}; orphans are found by it. Required. */
    int (*list)(const struct provider_environment *env, const struct volume *volumes, size_t n, json_t **ret, struct err *err);
    /* Remove one; a snapshot that is gone already is success. Refuses what does not carry our mark. Required. */
    int (*remove)(const struct provider_environment *env, const struct provider_snapshot *snapshot, struct err *err);
    /* Opens the directory that is a snapshot's tree: a descriptor, or -1. VSS_E_OBJECT_NOT_FOUND when it is not there, or not ours. NULL:
     * its trees lie elsewhere. */
    int (*open)(const struct provider_environment *env, const struct provider_snapshot *snapshot, struct err *err);
    /* ExposeSnapshot: mount one read-only at the open directory target, in this mount namespace; mounted there already is success.
     * VSS_E_OBJECT_NOT_FOUND when it is not there, or not ours. NULL with unexpose: its trees lie elsewhere. */
    int (*expose)(const struct provider_environment *env, const struct provider_snapshot *snapshot, int target, struct err *err);
    /* UnexposeSnapshot: unmount it from path. Only this snapshot's mount is touched; none there is success. */
    int (*unexpose)(const struct provider_environment *env, const struct provider_snapshot *snapshot, const char *path, struct err *err);
    /* RevertToSnapshot: the volume's content becomes the snapshot's, in one step; 0 = it has happened, -1 = nothing has changed.
     * VSS_E_VOLUME_IN_USE, VSS_E_OBJECT_NOT_FOUND (volume or snapshot), VSS_E_PROVIDER_VETO. NULL with reverted: it cannot. */
    int (*revert)(const struct provider_environment *env, const struct provider_snapshot *snapshot, struct provider_revert *revert,
                  struct err *err);
    /* After a crash in it: 1 = this job's revert has happened, 0 = it has not; what it left beside the snapshot is gone. -1: err. */
    int (*reverted)(const struct provider_environment *env, const struct provider_snapshot *snapshot, const char *job, struct err *err);
};

/* The last line of a provider's file: names its `const struct provider provider_NAME`; the build collects them. */
#define PROVIDER_EXPORT(name) _Static_assert(sizeof(provider_##name) > 0, #name)

/* Generated by the build from the files of daemon/providers: NULL-ended. */
extern const struct provider *const providers_all[];
const struct provider *provider_by_name(const char *name);
