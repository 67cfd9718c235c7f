#pragma once
/* What a request's items amount to: every entry once, sorted by path, with the directories above the items. Made
 * before anything is copied, so that totals are known and a later item can win over an earlier one. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "movers/mover.h"

struct scan_entry {
    char *path;
    mode_t type;   /* S_IFMT bits */
    uint32_t item; /* index into the request's items */
    bool parent;   /* above an item, read at its original path */
};

struct path_list {
    char **paths;
    size_t n, room;
};
void path_list_add(struct path_list *list, const char *path);
void path_list_clear(struct path_list *list);

struct scan {
    const struct mover_request *request;
    const struct mover_host *host;
    int *roots; /* per item: its source, or the directory of a single file */
    struct scan_entry *entries;
    size_t n, room;
    int64_t bytes, files;         /* regular files */
    struct path_list left_out;    /* met, but excluded (original paths) */
    struct path_list not_entered; /* directories where another mount or subvolume begins */
};

/* Walks every item. A source that is missing or cannot be read is an error: never silently short. */
int scan_run(struct scan *ret, const struct mover_request *request, const struct mover_host *host, struct err *err);
void scan_clear(struct scan *scan);

/* Opens the entry in its source, following no symbolic link below the item's own. Regular files and directories are
 * opened for reading, others as O_PATH. Caller closes. *ret_source (caller frees) is its path. */
int scan_open(const struct scan *scan, const struct scan_entry *entry, int *ret_fd, char **ret_source, struct err *err);
/* Error for a failed call on an original path: full disk, missing, or unexpected. Returns -1. */
int payload_failed(int errnum, const char *what, const char *path, struct err *err);
/* VSS_E_OBJECT_NOT_FOUND, reason "backup_missing": the repository can be read, and the backup is not in it. Returns -1. */
int payload_no_backup(const char *repository, const char *backup_id, struct err *err);
