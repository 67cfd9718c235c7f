#pragma once
/* The planner: from what a backup needs and what is known of the volumes to the volumes of the snapshot set, or to the
 * reasons why such a backup would hang or lie. Pure: no I/O, no clock. Inputs are borrowed for the call. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When does a writer's component stay consistent over volumes that are not captured at one instant? */
enum planner_hold {
    PLANNER_HOLD_WRITES, /* the writer holds all its writes from Freeze to Thaw (VSS's rule for writers): any volumes
                            will do */
    PLANNER_HOLD_LOG,    /* it goes on writing; its log repairs the skew (PostgreSQL with backup label): a warning */
    PLANNER_HOLD_NONE,   /* it goes on writing and needs one instant (PostgreSQL without label): one atomic volume */
};

/* One file set of a component, or one plain path. */
struct planner_need {
    const char *path;      /* canonical directory (or file) that the backup must carry */
    const char *writer;    /* name, or NULL for a plain path */
    const char *component; /* name of the component within the writer, or NULL for a plain path */
    const char *level;     /* "front_end", "back_end", "system"; NULL for a plain path */
    enum planner_hold hold;
    size_t volume; /* index into planner_input.volumes: where volumes_resolve found the path */
};

enum planner_freeze { PLANNER_FREEZE_NOT_NEEDED, PLANNER_FREEZE_FORBIDDEN, PLANNER_FREEZE_WANTED };

struct planner_volume {
    const char *path; /* what the provider snapshots; the requested path when no provider fits */
    const char *mount_point;
    const char *fs_type;
    const char *superblock;
    const char *provider; /* NULL: none fits */
    const char *reason;   /* why none fits, or NULL */
    bool atomic;
    enum planner_freeze freeze;
    int64_t window_ms;         /* time inside the freeze window, estimate */
    const char *const *nested; /* canonical mount points and subvolumes beneath path, not in its snapshot */
    size_t n_nested;
    const char *writes; /* superblock on which the provider writes within the window; NULL: none */
};

/* A mounted file system, as far as freezes are concerned. */
struct planner_superblock {
    const char *name;
    const char *mount_point;
    const char *fs_type;
    const char *stands_on; /* superblock that holds its image (loop device) or its upper layer (overlay); NULL: none */
    /* What syncfs wrote before the window, in what time; -1 ms: not measured. What was dirty afterwards, at most. */
    int64_t sync_ms, sync_bytes, dirty_bytes;
};

struct planner_input {
    const struct planner_need *needs;
    size_t n_needs;
    const struct planner_volume *volumes;
    size_t n_volumes;
    const char *const *repositories; /* paths of repositories on this host */
    size_t n_repositories;
    const char *const *excludes; /* canonical paths that the backup leaves out by name */
    size_t n_excludes;
    const char *const *own; /* state directory, staging: our own files beneath a source are a warning */
    size_t n_own;
    const struct planner_superblock *superblocks; /* of this host; those that are frozen have to be among them */
    size_t n_superblocks;
    const char *const *stores; /* superblocks on which the daemon's own store and log lie */
    size_t n_stores;
    int64_t freeze_limit_ms; /* limits.freeze_seconds; 0 = no limit known */
};

struct planner_choice {
    size_t volume;    /* index into planner_input.volumes */
    char reason[256]; /* "needed by sqlite/main", for people */
};

/* One FIFREEZE. */
struct planner_frozen {
    const char *superblock; /* borrowed strings of the input */
    const char *mount_point, *fs_type;
    int64_t sync_ms, dirty_bytes;
    int64_t freeze_ms; /* expected */
};

struct planner_plan {
    struct planner_choice *volumes; /* the set: no volume twice, none that another covers */
    size_t n_volumes;
    size_t *need_choice; /* per need: index into volumes (SIZE_MAX when its volume has no provider) */
    struct planner_frozen *freeze; /* each superblock once, in freeze order: leaf before outer; thawed in reverse */
    size_t n_freeze;
    bool parked;       /* a store of ours lies on, or stands on, what is frozen */
    int64_t budget_ms; /* expected freeze window: freezes and providers, one after the other */
    json_t *refusals;  /* array of {"rule","hresult","detail","hint"}; empty = the plan may run */
    json_t *warnings;  /* array of {"rule","detail","hint"} */
};

/* Never fails (out of memory aborts). Release with planner_plan_clear. */
void planner_run(const struct planner_input *input, struct planner_plan *ret);
void planner_plan_clear(struct planner_plan *plan);
/* The result of the `plan` operation (docs/architecture.md): {"volumes":[{"path","provider","atomic","reason"}],
 * "freeze":[{"superblock","mount_point","fs_type","sync_ms","dirty_bytes","freeze_ms"}],"parked","refusals","warnings",
 * "budget_ms","limit_ms"}. New reference. */
json_t *planner_plan_to_json(const struct planner_input *input, const struct planner_plan *plan);

/* On how many file systems a superblock stands. */
unsigned planner_depth(const struct planner_input *input, const char *name);
/* Does inner's file system block while outer is frozen: the same superblock, or one that stands on it, however deep? */
bool planner_blocked_by(const struct planner_input *input, const char *inner, const char *outer);

/* Every rule's name, NULL-ended, in the order in which they are tried (documentation and tests). */
extern const char *const planner_rule_names[];
