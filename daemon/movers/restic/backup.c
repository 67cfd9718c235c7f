/* One backup with restic: it reads and stores while we hash the same files for the manifest (they are in the page
 * cache then); the record is stored last and makes it a backup. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/payload/source.h"
#include "movers/restic/restic_private.h"
#include "movers/restic/targets.h"

enum { LINE_MAX_BYTES = 1 << 20, ARGUMENTS_MAX = 1 << 17 };

struct backup {
    const struct mover_request *request;
    const struct mover_host *host;
    struct mover_host quiet; /* for the scan and the hashing: restic's progress is what is told */
    struct restic restic;
    char node[256], tag[64];
    struct scan scan;
    struct targets targets;
    struct restic_process process;
    bool running, ended;
    char *line; /* of restic's output; longer ones are dropped */
    size_t length;
    bool overlong;
    json_t *summary;
    struct mover_progress progress;
    FILE *manifest;
    char *parent; /* snapshot to compare with, or NULL */
};

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
        if (restic_peek(&backup->process, block, sizeof(block), &n, &backup->ended))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read from restic");
        take_output(backup, block, n);
    }
    if (backup->ended && !backup->summary)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "restic ended early");
    return 0;
}

static int read_to_end(struct backup *backup, struct err *err)
{
    char block[16384];
    for (size_t n = 1; n > 0 && !backup->ended;) {
        if (restic_read(&backup->process, block, sizeof(block), &n, err))
            return -1;
        take_output(backup, block, n);
    }
    return 0;
}

/* --- before: what is there --- */

static int look_around(struct backup *backup, struct err *err)
{
    AUTO_JSON json_t *snapshots = NULL;
    AUTO_FREE char *roots = str_new("quiesced-roots=%s", backup->targets.roots);
    struct restic_backup left = {0};
    const char *newest = "";
    size_t i;
    const json_t *snapshot;
    if (restic_json(&backup->restic, (const char *const[]){"snapshots", "--json", "--tag", "quiesced", NULL},
                    &snapshots, err))
        return -1;
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
            backup->parent = str_dup(json_str(snapshot, "id", NULL));
        }
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
    if (backup->parent) {
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

static int hash_all(struct backup *backup, struct err *err)
{
    struct source source;
    int result = 0;
    source_init(&source, &backup->scan, &(const struct source_sink){.data = pump, .arg = backup});
    for (size_t i = 0; i < backup->scan.n && !result; i++) {
        struct manifest_entry entry;
        result = source_read(&source, &backup->scan.entries[i], &entry, err) || pump(backup, NULL, 0, err) ? -1 : 0;
        if (!result)
            manifest_write(backup->manifest, &entry);
        manifest_entry_clear(&entry);
    }
    source_clear(&source);
    if (!result && (fflush(backup->manifest) || ferror(backup->manifest)))
        result = err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the manifest");
    return result;
}

static int store_data(struct backup *backup, struct err *err)
{
    struct err cause = {0};
    if (start(backup, err))
        return -1;
    int result = hash_all(backup, &cause) || read_to_end(backup, &cause) ? -1 : 0;
    if (result && !backup->ended)
        restic_stop(&backup->process);
    else if (restic_finish(&backup->process, &cause)) /* when it ended early, this says why */
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

/* --- the record --- */

static int write_record(struct backup *backup, const json_t *result, int *ret_fd, struct err *err)
{
    AUTO_JSON json_t *header = json_copy((json_t *)result);
    const json_t *document = backup->request->document;
    json_put(header, "format", json_string("quiesced-restic"));
    json_put(header, "version", json_integer(1));
    json_put(header, "backup_id", json_string(backup->request->backup_id));
    json_put(header, "document", document ? json_incref((json_t *)document) : json_null());
    AUTO_FREE char *text = json_dumps(header, JSON_COMPACT);
    AUTO_FD int fd = memfd_create("record", MFD_CLOEXEC);
    int from = fileno(backup->manifest);
    off_t at = 0;
    if (fd < 0 || !text || dprintf(fd, "%s\n", text) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the backup's record");
    for (ssize_t n; (n = sendfile(fd, from, &at, 1 << 30)) != 0;)
        if (n < 0)
            return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the backup's record");
    lseek(fd, 0, SEEK_SET);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int store_record(struct backup *backup, const json_t *result, struct err *err)
{
    AUTO_FD int record = -1;
    AUTO_FREE char *name = str_new("quiesced-%s.jsonl", backup->request->backup_id);
    const char *const argv[] = {"backup", "--quiet",  "--stdin", "--stdin-filename", name,    "--host",    backup->node,
                                "--tag",  "quiesced", "--tag",   "quiesced-record",  "--tag", backup->tag, NULL};
    char scrap[4096];
    if (write_record(backup, result, &record, err) ||
        restic_start(&backup->process, &backup->restic, argv, &(const struct restic_io){record, -1}, err))
        return -1;
    for (size_t n = 1; n > 0;)
        if (restic_read(&backup->process, scrap, sizeof(scrap), &n, err)) {
            restic_stop(&backup->process);
            return -1;
        }
    return restic_finish(&backup->process, err);
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
    AUTO_JSON json_t *result =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "data_id", json_str(summary, "snapshot_id", ""), "bytes",
                  (json_int_t)backup->scan.bytes, "files", (json_int_t)backup->scan.files, "stored_bytes",
                  (json_int_t)json_int(summary, "data_added", 0), "files_unmodified",
                  (json_int_t)json_int(summary, "files_unmodified", 0), "files_changed",
                  (json_int_t)json_int(summary, "files_changed", 0), "files_new",
                  (json_int_t)json_int(summary, "files_new", 0), "created_at", clock_rfc3339(clock_real_ms(), now));
    if (store_record(backup, result, err))
        return -1;
    if (backup->host->cancelled(backup->host->arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
    *ret_result = TAKE_PTR(result);
    return 0;
}

/* Whatever this attempt left in the repository goes, even when a cancel is why. */
static void take_back(const struct backup *backup, struct err *err)
{
    const struct restic shielded = {backup->request->repository, NULL};
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

static int run(struct backup *backup, json_t **ret_result, struct err *err)
{
    const struct mover_request *request = backup->request;
    const char *node = json_str(request->document, "node", NULL);
    if (!node || !*node || !str_copy(backup->node, sizeof(backup->node), node))
        gethostname(backup->node, sizeof(backup->node) - 1);
    str_format(backup->tag, sizeof(backup->tag), "quiesced-backup=%s", request->backup_id);
    if (scan_run(&backup->scan, request, &backup->quiet, err) ||
        targets_make(&backup->targets, &backup->scan, backup->node, err) || look_around(backup, err))
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

int restic_backup_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result,
                      struct err *err)
{
    struct backup backup = {.request = request,
                            .host = host,
                            .quiet = *host,
                            .restic = {request->repository, host},
                            .targets = {.list_fd = -1, .exclude_fd = -1},
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
    free(backup.parent);
    free(backup.line);
    return result;
}
