#pragma once
/* What the borg mover's files share. Each backup is two archives: quiesced-ID.data-ROOTS (the files, at their original paths) and
 * quiesced-ID.record, one file quiesced-ID.jsonl with the document and the manifest, which is made last: without it the data is no
 * backup. A third one, quiesced-ID.seal-MILLISECONDS with quiesced-seal-ID.json, comes later and says whether BackupComplete was
 * reached; of several the newest counts. ROOTS: movers/payload/roots.h. */
#include "base/ident.h"
#include "movers/mover.h"
#include "movers/payload/manifest.h"
#include "movers/payload/roots.h"
#include "movers/program/program.h"

#define BORG_FORMAT "quiesced-borg" /* of the record */

struct borg {
    const json_t *repository;
    const struct mover_host *host; /* NULL: cannot be cancelled */
    int64_t bandwidth;             /* bytes per second that it may send; 0 = no limit */
    const char *roots;             /* whose files cache it uses; NULL = that of all others */
};

/* --- borg.c --- */
int borg_check_settings(const json_t *repository, struct err *err);
int borg_open(const json_t *repository, bool create, struct err *err);
/* Opens borg's base directory (cache, keys, what it knows of repositories), before a snapshot may hide it. */
int borg_prepare(const json_t *repository, struct err *err);
const char *borg_name(const json_t *repository);

/* --- process.c: one run of borg --- */
struct borg_run {
    struct program program;
    /* Its messages, a JSON object each (borg's --log-json); called with those that are no log messages. May be NULL. */
    void (*said)(void *arg, const json_t *message);
    void *arg;
    json_t *warnings; /* NULL, or an array that gets the warnings' texts */
    char line[65536]; /* of its messages; longer ones are cut */
    size_t length;
};
struct borg_io {
    int in_fd;          /* its standard input; -1 = none */
    int work_fd;        /* the directory that it works in; -1 = "/" */
    bool warnings_pass; /* it may end with warnings */
};
extern const struct borg_io borg_no_io;
/* argv: the command and what follows it, NULL-ended. ret must stay where it is until program_finish or program_stop. */
int borg_start(struct borg_run *ret, const struct borg *borg, const char *const *argv, const struct borg_io *io, struct err *err);
/* Runs it to its end; output is thrown away. */
int borg_run(const struct borg *borg, const char *const *argv, struct err *err);
/* The end of a command that prints one JSON value. */
int borg_json_end(struct borg_run *run, json_t **ret, struct err *err);
void borg_probe(char ret_reason[256]);

/* --- records.c: what the repository holds --- */
enum borg_part { BORG_NONE, BORG_DATA, BORG_RECORD, BORG_SEAL };
struct borg_archive {
    enum borg_part part;
    char backup_id[UUID_SIZE];
    const char *rest; /* DATA: ROOTS; SEAL: milliseconds. Borrowed from the name. */
};
/* What an archive's name says; BORG_NONE: it is not ours. A checkpoint of a run that was killed counts as data of no roots. */
struct borg_archive borg_parse(const char *name);
struct borg_backup {
    char *data, *data_id, *record; /* names, and borg's id of the data; NULL when there is none */
    json_t *data_all, *seals;      /* names */
};
extern const char *const borg_list_all[];
int borg_archives(const struct borg *borg, json_t **ret_archives, struct err *err);
void borg_pick(const json_t *archives, const char *backup_id, struct borg_backup *ret);
int borg_find(const struct borg *borg, const char *backup_id, struct borg_backup *ret, struct err *err);
void borg_backup_clear(struct borg_backup *backup);
/* Header line and manifest of a record. ret_manifest NULL: the header alone is read. */
int borg_load(const struct borg *borg, const char *backup_id, json_t **ret_header, struct manifest *ret_manifest, struct err *err);
/* An archive of one file, whose content fd holds from where it stands. */
int borg_store_file(const struct borg *borg, const char *archive, const char *file, int fd, struct err *err);
/* All in one transaction: all of it goes, or nothing. Freed room comes back with `borg compact`. */
int borg_forget(const struct borg *borg, const struct borg_backup *backup, struct err *err);
int borg_seal(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host, struct err *err);
int borg_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err);

/* --- backup.c, read.c --- */
int borg_backup_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err);
int borg_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result, struct err *err);
int borg_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, json_t **ret_result,
                struct err *err);
int borg_manifest(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err);
