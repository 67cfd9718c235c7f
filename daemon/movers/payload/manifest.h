#pragma once
/* The manifest: what was saved, entry by entry, one JSON line each, sorted by path (parents before children). It lies
 * in the repository beside the data, and restore and verify hold the data against it.
 * {"path"|"path64","type","size","mode","uid","gid","mtime","mtime_ns","sha256"?,"link"?,"hard_link"?,"parent"?,
 * "sparse"?,"inode"?,"ctime"?,"ctime_ns"?}
 * Paths that are not UTF-8 are base64url of their bytes under the name that ends in 64. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/err.h"
#include "crypto/hash.h"

struct manifest_entry {
    char *path;  /* original absolute path, any bytes */
    mode_t mode; /* type and permissions */
    uid_t uid;
    gid_t gid;
    int64_t size; /* regular files, else 0 */
    struct timespec mtime;
    bool has_sha256; /* every regular file */
    uint8_t sha256[HASH_SIZE];
    char *link;      /* a symbolic link's target */
    char *hard_link; /* path of the entry that is the same file */
    bool parent;     /* only above what was asked for: its metadata is as it happened to be */
    bool sparse;     /* it had holes */
    ino_t inode;     /* of regular files, where it was read; 0 = not recorded */
    struct timespec ctime;
    /* For the reader's own bookkeeping, not stored: */
    bool wanted; /* to be restored */
    bool helper; /* only because a wanted entry is a hard link to it */
    bool found;
    bool moved; /* it is in the target */
};

struct manifest {
    struct manifest_entry *entries;
    size_t n, room;
};

/* Writes one line. file's errors are seen by the caller's ferror or fflush. */
void manifest_write(FILE *file, const struct manifest_entry *entry);
/* Reads to end-of-file; name is for messages. ERROR_FILE_CORRUPT names the damaged line. */
int manifest_read(struct manifest *ret, FILE *file, const char *name, struct err *err);
/* Is the file that `now` describes the one that `then` did, as far as metadata can tell: size, mtime, ctime and inode,
 * which is what restic goes by? */
bool manifest_unmodified(const struct manifest_entry *then, const struct manifest_entry *now);
struct manifest_entry *manifest_find(const struct manifest *manifest, const char *path);
/* Marks what lies at or beneath the prefixes (NULL or empty = everything) with the directories above it. */
void manifest_select(struct manifest *manifest, const char *const *paths);
/* Marks as helpers what the wanted entries are hard links to. Part of manifest_select. */
void manifest_select_helpers(struct manifest *manifest);
void manifest_entry_clear(struct manifest_entry *entry);
void manifest_clear(struct manifest *manifest);

/* "file", "directory"... of a mode. Static storage. */
const char *manifest_type(mode_t mode);
/* The path as JSON text for people: non-UTF-8 bytes as \xNN. Caller frees. */
char *manifest_readable(const char *path);
