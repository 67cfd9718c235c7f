#pragma once
/* A restore is made in a directory of its own below the target, which nobody else can enter (mode 0700), checked
 * there against the manifest, and only then moved to its places: neither names in the data nor symbolic links in the
 * target can lead out of it, and a failed or cancelled restore leaves nothing behind. */
#include "movers/mover.h"
#include "movers/payload/manifest.h"

struct stage {
    const struct mover_restore *restore;
    const struct mover_host *host;
    struct manifest *manifest;
    char name[64];
    int fd; /* the staging directory, or -1 */
    bool half_sparse; /* who fills it makes holes, but not all: stage_verify digs in what looks sparse already, too */
    struct mover_progress progress;
    json_t *warnings; /* NULL, or array of texts: attributes that could not be set here */
};
enum { STAGE_WARNINGS_MAX = 20 };

/* Marks what is wanted (choice.h), refuses what would collide (VSS_E_OBJECT_ALREADY_EXISTS) or leave the target (E_ACCESSDENIED),
 * then makes the staging directory. manifest is borrowed. */
int stage_open(struct stage *ret, const struct mover_restore *restore, const struct mover_host *host,
               struct manifest *manifest, struct err *err);
/* Reads every staged entry again and compares it with the manifest: content, type, size, mode, time, link target, hard
 * links, as root owners. Gives holes back to files that had some. Anything else than equality is an error. ACLs and
 * extended attributes are not in the manifest: who sets one and fails says so with stage_warn. */
int stage_verify(struct stage *stage, struct err *err);
/* Moves everything into the target, one by one: a failure (or a kill) half-way leaves what was moved. */
int stage_publish(struct stage *stage, struct err *err);
/* Notes that an attribute of path could not be set, and why: at most STAGE_WARNINGS_MAX of them. */
void stage_warn(struct stage *stage, const char *path, const char *why);
/* The mover's result of a restore that was published. Caller owns. */
json_t *stage_result(const struct stage *stage);
/* Removes the staging directory and what is left in it. */
void stage_close(struct stage *stage);

/* Removes the staging directories that killed restores left in a target; a living one holds its lock. */
void stage_sweep(int target);

/* Opens path (without a leading slash) beneath dir, through no symbolic link. */
int stage_open_beneath(int dir, const char *path, int flags);
