#include "writers/postgresql/cluster.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/volumes.h"

enum { OLDEST_VERSION = 150000 }; /* pg_backup_start and pg_backup_stop have these names since 15 */

static const char cluster_sql[] =
    "SELECT current_setting('server_version_num'), current_setting('server_version'), pg_is_in_recovery()::text, "
    "current_setting('cluster_name'), CASE WHEN $1::text = '' THEN current_setting('data_directory') ELSE $1::text "
    "END, "
    "(SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'), control.system_identifier::text, "
    "control.catalog_version_no::text FROM pg_control_system() AS control";
/* A relative location is an in-place tablespace: it lies inside the data directory. */
static const char tablespaces_sql[] =
    "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY oid";

void pg_cluster_clear(struct pg_cluster *cluster)
{
    json_decref(cluster->tablespaces);
    *cluster = (struct pg_cluster){0};
}

static int canonical(const char *path, char ret[PATH_MAX], struct err *err)
{
    if (realpath(path, ret))
        return 0;
    return err_errno(
        err, VSS_E_WRITERERROR_NONRETRYABLE, errno,
        "Set the writer's user to the server's (postgres); name data_directory if the server sees another path.", "%s",
        path);
}

/* global/pg_control begins with the system identifier (PostgreSQL source, catalog/pg_control.h). */
static int check_is_ours(const struct pg_cluster *cluster, struct err *err)
{
    AUTO_FREE char *path = str_new("%s/global/pg_control", cluster->data_directory);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t identifier = 0;
    if (fd < 0 || read(fd, &identifier, sizeof(identifier)) != sizeof(identifier))
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno,
                         "Set the writer's user to the server's (postgres).", "%s", path);
    if (identifier != cluster->system_identifier)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Correct data_directory or connection.",
                       "data directory %s: belongs to another cluster than the one connected to",
                       cluster->data_directory);
    return 0;
}

void pg_cluster_add_tablespace(struct pg_cluster *cluster, const char *location)
{
    int major = (int)strspn(cluster->version, "0123456789"); /* of "15.10", "17beta1" */
    AUTO_FREE char *path = str_new("%s/PG_%.*s_%u", location, major, cluster->version, cluster->catalog_version);
    json_add(cluster->tablespaces, json_text(path));
}

static void component_name(const char *cluster_name, char ret[64])
{
    str_copy(ret, 64, cluster_name && cluster_name[0] ? cluster_name : "main");
    for (char *c = ret; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            *c = '-';
}

static int read_settings(const json_t *rows, struct pg_cluster *ret, struct err *err)
{
    const char *number = pg_cell(rows, 0, 0), *in_recovery = pg_cell(rows, 0, 2), *directory = pg_cell(rows, 0, 4);
    int64_t version = 0, segment_size = 0, catalog = 0;
    if (!str_to_int(number, 0, INT64_MAX, &version) || !directory ||
        !str_to_int(pg_cell(rows, 0, 5), 1, INT64_MAX, &segment_size) || !pg_cell(rows, 0, 6) ||
        !str_to_int(pg_cell(rows, 0, 7), 1, UINT32_MAX, &catalog))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "PostgreSQL gave an answer that cannot be read");
    str_copy(ret->version, sizeof(ret->version), pg_cell(rows, 0, 1));
    ret->version[strcspn(ret->version, " ")] = '\0';
    if (version < OLDEST_VERSION)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "PostgreSQL 15 and later are supported.",
                       "PostgreSQL %s is too old", ret->version);
    if (!str_eq(in_recovery, "false"))
        return err_set(
            err, VSS_E_WRITERERROR_NONRETRYABLE, "Back up the primary server.",
            "this PostgreSQL server is a standby (or still recovers): backups of a standby are not supported");
    component_name(pg_cell(rows, 0, 3), ret->name);
    ret->segment_size = (uint64_t)segment_size;
    ret->catalog_version = (uint32_t)catalog;
    ret->system_identifier = strtoull(pg_cell(rows, 0, 6), NULL, 10);
    return canonical(directory, ret->data_directory, err);
}

int pg_cluster_read(struct pg_session *session, const char *data_directory, struct pg_cluster *ret, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    AUTO_JSON json_t *tablespaces = NULL;
    const char *params[] = {data_directory ? data_directory : "", NULL};
    *ret = (struct pg_cluster){.tablespaces = json_array()};
    AUTO_FREE char *wal = NULL;
    if (pg_session_query(session, cluster_sql, params, &rows, err) != 0 || read_settings(rows, ret, err) != 0 ||
        check_is_ours(ret, err) != 0 || pg_session_query(session, tablespaces_sql, NULL, &tablespaces, err) != 0)
        goto fail;
    wal = str_new("%s/pg_wal", ret->data_directory);
    if (canonical(wal, ret->wal_directory, err) != 0)
        goto fail;
    for (size_t i = 0; i < json_array_size(tablespaces); i++) {
        char path[PATH_MAX];
        if (canonical(pg_cell(tablespaces, i, 0), path, err) != 0)
            goto fail;
        pg_cluster_add_tablespace(ret, path);
    }
    return 0;
fail:
    pg_cluster_clear(ret);
    return -1;
}

bool pg_cluster_same_place(const struct pg_cluster *a, const struct pg_cluster *b)
{
    return str_eq(a->data_directory, b->data_directory) && str_eq(a->wal_directory, b->wal_directory) &&
           a->system_identifier == b->system_identifier && json_equal(a->tablespaces, b->tablespaces);
}

static void add_set(json_t *sets, const char *path, const char *spec, bool recursive)
{
    json_t *set = json_object();
    json_put(set, "path", json_text(path));
    json_put(set, "spec", json_string(spec));
    json_put(set, "recursive", json_boolean(recursive));
    json_add(sets, set);
}

json_t *pg_cluster_file_sets(const struct pg_cluster *cluster, bool full_only)
{
    json_t *sets = json_array();
    add_set(sets, cluster->data_directory, "*", true);
    if (!path_beneath(cluster->wal_directory, cluster->data_directory))
        add_set(sets, cluster->wal_directory, "*", true);
    size_t i;
    json_t *path;
    json_array_foreach(cluster->tablespaces, i,
                       path) if (!path_beneath(json_string_value(path), cluster->data_directory))
        add_set(sets, json_string_value(path), "*", true);
    json_array_foreach(sets, i, path) if (full_only) json_put(path, "backup_types", json_pack("[s]", "full"));
    return sets;
}

/* What a base backup leaves out as well (PostgreSQL manual, 26.3.4 and "pg_basebackup"): the server rebuilds it. */
json_t *pg_cluster_excludes(const struct pg_cluster *cluster)
{
    static const struct {
        const char *beneath; /* of the data directory */
        const char *spec;
        bool recursive;
    } rows[] = {
        {"", "*.pid", false},        {"", "pgsql_tmp*", true},    {"", "pg_internal.init*", true},
        {"/pg_stat_tmp", "*", true}, {"/pg_replslot", "*", true}, {"/pg_dynshmem", "*", true},
        {"/pg_notify", "*", true},   {"/pg_serial", "*", true},   {"/pg_snapshots", "*", true},
        {"/pg_subtrans", "*", true}, {"/quiesced_wal", "*", true}, /* of a restore (chain.h) */
        {"", ".quiesced-*", false}, /* old data of a restore (writers/inplace/aside.h) */
    };
    json_t *sets = json_array();
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_FREE char *path = str_new("%s%s", cluster->data_directory, rows[i].beneath);
        add_set(sets, path, rows[i].spec, rows[i].recursive);
    }
    size_t i;
    json_t *path;
    json_array_foreach(cluster->tablespaces, i, path) add_set(sets, json_string_value(path), "pgsql_tmp*", true);
    return sets;
}

bool pg_cluster_in_one_atomic_volume(const struct pg_cluster *cluster, const json_t *volumes)
{
    /* base/DATABASE is the deepest directory that a cluster has. */
    AUTO_JSON json_t *directories = json_array();
    json_add(directories, json_text(cluster->data_directory));
    json_add(directories, json_text(cluster->wal_directory));
    json_array_extend(directories, cluster->tablespaces);
    return volumes_one_atomic(volumes, directories, 2);
}
