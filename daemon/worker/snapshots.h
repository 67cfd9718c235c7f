#pragma once
/* The session's snapshot set: from the volumes that core named to snapshots that the providers made. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/ident.h"
#include "providers/provider.h"

struct worker;

struct snapshot_set {
    char id[UUID_SIZE];                /* "" = no set */
    struct provider_snapshot *items;   /* grouped by provider: each group is a run */
    const struct provider **providers; /* per item */
    bool *held;                        /* per item: prepared or made, and ours to remove */
    size_t n;
    json_t *only;                      /* volume -> names: what volume.only of items points into */
    bool created;
    bool auto_release; /* contexts backup and file_share_backup: dies with the session */
};

/* Takes args.snapshot_set_id, context and volumes [{"snapshot_id","volume","provider"}]; replaces what was there. With args.only_paths (POST
 * /backups) nothing but args.paths and the components' files is wanted: a session's requester may look at all of a volume. */
int snapshots_open(struct worker *worker, const json_t *args, struct err *err);
/* Each provider's work before the window. */
int snapshots_prepare(struct worker *worker, struct err *err);
/* Right before the window: writes out, once more, what has become dirty since, where the provider's instant is a commit of
 * the file system's (btrfs, reflink): it is in the window for what it has to write. */
void snapshots_settle(struct worker *worker);
/* Inside the window: all or nothing. On failure what was made stays `held` until snapshots_remove. */
int snapshots_create(struct worker *worker, struct err *err);
/* A persistent set is there after a power cut, too, or it is not said to be taken: what was copied or cloned is only in memory until then. */
int snapshots_make_durable(struct worker *worker, struct err *err);
/* The set is good: what others took and keep is not ours to remove with it. */
void snapshots_let_go(struct snapshot_set *set);
/* "volumes" of a writer's request: [{"volume","provider","atomic"}]. */
json_t *snapshots_for_writers(const struct snapshot_set *set);
/* "snapshots" of the result. */
json_t *snapshots_result(const struct snapshot_set *set);
/* The snapshot that covers path (the deepest volume), or NULL; ret_source: where path can be read in it. */
const struct provider_snapshot *snapshots_cover(const struct snapshot_set *set, const char *path,
                                                char ret_source[PATH_MAX]);
/* Row of the undo stack: removes what is held. */
void snapshots_remove(struct worker *worker, json_t *cleanup);
void snapshots_clear(struct snapshot_set *set);
