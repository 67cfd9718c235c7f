#include "movers/payload/choice.h"

#include <fnmatch.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

bool choice_is_whole(const struct mover_file_set *set)
{
    return set->recursive && str_eq(set->spec, "*");
}

static bool excepted(const struct mover_restore *restore, const char *path)
{
    for (const char *const *except = restore->excepts; except && *except; except++)
        if (path_beneath(path, *except))
            return true;
    return false;
}

/* A file within the set, or a folder that comes with all that is in it. */
static bool set_has(const struct mover_file_set *set, const struct manifest_entry *entry)
{
    if (!path_beneath(entry->path, set->path))
        return false;
    if (S_ISDIR(entry->mode))
        return choice_is_whole(set);
    const char *name = strrchr(entry->path, '/') + 1;
    size_t above = (size_t)(name - entry->path) - 1, folder = str_eq(set->path, "/") ? 0 : strlen(set->path);
    return (set->recursive || above == folder) && fnmatch(set->spec, name, 0) == 0;
}

static bool sets_have(const struct mover_restore *restore, const struct manifest_entry *entry)
{
    bool found = false;
    for (size_t i = 0; !found && i < restore->n_sets; i++)
        found = set_has(&restore->sets[i], entry);
    return found && !excepted(restore, entry->path);
}

/* The folders that it lies in, to hold it. */
static void mark_above(struct manifest *manifest, const struct manifest_entry *entry)
{
    AUTO_FREE char *at = str_dup(entry->path);
    for (char *slash; (slash = strrchr(at, '/')) && slash > at;) {
        *slash = '\0';
        struct manifest_entry *above = manifest_find(manifest, at);
        if (!above || above->wanted)
            continue;
        above->wanted = above->parent = true;
    }
}

static bool holds(const struct manifest *manifest, const char *folder)
{
    bool found = manifest_find(manifest, folder) != NULL;
    for (size_t i = 0; !found && i < manifest->n; i++)
        found = path_beneath(manifest->entries[i].path, folder);
    return found;
}

static int check_held(const struct manifest *manifest, const struct mover_restore *restore, struct err *err)
{
    for (size_t i = 0; i < restore->n_sets; i++)
        if (!holds(manifest, restore->sets[i].path))
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Restore from the backup that the document belongs to.",
                           "the backup holds nothing at %s", restore->sets[i].path);
    return 0;
}

static int check_directed(const struct manifest *manifest, const struct mover_restore *restore, struct err *err)
{
    size_t files = 0;
    for (size_t i = 0; restore->rename && i < manifest->n; i++)
        files += manifest->entries[i].wanted && !S_ISDIR(manifest->entries[i].mode);
    if (restore->rename && files != 1)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "the backup holds no file %s/%s", restore->sets[0].path,
                       restore->sets[0].spec);
    return 0;
}

static int mark_sets(struct manifest *manifest, const struct mover_restore *restore, struct err *err)
{
    if (check_held(manifest, restore, err))
        return -1;
    for (size_t i = 0; i < manifest->n; i++)
        manifest->entries[i].wanted = sets_have(restore, &manifest->entries[i]);
    for (size_t i = 0; i < manifest->n; i++)
        if (manifest->entries[i].wanted)
            mark_above(manifest, &manifest->entries[i]);
    manifest_select_helpers(manifest);
    return check_directed(manifest, restore, err);
}

/* Each path names something: who asks for two and gets one would take the restore for whole. */
static int check_named(const struct manifest *manifest, const struct mover_restore *restore, struct err *err)
{
    for (const char *const *path = restore->paths; path && *path; path++) {
        bool found = false;
        for (size_t i = 0; !found && i < manifest->n; i++)
            found = !manifest->entries[i].parent && path_beneath(manifest->entries[i].path, *path);
        if (!found)
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Name absolute paths as they were when they were backed up; GET /backups/{id}/files lists them.",
                           "the backup holds nothing at %s", *path);
    }
    return 0;
}

int choice_mark(struct manifest *manifest, const struct mover_restore *restore, struct err *err)
{
    if (restore->n_sets)
        return mark_sets(manifest, restore, err);
    manifest_select(manifest, restore->paths);
    return check_named(manifest, restore, err);
}

const char *choice_place(const struct mover_restore *restore, const struct manifest_entry *entry)
{
    const char *strip = restore->strip ? restore->strip : "/";
    if (!path_beneath(entry->path, strip))
        return NULL;
    if (restore->rename && !S_ISDIR(entry->mode))
        return restore->rename;
    const char *rest = entry->path + (str_eq(strip, "/") ? 0 : strlen(strip));
    return *rest == '/' ? rest + 1 : rest;
}

bool choice_left_out(const struct mover_restore *restore, const struct manifest_entry *entry)
{
    if (entry->wanted || entry->helper)
        return false;
    for (size_t i = 0; i < restore->n_sets; i++)
        if (choice_is_whole(&restore->sets[i]) && path_beneath(entry->path, restore->sets[i].path))
            return true;
    return false;
}
