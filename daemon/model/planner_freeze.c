/* What is frozen, in which order, for how long. */
#include <stdlib.h>

#include "base/str.h"
#include "model/planner_private.h"

/* platform-facts 1: FIFREEZE of ext4, xfs or btrfs under load, right after a syncfs, took 21 to 72 ms. Writing 1 GiB of
 * dirty data within the freeze took 2.5 to 3.9 s, that is 270 to 400 MiB/s; a third of that where nothing was measured.
 */
enum { FREEZE_BASE_MS = 75, ASSUMED_BYTES_PER_MS = 100 * 1024, MEASURABLE_BYTES = 16 * 1024 * 1024 };
/* Layers of file systems on file systems: more is a cycle, which no kernel makes. */
enum { DEPTH_MAX = 32 };

static const struct planner_superblock *find(const struct planner_input *input, const char *name)
{
    for (size_t i = 0; i < input->n_superblocks; i++)
        if (str_eq(input->superblocks[i].name, name))
            return &input->superblocks[i];
    return NULL;
}

static const char *below(const struct planner_input *input, const char *name)
{
    const struct planner_superblock *superblock = find(input, name);
    return superblock ? superblock->stands_on : NULL;
}

bool planner_blocked_by(const struct planner_input *input, const char *inner, const char *outer)
{
    for (int depth = 0; inner && depth < DEPTH_MAX; depth++, inner = below(input, inner))
        if (str_eq(inner, outer))
            return true;
    return false;
}

unsigned planner_depth(const struct planner_input *input, const char *name)
{
    unsigned depth = 0;
    while (depth < DEPTH_MAX && (name = below(input, name)))
        depth++;
    return depth;
}

static int64_t freeze_ms(const struct planner_superblock *superblock)
{
    int64_t bytes_per_ms = ASSUMED_BYTES_PER_MS;
    if (superblock->sync_ms > 0 && superblock->sync_bytes >= MEASURABLE_BYTES)
        bytes_per_ms = superblock->sync_bytes / superblock->sync_ms;
    return FREEZE_BASE_MS + superblock->dirty_bytes / (bytes_per_ms > 0 ? bytes_per_ms : 1);
}

static bool frozen_already(const struct planner_plan *plan, const char *superblock)
{
    for (size_t i = 0; i < plan->n_freeze; i++)
        if (str_eq(plan->freeze[i].superblock, superblock))
            return true;
    return false;
}

/* Behind all that lie as deep or deeper: a leaf's last writes reach its image only while the outer one takes them. */
static void insert(const struct planner_input *input, struct planner_plan *plan, const struct planner_frozen *frozen)
{
    unsigned depth = planner_depth(input, frozen->superblock);
    size_t at = plan->n_freeze++;
    for (; at > 0 && planner_depth(input, plan->freeze[at - 1].superblock) < depth; at--)
        plan->freeze[at] = plan->freeze[at - 1];
    plan->freeze[at] = *frozen;
}

static void add(const struct planner_input *input, struct planner_plan *plan, const struct planner_volume *volume)
{
    static const struct planner_superblock unmeasured = {.sync_ms = -1};
    const struct planner_superblock *known = find(input, volume->superblock);
    const struct planner_superblock *superblock = known ? known : &unmeasured;
    const struct planner_frozen frozen = {
        .superblock = volume->superblock,
        .mount_point = known ? known->mount_point : volume->mount_point,
        .fs_type = volume->fs_type,
        .sync_ms = superblock->sync_ms,
        .dirty_bytes = superblock->dirty_bytes,
        .freeze_ms = freeze_ms(superblock),
    };
    insert(input, plan, &frozen);
    plan->budget_ms += frozen.freeze_ms;
    for (size_t i = 0; i < input->n_stores; i++)
        plan->parked = plan->parked || planner_blocked_by(input, input->stores[i], volume->superblock);
}

void planner_freeze_set(const struct planner_input *input, struct planner_plan *plan)
{
    for (size_t i = 0; i < plan->n_volumes; i++) {
        const struct planner_volume *volume = planner_chosen(input, plan, i);
        if (volume->freeze == PLANNER_FREEZE_WANTED && !frozen_already(plan, volume->superblock))
            add(input, plan, volume);
    }
}
