#pragma once
/* Log backups: the WAL since the last backup's stamp, kept by the server for us behind a physical replication slot
 * (docs/writers/postgresql.md). */
#include <stdbool.h>

#include "base/err.h"
#include "writers/postgresql/backup.h"
#include "writers/postgresql/session.h"

enum { PG_SLOT_SIZE = 64 };

/* "quiesced_log_" and the writer's name, as the server takes it: long names and others than [a-z0-9_]+ get a hash. Returns ret. The slot's
 * own name is this, and "_" and the number of its chain. */
char *pg_log_slot_name(const char *writer, char ret[PG_SLOT_SIZE]);

/* A full backup begins: from now on the slot keeps the WAL. One that has lost some is made anew. *ret_made: the slot was not
 * there before, or kept nothing. ret_chain: the number that it was made with. Refuses while the server sets no bound to what a slot may keep. */
int pg_log_hold(struct pg_session *session, const char *slot, char ret_chain[PG_CHAIN_SIZE], bool *ret_made, struct err *err);
/* The slot goes, unless somebody streams from it. None is fine. */
int pg_log_drop(struct pg_session *session, const char *slot, struct err *err);
/* The backup up to lsn is complete: what lies before need not be kept. A slot that is further on stays there. */
int pg_log_advance(struct pg_session *session, const char *slot, const char *lsn, struct err *err);

/* "SYSTEM:TIMELINE:CHAIN:LSN": where the next log backup goes on; without CHAIN none can. Caller frees. */
char *pg_log_stamp(const struct pg_backup *backup);
/* prepare_backup of a log backup: checks that the WAL since previous_stamp (NULL: refused) is whole, of this cluster and of
 * the chain that the slot was made for.
 * VSS_E_WRITERERROR_NONRETRYABLE where only a full backup helps. session and cluster are borrowed until pg_backup_clear. */
int pg_log_start(struct pg_backup *backup, const char *slot, const char *previous_stamp, struct err *err);
/* thaw, or post_snapshot: writes the restore point that the backup ends with, and closes its segment. Once. */
int pg_log_end(struct pg_backup *backup, struct err *err);
