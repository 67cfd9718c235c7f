/* data.tar.zst being written: pax (ACLs, extended attributes, hard links, sparse files, names of any bytes) in zstd,
 * through a writer of ours, so that a full disk is seen as itself and the file's hash is known at its end. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"
#include "movers/payload/manifest.h"
#include "movers/payload/scan.h"

struct arc_output {
    struct archive *tar, *disk;
    char path[PATH_MAX + 64];
    int fd;
    int errnum; /* of the first failed write */
    struct hash *hash;
    int64_t size;
};

static la_ssize_t on_write(struct archive *tar, void *arg, const void *bytes, size_t size)
{
    struct arc_output *output = arg;
    (void)tar;
    ssize_t n = write(output->fd, bytes, size);
    if (fault("mover.archive.write")) {
        n = -1;
        errno = ENOSPC;
    }
    if (n < 0) {
        output->errnum = errno;
        archive_set_error(tar, errno, "write");
        return ARCHIVE_FATAL;
    }
    hash_update(output->hash, bytes, (size_t)n);
    output->size += n;
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
    archive_read_disk_set_standard_lookup(output->disk);
    /* Flags are not restored; the holes are found by arc_output_entry. */
    archive_read_disk_set_behavior(output->disk, ARCHIVE_READDISK_NO_FFLAGS | ARCHIVE_READDISK_NO_SPARSE);
    if (archive_write_add_filter_zstd(output->tar) < ARCHIVE_WARN ||
        archive_write_set_format_pax(output->tar) < ARCHIVE_WARN)
        return false;
    /* Level 1: the disk is the limit (platform-facts 4). A thread of its own compresses while we read and hash. */
    archive_write_set_filter_option(output->tar, "zstd", "threads", "1");
    return archive_write_set_options(output->tar, "hdrcharset=BINARY,compression-level=1") >= ARCHIVE_WARN &&
           archive_write_set_bytes_in_last_block(output->tar, 1) == ARCHIVE_OK;
}

int arc_output_open(struct arc_output **ret, const char *dir, struct err *err)
{
    struct arc_output *output = mem_new(sizeof(*output));
    *ret = output;
    *output =
        (struct arc_output){.tar = archive_write_new(), .disk = archive_read_disk_new(), .hash = hash_new(), .fd = -1};
    str_format(output->path, sizeof(output->path), "%s/data.tar.zst", dir);
    output->fd = open(output->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (output->fd < 0)
        return payload_failed(errno, "create", output->path, err);
    if (!set_up(output) || archive_write_open(output->tar, output, NULL, on_write, NULL) != ARCHIVE_OK)
        return failed(output, output->path, err);
    return 0;
}

/* Where the data is, by the file system's own word: what lies outside reads as zeros by definition. */
static void map_holes(struct archive_entry *tar_entry, int fd, int64_t size)
{
    for (off_t at = 0; at < size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (data < 0 && errno != ENXIO)
            archive_entry_sparse_clear(tar_entry);
        if (data < 0 && errno == ENXIO && archive_entry_sparse_count(tar_entry) == 0)
            archive_entry_sparse_add_entry(tar_entry, 0, 0); /* nothing but a hole */
        if (data < 0 || hole < 0)
            break;
        archive_entry_sparse_add_entry(tar_entry, data, hole - data);
        at = hole;
    }
    lseek(fd, 0, SEEK_SET);
}

static int fill(struct arc_output *output, struct archive_entry *tar_entry, const struct manifest_entry *entry, int fd,
                const struct stat *st)
{
    bool readable = S_ISREG(st->st_mode) || (S_ISDIR(st->st_mode) && !(fcntl(fd, F_GETFL) & O_PATH));
    archive_entry_copy_stat(tar_entry, st);
    if (!S_ISDIR(st->st_mode) || readable) /* a parent that may not be listed: owner, mode and time are what there is */
        if (archive_read_disk_entry_from_file(output->disk, tar_entry, readable ? fd : -1, st) < ARCHIVE_WARN)
            return -1;
    archive_entry_copy_pathname(tar_entry, entry->path[1] ? entry->path + 1 : ".");
    if (entry->link)
        archive_entry_copy_symlink(tar_entry, entry->link);
    if (entry->hard_link) {
        archive_entry_copy_hardlink(tar_entry, entry->hard_link + 1);
        archive_entry_set_size(tar_entry, 0);
    } else if (entry->sparse) {
        map_holes(tar_entry, fd, st->st_size);
    }
    return 0;
}

int arc_output_entry(struct arc_output *output, const struct manifest_entry *entry, int fd, const char *source,
                     struct err *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return payload_failed(errno, "look at", entry->path, err);
    struct archive_entry *tar_entry = archive_entry_new();
    archive_entry_copy_sourcepath(tar_entry, source);
    archive_entry_copy_pathname(tar_entry, source);
    int result = 0;
    if (fill(output, tar_entry, entry, fd, &st)) {
        AUTO_FREE char *readable = manifest_readable(entry->path);
        result = err_set(err, VSS_E_UNEXPECTED, NULL, "cannot read the attributes of %s: %s", readable,
                         archive_error_string(output->disk));
    } else if (archive_write_header(output->tar, tar_entry) < ARCHIVE_WARN) {
        result = failed(output, entry->path, err);
    }
    archive_entry_free(tar_entry);
    return result;
}

int arc_output_data(struct arc_output *output, const void *bytes, size_t size, struct err *err)
{
    la_ssize_t n = archive_write_data(output->tar, bytes, size);
    return n == (la_ssize_t)size ? 0 : failed(output, output->path, err);
}

int arc_output_close(struct arc_output *output, int64_t *ret_size, char ret_sha256[HASH_HEX_SIZE], struct err *err)
{
    uint8_t digest[HASH_SIZE];
    if (archive_write_close(output->tar) != ARCHIVE_OK)
        return failed(output, output->path, err);
    if (fsync(output->fd))
        return payload_failed(errno, "write", output->path, err);
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
