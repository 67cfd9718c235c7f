#pragma once
/* What a cluster is and where its files lie. */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "writers/postgresql/session.h"

struct pg_cluster {
    char name[64];                 /* the component: cluster_name with anything but [A-Za-z0-9._-] as "-", or "main" */
    char version[32];              /* "15.10" */
    char data_directory[PATH_MAX]; /* canonical, no symbolic links; so are the others */
    char wal_directory[PATH_MAX];
    uint64_t system_identifier;
    uint64_t segment_size; /* bytes */
    uint32_t catalog_version; /* 0: not known */
    bool offline;          /* read from the disk alone: name, segment_size are not known */
    json_t *tablespaces;   /* array of LOCATION/PG_MAJOR_CATALOG, LOCATION canonical, sorted by OID; owned */
};

/* Asks the server, and looks at the disk whether data_directory (configured; NULL = what the server says) is this
 * server's. Refuses a standby, and servers before 15. */
int pg_cluster_read(struct pg_session *session, const char *data_directory, struct pg_cluster *ret, struct err *err);
/* Looks at the disk alone, for a restore while the server is down: the directory may even be empty or gone. Refuses one in
 * which a server works. */
int pg_cluster_read_offline(const char *data_directory, struct pg_cluster *ret, struct err *err);
/* location: canonical. Of what lies there, PG_MAJOR_CATALOG alone is this cluster's: servers of other versions may share the location (as
 * after pg_upgrade). */
void pg_cluster_add_tablespace(struct pg_cluster *cluster, const char *location);
void pg_cluster_clear(struct pg_cluster *cluster);
/* Same files? A tablespace made meanwhile would be missing from the snapshot. */
bool pg_cluster_same_place(const struct pg_cluster *a, const struct pg_cluster *b);
/* Protocol 1's "file_sets" of the component, and the writer's "exclude". full_only: no other type of backup takes them. New
 * references. */
json_t *pg_cluster_file_sets(const struct pg_cluster *cluster, bool full_only);
json_t *pg_cluster_excludes(const struct pg_cluster *cluster);
/* Do data, WAL and every tablespace lie in one volume of `volumes` ([{"volume","atomic"}]) that is snapshotted
 * atomically, with no other file system or subvolume nested between? When in doubt: false. */
bool pg_cluster_in_one_atomic_volume(const struct pg_cluster *cluster, const json_t *volumes);
