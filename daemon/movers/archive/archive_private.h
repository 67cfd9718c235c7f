#pragma once
/* What the archive mover's files share. Repository layout: PATH/quiesced-repository.json and, per backup,
 * PATH/ID/{data.tar.zst,manifest.jsonl,document.json,complete.json}; written as ID.partial, renamed last. */
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "crypto/hash.h"
#include "movers/mover.h"

/* --- repository.c --- */
const char *arc_path(const json_t *repository);
int arc_open(const json_t *repository, bool create, struct err *err);
/* PATH/ID[suffix], after checking that id is an id. */
int arc_place(const json_t *repository, const char *backup_id, const char *suffix, char *ret, size_t size, struct err *err);
int arc_write_json(const char *dir, const char *name, const json_t *doc, struct err *err);
json_t *arc_read_json(const char *dir, const char *name);
/* Removes a directory of flat files of ours. */
void arc_remove_dir(const char *dir);
int arc_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err);
int arc_remove(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, struct err *err);
/* VSS_E_INSUFFICIENT_STORAGE for a full disk, else VSS_E_UNEXPECTED; names what was written. */
int arc_failed(int errnum, const char *what, const char *detail, struct err *err);

/* --- manifest.c --- */
/* One line per entry; path and link as text when UTF-8, else as "path64" (base64). */
int manifest_add(FILE *file, const char *path, const struct stat *st, const char *sha256, const char *link, const char *hard_link, struct err *err);
/* Loads it as an object: path bytes (base64 of it when it is not UTF-8) -> entry. */
json_t *manifest_load(const char *dir, struct err *err);
/* The key of a path in that object. Caller frees. */
char *manifest_key(const char *path);

/* --- write.c, read.c --- */
int arc_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err);
int arc_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result, struct err *err);
int arc_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, json_t **ret_result, struct err *err);
