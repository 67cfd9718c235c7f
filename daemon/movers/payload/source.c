#include "movers/payload/source.h"

#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/hasher.h"

enum {
    BLOCK = 256 * 1024,
    RACY_SECONDS = 2, /* the coarsest time stamps in use (FAT, some network file systems) */
};

struct inode {
    dev_t dev;
    ino_t ino;
    char *path;
    uint8_t sha256[HASH_SIZE];
};

static int compare_inode(const void *a, const void *b)
{
    const struct inode *x = a, *y = b;
    if (x->dev != y->dev)
        return x->dev < y->dev ? -1 : 1;
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void free_inode(void *arg)
{
    struct inode *inode = arg;
    free(inode->path);
    free(inode);
}

void source_init(struct source *ret, const struct scan *scan, const struct source_sink *sink)
{
    *ret = (struct source){.scan = scan, .hasher = hasher_new(), .blocks = {mem_new(BLOCK), mem_new(BLOCK)}};
    ret->progress = (struct mover_progress){0, scan->bytes, 0, scan->files};
    if (sink)
        ret->sink = *sink;
}

void source_use_known(struct source *source, const struct manifest *known)
{
    source->known = known;
    for (size_t i = 0; i < known->n; i++)
        if (known->entries[i].inode && known->entries[i].ctime.tv_sec > source->known_newest)
            source->known_newest = known->entries[i].ctime.tv_sec;
}

void source_clear(struct source *source)
{
    hasher_free(source->hasher);
    for (size_t i = 0; i < ELEMENTS(source->blocks); i++)
        free(source->blocks[i]);
    tdestroy(source->inodes, free_inode);
    *source = (struct source){0};
}

static const struct inode *first_name(const struct source *source, const struct stat *st)
{
    struct inode key = {.dev = st->st_dev, .ino = st->st_ino};
    struct inode *const *found =
        S_ISDIR(st->st_mode) || st->st_nlink < 2 ? NULL : tfind(&key, &source->inodes, compare_inode);
    return found ? *found : NULL;
}

static void remember_name(struct source *source, const struct stat *st, const struct manifest_entry *entry)
{
    if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
        return;
    struct inode *fresh = mem_new(sizeof(*fresh));
    *fresh = (struct inode){.dev = st->st_dev, .ino = st->st_ino, .path = str_dup(entry->path)};
    memcpy(fresh->sha256, entry->sha256, sizeof(fresh->sha256));
    tsearch(fresh, &source->inodes, compare_inode);
}

static int changed(const char *path, struct err *err)
{
    AUTO_FREE char *readable = manifest_readable(path);
    return err_set(err, VSS_E_UNEXPECTED, "Copy from a snapshot, not from live files.", "%s changed while it was read",
                   readable);
}

static int take_block(struct source *source, const char *block, size_t size, struct err *err)
{
    const struct mover_host *host = source->scan->host;
    hasher_add(source->hasher, block, size);
    if (source->sink.data && source->sink.data(source->sink.arg, block, size, err))
        return -1;
    source->progress.bytes_done += (int64_t)size;
    host->progress(host->arg, &source->progress);
    return 0;
}

static int read_content(struct source *source, int fd, struct manifest_entry *entry, struct err *err)
{
    const struct mover_host *host = source->scan->host;
    int64_t done = 0;
    for (size_t turn = 0;; turn++) {
        char *block = source->blocks[turn % ELEMENTS(source->blocks)];
        ssize_t n = read(fd, block, BLOCK);
        if (n == 0)
            break;
        if (n < 0)
            return payload_failed(errno, "read", entry->path, err);
        if (host->cancelled(host->arg))
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
        done += n;
        if (done > entry->size)
            return changed(entry->path, err);
        if (take_block(source, block, (size_t)n, err))
            return -1;
    }
    if (done != entry->size)
        return changed(entry->path, err);
    hasher_final(source->hasher, entry->sha256);
    return 0;
}

static void describe(const struct scan_entry *found, const struct stat *st, const struct inode *first,
                     struct manifest_entry *ret)
{
    *ret = (struct manifest_entry){.path = str_dup(found->path),
                                   .mode = st->st_mode,
                                   .uid = st->st_uid,
                                   .gid = st->st_gid,
                                   .size = S_ISREG(st->st_mode) ? st->st_size : 0,
                                   .mtime = st->st_mtim,
                                   .inode = S_ISREG(st->st_mode) ? st->st_ino : 0,
                                   .ctime = st->st_ctim,
                                   .has_sha256 = S_ISREG(st->st_mode),
                                   .parent = found->parent,
                                   .sparse = S_ISREG(st->st_mode) && (int64_t)st->st_blocks * 512 < st->st_size,
                                   .hard_link = first ? str_dup(first->path) : NULL};
    if (first)
        memcpy(ret->sha256, first->sha256, sizeof(ret->sha256));
}

/* The hash of a regular file: taken over, or read. */
static int hash_content(struct source *source, int fd, struct manifest_entry *entry, struct err *err)
{
    const struct manifest_entry *then = source->known ? manifest_find(source->known, entry->path) : NULL;
    bool same = then && manifest_unmodified(then, entry);
    if (same && entry->ctime.tv_sec < source->known_newest - RACY_SECONDS) {
        memcpy(entry->sha256, then->sha256, sizeof(entry->sha256));
        source->progress.bytes_done += entry->size;
        source->carried++;
        return 0;
    }
    if (read_content(source, fd, entry, err))
        return -1;
    source->stale += same && memcmp(entry->sha256, then->sha256, sizeof(entry->sha256)) != 0;
    return 0;
}

int source_read(struct source *source, const struct scan_entry *entry, struct manifest_entry *ret_entry,
                struct err *err)
{
    AUTO_FD int fd = -1;
    AUTO_FREE char *path = NULL;
    struct stat st;
    *ret_entry = (struct manifest_entry){0};
    if (scan_open(source->scan, entry, &fd, &path, err))
        return -1;
    if (fstat(fd, &st))
        return payload_failed(errno, "look at", entry->path, err);
    if ((st.st_mode & S_IFMT) != entry->type)
        return changed(entry->path, err);
    const struct inode *first = first_name(source, &st);
    describe(entry, &st, first, ret_entry);
    if (S_ISLNK(st.st_mode)) {
        ret_entry->link = mem_new((size_t)PATH_MAX + 1);
        if (readlinkat(fd, "", ret_entry->link, PATH_MAX) < 0)
            return payload_failed(errno, "read the link", entry->path, err);
    }
    if (source->sink.begin && source->sink.begin(source->sink.arg, ret_entry, fd, path, err))
        return -1;
    if (S_ISREG(st.st_mode) && !first && hash_content(source, fd, ret_entry, err))
        return -1;
    if (first && S_ISREG(st.st_mode))
        source->progress.bytes_done += st.st_size;
    if (S_ISREG(st.st_mode))
        source->progress.files_done++;
    if (!first)
        remember_name(source, &st, ret_entry);
    source->scan->host->progress(source->scan->host->arg, &source->progress);
    return 0;
}
