/* One backup: everything is made durable under a temporary name before the rename makes it a backup. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"
#include "movers/payload/source.h"

struct writer {
    const struct mover_request *request;
    char partial[PATH_MAX], place[PATH_MAX];
    struct arc_output *output;
    FILE *manifest;
    struct scan scan;
    struct source source;
};

static int on_begin(void *arg, const struct manifest_entry *entry, int fd, const char *source, struct err *err)
{
    return arc_output_entry(arg, entry, fd, source, err);
}

static int on_data(void *arg, const void *bytes, size_t size, struct err *err)
{
    return arc_output_data(arg, bytes, size, err);
}

static int sync_dir(const char *dir, struct err *err)
{
    AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : payload_failed(errno, "make durable", dir, err);
}

static int hash_file(const char *dir, const char *name, char ret_hex[HASH_HEX_SIZE], struct err *err)
{
    char path[PATH_MAX + 64], block[65536];
    uint8_t digest[HASH_SIZE];
    str_format(path, sizeof(path), "%s/%s", dir, name);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    struct hash *hash = hash_new();
    while (fd >= 0 && (n = read(fd, block, sizeof(block))) > 0)
        hash_update(hash, block, (size_t)n);
    hash_final(hash, digest);
    hash_free(hash);
    hash_hex(digest, ret_hex);
    return n == 0 ? 0 : payload_failed(errno, "read", path, err);
}

static int store_entries(struct writer *writer, struct err *err)
{
    for (size_t i = 0; i < writer->scan.n; i++) {
        struct manifest_entry entry;
        int result = source_read(&writer->source, &writer->scan.entries[i], &entry, err);
        if (!result)
            manifest_write(writer->manifest, &entry);
        manifest_entry_clear(&entry);
        if (result)
            return -1;
    }
    return 0;
}

static int close_manifest(struct writer *writer, struct err *err)
{
    FILE *manifest = TAKE_PTR(writer->manifest);
    bool failed = ferror(manifest) || fflush(manifest);
    int errnum = errno;
    fclose(manifest);
    return failed ? payload_failed(errnum ? errnum : EIO, "write the manifest in", writer->partial, err) : 0;
}

/* flags of sync_file_range, or none for what makes it durable. */
static bool pushed(int fd, unsigned flags)
{
    return flags ? arc_push(fd, 0, 0, flags) : fsync(fd) == 0;
}

/* All of it is on its way to the disk before anything is waited for: the first sync's commit of the file system's journal then covers the
 * others, which on a busy disk is most of their time. Each file is synced all the same. */
static int make_durable(const struct writer *writer, struct err *err)
{
    static const char *const names[] = {"data.tar.zst", "manifest.jsonl", "document.json", "complete.json"};
    static const unsigned steps[] = {
        SYNC_FILE_RANGE_WRITE, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER, 0};
    char paths[ELEMENTS(names)][PATH_MAX + 64];
    int fds[ELEMENTS(names)], result = 0;
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        str_format(paths[i], sizeof(paths[i]), "%s/%s", writer->partial, names[i]);
        fds[i] = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fds[i] < 0 && !result)
            result = payload_failed(errno, "write", paths[i], err);
    }
    for (size_t step = 0; step < ELEMENTS(steps); step++)
        for (size_t i = 0; i < ELEMENTS(names) && !result; i++)
            if (!pushed(fds[i], steps[step]))
                result = payload_failed(errno, "write", paths[i], err);
    for (size_t i = 0; i < ELEMENTS(names); i++)
        fd_cleanup(&fds[i]);
    return result ? result : sync_dir(writer->partial, err);
}

/* complete.json holds what the data and the manifest must hash to: every stored byte can be proven. */
static int describe(struct writer *writer, json_t **ret_result, struct err *err)
{
    char data[HASH_HEX_SIZE], manifest[HASH_HEX_SIZE], now[CLOCK_RFC3339_SIZE];
    int64_t stored;
    if (arc_output_close(writer->output, &stored, data, err) || close_manifest(writer, err) ||
        hash_file(writer->partial, "manifest.jsonl", manifest, err))
        return -1;
    const struct mover_progress *done = &writer->source.progress;
    AUTO_JSON json_t *result =
        json_pack("{s:s, s:I, s:I, s:I, s:s}", "data_id", writer->request->backup_id, "bytes",
                  (json_int_t)done->bytes_done, "files", (json_int_t)done->files_done, "stored_bytes",
                  (json_int_t)stored, "created_at", clock_rfc3339(clock_real_ms(), now));
    AUTO_JSON json_t *complete = json_copy(result);
    json_put(complete, "version", json_integer(1));
    json_put(complete, "data_sha256", json_string(data));
    json_put(complete, "manifest_sha256", json_string(manifest));
    if (arc_put_json(writer->partial, "document.json", writer->request->document, err) ||
        arc_put_json(writer->partial, "complete.json", complete, err) || make_durable(writer, err))
        return -1;
    *ret_result = TAKE_PTR(result);
    return 0;
}

static int publish(const struct writer *writer, struct err *err)
{
    if (fault("mover.archive.rename"))
        return payload_failed(EIO, "finish", writer->place, err);
    if (rename(writer->partial, writer->place))
        return payload_failed(errno, "finish", writer->place, err);
    if (!sync_dir(arc_path(writer->request->repository), err))
        return 0;
    arc_remove_dir(writer->place); /* what is not durable is no backup */
    return -1;
}

static int write_all(struct writer *writer, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof(path), "%s/manifest.jsonl", writer->partial);
    if (scan_run(&writer->scan, writer->request, host, err) || arc_output_open(&writer->output, writer->partial, writer->request, host, err))
        return -1;
    if (!(writer->manifest = fopen(path, "wxe")))
        return payload_failed(errno, "create", path, err);
    source_init(&writer->source, &writer->scan, &(const struct source_sink){on_begin, on_data, writer->output});
    if (store_entries(writer, err) || describe(writer, ret_result, err))
        return -1;
    if (host->cancelled(host->arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
    return publish(writer, err);
}

static void clear(struct writer *writer)
{
    source_clear(&writer->source);
    scan_clear(&writer->scan);
    arc_output_free(writer->output);
    if (writer->manifest)
        fclose(writer->manifest);
}

/* Asked before the partial data is removed: how much was left when it was not enough. */
static void tell_room(const struct mover_request *request, struct err *err)
{
    struct statvfs fs;
    if (err->hr != (uint32_t)VSS_E_INSUFFICIENT_STORAGE || statvfs(arc_path(request->repository), &fs))
        return;
    err_prefix(err, "repository %s (%llu bytes are free)", json_str(request->repository, "name", ""),
               (unsigned long long)fs.f_bavail * fs.f_frsize);
}

int arc_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    struct writer writer = {.request = request};
    struct stat st;
    struct err cause = {0};
    if (arc_place(request->repository, request->backup_id, ".partial", writer.partial, err) ||
        arc_place(request->repository, request->backup_id, "", writer.place, err))
        return -1;
    if (lstat(writer.place, &st) == 0)
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "repository %s holds backup %s already",
                       json_str(request->repository, "name", ""), request->backup_id);
    arc_sweep(request->repository);
    AUTO_FD int claim = arc_claim(writer.partial, err);
    if (claim < 0)
        return -1;
    int result = write_all(&writer, host, ret_result, &cause);
    if (result) {
        tell_room(request, &cause);
        arc_remove_dir(writer.partial);
        json_decref(TAKE_PTR(*ret_result));
        if (err)
            *err = cause;
    } else {
        arc_tell_id(request->repository, *ret_result);
    }
    clear(&writer);
    return result;
}
