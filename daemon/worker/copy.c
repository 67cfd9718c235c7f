/* Copy: the file list is made now, from the chosen components' file sets as they lie in the snapshots (vss-model 8.4,
 * 13). */
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/selection.h"
#include "movers/mover.h"
#include "worker/context.h"
#include "worker/mover_client.h"
#include "worker/participation.h"
#include "worker/volumes.h"

struct listing {
    const struct worker *worker;
    json_t *items, *excludes;
    json_t *seen; /* items are listed once */
    json_t *warnings; /* what the caller has asked for in vain */
};

static void add_item(struct listing *listing, const char *path, const char *source, const char *spec, bool recursive)
{
    AUTO_FREE char *key = str_new("%d\n%s\n%s", recursive, spec, path);
    if (json_object_get(listing->seen, key))
        return;
    json_put(listing->seen, key, json_true());
    json_add(listing->items,
             json_pack("{s:s, s:s, s:s, s:b}", "path", path, "source", source, "spec", spec, "recursive", recursive));
}

/* The array or hypervisor has it: BackupComplete works, but there is no tree to copy from. */
static int taken_outside(const struct provider_snapshot *snapshot, struct err *err)
{
    return err_set(err, VSS_E_NOT_SUPPORTED, "Let the command of providers.external print the path where it can be read, or complete without copy.",
                   "the snapshot of %s was taken outside of this host, and has no files to copy here", snapshot->volume.path);
}

static int add_file_set(void *arg, const struct participation_file_set *found, struct err *err)
{
    struct listing *listing = arg;
    const char *path = json_str(found->set, "path", "");
    const char *read_at = json_str(found->set, "alternate_path", path);
    char source[PATH_MAX];
    const struct provider_snapshot *snapshot = snapshots_cover(&listing->worker->set, read_at, source);
    if (snapshot && !snapshot->path[0])
        return taken_outside(snapshot, err);
    if (!snapshot) {
        /* PrepareForBackup has asked already (plan.c); this is the last moment at which it can be seen. */
        if (selection_needs_snapshot(found->entry->metadata, found->set, participation_type(listing->worker)))
            return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Add the volume to the snapshot set.",
                           "writer %s, component %s: %s lies on no volume of the snapshot set", found->entry->name,
                           json_str(found->component, "name", ""), read_at);
        str_copy(source, sizeof(source), read_at);
    }
    add_item(listing, path, source, json_str(found->set, "spec", "*"), json_bool(found->set, "recursive", true));
    return 0;
}

static int add_path(struct listing *listing, const char *path, struct err *err)
{
    char source[PATH_MAX];
    const struct provider_snapshot *snapshot = snapshots_cover(&listing->worker->set, path, source);
    if (snapshot && !snapshot->path[0])
        return taken_outside(snapshot, err);
    if (!snapshot)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Add the volume to the snapshot set.",
                       "%s lies on no volume of the snapshot set", path);
    add_item(listing, path, source, "*", true);
    return 0;
}

/* A literal path as a glob that matches nothing else. */
static char *glob_of(const char *literal)
{
    char *glob = mem_new(2 * strlen(literal) + 1), *to = glob;
    for (; *literal; literal++) {
        if (strchr("*?[]\\", *literal))
            *to++ = '\\';
        *to++ = *literal;
    }
    return glob;
}

static void exclude(struct listing *listing, const char *folder, const char *middle, const char *spec)
{
    AUTO_FREE char *glob = glob_of(folder);
    AUTO_FREE char *whole = str_new("%s%s%s", glob, middle, spec);
    json_add(listing->excludes, json_string(whole));
}

/* Movers let a star pass slashes, so a pattern that must stay within its folder is spelt out, file by file, as it lies
 * in the snapshot now. */
static void exclude_within(struct listing *listing, const char *folder, const char *spec)
{
    char source[PATH_MAX];
    if (!snapshots_cover(&listing->worker->set, folder, source))
        str_copy(source, sizeof(source), folder);
    DIR *dir = opendir(source);
    const struct dirent *item;
    while (dir && (item = readdir(dir))) {
        AUTO_FREE char *name = glob_of(item->d_name);
        if (item->d_type != DT_DIR && fnmatch(spec, item->d_name, 0) == 0)
            exclude(listing, folder, "/", name);
    }
    if (dir)
        closedir(dir);
}

static void exclude_file_set(struct listing *listing, const json_t *set)
{
    const char *folder = json_str(set, "path", ""), *spec = json_str(set, "spec", "*");
    if (!json_bool(set, "recursive", true)) {
        exclude_within(listing, folder, spec);
        return;
    }
    exclude(listing, folder, "/", spec);
    exclude(listing, folder, "/**/", spec);
}

/* What the caller left out by name: the path, and all beneath it. One that is not there is a slip of the pen, and what was meant is copied. */
static void exclude_path(struct listing *listing, const char *path)
{
    char source[PATH_MAX];
    struct stat there;
    const struct provider_snapshot *snapshot = snapshots_cover(&listing->worker->set, path, source);
    if (!snapshot || (snapshot->path[0] && lstat(source, &there) != 0 && (errno == ENOENT || errno == ENOTDIR))) {
        AUTO_FREE char *warning = str_new("exclude %s: %s: nothing was left out for it", path,
                                          snapshot ? "there is no such file" : "it lies on no volume of the snapshot set");
        json_add(listing->warnings, json_text(warning));
    }
    exclude(listing, path, "", "");
    exclude(listing, path, "/", "*");
}

/* Exclude files always win over includes (vss-model 4.6). */
static void add_excludes(struct listing *listing, const json_t *named)
{
    const struct worker *worker = listing->worker;
    size_t n;
    const json_t *path;
    json_array_foreach (named, n, path)
        exclude_path(listing, json_string_value(path));
    for (size_t i = 0; i < worker->writers.n; i++) {
        const struct writer_entry *entry = &worker->writers.entries[i];
        size_t k;
        const json_t *set;
        if (!entry->components)
            continue;
        json_array_foreach (json_object_get(entry->metadata, "exclude"), k, set)
            exclude_file_set(listing, set);
    }
    for (size_t i = 0; i < worker->set.n; i++) {
        char own[PATH_MAX] = "";
        volumes_private_dir(&worker->set.items[i].volume, own);
        if (own[0])
            json_add(listing->excludes, json_string(own));
    }
}

static int list_files(struct listing *listing, const json_t *args, struct err *err)
{
    const struct worker *worker = listing->worker;
    size_t i;
    const json_t *item;
    if (participation_file_sets(worker, NULL, add_file_set, listing, err) < 0)
        return -1;
    json_array_foreach (json_object_get(args, "paths"), i, item)
        if (add_path(listing, json_string_value(item), err) < 0)
            return -1;
    /* Without components and paths the backup is of whole volumes. */
    bool whole = json_array_size(listing->items) == 0 && json_array_size(worker->components) == 0;
    for (i = 0; whole && i < worker->set.n; i++)
        if (add_path(listing, worker->set.items[i].volume.requested, err) < 0)
            return -1;
    json_array_foreach (worker->extra_files, i, item)
        add_item(listing, json_str(item, "path", ""), json_str(item, "source", ""), "*", false);
    add_excludes(listing, json_object_get(args, "excludes"));
    return 0;
}

static json_t *binds(const struct worker *worker, const char *mover_name)
{
    json_t *list = json_array();
    const struct mover *mover = mover_by_name(mover_name);
    for (size_t i = 0; mover && mover->needs_original_path && i < worker->set.n; i++)
        json_add(list, json_pack("{s:s, s:s}", "source", worker->set.items[i].path, "target",
                                 worker->set.items[i].volume.path));
    return list;
}

/* The data went out before the cancel was heard: a cancelled copy leaves nothing. */
static int take_back(struct worker *worker, json_t *request, const json_t *done, struct err *err)
{
    AUTO_JSON json_t *nothing = NULL;
    struct err trouble = {0};
    json_put(request, "verb", json_string("remove"));
    json_put(request, "data_id", json_string(json_str(done, "data_id", "")));
    if (mover_client_run_shielded(worker, request, &nothing, &trouble) < 0)
        worker_incident(worker, VSS_E_UNEXPECTED, NULL, trouble.text);
    return worker_stopped(worker, err);
}

int operation_copy(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct listing listing = {worker, json_array(), json_array(), json_object(), json_array()};
    AUTO_JSON json_t *seen = listing.seen, *warnings = listing.warnings;
    (void)seen;
    const json_t *repository = json_object_get(args, "repository");
    AUTO_JSON json_t *request = json_pack(
        "{s:s, s:s, s:O, s:s, s:O?, s:o, s:o, s:o, s:O*}", "verb", "run", "mover", json_str(repository, "mover", "archive"),
        "repository", repository, "backup_id", json_str(args, "backup_id", ""), "document",
        json_object_get(args, "document"), "items", listing.items, "excludes", listing.excludes, "binds",
        binds(worker, json_str(repository, "mover", "archive")), "limits", json_object_get(args, "limits"));
    if (!request)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "copy: the repository is missing");
    if (list_files(&listing, args, err) < 0)
        return -1;
    if (json_array_size(listing.items) == 0 && json_array_size(worker->components) == 0)
        return err_set(err, VSS_E_BAD_STATE, "Choose components, or add volumes to the set, before its snapshot is taken.",
                       "copy: there is nothing to copy: the session has neither components nor volumes");
    AUTO_JSON json_t *done = NULL;
    worker_phase(worker, "copy");
    if (mover_client_run(worker, request, "copy", &done, err) < 0)
        return -1;
    bool fails = worker_fault(worker, "worker.copy.done");
    if (fails || wait_look(&worker->wait)) {
        take_back(worker, request, done, err);
        return fails ? worker_fault_error("copy", err) : -1;
    }
    (void)fault("worker.copy.late");
    worker->has_copied = true;
    json_object_update(result, done);
    if (json_array_size(warnings) > 0)
        json_put(result, "warnings", json_incref(warnings));
    return 0;
}
