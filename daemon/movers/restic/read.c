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
#include "movers/payload/scan.h"
#include "movers/payload/stage.h"
#include "movers/payload/tar_check.h"
#include "movers/restic/restic_private.h"

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
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "repository %s holds no backup %s",
                       restic_name(stored->restic.repository), backup_id);
    if (!stored->backup.data_id)
        return err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, "Restore from another backup.",
                       "repository %s: the data of backup %s is gone", restic_name(stored->restic.repository),
                       backup_id);
    return restic_load(&stored->restic, backup_id, stored->backup.record_id, &stored->header, &stored->manifest, err);
}

/* restic's restore tells no progress: what it has written so far does (proc(5), /proc/PID/io). */
static void on_tick(void *arg, pid_t pid)
{
    struct stage *stage = arg;
    char path[64];
    long long written = 0;
    str_format(path, sizeof(path), "/proc/%d/io", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fscanf(file, "rchar: %*d\nwchar: %lld", &written) == 1 && written > stage->progress.bytes_done &&
        written <= stage->progress.bytes_total)
        stage->progress.bytes_done = written;
    fclose(file);
    stage->host->progress(stage->host->arg, &stage->progress);
}

static int run_restore(struct stored *stored, struct stage *stage, const char *const *argv, struct err *err)
{
    struct restic_process process;
    char scrap[4096];
    if (restic_start(&process, &stored->restic, argv, &(const struct restic_io){-1, stage->fd}, err))
        return -1;
    process.tick = on_tick;
    process.tick_arg = stage;
    for (size_t n = 1; n > 0;)
        if (restic_read(&process, scrap, sizeof(scrap), &n, err)) {
            restic_stop(&process);
            return -1;
        }
    return restic_finish(&process, err);
}

/* Chosen paths, and the first names of hard links among them. */
static char **includes(const struct stage *stage)
{
    const char *const *paths = stage->restore->paths;
    size_t n = 0, room = stage->manifest->n;
    for (size_t i = 0; paths && paths[i]; i++)
        room++;
    if (!paths || !paths[0])
        return NULL;
    char **list = mem_new((room + 1) * sizeof(*list));
    for (size_t i = 0; paths[i]; i++)
        list[n++] = restic_pattern(paths[i]);
    for (size_t i = 0; i < stage->manifest->n; i++)
        if (stage->manifest->entries[i].helper && !S_ISDIR(stage->manifest->entries[i].mode))
            list[n++] = restic_pattern(stage->manifest->entries[i].path);
    return list;
}

static int fill_stage(struct stored *stored, struct stage *stage, struct err *err)
{
    char **list = includes(stage);
    size_t count = 0, n = 0;
    while (list && list[count])
        count++;
    AUTO_FREE const char **argv = mem_new((2 * count + 5) * sizeof(*argv));
    argv[n++] = "restore";
    argv[n++] = stored->backup.data_id;
    argv[n++] = "--target";
    argv[n++] = "/proc/self/fd/3"; /* the directory itself, whatever its path leads to meanwhile */
    for (size_t i = 0; i < count; i++) {
        argv[n++] = "--include";
        argv[n++] = list[i];
    }
    int result = run_restore(stored, stage, argv, err);
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free(list);
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
    struct stored stored = {.restic = {request->repository, host}};
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
        *ret_result = json_pack("{s:I, s:I, s:b}", "files", (json_int_t)stage.progress.files_done, "bytes",
                                (json_int_t)stage.progress.bytes_total, "verified", 1);
    }
    stage_close(&stage);
    stored_close(&stored);
    return result;
}

/* Reads this backup's data alone (`check --read-data` would read everybody's): restic proves each blob's hash while it
 * dumps, and what comes out is held against the manifest. `check` proves the repository's structure. */
static int check_data(struct stored *stored, struct tar_check *check, struct err *err)
{
    struct restic_process process;
    struct err cause = {0};
    check->manifest = &stored->manifest;
    for (size_t i = 0; i < stored->manifest.n; i++) {
        check->progress.bytes_total += stored->manifest.entries[i].size;
        check->progress.files_total += S_ISREG(stored->manifest.entries[i].mode);
    }
    const char *const argv[] = {"dump", stored->backup.data_id, "/", NULL};
    if (restic_start(&process, &stored->restic, argv, &restic_no_io, err))
        return -1;
    const struct tar_input input = {.read = restic_read, .arg = &process};
    if (tar_check_run(check, &input, err)) {
        restic_stop(&process);
        return -1;
    }
    if (restic_finish(&process, &cause))
        tar_check_damage(check, "/", cause.text);
    if (restic_run(&stored->restic, (const char *const[]){"check", "--quiet", NULL}, &cause)) {
        if (cause.hr == (uint32_t)VSS_S_ASYNC_CANCELLED || cause.hr == (uint32_t)VSS_E_VOLUME_IN_USE) {
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
    struct stored stored = {.restic = {repository, host}};
    struct tar_check check = {.host = host, .damaged = json_array()};
    struct err cause = {0};
    int result = stored_open(&stored, backup_id, &cause);
    if (!result)
        result = check_data(&stored, &check, &cause);
    if (result && cause.hr == (uint32_t)VSS_E_CORRUPT_XML_DOCUMENT) { /* an answer of verify, not a failure to verify */
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
