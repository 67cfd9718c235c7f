#pragma once
/* A mover carries the bytes out of a snapshot and back. Runs in a child process of its own (`--role=mover`), which
 * reads one request (JSON) and reports progress (JSON lines, see docs/architecture.md); cancel = the child's standard
 * input closes. One file or folder that ends in MOVER_EXPORT. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct manifest; /* movers/payload/manifest.h */

struct mover_progress {
    int64_t bytes_done, bytes_total; /* total -1 = unknown */
    int64_t files_done, files_total;
};

/* What the mover calls while it works. */
struct mover_host {
    void (*progress)(void *arg, const struct mover_progress *progress); /* throttled by the host */
    bool (*cancelled)(void *arg);
    /* Before the first restored file is moved to its place: a restore that ends badly afterwards has left something there. */
    void (*publishing)(void *arg);
    int cancel_fd;              /* becomes readable (end-of-file) on cancel: poll it */
    void *arg;
};

/* One thing to carry: a tree or file set, at its original path, readable at source. */
struct mover_item {
    const char *path;           /* original absolute path, the name it keeps */
    const char *source;         /* where to read it now (inside the snapshot, or an alternate path) */
    const char *spec;           /* "*" or a glob for file names */
    bool recursive;
};

struct mover_request {
    const json_t *repository;   /* {"name","mover","path"|"url","password_file","state_dir"...}; see also its mover's page in docs/movers */
    const char *backup_id;
    int64_t bandwidth;          /* bytes per second into the repository, at most; 0 = no limit */
    const json_t *document;     /* Backup Components Document: stored in the repository beside the data */
    const struct mover_item *items;
    size_t n_items;
    const char *const *excludes; /* absolute original paths or globs, NULL-ended */
    /* Bind mounts that present each snapshot at its original path: done by the host before run (private mount namespace). */
};

/* A file set as it was backed up (vss-model 4.6). */
struct mover_file_set {
    const char *path; /* original folder */
    const char *spec; /* "*" or a glob for file names */
    bool recursive;
};

struct mover_restore {
    const json_t *repository;
    const char *backup_id;
    const char *data_id;        /* what run returned as result.data_id */
    int target_dir_fd;          /* everything is resolved beneath it (openat2 RESOLVE_BENEATH) */
    const char *target;         /* its path, for messages and for external tools */
    const char *const *paths;   /* original path prefixes to restore; NULL or empty = all */
    bool overwrite;
    /* Of a restore session; without sets all the rest is unused. */
    const struct mover_file_set *sets; /* what to restore instead of paths */
    size_t n_sets;
    const char *const *excepts; /* original folders that are left out, with all beneath them; NULL-ended, or NULL */
    const char *strip;          /* what lies beneath this original folder lies beneath the target afterwards; NULL = "/" */
    const char *rename;         /* the one file that the sets name takes this name; NULL = its own */
};

enum { MOVER_ABI = 1 };

struct mover {
    unsigned abi;
    const char *name;
    const char *title;
    bool needs_original_path;   /* true: the host binds each snapshot at its original path first */
    bool run_opens;             /* true: run opens the repository by itself, and makes one that is new (seen.h) */
    bool verbs_open;            /* true: so does every other verb, and open is asked for by name alone */
    /* Before snapshots are bound over their original paths: opens what run needs and they may hide. NULL: nothing. */
    int (*prepare)(const json_t *repository, struct err *err);
    /* May it run here, and if not, why ("" = yes). Required. */
    void (*probe)(char ret_reason[256]);
    /* Is this repository usable; create it when it is new and `create`. Required. */
    int (*open)(const json_t *repository, bool create, struct err *err);
    /* Copy out. ret_result: {"data_id","bytes","files","stored_bytes","repository_id","files_unmodified"?...} (seen.h). On cancel: removes its partial
     * data, leaves the repository clean, fails with VSS_S_ASYNC_CANCELLED. Required. */
    int (*run)(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err);
    /* Restore beneath the target: all of it aside, read back and compared with the manifest, and only then moved to its places (after
     * host->publishing). ret_result: {"files","bytes","verified":true,"warnings"?}; warnings: attributes that could not be set. Required. */
    int (*restore)(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result, struct err *err);
    /* Check the stored data. ret_result: {"files","bytes","damaged":[{"path","reason"}]}. Required. */
    int (*verify)(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, json_t **ret_result, struct err *err);
    /* What the backup holds, entry by entry, as its manifest in the repository has it. Required. */
    int (*manifest)(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err);
    /* Writes what the catalog says of a backup beside its data, in place of what an earlier call wrote: at any instant the
     * one or the other can be read. seal: {"version":1,"complete","reason","sealed_at","document"}. VSS_E_OBJECT_NOT_FOUND
     * when the backup is not there. Required. */
    int (*seal)(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host, struct err *err);
    /* What the repository says it holds: array of {"backup_id","data_id","document","created_at","bytes","files"}, and "seal"
     * where one was written and can be read, "damaged" (why) where the backup cannot be restored. Required. */
    int (*list)(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err);
    /* Remove one backup's data; gone already is success. Required. */
    int (*remove)(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, struct err *err);
    /* Remove what killed runs left (partial data, stale locks of this host); what a live run holds stays. NULL: open does it. */
    void (*sweep)(const json_t *repository);
};

/* The last line of a mover's file: names its `const struct mover mover_NAME`; the build collects them. */
#define MOVER_EXPORT(name) _Static_assert(sizeof(mover_##name) > 0, #name)
extern const struct mover *const movers_all[]; /* generated, NULL-ended */
const struct mover *mover_by_name(const char *name);
