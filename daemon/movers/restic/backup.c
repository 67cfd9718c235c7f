/* One backup with restic: it reads and stores while we hash the same files for the manifest (they are in the page
 * cache then); the record is stored last and makes it a backup. */
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
#include "movers/payload/source.h"
#include "movers/program/record.h"
#include "movers/restic/restic_private.h"
#include "movers/restic/targets.h"
#include "movers/seen.h"

enum { LINE_MAX_BYTES = 1 << 20, ARGUMENTS_MAX = 1 << 17 };

struct backup {
    const struct mover_request *request;
    const struct mover_host *host;
    struct mover_host quiet; /* for the scan and the hashing: restic's progress is what is told */
    struct restic restic;
    char node[256], tag[64], repository_id[HASH_HEX_SIZE];
    struct scan scan;
    struct targets targets;
    struct program process;
    bool running, ended;
    char *line; /* of restic's output; longer ones are dropped */
    size_t length;
    bool overlong;
    json_t *summary;
    struct mover_progress progress;
    FILE *manifest;
    char *parent; /* snapshot to compare with, or NULL */
    char *parent_backup, *parent_record;
    struct manifest known;  /* the parent's */
    int64_t carried, stale; /* see struct source */
    bool force;             /* restic reads everything again */
    struct restic_store record;
};

/* --- the record's process --- */

/* The record is stored last, but its restic may begin before: at once when there is a parent, for then little is left to do, else when
 * most of the data is stored. Not earlier: it holds the repository's index in memory as long. */
static int begin_record(struct backup *backup, bool late, struct err *err)
{
    const struct mover_progress *progress = &backup->progress;
    AUTO_FREE char *name = str_new("quiesced-%s.jsonl", backup->request->backup_id);
    if (backup->record.in >= 0 || !(late || backup->parent || progress->bytes_done >= progress->bytes_total / 10 * 9))
        return 0;
    return restic_store_begin(&backup->record, &backup->restic,
                              &(const struct restic_file){backup->request->backup_id, "quiesced-record", backup->node, name}, err);
}

/* --- restic's status lines --- */

/* percent_done and the totals grow while it scans (platform-facts 4): ours come from our own scan and never fall. */
static void take_status(struct backup *backup, const json_t *status)
{
    int64_t bytes = json_int(status, "bytes_done", 0), files = json_int(status, "files_done", 0);
    struct mover_progress *progress = &backup->progress;
    if (bytes > progress->bytes_done && bytes <= progress->bytes_total)
        progress->bytes_done = bytes;
    if (files > progress->files_done && files <= progress->files_total)
        progress->files_done = files;
    backup->host->progress(backup->host->arg, progress);
}

static void take_line(struct backup *backup)
{
    AUTO_JSON json_t *line = json_loadb(backup->line, backup->length, 0, NULL);
    const char *type = json_str(line, "message_type", "");
    if (str_eq(type, "status"))
        take_status(backup, line);
    if (str_eq(type, "summary")) {
        json_decref(backup->summary);
        backup->summary = json_incref(line);
    }
}

static void take_output(struct backup *backup, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && backup->length < LINE_MAX_BYTES) {
            backup->line[backup->length++] = bytes[i];
        } else if (bytes[i] != '\n') {
            backup->overlong = true;
        } else {
            if (!backup->overlong)
                take_line(backup);
            backup->length = 0;
            backup->overlong = false;
        }
    }
}

/* While we hash: restic must not wait for a reader, and its early end ends us. */
static int pump(void *arg, const void *bytes, size_t size, struct err *err)
{
    struct backup *backup = arg;
    char block[16384];
    size_t n = 1;
    (void)bytes, (void)size;
    while (backup->running && !backup->ended && n > 0) {
        if (program_peek(&backup->process, block, sizeof(block), &n, &backup->ended))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read from restic");
        take_output(backup, block, n);
    }
    if (backup->ended && !backup->summary)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "restic ended early");
    return backup->running ? begin_record(backup, false, err) : 0;
}

static int read_to_end(struct backup *backup, struct err *err)
{
    char block[16384];
    for (size_t n = 1; n > 0 && !backup->ended;) {
        if (begin_record(backup, false, err) || program_read(&backup->process, block, sizeof(block), &n, err))
            return -1;
        take_output(backup, block, n);
    }
    return 0;
}

/* --- before: what is there --- */

static const char *const list_all[] = {"snapshots", "--json", "--tag", "quiesced", NULL};

/* What the first look came to. A repository that is new is made, one that was seen before is not; locks that dead processes of this host left are removed (no others are)
 * when they are in the way: asked for beforehand, both would cost one more derivation of restic's key. */
static int list_snapshots(struct backup *backup, struct program *first, json_t **ret, struct err *err)
{
    struct err cause = {0};
    if (!restic_json_end(first, ret, &cause))
        return 0;
    bool absent = cause.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND, locked = cause.hr == (uint32_t)VSS_E_VOLUME_IN_USE;
    if (!absent && !locked) {
        *err = cause;
        return -1;
    }
    if (absent && seen_before(backup->request->repository))
        return seen_missing(backup->request->repository, err);
    return restic_open(backup->request->repository, absent, err) ? -1 : restic_json(&backup->restic, list_all, ret, err);
}

static int look_around(struct backup *backup, json_t *snapshots, struct err *err)
{
    AUTO_FREE char *roots = str_new("quiesced-roots=%s", backup->targets.roots);
    struct restic_backup left = {0};
    const char *newest = "";
    size_t i;
    const json_t *snapshot;
    json_array_foreach(snapshots, i, snapshot)
    {
        bool data = restic_has_tag(snapshot, "quiesced-data"), own = restic_has_tag(snapshot, backup->tag);
        if (own && !data) {
            restic_backup_clear(&left);
            return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "repository %s holds backup %s already",
                           restic_name(backup->request->repository), backup->request->backup_id);
        }
        if (own && !left.data_id)
            left.data_id = str_dup(json_str(snapshot, "id", NULL));
        if (data && !own && restic_has_tag(snapshot, roots) && strcmp(json_str(snapshot, "time", ""), newest) >= 0) {
            newest = json_str(snapshot, "time", "");
            free(backup->parent);
            free(backup->parent_backup);
            backup->parent = str_dup(json_str(snapshot, "id", NULL));
            backup->parent_backup = str_dup(restic_tagged_id(snapshot));
        }
    }
    json_array_foreach(snapshots, i, snapshot)
    {
        const char *id = restic_has_tag(snapshot, "quiesced-record") ? restic_tagged_id(snapshot) : NULL;
        if (id && backup->parent_backup && str_eq(id, backup->parent_backup) && !backup->parent_record)
            backup->parent_record = str_dup(json_str(snapshot, "id", NULL));
    }
    int result = restic_forget(&backup->restic, &left, false, err); /* of an attempt that was killed */
    restic_backup_clear(&left);
    return result;
}

/* --- the data --- */

static int start(struct backup *backup, struct err *err)
{
    AUTO_FREE char *roots = str_new("quiesced-roots=%s", backup->targets.roots);
    const struct path_list *patterns = &backup->targets.patterns;
    AUTO_FREE const char **argv = mem_new((2 * patterns->n + 24) * sizeof(*argv));
    const char *const fixed[] = {
        "backup",     "--json", "--files-from-raw", "-",     "--exclude-file", "/proc/self/fd/3", "--host",
        backup->node, "--tag",  "quiesced",         "--tag", "quiesced-data",  "--tag",           backup->tag,
        "--tag",      roots};
    size_t n = ELEMENTS(fixed), total = 0;
    memcpy(argv, fixed, sizeof(fixed));
    if (backup->force)
        argv[n++] = "--force";
    else if (backup->parent) {
        argv[n++] = "--parent";
        argv[n++] = backup->parent;
    }
    for (size_t i = 0; i < patterns->n; i++) {
        argv[n++] = "--exclude";
        argv[n++] = patterns->paths[i];
        total += strlen(patterns->paths[i]);
    }
    if (total > 8 * ARGUMENTS_MAX)
        return err_set(err, VSS_E_NOT_SUPPORTED, "Exclude their folders instead.",
                       "%zu names with odd bytes are excluded: too many", patterns->n);
    const struct restic_io io = {backup->targets.list_fd, backup->targets.exclude_fd};
    if (restic_start(&backup->process, &backup->restic, argv, &io, err))
        return -1;
    backup->running = true;
    return 0;
}

/* While restic begins. Without it everything is hashed. */
static void load_known(struct backup *backup)
{
    AUTO_JSON json_t *header = NULL;
    struct err trouble = {0};
    if (!backup->force && backup->parent_record && !backup->known.n &&
        restic_load(&backup->restic, backup->parent_backup, backup->parent_record, &header, &backup->known, &trouble))
        manifest_clear(&backup->known);
}

static int hash_all(struct backup *backup, struct err *err)
{
    struct source source;
    int result = 0;
    source_init(&source, &backup->scan, &(const struct source_sink){.data = pump, .arg = backup});
    load_known(backup);
    if (!backup->force)
        source_use_known(&source, &backup->known);
    for (size_t i = 0; i < backup->scan.n && !result; i++) {
        struct manifest_entry entry;
        result = source_read(&source, &backup->scan.entries[i], &entry, err) || pump(backup, NULL, 0, err) ? -1 : 0;
        if (!result)
            manifest_write(backup->manifest, &entry);
        manifest_entry_clear(&entry);
    }
    backup->carried = source.carried;
    backup->stale = source.stale;
    source_clear(&source);
    if (!result && (fflush(backup->manifest) || ferror(backup->manifest)))
        result = err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the manifest");
    return result;
}

static int store_data_once(struct backup *backup, struct err *err)
{
    struct err cause = {0};
    if (start(backup, err))
        return -1;
    int result = hash_all(backup, &cause) || read_to_end(backup, &cause) ? -1 : 0;
    if (result && !backup->ended)
        program_stop(&backup->process);
    else if (program_finish(&backup->process, &cause)) /* when it ended early, this says why */
        result = -1;
    backup->running = false;
    if (!result && !json_str(backup->summary, "snapshot_id", NULL))
        result = err_set(&cause, VSS_E_UNEXPECTED, NULL, "restic ended without a summary");
    int64_t stored = json_int(backup->summary, "total_bytes_processed", -1);
    if (!result && stored != backup->scan.bytes) /* never silently short */
        result = err_set(&cause, VSS_E_UNEXPECTED, "Copy from a snapshot, not from live files.",
                         "restic read %lld bytes where the manifest has %lld", (long long)stored,
                         (long long)backup->scan.bytes);
    if (result)
        *err = cause;
    return result;
}

/* Hashes were taken over for what restic took over. Where it read more, or where a file that both would take over has
 * other content (changed twice within a tick), neither is believed: everything is read. */
static int store_data(struct backup *backup, struct err *err)
{
    struct restic_backup wrong = {0};
    if (store_data_once(backup, err))
        return -1;
    if (!backup->stale && backup->carried <= json_int(backup->summary, "files_unmodified", 0))
        return 0;
    log_line(LOG_LEVEL_WARNING, NULL, "%lld files changed without a sign: restic reads everything again",
             (long long)backup->stale);
    restic_store_stop(&backup->record); /* its lock would be in the way */
    wrong.data_id = str_dup(json_str(backup->summary, "snapshot_id", NULL));
    int result = restic_forget(&backup->restic, &wrong, false, err);
    restic_backup_clear(&wrong);
    json_decref(TAKE_PTR(backup->summary));
    backup->force = true;
    backup->ended = false;
    rewind(backup->manifest);
    lseek(backup->targets.list_fd, 0, SEEK_SET);
    lseek(backup->targets.exclude_fd, 0, SEEK_SET);
    if (!result && ftruncate(fileno(backup->manifest), 0))
        result = err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot begin the manifest again");
    return result ? -1 : store_data_once(backup, err);
}

/* --- the record --- */

static int store_record(struct backup *backup, const json_t *result, struct err *err)
{
    AUTO_FD int record = -1;
    return begin_record(backup, true, err) || record_make(RESTIC_FORMAT, backup->request, result, backup->manifest, &record, err) ||
                   restic_store_end(&backup->record, record, err)
               ? -1
               : 0;
}

static int store(struct backup *backup, json_t **ret_result, struct err *err)
{
    char now[CLOCK_RFC3339_SIZE];
    if (store_data(backup, err))
        return -1;
    backup->progress =
        (struct mover_progress){backup->scan.bytes, backup->scan.bytes, backup->scan.files, backup->scan.files};
    backup->host->progress(backup->host->arg, &backup->progress);
    const json_t *summary = backup->summary;
    AUTO_JSON json_t *result = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "data_id", json_str(summary, "snapshot_id", ""), "bytes",
        (json_int_t)backup->scan.bytes, "files", (json_int_t)backup->scan.files, "stored_bytes",
        (json_int_t)json_int(summary, "data_added", 0), "files_unmodified",
        (json_int_t)json_int(summary, "files_unmodified", 0), "files_changed",
        (json_int_t)json_int(summary, "files_changed", 0), "files_new", (json_int_t)json_int(summary, "files_new", 0),
        "hashes_carried", (json_int_t)backup->carried, "created_at", clock_rfc3339(clock_real_ms(), now));
    if (store_record(backup, result, err))
        return -1;
    if (backup->host->cancelled(backup->host->arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
    json_put(result, "repository_id", json_string(backup->repository_id));
    *ret_result = TAKE_PTR(result);
    return 0;
}

/* A signal that finds restic between storing its lock and noting that it holds it leaves the lock: it goes as one of a dead process. */
static void unlock(const struct backup *backup)
{
    const struct restic shielded = {.repository = backup->request->repository};
    struct err trouble = {0};
    if (restic_run(&shielded, (const char *const[]){"unlock", "--quiet", NULL}, &trouble))
        log_err(LOG_LEVEL_WARNING, NULL, &trouble, "a lock may be left");
}

/* Whatever this attempt left in the repository goes, even when a cancel is why. */
static void take_back(struct backup *backup, struct err *err)
{
    restic_store_stop(&backup->record);
    if (err && err->hr == (uint32_t)VSS_S_ASYNC_CANCELLED)
        unlock(backup);
    const struct restic shielded = {.repository = backup->request->repository};
    struct restic_backup left;
    struct err trouble = {0};
    if (restic_find(&shielded, backup->request->backup_id, &left, &trouble) == 0)
        restic_forget(&shielded, &left, false, &trouble);
    restic_backup_clear(&left);
    if (trouble.hr && err)
        err_prefix(err, "(and the repository could not be cleaned: %.200s)", trouble.text);
}

/* --- all of it --- */

static void no_progress(void *arg, const struct mover_progress *progress)
{
    (void)arg, (void)progress;
}

/* restic derives its key, lists its snapshots and tells which repository it is while we look at the files. */
static int prepare(struct backup *backup, struct err *err)
{
    struct program process;
    struct restic_identity identity;
    AUTO_JSON json_t *snapshots = NULL;
    if (restic_json_begin(&process, &backup->restic, list_all, err))
        return -1;
    if (restic_identity_begin(&identity, &backup->restic, err)) {
        program_stop(&process);
        return -1;
    }
    if (scan_run(&backup->scan, backup->request, &backup->quiet, err) ||
        targets_make(&backup->targets, &backup->scan, backup->node, err)) {
        restic_identity_stop(&identity);
        program_stop(&process);
        return -1;
    }
    restic_identity_end(&identity, backup->repository_id);
    if (list_snapshots(backup, &process, &snapshots, err) ||
        (!*backup->repository_id && restic_identity_of(&backup->restic, backup->repository_id, err))) /* here, or made just now */
        return -1;
    return seen_check(backup->request->repository, backup->repository_id, err) ? -1 : look_around(backup, snapshots, err);
}

static int run(struct backup *backup, json_t **ret_result, struct err *err)
{
    const struct mover_request *request = backup->request;
    roots_node(request->document, backup->node, sizeof(backup->node));
    str_format(backup->tag, sizeof(backup->tag), "quiesced-backup=%s", request->backup_id);
    if (restic_check_settings(request->repository, err))
        return -1;
    if (prepare(backup, err)) {
        if (err->hr == (uint32_t)VSS_S_ASYNC_CANCELLED)
            unlock(backup);
        return -1;
    }
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

int restic_backup_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result,
                      struct err *err)
{
    struct backup backup = {.request = request,
                            .host = host,
                            .quiet = *host,
                            .restic = {.repository = request->repository, .host = host, .bandwidth = request->bandwidth},
                            .targets = {.list_fd = -1, .exclude_fd = -1},
                            .record = {.in = -1},
                            .line = mem_new(LINE_MAX_BYTES)};
    struct err cause = {0};
    backup.quiet.progress = no_progress;
    int result = run(&backup, ret_result, &cause);
    if (result && err)
        *err = cause;
    if (backup.manifest)
        fclose(backup.manifest);
    json_decref(backup.summary);
    targets_clear(&backup.targets);
    scan_clear(&backup.scan);
    manifest_clear(&backup.known);
    free(backup.parent);
    free(backup.parent_backup);
    free(backup.parent_record);
    free(backup.line);
    return result;
}
