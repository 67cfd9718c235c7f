#include "providers/outside.h"

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

void outside_probe(const struct provider_environment *env, struct provider_availability *ret)
{
    *ret = (struct provider_availability){.available = env->root};
    if (!env->root)
        str_copy(ret->reason, sizeof(ret->reason), "freezing a file system takes root");
}

static bool can_freeze(const char *fs_type)
{
    static const char *const types[] = {"ext4", "xfs",      "btrfs",  "ext3", "ext2",    "f2fs",
                                        "jfs",  "reiserfs", "nilfs2", "gfs2", "bcachefs"};
    for (size_t i = 0; i < ELEMENTS(types); i++)
        if (str_eq(types[i], fs_type))
            return true;
    return false;
}

void outside_match(const struct provider_environment *env, const struct volume *volume, struct provider_match *ret)
{
    (void)env;
    *ret = (struct provider_match){0};
    if (!can_freeze(volume->fs_type)) {
        str_format(ret->reason, sizeof(ret->reason), "%s cannot be frozen", volume->fs_type);
        return;
    }
    str_copy(ret->volume, sizeof(ret->volume), volume->mount_point);
    ret->score = 1; /* when it is named, or when nothing else fits */
}

int outside_list(const struct provider_environment *env, const struct volume *volumes, size_t n, json_t **ret, struct err *err)
{
    (void)env;
    (void)volumes;
    (void)n;
    (void)err;
    *ret = json_array();
    return 0;
}

int outside_remove(const struct provider_environment *env, const struct provider_snapshot *snapshot, struct err *err)
{
    (void)env;
    if (!snapshot->outside_id[0])
        return 0; /* none that we know of */
    return err_set(err, VSS_E_PROVIDER_VETO, "Remove it where it was taken.",
                   "the outside snapshot %s of %s is not ours to remove", snapshot->outside_id, snapshot->volume.path);
}

void outside_name(struct provider_snapshot *snapshot, const json_t *words)
{
    str_copy(snapshot->outside_id, sizeof(snapshot->outside_id), json_str(words, "outside_id", snapshot->outside_id));
}

int outside_hold(const struct provider_environment *env, struct provider_snapshot *set, size_t n, struct err *err)
{
    const json_t *release = env->await_release(env->await_arg, err);
    size_t k;
    const json_t *item;
    if (!release)
        return -1;
    if (json_bool(release, "failed", false))
        return err_set(err, VSS_E_PROVIDER_VETO, NULL, "the outside snapshot failed: %.300s",
                       json_str(release, "reason", "no reason was given"));
    for (size_t i = 0; i < n; i++) {
        outside_name(&set[i], release);
        json_array_foreach(json_object_get(release, "snapshots"), k, item)
            if (str_eq(json_str(item, "snapshot_id", ""), set[i].id))
                outside_name(&set[i], item);
    }
    return 0;
}
