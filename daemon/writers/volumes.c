#include "writers/volumes.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

const json_t *volumes_of_path(const json_t *volumes, const char *path)
{
    const json_t *best = NULL;
    size_t i;
    json_t *volume;
    json_array_foreach(volumes, i, volume)
    {
        const char *root = json_str(volume, "volume", NULL);
        if (root && path_beneath(path, root) && (!best || strlen(root) > strlen(json_str(best, "volume", ""))))
            best = volume;
    }
    return best;
}

/* Every directory down to `depth` levels on this device? A btrfs subvolume has a device number of its own. */
static bool all_on_device(const char *path, dev_t device, int depth)
{
    struct stat stat_of;
    if (lstat(path, &stat_of) != 0 || stat_of.st_dev != device)
        return false;
    if (depth == 0)
        return true;
    CLEANUP(closedir_cleanup) DIR *dir = opendir(path);
    if (!dir)
        return false;
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
            continue;
        AUTO_FREE char *child = str_new("%s/%s", path, entry->d_name);
        if (!all_on_device(child, device, depth - 1) && access(child, F_OK) == 0)
            return false;
    }
    return true;
}

bool volumes_one_atomic(const json_t *volumes, const json_t *directories, int depth)
{
    const json_t *volume = volumes_of_path(volumes, json_string_value(json_array_get(directories, 0)));
    struct stat root;
    if (!volume || !json_bool(volume, "atomic", false) || stat(json_str(volume, "volume", ""), &root) != 0)
        return false;
    size_t i;
    json_t *path;
    json_array_foreach(directories, i, path)
    {
        if (volumes_of_path(volumes, json_string_value(path)) != volume ||
            !all_on_device(json_string_value(path), root.st_dev, depth))
            return false;
    }
    return true;
}
