#pragma once
/* What the restic mover's files share. Each backup is two snapshots: the data (tags quiesced, quiesced-data) and a
 * record (tags quiesced, quiesced-record), both tagged quiesced-backup=ID. The record is one file,
 * /quiesced-ID.jsonl: a header line with the document, then the manifest. The record is written last: without it
 * the data is no backup, so the repository alone tells what is complete. */
#include <sys/types.h>

#include "movers/mover.h"
#include "movers/payload/manifest.h"

struct restic {
    const json_t *repository;
    const struct mover_host *host; /* NULL: cannot be cancelled */
};

/* --- process.c: one run of restic --- */
struct restic_io {
    int in_fd;    /* its standard input; -1 = none */
    int extra_fd; /* appears as fd 3; -1 = none */
};
struct restic_process {
    const struct restic *restic;
    pid_t pid;
    int pidfd, out_fd, err_fd;
    void (*tick)(void *arg, pid_t pid); /* about five times a second while something is awaited; may be NULL */
    void *tick_arg;
    char errors[2048]; /* the beginning of what it complained of */
    size_t n_errors;
};
extern const struct restic_io restic_no_io;
/* argv after the program's name, NULL-ended. */
int restic_start(struct restic_process *ret, const struct restic *restic, const char *const *argv,
                 const struct restic_io *io, struct err *err);
/* Waits for output; *ret_n 0 = end. On cancel it is stopped, VSS_S_ASYNC_CANCELLED. A tar_input's read. */
int restic_read(void *process, void *buffer, size_t size, size_t *ret_n, struct err *err);
/* Takes what is there without waiting; 0 bytes with *ret_ended false when there is nothing yet. */
int restic_peek(struct restic_process *process, void *buffer, size_t size, size_t *ret_n, bool *ret_ended);
/* Reaps it after its end of output; an exit status other than 0 becomes an error that quotes it. */
int restic_finish(struct restic_process *process, struct err *err);
/* SIGINT (SIGTERM would leave a stale lock, platform-facts 4), 20 s, SIGKILL. */
void restic_stop(struct restic_process *process);

/* Runs it to its end; output is thrown away. */
int restic_run(const struct restic *restic, const char *const *argv, struct err *err);
/* The same for a command that prints one JSON value (at most 64 MiB). */
int restic_json(const struct restic *restic, const char *const *argv, json_t **ret, struct err *err);
/* Is it there and new enough? "" = yes. */
void restic_probe(char ret_reason[256]);
const char *restic_name(const json_t *repository);

/* --- records.c: what the repository holds --- */
struct restic_backup {
    char *data_id, *record_id; /* full snapshot ids; NULL when there is none */
};
int restic_find(const struct restic *restic, const char *backup_id, struct restic_backup *ret, struct err *err);
void restic_backup_clear(struct restic_backup *backup);
/* Header line and manifest of a record. ret_manifest NULL: the header alone is read. */
int restic_load(const struct restic *restic, const char *backup_id, const char *record_id, json_t **ret_header,
                struct manifest *ret_manifest, struct err *err);
int restic_forget(const struct restic *restic, const struct restic_backup *backup, bool prune, struct err *err);
int restic_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err);
bool restic_has_tag(const json_t *snapshot, const char *tag);

/* --- backup.c, read.c --- */
int restic_backup_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result,
                      struct err *err);
int restic_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result,
                   struct err *err);
int restic_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
                  json_t **ret_result, struct err *err);
/* A path as a restic pattern that matches nothing else. Caller frees. */
char *restic_pattern(const char *path);
