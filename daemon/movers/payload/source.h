#pragma once
/* Reads the scanned entries one by one: metadata, content through a SHA-256, hard links by inode. */
#include "movers/payload/manifest.h"
#include "movers/payload/scan.h"

/* Who takes the bytes. Both may be NULL: then it only hashes. */
struct source_sink {
    /* Before the data. fd: the open entry (O_PATH when it is no file and no directory); source: where it was read. */
    int (*begin)(void *arg, const struct manifest_entry *entry, int fd, const char *source, struct err *err);
    int (*data)(void *arg, const void *bytes, size_t size, struct err *err);
    void *arg;
};

struct source {
    const struct scan *scan;
    struct source_sink sink;
    struct hasher *hasher;
    char *blocks[2]; /* one is hashed and stored while the other one is read */
    void *inodes; /* tsearch tree: the first name of every file with several */
    /* An earlier manifest of the same files whose hashes are taken over for unmodified ones, or NULL. Files that were
     * changed in the last moments that it knows of are hashed all the same: a second change within the same tick of the
     * file system's clock shows in no metadata. */
    const struct manifest *known;
    time_t known_newest; /* the latest ctime in it */
    int64_t carried;     /* files whose hash was taken over */
    int64_t stale;       /* files that say "unmodified" and are not */
    struct mover_progress progress;
};

void source_use_known(struct source *source, const struct manifest *known);
void source_init(struct source *ret, const struct scan *scan, const struct source_sink *sink);
/* Reads one entry; ret_entry is the caller's to clear. Fails when a file is not what it was at the scan or changes its
 * size meanwhile (a snapshot does not), and with VSS_S_ASYNC_CANCELLED. Reports progress after each block. */
int source_read(struct source *source, const struct scan_entry *entry, struct manifest_entry *ret_entry,
                struct err *err);
void source_clear(struct source *source);
