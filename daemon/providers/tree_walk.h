#pragma once
/* Walks a directory tree by file descriptors only (no path is ever resolved twice), as deep as it goes with a bounded
 * number of open descriptors, without leaving the file system: mounts and btrfs subvolumes are boundaries. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

/* The mask that every struct statx of a walk was asked for. */
enum { TREE_STATX = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID };

/* A chain of nested open directories. Only the deepest DIRCHAIN_OPEN stay open; a parent is opened again through ".."
 * and must then be the same inode. */
enum { DIRCHAIN_OPEN = 48 };
struct dirchain {
    struct dirchain_level {
        int fd; /* -1: closed to save descriptors */
        uint64_t ino;
        uint32_t dev_major, dev_minor;
    } * levels;
    size_t n, room;
};
/* Takes fd. Returns 0 or an errno value. */
int dirchain_push(struct dirchain *chain, int fd);
/* Descriptor of the deepest level, owned by the chain. */
int dirchain_top(const struct dirchain *chain);
/* Closes the deepest level. Returns 0, or an errno value when the parent cannot be opened again (ESTALE: it was moved).
 */
int dirchain_pop(struct dirchain *chain);
void dirchain_clear(struct dirchain *chain);

struct tree_identity { /* a directory that is left out entirely */
    uint64_t ino;
    uint32_t dev_major, dev_minor;
};

struct tree_walk;
/* Callbacks return 0, or -1 with err filled. All but `entry` may be NULL. */
struct tree_visitor {
    /* A non-directory `name` in the directory dirfd. */
    int (*entry)(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat, struct err *err);
    /* Before a directory's content; the root comes with name NULL. */
    int (*enter)(struct tree_walk *walk, int fd, const char *name, const struct statx *stat, struct err *err);
    /* After its content. parent_fd is -1 for the root. */
    int (*leave)(struct tree_walk *walk, int fd, int parent_fd, const char *name, struct err *err);
    /* A mount or subvolume that is not entered. */
    int (*boundary)(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat, struct err *err);
};

struct tree_walk {
    const struct tree_visitor *visitor;
    void *arg;                    /* the visitor's own */
    bool (*cancelled)(void *arg); /* NULL = never */
    void *cancelled_arg;
    const struct tree_identity *skip;
    size_t n_skip;
    const json_t *only;           /* names at the top; NULL = all of them */
    bool unlock; /* make directories accessible to us before opening (removal) */
    /* the walk's own */
    struct dirchain chain;
    struct tree_level *levels;
    size_t n_levels, room_levels;
    unsigned ticks;
    const char *root;
    uint64_t mnt_id;
    uint32_t dev_major, dev_minor;
};

/* Walks the tree of the directory root_fd (stays the caller's; `root` is its path, for messages). What vanishes while
 * the tree is read is left out. Cancelled: VSS_S_ASYNC_CANCELLED. */
int tree_walk_run(struct tree_walk *walk, int root_fd, const char *root, struct err *err);
/* Has the caller been cancelled? Fills err then. */
int tree_walk_poll(struct tree_walk *walk, struct err *err);
/* "/srv/data/a/b": where the walk stands, with name (may be NULL) appended; bytes that do not print become \xNN. */
char *tree_walk_where(const struct tree_walk *walk, const char *name, char *ret, size_t size);
/* The HRESULT of a failed system call inside a provider. */
uint32_t provider_hresult(int errnum);
