#pragma once
/* What tar keeps of a file, by libarchive: owner, mode, times, ACLs, extended attributes, links, holes. */
#include <stdbool.h>
#include <sys/stat.h>

#include "base/err.h"

struct archive;
struct archive_entry;

struct tar_source {
    const char *path;      /* "/srv/data": its name in the archive, but for the slash at its beginning */
    const char *link;      /* a symbolic link's target, or NULL */
    const char *hard_link; /* path of the entry that is the same file, or NULL: then no data follows */
    bool sparse;
    int fd;                  /* open; O_PATH when it cannot be read */
    const char *readable_at; /* where what a descriptor alone does not tell can be read */
    const struct stat *stat;
};

/* Who reads attributes. Flags are left out, and so are holes, which tar_entry_fill finds. Free with archive_read_free. */
struct archive *tar_disk_new(void);
int tar_entry_fill(struct archive *disk, struct archive_entry *entry, const struct tar_source *source, struct err *err);
