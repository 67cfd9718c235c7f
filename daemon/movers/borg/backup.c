/* One backup with borg: it reads and stores, entry by entry as our scan lists them, while we hash the same files for the manifest (they
 * are in the page cache then); the record is stored last and makes it a backup. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "movers/borg/borg_private.h"
#include "movers/payload/source.h"
#include "movers/program/record.h"
#include "movers/seen.h"

enum { ANSWER_MAX = 1 << 20 };

struct backup {
    const struct mover_request *request;
    const struct mover_host *host;
    struct mover_host quiet; /* for the scan and the hashing: borg's progress is what is told */
    struct borg borg;
    char node[256], roots[ROOTS_SIZE];
    struct scan scan;
    int list_fd; /* NUL-separated paths */
    struct borg_run run;
    bool running, ended;
    char *answer; /* borg's one JSON value at its end */
    size_t length;
    json_t *stats;
    char *data_id, *repository_id;
    int64_t added, modified; /* files that borg read; of the others it had all chunks by its files cache */
    int64_t links;           /* further names of files */
    struct mover_progress progress;
    FILE *manifest;
    char *parent_id;       /* backup to compare with, or NULL */
    struct manifest known; /* its manifest */
    int64_t carried, stale; /* see struct source */
    bool force;             /* borg reads everything again */
};

/* --- what borg says while it works --- */

static void take_progress(struct backup *backup, const json_t *message)
{
    int64_t bytes = json_int(message, "original_size", 0), files = json_int(message, "nfiles", 0);
    struct mover_progress *progress = &backup->progress;
    if (bytes > progress->bytes_done && bytes <= progress->bytes_total)
        progress->bytes_done = bytes;
    if (files > progress->files_done && files <= progress->files_total)
        progress->files_done = files;
    backup->host->progress(backup->host->arg, progress);
}

static void on_message(void *arg, const json_t *message)
{
    struct backup *backup = arg;
    const char *type = json_str(message, "type", ""), *status = json_str(message, "status", "");
    if (str_eq(type, "archive_progress"))
        take_progress(backup, message);
    if (str_eq(type, "file_status") && str_eq(status, "A"))
        backup->added++;
    if (str_eq(type, "file_status") && str_eq(status, "M"))
        backup->modified++;
}

static void take_answer(struct backup *backup, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n && backup->length < ANSWER_MAX; i++)
        backup->answer[backup->length++] = bytes[i];
}

/* While we hash: borg must not wait for a reader, and its early end ends us. */
static int pump(void *arg, const void *bytes, size_t size, struct err *err)
{
    struct backup *backup = arg;
    char block[16384];
    size_t n = 1;
    (void)bytes, (void)size;
    while (backup->running && !backup->ended && n > 0) {
        if (program_peek(&backup->run.program, block, sizeof(block), &n, &backup->ended))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read from borg");
        take_answer(backup, block, n);
    }
    return backup->ended && !backup->length ? err_set(err, VSS_E_UNEXPECTED, NULL, "borg ended early") : 0;
}

static int read_to_end(struct backup *backup, struct err *err)
{
    char block[16384];
    for (size_t n = 1; n > 0 && !backup->ended;) {
        if (program_read(&backup->run.program, block, sizeof(block), &n, err))
            return -1;
        take_answer(backup, block, n);
    }
    return 0;
}

static int take_result(struct backup *backup, struct err *err)
{
    AUTO_JSON json_t *answer = json_loadb(backup->answer, backup->length, 0, NULL);
    const json_t *archive = json_object_get(answer, "archive");
    json_t *stats = json_object_get(archive, "stats");
    const char *id = json_str(archive, "id", NULL);
    if (!id || !json_is_object(stats))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "borg ended without a summary");
    json_decref(backup->stats);
    backup->stats = json_incref(stats);
    free(backup->data_id);
    backup->data_id = str_dup(id);
    free(backup->repository_id);
    backup->repository_id = str_dup(json_str(json_object_get(answer, "repository"), "id", ""));
    int64_t stored = json_int(stats, "nfiles", -1), expected = backup->scan.files - backup->links;
    if (stored != expected) /* never silently short */
        return err_set(err, VSS_E_UNEXPECTED, "Copy from a snapshot, not from live files.",
                       "borg stored %lld files where the manifest has %lld", (long long)stored, (long long)expected);
    return 0;
}

/* --- before: what is there --- */

/* The newest backup of the same folders that has its record. */
static void choose_parent(struct backup *backup, const json_t *archives)
{
    AUTO_JSON json_t *recorded = json_object();
    const char *newest = "";
    size_t i;
    const json_t *item;
    json_array_foreach(archives, i, item)
    {
        const struct borg_archive archive = borg_parse(json_str(item, "name", ""));
        if (archive.part == BORG_RECORD)
            json_put(recorded, archive.backup_id, json_true());
    }
    json_array_foreach(archives, i, item)
    {
        const struct borg_archive archive = borg_parse(json_str(item, "name", ""));
        if (archive.part != BORG_DATA || !str_eq(archive.rest, backup->roots) || !json_object_get(recorded, archive.backup_id) ||
            strcmp(json_str(item, "time", ""), newest) < 0)
            continue;
        newest = json_str(item, "time", "");
        free(backup->parent_id);
        backup->parent_id = str_dup(archive.backup_id);
    }
}

static int look_around(struct backup *backup, const json_t *archives, struct err *err)
{
    struct borg_backup own;
    borg_pick(archives, backup->request->backup_id, &own);
    int result = own.record ? err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "repository %s holds backup %s already",
                                      borg_name(backup->request->repository), backup->request->backup_id)
                            : borg_forget(&backup->borg, &own, err); /* of an attempt that was killed */
    borg_backup_clear(&own);
    choose_parent(backup, archives);
    return result;
}

/* A repository that is new is made; one that was seen before is not. */
static int list_archives(struct backup *backup, struct borg_run *first, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *answer = NULL;
    struct err cause = {0};
    if (borg_json_end(first, &answer, &cause) == 0) {
        json_t *archives = json_object_get(answer, "archives");
        if (seen_check(backup->request->repository, json_str(json_object_get(answer, "repository"), "id", ""), err))
            return -1;
        *ret = json_is_array(archives) ? json_incref(archives) : NULL;
        return *ret ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "borg's list holds no archives");
    }
    *ret = json_array();
    bool absent = cause.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND;
    if (absent && seen_before(backup->request->repository))
        return seen_missing(backup->request->repository, err);
    if (absent)
        return borg_open(backup->request->repository, true, err);
    *err = cause;
    return -1;
}

/* borg reads its list as text with universal newlines: a carriage return would become another name. "/" is left out: a restore keeps off it,
 * and borg's extract would open the staging directory to everybody who may enter "/". */
static int list_paths(struct backup *backup, struct err *err)
{
    int fd = memfd_create("paths", MFD_CLOEXEC), again = fd < 0 ? -1 : dup(fd);
    FILE *list = again < 0 ? NULL : fdopen(again, "we");
    backup->list_fd = fd;
    if (!list) {
        fd_cleanup(&again);
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the list of files");
    }
    int result = 0;
    for (size_t i = 0; i < backup->scan.n && !result; i++) {
        const char *path = backup->scan.entries[i].path;
        if (str_eq(path, "/"))
            continue;
        if (strchr(path, '\r')) {
            AUTO_FREE char *readable = manifest_readable(path);
            result = err_set(err, VSS_E_NOT_SUPPORTED, "Exclude it, or use the archive mover or restic.",
                             "%s: borg cannot be told of a name with a carriage return in it", readable);
        } else if (fwrite(path, 1, strlen(path) + 1, list) != strlen(path) + 1) {
            result = err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the list of files");
        }
    }
    if (fclose(list) && !result)
        result = err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the list of files");
    return result;
}

/* borg begins while we look at the files. */
static int prepare(struct backup *backup, struct err *err)
{
    struct borg_run first;
    AUTO_JSON json_t *archives = NULL;
    if (borg_start(&first, &backup->borg, borg_list_all, &borg_no_io, err))
        return -1;
    if (scan_run(&backup->scan, backup->request, &backup->quiet, err) || list_paths(backup, err)) {
        program_stop(&first.program);
        return -1;
    }
    return list_archives(backup, &first, &archives, err) ? -1 : look_around(backup, archives, err);
}

/* --- the data --- */

static int start(struct backup *backup, struct err *err)
{
    AUTO_FREE char *archive = str_new("::quiesced-%s.data-%s", backup->request->backup_id, backup->roots);
    /* All or nothing: a checkpoint of half a snapshot would be kept until somebody looks. */
    const char *const argv[] = {"create", "--json", "--progress", "--list", "--filter", "AM", "--checkpoint-interval", "2000000000",
                                "--files-cache", backup->force ? "disabled" : "ctime,size,inode", "--paths-from-stdin",
                                "--paths-delimiter", "\\0", archive, NULL};
    lseek(backup->list_fd, 0, SEEK_SET);
    backup->added = backup->modified = 0;
    backup->length = 0;
    backup->ended = false;
    if (borg_start(&backup->run, &backup->borg, argv, &(const struct borg_io){.in_fd = backup->list_fd, .work_fd = -1}, err))
        return -1;
    backup->run.said = on_message;
    backup->run.arg = backup;
    backup->running = true;
    return 0;
}

/* Before borg locks the repository for itself. Without it everything is hashed. */
static void load_known(struct backup *backup)
{
    AUTO_JSON json_t *header = NULL;
    struct err trouble = {0};
    if (backup->parent_id && borg_load(&backup->borg, backup->parent_id, &header, &backup->known, &trouble))
        manifest_clear(&backup->known);
}

static int hash_all(struct backup *backup, const struct manifest *known, struct err *err)
{
    struct source source;
    int result = 0;
    rewind(backup->manifest);
    if (ftruncate(fileno(backup->manifest), 0))
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot begin the manifest");
    source_init(&source, &backup->scan, &(const struct source_sink){.data = pump, .arg = backup});
    if (known)
        source_use_known(&source, known);
    backup->links = 0;
    for (size_t i = 0; i < backup->scan.n && !result; i++) {
        struct manifest_entry entry;
        result = source_read(&source, &backup->scan.entries[i], &entry, err) || pump(backup, NULL, 0, err) ? -1 : 0;
        if (!result)
            manifest_write(backup->manifest, &entry);
        backup->links += !result && entry.hard_link && S_ISREG(entry.mode);
        manifest_entry_clear(&entry);
    }
    backup->carried = source.carried;
    backup->stale = source.stale;
    source_clear(&source);
    if (!result && (fflush(backup->manifest) || ferror(backup->manifest)))
        result = err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the manifest");
    return result;
}

static int store_data_once(struct backup *backup, const struct manifest *known, struct err *err)
{
    struct err cause = {0};
    if (start(backup, err))
        return -1;
    int result = hash_all(backup, known, &cause) || read_to_end(backup, &cause) ? -1 : 0;
    if (result && !backup->ended)
        program_stop(&backup->run.program);
    else if (program_finish(&backup->run.program, &cause)) /* when it ended early, this says why */
        result = -1;
    backup->running = false;
    if (!result)
        result = take_result(backup, &cause);
    if (result)
        *err = cause;
    return result;
}

static int64_t unmodified(const struct backup *backup)
{
    return backup->scan.files - backup->links - backup->added - backup->modified;
}

/* Hashes were taken over for what borg's files cache took over. Where a file that both would take over has other content (changed twice
 * within a tick), borg reads everything again. Where borg read more than we did (its cache was lost), we hash it all again: it has it. */
static int store_data(struct backup *backup, struct err *err)
{
    load_known(backup);
    if (store_data_once(backup, backup->known.n ? &backup->known : NULL, err))
        return -1;
    if (!backup->stale && backup->carried <= unmodified(backup))
        return 0;
    if (!backup->stale)
        return hash_all(backup, NULL, err);
    log_line(LOG_LEVEL_WARNING, NULL, "%lld files changed without a sign: borg reads everything again", (long long)backup->stale);
    struct borg_backup wrong = {.data_all = json_array()};
    json_add(wrong.data_all, json_sprintf("quiesced-%s.data-%s", backup->request->backup_id, backup->roots));
    int result = borg_forget(&backup->borg, &wrong, err);
    borg_backup_clear(&wrong);
    backup->force = true;
    return result ? -1 : store_data_once(backup, NULL, err);
}

/* --- the record --- */

static int store_record(struct backup *backup, const json_t *result, struct err *err)
{
    AUTO_FREE char *archive = str_new("quiesced-%s.record", backup->request->backup_id);
    AUTO_FREE char *file = str_new("quiesced-%s.jsonl", backup->request->backup_id);
    AUTO_FD int record = -1;
    return record_make(BORG_FORMAT, backup->request, result, backup->manifest, &record, err) || borg_store_file(&backup->borg, archive, file, record, err) ? -1 : 0;
}

static int store(struct backup *backup, json_t **ret_result, struct err *err)
{
    char now[CLOCK_RFC3339_SIZE];
    if (store_data(backup, err))
        return -1;
    backup->progress = (struct mover_progress){backup->scan.bytes, backup->scan.bytes, backup->scan.files, backup->scan.files};
    backup->host->progress(backup->host->arg, &backup->progress);
    AUTO_JSON json_t *result = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "data_id", backup->data_id, "bytes", (json_int_t)backup->scan.bytes, "files",
        (json_int_t)backup->scan.files, "stored_bytes", (json_int_t)json_int(backup->stats, "deduplicated_size", 0), "files_unmodified",
        (json_int_t)unmodified(backup), "files_changed", (json_int_t)backup->modified, "files_new", (json_int_t)backup->added,
        "hashes_carried", (json_int_t)backup->carried, "created_at", clock_rfc3339(clock_real_ms(), now));
    if (store_record(backup, result, err))
        return -1;
    if (backup->host->cancelled(backup->host->arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
    json_put(result, "repository_id", json_string(backup->repository_id));
    *ret_result = TAKE_PTR(result);
    return 0;
}

/* Whatever this attempt left in the repository goes, even when a cancel is why. */
static void take_back(struct backup *backup, struct err *err)
{
    const struct borg shielded = {.repository = backup->request->repository};
    struct borg_backup left;
    struct err trouble = {0};
    if (borg_find(&shielded, backup->request->backup_id, &left, &trouble) == 0)
        borg_forget(&shielded, &left, &trouble);
    borg_backup_clear(&left);
    if (trouble.hr && err)
        err_prefix(err, "(and the repository could not be cleaned: %.200s)", trouble.text);
}

/* --- all of it --- */

static void no_progress(void *arg, const struct mover_progress *progress)
{
    (void)arg, (void)progress;
}

static int run(struct backup *backup, json_t **ret_result, struct err *err)
{
    const struct mover_request *request = backup->request;
    if (!uuid_valid(request->backup_id))
        return err_set(err, E_INVALIDARG, NULL, "backup id %.64s is not an id", request->backup_id);
    roots_node(request->document, backup->node, sizeof(backup->node));
    roots_name(request, backup->node, backup->roots);
    if (borg_check_settings(request->repository, err) || prepare(backup, err))
        return -1;
    int fd = memfd_create("manifest", MFD_CLOEXEC);
    backup->manifest = fd < 0 ? NULL : fdopen(fd, "w+e");
    if (!backup->manifest)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the manifest");
    backup->progress = (struct mover_progress){0, backup->scan.bytes, 0, backup->scan.files};
    int result = store(backup, ret_result, err);
    if (result)
        take_back(backup, err);
    return result;
}

int borg_backup_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    struct backup *backup = mem_new(sizeof(*backup));
    struct err cause = {0};
    *backup = (struct backup){.request = request,
                              .host = host,
                              .quiet = *host,
                              .borg = {.repository = request->repository, .host = host, .bandwidth = request->bandwidth, .roots = backup->roots},
                              .list_fd = -1,
                              .answer = mem_new(ANSWER_MAX)};
    backup->quiet.progress = no_progress;
    int result = run(backup, ret_result, &cause);
    if (result && err)
        *err = cause;
    if (backup->manifest)
        fclose(backup->manifest);
    json_decref(backup->stats);
    fd_cleanup(&backup->list_fd);
    scan_clear(&backup->scan);
    manifest_clear(&backup->known);
    free(backup->data_id);
    free(backup->repository_id);
    free(backup->parent_id);
    free(backup->answer);
    free(backup);
    return result;
}
