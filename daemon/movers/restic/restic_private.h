#pragma once
/* What the restic mover's files share. Each backup is two snapshots: the data (tags quiesced, quiesced-data) and a
 * record (tags quiesced, quiesced-record), both tagged quiesced-backup=ID. The record is one file,
 * /quiesced-ID.jsonl: a header line with the document, then the manifest. The record is written last: without it
 * the data is no backup. A third one, the seal (quiesced-seal; /quiesced-seal-ID.json), comes later and says whether
 * BackupComplete was reached; of several the newest counts. */
#include <sys/types.h>

#include "crypto/hash.h"
#include "movers/mover.h"
#include "movers/payload/manifest.h"
#include "movers/program/program.h"

#define RESTIC_FORMAT "quiesced-restic" /* of the record */

struct restic {
    const json_t *repository;
    const struct mover_host *host; /* NULL: cannot be cancelled */
    int64_t bandwidth;             /* bytes per second that it may send; 0 = no limit */
};

/* --- restic.c --- */
int restic_open(const json_t *repository, bool create, struct err *err);
int restic_check_settings(const json_t *repository, struct err *err);
/* Which repository is it? Of one on this host the SHA-256 of its file config, which restic writes once, tells: to ask restic for the id that it
 * encrypts there would cost one more derivation of its key. One elsewhere has to be asked, and is beside what is done anyway. */
struct restic_identity {
    struct program process;
    bool asked;
};
int restic_identity_begin(struct restic_identity *ret, const struct restic *restic, struct err *err);
void restic_identity_stop(struct restic_identity *identity);
/* It ends whatever happens. ret_id: "" where it is not known, as before the repository is made. */
void restic_identity_end(struct restic_identity *identity, char ret_id[HASH_HEX_SIZE]);
/* Once it is there. A repository elsewhere that does not tell is a failure: it could be another one. */
int restic_identity_of(const struct restic *restic, char ret_id[HASH_HEX_SIZE], struct err *err);

/* --- process.c: one run of restic --- */
struct restic_io {
    int in_fd;    /* its standard input; -1 = none */
    int extra_fd; /* appears as fd 3; -1 = none */
};
extern const struct restic_io restic_no_io;
/* argv after the program's name, NULL-ended. It is stopped by SIGINT: SIGTERM would leave a stale lock (platform-facts 4). */
int restic_start(struct program *ret, const struct restic *restic, const char *const *argv,
                 const struct restic_io *io, struct err *err);
/* Runs it to its end; output is thrown away. */
int restic_run(const struct restic *restic, const char *const *argv, struct err *err);
/* The same for a command that prints one JSON value (at most 64 MiB). */
int restic_json(const struct restic *restic, const char *const *argv, json_t **ret, struct err *err);
/* The same in two steps, between which it runs. In the second it ends whatever happens. */
int restic_json_begin(struct program *ret, const struct restic *restic, const char *const *argv, struct err *err);
int restic_json_end(struct program *process, json_t **ret, struct err *err);
/* Is it there and new enough? "" = yes. */
void restic_probe(char ret_reason[256]);
const char *restic_name(const json_t *repository);

/* --- records.c: what the repository holds --- */
struct restic_backup {
    char *data_id, *record_id; /* full snapshot ids; NULL when there is none */
    json_t *seals;             /* ids, or NULL */
};
int restic_find(const struct restic *restic, const char *backup_id, struct restic_backup *ret, struct err *err);
void restic_backup_clear(struct restic_backup *backup);
/* Header line and manifest of a record. ret_manifest NULL: the header alone is read. */
int restic_load(const struct restic *restic, const char *backup_id, const char *record_id, json_t **ret_header,
                struct manifest *ret_manifest, struct err *err);
struct restic_file {
    const char *backup_id, *kind; /* tags: quiesced-backup=ID, and what it is */
    const char *host, *name;
};
/* A snapshot of one file, /NAME, whose content fd holds from where it stands. */
int restic_store_file(const struct restic *restic, const struct restic_file *file, int fd, struct err *err);
/* The same in two steps, for what is not there yet: restic derives its key and reads its index meanwhile, and then waits. Nothing is
 * stored before restic_store_end; whoever lets it be calls restic_store_stop. */
struct restic_store {
    struct program process;
    int in; /* the pipe to its standard input; -1: it does not run */
};
int restic_store_begin(struct restic_store *ret, const struct restic *restic, const struct restic_file *file, struct err *err);
int restic_store_end(struct restic_store *store, int fd, struct err *err);
void restic_store_stop(struct restic_store *store); /* does nothing when it does not run */
int restic_seal(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host,
                struct err *err);
int restic_forget(const struct restic *restic, const struct restic_backup *backup, bool prune, struct err *err);
int restic_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err);
bool restic_has_tag(const json_t *snapshot, const char *tag);
const char *restic_tagged_id(const json_t *snapshot); /* the backup that it belongs to, or NULL. Borrowed. */

/* --- backup.c, read.c --- */
int restic_backup_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result,
                      struct err *err);
int restic_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result,
                   struct err *err);
int restic_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
                  json_t **ret_result, struct err *err);
int restic_manifest(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err);
/* A path as a restic pattern that matches nothing else. Caller frees. */
char *restic_pattern(const char *path);
