/* data.tar.zst being written: pax (ACLs, extended attributes, hard links, sparse files, names of any bytes) in zstd,
 * through a writer of ours, so that a full disk is seen as itself and the file's hash is known at its end. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"
#include "movers/payload/manifest.h"
#include "movers/payload/scan.h"
#include "movers/payload/tar_entry.h"
#include "movers/payload/token_bucket.h"

struct arc_output {
    struct archive *tar, *disk;
    char path[PATH_MAX + 64];
    int fd;
    int errnum; /* of the first failed write */
    struct hash *hash;
    int64_t size, sent; /* written, and on its way to the disk */
    struct token_bucket pace;
    const struct mover_host *host;
};

/* The disk begins while we compress: the sync at the end finds little left. */
enum { SEND_EVERY = 8 * 1024 * 1024, WRITE_SIZE = 256 * 1024, WAIT_MS = 200 };

bool arc_push(int fd, int64_t from, int64_t size, unsigned flags)
{
    return sync_file_range(fd, from, size, flags) == 0 || errno == ENOSYS || errno == EINVAL || errno == ESPIPE;
}

/* Who waits here is the reader too: what is not written is not read. The reader sees the cancel by itself. */
static void keep_pace(struct arc_output *output, int64_t n)
{
    int64_t now = clock_mono_ms(), until = now + token_bucket_take(&output->pace, n, now);
    while (now < until && !output->host->cancelled(output->host->arg)) {
        struct pollfd cancel = {.fd = output->host->cancel_fd, .events = POLLIN};
        poll(&cancel, 1, until - now < WAIT_MS ? (int)(until - now) : WAIT_MS);
        now = clock_mono_ms();
    }
}

/* A failure is kept, and libarchive not told: once in its fatal state it frees no more of what it has for its writer.
 * Every call of ours looks at errnum. */
static la_ssize_t on_write(struct archive *tar, void *arg, const void *bytes, size_t size)
{
    struct arc_output *output = arg;
    (void)tar;
    if (output->errnum)
        return (la_ssize_t)size;
    ssize_t n = write(output->fd, bytes, size);
    if (fault("mover.archive.write")) {
        n = -1;
        errno = ENOSPC;
    }
    if (n < 0) {
        output->errnum = errno;
        return (la_ssize_t)size;
    }
    hash_update(output->hash, bytes, (size_t)n);
    output->size += n;
    if (output->size - output->sent >= SEND_EVERY) {
        if (!arc_push(output->fd, output->sent, output->size - output->sent, SYNC_FILE_RANGE_WRITE))
            output->errnum = errno;
        output->sent = output->size;
    }
    keep_pace(output, n);
    return n;
}

static int failed(const struct arc_output *output, const char *path, struct err *err)
{
    if (output->errnum) /* the disk's own word, before libarchive's */
        return payload_failed(output->errnum, "write", output->path, err);
    AUTO_FREE char *readable = manifest_readable(path);
    const char *text = archive_error_string(output->tar);
    return err_set(err, VSS_E_UNEXPECTED, NULL, "cannot store %s: %s", readable, text ? text : "unknown");
}

static bool set_up(struct arc_output *output)
{
    if (archive_write_add_filter_zstd(output->tar) < ARCHIVE_WARN ||
        archive_write_set_format_pax(output->tar) < ARCHIVE_WARN)
        return false;
    /* Level 1: the disk is the limit (platform-facts 4). A thread of its own compresses while we read and hash. */
    archive_write_set_filter_option(output->tar, "zstd", "threads", "1");
    return archive_write_set_options(output->tar, "hdrcharset=BINARY,compression-level=1") >= ARCHIVE_WARN &&
           archive_write_set_bytes_per_block(output->tar, WRITE_SIZE) == ARCHIVE_OK &&
           archive_write_set_bytes_in_last_block(output->tar, 1) == ARCHIVE_OK;
}

int arc_output_open(struct arc_output **ret, const char *dir, const struct mover_request *request, const struct mover_host *host, struct err *err)
{
    struct arc_output *output = mem_new(sizeof(*output));
    *ret = output;
    *output =
        (struct arc_output){.tar = archive_write_new(), .disk = tar_disk_new(), .hash = hash_new(), .fd = -1, .host = host};
    token_bucket_init(&output->pace, request->bandwidth, clock_mono_ms());
    str_format(output->path, sizeof(output->path), "%s/data.tar.zst", dir);
    output->fd = open(output->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (output->fd < 0)
        return payload_failed(errno, "create", output->path, err);
    if (!set_up(output) || archive_write_open(output->tar, output, NULL, on_write, NULL) != ARCHIVE_OK)
        return failed(output, output->path, err);
    return 0;
}

int arc_output_entry(struct arc_output *output, const struct manifest_entry *entry, int fd, const char *source,
                     struct err *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return payload_failed(errno, "look at", entry->path, err);
    struct archive_entry *tar_entry = archive_entry_new();
    const struct tar_source from = {.path = entry->path, .link = entry->link, .hard_link = entry->hard_link, .sparse = entry->sparse,
                                    .fd = fd, .readable_at = source, .stat = &st};
    int result = tar_entry_fill(output->disk, tar_entry, &from, err);
    if (!result && (archive_write_header(output->tar, tar_entry) < ARCHIVE_WARN || output->errnum))
        result = failed(output, entry->path, err);
    archive_entry_free(tar_entry);
    return result;
}

int arc_output_data(struct arc_output *output, const void *bytes, size_t size, struct err *err)
{
    la_ssize_t n = archive_write_data(output->tar, bytes, size);
    return n == (la_ssize_t)size && !output->errnum ? 0 : failed(output, output->path, err);
}

int arc_output_close(struct arc_output *output, int64_t *ret_size, char ret_sha256[HASH_HEX_SIZE], struct err *err)
{
    uint8_t digest[HASH_SIZE];
    if (archive_write_close(output->tar) != ARCHIVE_OK || output->errnum)
        return failed(output, output->path, err);
    *ret_size = output->size;
    hash_final(output->hash, digest);
    hash_hex(digest, ret_sha256);
    return 0;
}

void arc_output_free(struct arc_output *output)
{
    if (!output)
        return;
    archive_write_free(output->tar);
    archive_read_free(output->disk);
    hash_free(output->hash);
    fd_cleanup(&output->fd);
    free(output);
}
