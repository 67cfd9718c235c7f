#pragma once
/* The restore of a full backup and the log backups that go on from it, in one: the logs lie in a directory of their own within the data
 * directory, and the server recovers from there to the last one's end (docs/writers/postgresql.md). */
#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

/* The request's component as a restore of the full backup: its file sets and facts. A new reference; NULL with err when the chain has a gap,
 * or is none of this writer's, or the requester wants to roll forward to what cannot be. One without a chain comes back as it is. */
json_t *pg_chain_component(const json_t *component, struct err *err);
/* Is it the restore of a chain? */
bool pg_chain_is(const json_t *component);
/* Makes the directory of the logs within `directory`, which is made when it is missing. *ret: its path, caller frees. */
int pg_chain_room(const char *directory, char **ret, struct err *err);
/* Removes it where nothing lies in it. */
void pg_chain_leave(const char *directory);
/* The files are there: tells the server, by postgresql.auto.conf and recovery.signal, to recover to the end of the last log, or to the
 * time that the requester named. Nothing without a chain. */
int pg_chain_configure(const json_t *component, const char *directory, struct err *err);
/* The server has recovered: what was made for it goes. */
void pg_chain_clean(const char *directory);
/* What a chain needs of the recovered server: the timeline that its backups belong to was left. */
uint32_t pg_chain_timeline(const json_t *component);
