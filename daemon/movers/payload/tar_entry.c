#include "movers/payload/tar_entry.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "movers/payload/manifest.h"

struct archive *tar_disk_new(void)
{
    struct archive *disk = archive_read_disk_new();
    archive_read_disk_set_standard_lookup(disk);
    archive_read_disk_set_behavior(disk, ARCHIVE_READDISK_NO_FFLAGS | ARCHIVE_READDISK_NO_SPARSE);
    return disk;
}

/* Where the data is, by the file system's own word: what lies outside reads as zeros by definition. */
static void map_holes(struct archive_entry *entry, int fd, int64_t size)
{
    for (off_t at = 0; at < size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (data < 0 && errno != ENXIO)
            archive_entry_sparse_clear(entry);
        if (data < 0 && errno == ENXIO && archive_entry_sparse_count(entry) == 0)
            archive_entry_sparse_add_entry(entry, 0, 0); /* nothing but a hole */
        if (data < 0 || hole < 0)
            break;
        archive_entry_sparse_add_entry(entry, data, hole - data);
        at = hole;
    }
    lseek(fd, 0, SEEK_SET);
}

static int unreadable(struct archive *disk, const char *path, struct err *err)
{
    AUTO_FREE char *readable = manifest_readable(path);
    return err_set(err, VSS_E_UNEXPECTED, NULL, "cannot read the attributes of %s: %s", readable, archive_error_string(disk));
}

int tar_entry_fill(struct archive *disk, struct archive_entry *entry, const struct tar_source *source, struct err *err)
{
    const struct stat *st = source->stat;
    bool readable = S_ISREG(st->st_mode) || (S_ISDIR(st->st_mode) && !(fcntl(source->fd, F_GETFL) & O_PATH));
    archive_entry_copy_sourcepath(entry, source->readable_at);
    archive_entry_copy_pathname(entry, source->readable_at);
    archive_entry_copy_stat(entry, st);
    if (!S_ISDIR(st->st_mode) || readable) /* a parent that may not be listed: owner, mode and time are what there is */
        if (archive_read_disk_entry_from_file(disk, entry, readable ? source->fd : -1, st) < ARCHIVE_WARN)
            return unreadable(disk, source->path, err);
    archive_entry_copy_pathname(entry, source->path[1] ? source->path + 1 : ".");
    if (source->link)
        archive_entry_copy_symlink(entry, source->link);
    if (source->hard_link) {
        archive_entry_copy_hardlink(entry, source->hard_link + 1);
        archive_entry_set_size(entry, 0);
    } else if (source->sparse) {
        map_holes(entry, source->fd, st->st_size);
    }
    return 0;
}
