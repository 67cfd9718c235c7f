#include "providers/tree_volume.h"

#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"

int tree_copy_volume(const struct provider_environment *env, int volume_fd, const struct place *place,
                     struct provider_snapshot *snapshot, bool clone, struct err *err)
{
    struct tree_identity skip[4];
    struct tree_stats stats = {0};
    size_t n = place_skips(env, &snapshot->volume, skip);
    skip[n++] = place->identity;
    struct tree_job job = {.cancelled = env->cancelled, .cancelled_arg = env->cancelled_arg, .skip = skip, .n_skip = n, .only = snapshot->volume.only};
    int r = tree_copy(&job, volume_fd, snapshot->volume.path, place->fd, snapshot->id, clone, &stats, err);
    json_decref(stats.nested); /* the planner has asked for them before: they are in the set or left out by name */
    snapshot->bytes = stats.bytes;
    return r;
}

int tree_measure_volume(const struct provider_environment *env, const struct volume *volume, struct tree_stats *ret,
                        struct err *err)
{
    struct tree_identity skip[3];
    struct tree_job job = {.cancelled = env->cancelled,
                           .cancelled_arg = env->cancelled_arg,
                           .skip = skip,
                           .n_skip = place_skips(env, volume, skip),
                           .only = volume->only};
    AUTO_FD int fd = place_open_path(volume->path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return err_errno(err, errno == ENOENT ? (uint32_t)VSS_E_OBJECT_NOT_FOUND : provider_hresult(errno), errno, NULL,
                         "cannot open %s", volume->path);
    int r = tree_measure(&job, fd, volume->path, ret, err);
    if (r < 0) {
        json_decref(ret->nested);
        ret->nested = NULL;
    }
    return r;
}

int tree_unmake(const struct place *place, const char *id, struct err *err)
{
    return tree_remove(place->fd, id, err);
}
