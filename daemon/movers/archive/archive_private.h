#pragma once
/* What the archive mover's files share. Repository layout: PATH/quiesced-repository.json and, per backup,
 * PATH/ID/{data.tar.zst,manifest.jsonl,document.json,complete.json}; written as ID.partial (locked while it grows) and
 * renamed last, so that a directory without a suffix holds all its data. complete.json holds the other files' SHA-256;
 * seal.json, which comes later, says whether BackupComplete was reached. */
#include <limits.h>

#include "crypto/hash.h"
#include "movers/mover.h"

/* --- repository.c --- */
const char *arc_path(const json_t *repository);
int arc_open(const json_t *repository, bool create, struct err *err);
/* Puts the repository's id into a run's result. */
void arc_tell_id(const json_t *repository, json_t *result);
/* PATH/ID[suffix], after checking that id is an id. */
int arc_place(const json_t *repository, const char *backup_id, const char *suffix, char ret[PATH_MAX], struct err *err);
int arc_write_json(const char *dir, const char *name, const json_t *doc, struct err *err);
/* The same, not durable yet. */
int arc_put_json(const char *dir, const char *name, const json_t *doc, struct err *err);
/* NULL when absent or damaged. */
json_t *arc_read_json(const char *dir, const char *name);
/* Removes a backup's directory: only files that we write lie there. */
void arc_remove_dir(const char *dir);
/* Removes what killed processes left: partial and half-removed backups that nobody holds. */
void arc_sweep(const json_t *repository);
/* Creates and locks PATH/ID.partial. Returns its fd or -1. */
int arc_claim(const char *partial, struct err *err);
int arc_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err);
int arc_seal(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host,
             struct err *err);
int arc_remove(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
               struct err *err);

/* --- output.c: data.tar.zst being written --- */
struct arc_output;
struct manifest_entry;
struct stat;
/* No faster into the repository than request->bandwidth; a cancel ends its waits. */
int arc_output_open(struct arc_output **ret, const char *dir, const struct mover_request *request, const struct mover_host *host, struct err *err);
int arc_output_entry(struct arc_output *output, const struct manifest_entry *entry, int fd, const char *source,
                     struct err *err);
int arc_output_data(struct arc_output *output, const void *bytes, size_t size, struct err *err);
/* Finishes the file, which is not durable yet; its size and SHA-256. */
int arc_output_close(struct arc_output *output, int64_t *ret_size, char ret_sha256[HASH_HEX_SIZE], struct err *err);
void arc_output_free(struct arc_output *output); /* NULL is fine */
/* sync_file_range (0 for size: to the end), or nothing where that is not to be had: only fsync makes a file durable. false with errno: the
 * data did not reach the disk. What each call says counts, since the kernel tells a descriptor of a failed write-back once, and the fsync
 * after that succeeds (errseq_t; fsync(2) has it under EIO). */
bool arc_push(int fd, int64_t from, int64_t size, unsigned flags);

/* --- write.c, read.c --- */
int arc_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err);
int arc_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result,
                struct err *err);
int arc_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
               json_t **ret_result, struct err *err);
int arc_manifest(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err);
