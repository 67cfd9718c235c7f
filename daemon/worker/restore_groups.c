#include "worker/restore_groups.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

static const char *root_of(const char *path, const json_t *roots)
{
    size_t i;
    const json_t *root;
    json_array_foreach (roots, i, root)
        if (path_is_canonical(path) && path_beneath(path, json_string_value(root)))
            return json_string_value(root);
    return NULL;
}

static void cut(char *path)
{
    char *slash = strrchr(path, '/');
    slash[slash == path] = '\0';
}

/* The deepest folder at or above path that exists, but none above root; and the mount and device that it lies on. */
static void standing(const char *path, const char *root, char ret_folder[PATH_MAX], struct statx *ret)
{
    str_copy(ret_folder, PATH_MAX, path);
    for (;;) {
        *ret = (struct statx){0};
        if (statx(AT_FDCWD, ret_folder, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_MNT_ID, ret) == 0 &&
            S_ISDIR(ret->stx_mode))
            return;
        if (str_eq(ret_folder, root))
            return;
        cut(ret_folder);
    }
}

/* What both paths lie beneath. */
static void common(char *path, const char *other)
{
    while (!path_beneath(other, path))
        cut(path);
}

static json_t *group_for(json_t *groups, const char *key, const char *target, const char *strip, const json_t *item)
{
    size_t i;
    json_t *group;
    json_array_foreach (groups, i, group)
        if (str_eq(json_str(group, "key", ""), key))
            return group;
    group = json_pack("{s:s, s:s, s:s, s:[], s:[], s:[], s:s?, s:b, s:I}", "key", key, "target", target, "strip", strip, "sets",
                      "excepts", "components", "rename", json_str(item, "rename", NULL), "overwrite",
                      json_bool(item, "overwrite", false), "from", (json_int_t)json_int(item, "from", -1));
    json_add(groups, group);
    return group;
}

static void add_kept(json_t *groups, const json_t *item, const char *root, json_t **ret_group)
{
    char folder[PATH_MAX], target[PATH_MAX];
    struct statx on;
    standing(json_str(item, "to", ""), root, folder, &on);
    AUTO_FREE char *key = str_new("%s\n%llu\n%u:%u\n%d\n%d", root, (unsigned long long)on.stx_mnt_id, on.stx_dev_major,
                                  on.stx_dev_minor, json_bool(item, "overwrite", false), (int)json_int(item, "from", -1));
    json_t *group = group_for(groups, key, folder, folder, item);
    str_copy(target, sizeof(target), json_str(group, "target", folder));
    common(target, folder);
    json_put(group, "target", json_string(target));
    json_put(group, "strip", json_string(target));
    json_put(group, "kept", json_true());
    *ret_group = group;
}

static int add(json_t *groups, const json_t *item, const json_t *roots, struct err *err)
{
    const char *path = json_str(item, "path", ""), *to = json_str(item, "to", ""), *rename = json_str(item, "rename", NULL);
    const char *root = root_of(to, roots);
    json_t *group = NULL;
    if (!root)
        return err_set(err, E_ACCESSDENIED, "See restore.roots in the configuration: it names where restores may go.",
                       "%s is not beneath a restore root", to);
    if (str_eq(path, to) && !rename) {
        add_kept(groups, item, root, &group);
    } else {
        AUTO_FREE char *key = str_new("%s\n%s\n%s\n%d\n%d", path, to, rename ? rename : "", json_bool(item, "overwrite", false),
                                      (int)json_int(item, "from", -1));
        group = group_for(groups, key, to, path, item);
    }
    json_add(json_object_get(group, "sets"), json_pack("{s:s, s:s, s:b}", "path", path, "spec", json_str(item, "spec", "*"),
                                                       "recursive", json_bool(item, "recursive", true)));
    if (!json_has_string(json_object_get(group, "components"), json_str(item, "component", "")))
        json_add(json_object_get(group, "components"), json_string(json_str(item, "component", "")));
    return 0;
}

/* Beneath a folder of one group lies one that another file system keeps: that one's group brings it. */
static void except_others(const json_t *groups, json_t *group)
{
    size_t i, k, m;
    const json_t *other, *set, *theirs;
    json_array_foreach (groups, i, other) {
        if (other == group || !json_bool(other, "kept", false) || !json_bool(group, "kept", false) ||
            json_bool(other, "overwrite", false) != json_bool(group, "overwrite", false) ||
            json_int(other, "from", -1) != json_int(group, "from", -1))
            continue;
        json_array_foreach (json_object_get(group, "sets"), k, set)
            json_array_foreach (json_object_get(other, "sets"), m, theirs) {
                const char *mine = json_str(set, "path", ""), *nested = json_str(theirs, "path", "");
                if (!str_eq(mine, nested) && path_beneath(nested, mine) && json_bool(set, "recursive", true))
                    json_add(json_object_get(group, "excepts"), json_string(nested));
            }
    }
}

json_t *restore_groups(const json_t *items, const json_t *roots, struct err *err)
{
    AUTO_JSON json_t *groups = json_array();
    size_t i;
    json_t *item;
    json_array_foreach (items, i, item)
        if (add(groups, item, roots, err) < 0)
            return NULL;
    json_array_foreach (groups, i, item)
        except_others(groups, item);
    return TAKE_PTR(groups);
}
