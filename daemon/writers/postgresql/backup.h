#pragma once
/* One backup of a cluster, in one of two ways, or of its log alone (docs/writers/postgresql.md). */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "writers/postgresql/cluster.h"
#include "writers/postgresql/session.h"

enum pg_way { PG_WAY_NONE, PG_WAY_ATOMIC, PG_WAY_LABEL, PG_WAY_LOG };

enum { PG_CHAIN_SIZE = 9 };

struct pg_backup {
    enum pg_way way;
    struct pg_session *session;       /* borrowed, from pg_backup_start on */
    const struct pg_cluster *cluster; /* borrowed */
    bool frozen;                      /* the snapshot falls after this moment */
    json_t *stopped;                  /* way LABEL: what pg_backup_stop gave; NULL = not called yet. Owned */
    bool stopped_at_thaw;
    uint32_t timeline;
    char start_lsn[24], stop_lsn[24]; /* recovery begins at the first and reaches at least the second */
    char restore_point[64], switched_lsn[24]; /* way LOG: where it ends; "" until then */
    char chain[PG_CHAIN_SIZE]; /* eight hexadecimal digits: which slot of log backups keeps the log from here on; "" for none */
    char slot[64];
    char staging[PATH_MAX]; /* a directory of our own beneath the request's staging, or "" */
};

/* prepare_snapshot (way LOG: pg_log_start). way LABEL puts the server into backup mode: it lasts as long as the session. Both are borrowed
 * until pg_backup_clear. */
int pg_backup_start(struct pg_backup *backup, enum pg_way way, struct pg_session *session,
                    const struct pg_cluster *cluster, struct err *err);
/* freeze: nothing is held; notes how far the log is flushed. */
int pg_backup_mark(struct pg_backup *backup, struct err *err);
/* thaw, when the snapshot was taken. Way LABEL: the cluster's moment is now, while the writers that hold still hold. */
int pg_backup_end(struct pg_backup *backup, struct err *err);
/* post_snapshot, until give_up_ms (CLOCK_MONOTONIC). staging: a directory that we own (way LABEL). ret_extra_files:
 * [{"path","source"}]. */
int pg_backup_finish(struct pg_backup *backup, const char *staging, int64_t give_up_ms, json_t **ret_extra_files,
                     struct err *err);
/* Protocol 1's "consistent_at" of the component. Static. */
const char *pg_backup_point(const struct pg_backup *backup);
/* {"way","start_lsn","stop_lsn","timeline","system_identifier","version"}, with way LOG also "restore_point", as text. Caller
 * frees. */
char *pg_backup_metadata(const struct pg_backup *backup);
/* Removes what lies in staging and forgets the backup. Backup mode ends with the session: disconnect it first. */
void pg_backup_clear(struct pg_backup *backup);
