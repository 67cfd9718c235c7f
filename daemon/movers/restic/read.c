/* Back out of a restic repository: restore into the staging directory, verify as a tar stream against the manifest. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/payload/choice.h"
#include "movers/payload/scan.h"
#include "movers/payload/stage.h"
#include "movers/payload/tar_check.h"
#include "movers/program/stage_fill.h"
#include "movers/restic/restic_private.h"

/* restic takes what to restore on its command line alone, and looks at every pattern for each of its entries. */
enum { INCLUDES_MAX = 1000, INCLUDES_BYTES_MAX = 1 << 19 };

struct stored {
    struct restic restic;
    struct restic_backup backup;
    struct manifest manifest;
    json_t *header;
};

static void stored_close(struct stored *stored)
{
    restic_backup_clear(&stored->backup);
    manifest_clear(&stored->manifest);
    json_decref(stored->header);
}

static int stored_open(struct stored *stored, const char *backup_id, struct err *err)
{
    if (restic_find(&stored->restic, backup_id, &stored->backup, err))
        return -1;
    if (!stored->backup.record_id)
        return payload_no_backup(restic_name(stored->restic.repository), backup_id, err);
    if (!stored->backup.data_id)
        return err_set(err, ERROR_FILE_CORRUPT, "Restore from another backup.",
                       "repository %s: the data of backup %s is gone", restic_name(stored->restic.repository),
                       backup_id);
    return restic_load(&stored->restic, backup_id, stored->backup.record_id, &stored->header, &stored->manifest, err);
}

static int run_restore(struct stored *stored, struct stage *stage, const char *const *argv, struct err *err)
{
    struct program process;
    if (restic_start(&process, &stored->restic, argv, &(const struct restic_io){-1, stage->fd}, err))
        return -1;
    process.tick = stage_fill_tick;
    process.tick_arg = stage;
    return program_drain(&process, err) || program_finish(&process, err) ? -1 : 0;
}

static bool in_whole_set(const struct mover_restore *restore, const char *path)
{
    for (size_t i = 0; i < restore->n_sets; i++)
        if (choice_is_whole(&restore->sets[i]) && path_beneath(path, restore->sets[i].path))
            return true;
    return false;
}

/* Of sets: whole folders by their own name, what else is wanted entry by entry. */
static bool include_alone(const struct mover_restore *restore, const struct manifest_entry *entry)
{
    if (S_ISDIR(entry->mode))
        return false;
    return entry->helper || (restore->n_sets && entry->wanted && !in_whole_set(restore, entry->path));
}

/* Chosen paths, and the first names of hard links among them. Returns how many of them, the first, may be whole folders. */
static size_t choose(const struct stage *stage, struct path_list *ret)
{
    const struct mover_restore *restore = stage->restore;
    for (size_t i = 0; !restore->n_sets && restore->paths[i]; i++)
        path_list_add(ret, restore->paths[i]);
    for (size_t i = 0; i < restore->n_sets; i++)
        if (choice_is_whole(&restore->sets[i]))
            path_list_add(ret, restore->sets[i].path);
    size_t whole = ret->n;
    for (size_t i = 0; i < stage->manifest->n; i++)
        if (include_alone(restore, &stage->manifest->entries[i]))
            path_list_add(ret, stage->manifest->entries[i].path);
    return whole;
}

static bool too_many(const struct path_list *list)
{
    size_t bytes = 0;
    for (size_t i = 0; i < list->n; i++)
        bytes += strlen(list->paths[i]);
    return list->n > INCLUDES_MAX || bytes > INCLUDES_BYTES_MAX;
}

/* But for the first ones, the folders that they lie in instead (none: all of the backup); what comes with them unasked is dropped afterwards. */
static void widen(struct path_list *list, size_t kept)
{
    struct path_list folders = {0};
    for (size_t i = 0; i < kept; i++)
        path_list_add(&folders, list->paths[i]);
    for (size_t i = kept; i < list->n; i++) {
        AUTO_FREE char *folder = str_dup(list->paths[i]);
        char *slash = strrchr(folder, '/');
        *slash = '\0';
        if (!*folder) {
            path_list_clear(&folders);
            break;
        }
        if (!folders.n || !path_beneath(folder, folders.paths[folders.n - 1]))
            path_list_add(&folders, folder);
    }
    path_list_clear(list);
    *list = folders;
}

static bool asks_for_all(const struct mover_restore *restore)
{
    return !restore->n_sets && (!restore->paths || !restore->paths[0]);
}

static int restore_these(struct stored *stored, struct stage *stage, const struct path_list *list, struct err *err)
{
    struct path_list patterns = {0};
    size_t n = 0;
    AUTO_FREE const char **argv = mem_new((2 * list->n + 5) * sizeof(*argv));
    argv[n++] = "restore";
    argv[n++] = stored->backup.data_id;
    argv[n++] = "--target";
    argv[n++] = "/proc/self/fd/3"; /* the directory itself, whatever its path leads to meanwhile */
    for (size_t i = 0; i < list->n; i++) {
        AUTO_FREE char *pattern = restic_pattern(list->paths[i]);
        path_list_add(&patterns, pattern);
    }
    for (size_t i = 0; i < patterns.n; i++) {
        argv[n++] = "--include";
        argv[n++] = patterns.paths[i];
    }
    int result = run_restore(stored, stage, argv, err);
    path_list_clear(&patterns);
    return result;
}

static int fill_stage(struct stored *stored, struct stage *stage, struct err *err)
{
    struct path_list list = {0};
    bool all = asks_for_all(stage->restore);
    size_t whole = all ? 0 : choose(stage, &list);
    /* Sets of which nothing was there to be backed up: only folders, and no restic to bring them. */
    bool nothing = !all && !list.n;
    bool widened = too_many(&list);
    if (widened)
        widen(&list, whole);
    if (too_many(&list))
        widen(&list, 0);
    if (too_many(&list))
        path_list_clear(&list);
    int result = nothing ? 0 : restore_these(stored, stage, &list, err);
    if (!result)
        stage_fill_drop(stage, widened);
    path_list_clear(&list);
    return result;
}

static int mend_link(const struct stage *stage, const struct manifest_entry *entry, struct err *err)
{
    AUTO_FREE char *above = str_dup(entry->path + 1);
    char *slash = strrchr(above, '/'), *name = slash ? slash + 1 : above;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry->mtime};
    struct stat st;
    if (slash)
        *slash = '\0';
    AUTO_FD int dir = stage_open_beneath(stage->fd, slash ? above : "", O_RDONLY | O_DIRECTORY);
    if (dir < 0 || fstat(dir, &st) || unlinkat(dir, name, 0) || symlinkat(entry->link, dir, name) ||
        (geteuid() == 0 && fchownat(dir, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW)) ||
        utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) ||
        futimens(dir, (const struct timespec[2]){st.st_atim, st.st_mtim}))
        return payload_failed(errno, "restore the link", entry->path, err);
    return 0;
}

/* restic before 0.17 stores link targets as JSON text: other bytes than UTF-8 are lost there, not in our manifest. */
static int mend_links(const struct stage *stage, struct err *err)
{
    for (size_t i = 0; i < stage->manifest->n; i++) {
        const struct manifest_entry *entry = &stage->manifest->entries[i];
        AUTO_JSON json_t *text = entry->wanted && entry->link ? json_string(entry->link) : NULL;
        if (entry->wanted && entry->link && !text && mend_link(stage, entry, err))
            return -1;
    }
    return 0;
}

int restic_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result,
                   struct err *err)
{
    struct stored stored = {.restic = {.repository = request->repository, .host = host}};
    struct stage stage = {.fd = -1};
    int result = stored_open(&stored, request->backup_id, err);
    if (!result)
        result = stage_open(&stage, request, host, &stored.manifest, err);
    if (!result)
        result = fill_stage(&stored, &stage, err) || mend_links(&stage, err) || stage_verify(&stage, err) ||
                         stage_publish(&stage, err)
                     ? -1
                     : 0;
    if (!result) {
        stage.progress.bytes_done = stage.progress.bytes_total;
        host->progress(host->arg, &stage.progress);
        *ret_result = stage_result(&stage);
    }
    stage_close(&stage);
    stored_close(&stored);
    return result;
}

/* Reads this backup's data alone (`check --read-data` would read everybody's): restic proves each blob's hash while it
 * dumps, and what comes out is held against the manifest. `check` proves the repository's structure. */
static int check_data(struct stored *stored, struct tar_check *check, struct err *err)
{
    struct program process;
    struct err cause = {0};
    check->manifest = &stored->manifest;
    for (size_t i = 0; i < stored->manifest.n; i++) {
        check->progress.bytes_total += stored->manifest.entries[i].size;
        check->progress.files_total += S_ISREG(stored->manifest.entries[i].mode);
    }
    const char *const argv[] = {"dump", stored->backup.data_id, "/", NULL};
    if (restic_start(&process, &stored->restic, argv, &restic_no_io, err))
        return -1;
    const struct tar_input input = {.read = program_read, .arg = &process};
    if (tar_check_run(check, &input, err)) {
        program_stop(&process);
        return -1;
    }
    if (program_finish(&process, &cause)) {
        if (program_tells_nothing(&cause)) {
            *err = cause;
            return -1;
        }
        tar_check_damage(check, "/", cause.text);
    }
    if (restic_run(&stored->restic, (const char *const[]){"check", "--quiet", NULL}, &cause)) {
        if (program_tells_nothing(&cause)) {
            *err = cause;
            return -1;
        }
        tar_check_damage(check, "/", cause.text);
    }
    return 0;
}

int restic_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
                  json_t **ret_result, struct err *err)
{
    (void)data_id;
    struct stored stored = {.restic = {.repository = repository, .host = host}};
    struct tar_check check = {.host = host, .damaged = json_array()};
    struct err cause = {0};
    int result = stored_open(&stored, backup_id, &cause);
    if (!result)
        result = check_data(&stored, &check, &cause);
    if (result && cause.hr == (uint32_t)ERROR_FILE_CORRUPT) { /* an answer of verify, not a failure to verify */
        tar_check_damage(&check, "/", cause.text);
        result = 0;
    }
    if (!result)
        *ret_result = json_pack("{s:I, s:I, s:O}", "files", (json_int_t)check.progress.files_done, "bytes",
                                (json_int_t)check.progress.bytes_done, "damaged", check.damaged);
    else if (err)
        *err = cause;
    json_decref(check.damaged);
    stored_close(&stored);
    return result;
}

int restic_manifest(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err)
{
    struct stored stored = {.restic = {.repository = repository, .host = host}};
    int result = stored_open(&stored, backup_id, err);
    *ret = stored.manifest;
    stored.manifest = (struct manifest){0};
    stored_close(&stored);
    return result;
}
