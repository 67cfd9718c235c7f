/* A tree of reflinks (FICLONE) in `.quiesced` of the same file system: cheap, but file by file, so writers must hold
 * still. Never FIFREEZE around it: cloning writes metadata and would hang until the thaw (measured). */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "providers/keeper.h"
#include "providers/tree_volume.h"

/* Measured: 0.50 to 0.65 s for 10,000 files. */
enum { FILE_US = 60 };

static void reflink_probe(const struct provider_environment *env, struct provider_availability *ret)
{
    (void)env;
    *ret = (struct provider_availability){.available = true}; /* every kernel that we run on has FICLONE */
}

/* Ask the file system itself (an XFS may have been made without reflink), with files that nobody ever sees. 0 or errno.
 */
static int try_clone(const char *directory)
{
    char block[4096] = {0};
    AUTO_FD int from = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    AUTO_FD int to = from < 0 ? -1 : open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (to < 0 || write(from, block, sizeof(block)) < 0)
        return errno;
    return ioctl(to, FICLONE, from) < 0 ? errno : 0;
}

static void reflink_match(const struct provider_environment *env, const struct volume *volume,
                          struct provider_match *ret)
{
    static const char *const types[] = {"xfs", "btrfs", "bcachefs", "ocfs2"};
    char place[PATH_MAX], directory[PATH_MAX];
    bool known = false;
    *ret = (struct provider_match){0};
    for (size_t i = 0; i < ELEMENTS(types); i++)
        known = known || str_eq(volume->fs_type, types[i]);
    if (!known) {
        str_format(ret->reason, sizeof(ret->reason), "%s has no reflinks", volume->fs_type);
        return;
    }
    if (place_locate(env, volume, place, ret->reason) < 0)
        return;
    str_copy(directory, sizeof(directory), place);
    if (access(directory, F_OK) < 0)
        *strrchr(directory, '/') = '\0';
    int r = try_clone(*directory ? directory : "/");
    place_directory_of(volume->path, ret->volume);
    if (r)
        str_format(ret->reason, sizeof(ret->reason), "cloning on %.100s fails: %s", volume->mount_point, strerror(r));
    else if (path_beneath(ret->volume, place))
        str_copy(ret->reason, sizeof(ret->reason), "it lies among our own snapshots");
    else if (access(ret->volume, R_OK | X_OK) < 0)
        str_format(ret->reason, sizeof(ret->reason), "it cannot be read: %s", strerror(errno));
    else
        ret->score = 50;
}

static int reflink_plan(const struct provider_environment *env, const struct volume *volume, struct provider_plan *ret,
                        struct err *err)
{
    struct tree_stats stats = {0};
    *ret = (struct provider_plan){.atomic = false, .bytes = 0, .freeze = FREEZE_FORBIDDEN};
    if (tree_measure_volume(env, volume, &stats, err) < 0)
        return -1;
    json_decref(stats.nested);
    ret->window_ms = (stats.files + stats.directories) * FILE_US / 1000 + 1;
    return 0;
}

static int reflink_make(const struct provider_environment *env, int volume_fd, const struct place *place,
                        struct provider_snapshot *snapshot, struct err *err)
{
    return tree_copy_volume(env, volume_fd, place, snapshot, true, err);
}

static const struct keeper keeper = {.provider = "reflink",
                                     .fault_create = "provider.reflink.create",
                                     .sync = true, /* cloning a dirty file writes it out first */
                                     .locate = place_locate,
                                     .make = reflink_make,
                                     .unmake = tree_unmake};

static int reflink_prepare(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                           struct err *err)
{
    return keeper_prepare(&keeper, env, set, n, err);
}

static int reflink_create(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                          struct err *err)
{
    return keeper_create(&keeper, env, set, n, err);
}

static int reflink_list(const struct provider_environment *env, const struct volume *volumes, size_t n, json_t **ret,
                        struct err *err)
{
    return keeper_list(&keeper, env, volumes, n, ret, err);
}

static int reflink_remove(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                          struct err *err)
{
    return keeper_remove(&keeper, env, snapshot, err);
}

static int reflink_open(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                      struct err *err)
{
    return keeper_open_tree(&keeper, env, snapshot, err);
}

static int reflink_expose(const struct provider_environment *env, const struct provider_snapshot *snapshot, int target,
                        struct err *err)
{
    return keeper_expose(&keeper, env, snapshot, target, err);
}

static int reflink_unexpose(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                          const char *path, struct err *err)
{
    return keeper_unexpose(&keeper, env, snapshot, path, err);
}

const struct provider provider_reflink = {.abi = PROVIDER_ABI,
                                          .name = "reflink",
                                          .title = "Tree of reflinks on the same file system (XFS, btrfs)",
                                          .storage = "differential",
                                          .by_file = true,
                                          .probe = reflink_probe,
                                          .match = reflink_match,
                                          .plan = reflink_plan,
                                          .prepare = reflink_prepare,
                                          .create = reflink_create,
                                          .list = reflink_list,
                                          .remove = reflink_remove,
                                          .open = reflink_open,
                                          .expose = reflink_expose,
                                          .unexpose = reflink_unexpose};
PROVIDER_EXPORT(reflink);
