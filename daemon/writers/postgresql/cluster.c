#include "writers/postgresql/cluster.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { OLDEST_VERSION = 150000 }; /* pg_backup_start and pg_backup_stop have these names since 15 */

static const char cluster_sql[] =
    "SELECT current_setting('server_version_num'), current_setting('server_version'), pg_is_in_recovery()::text, "
    "current_setting('cluster_name'), CASE WHEN $1::text = '' THEN current_setting('data_directory') ELSE $1::text "
    "END, "
    "(SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'), (SELECT system_identifier::text FROM "
    "pg_control_system())";
/* A relative location is an in-place tablespace: it lies inside the data directory. */
static const char tablespaces_sql[] =
    "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY oid";

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

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
    int64_t version = 0, segment_size = 0;
    if (!str_to_int(number, 0, INT64_MAX, &version) || !directory ||
        !str_to_int(pg_cell(rows, 0, 5), 1, INT64_MAX, &segment_size) || !pg_cell(rows, 0, 6))
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
        json_add(ret->tablespaces, json_text(path));
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

json_t *pg_cluster_file_sets(const struct pg_cluster *cluster)
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
        {"/pg_subtrans", "*", true},
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

/* The innermost volume decides: a volume nested in another one is not in the outer one's snapshot. */
static const json_t *volume_of(const json_t *volumes, const char *path)
{
    const json_t *best = NULL;
    size_t i;
    json_t *volume;
    json_array_foreach(volumes, i, volume)
    {
        const char *root = json_str(volume, "volume", NULL);
        if (root && path_beneath(path, root) && (!best || strlen(root) > strlen(json_str(best, "volume", ""))))
            best = volume;
    }
    return best;
}

/* Every directory down to `depth` levels on this device? A btrfs subvolume has a device number of its own. */
static bool all_on_device(const char *path, dev_t device, int depth)
{
    struct stat stat_of;
    if (lstat(path, &stat_of) != 0 || stat_of.st_dev != device)
        return false;
    if (depth == 0)
        return true;
    CLEANUP(closedir_cleanup) DIR *dir = opendir(path);
    if (!dir)
        return false;
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
            continue;
        AUTO_FREE char *child = str_new("%s/%s", path, entry->d_name);
        if (!all_on_device(child, device, depth - 1) && access(child, F_OK) == 0)
            return false;
    }
    return true;
}

bool pg_cluster_in_one_atomic_volume(const struct pg_cluster *cluster, const json_t *volumes)
{
    const json_t *volume = volume_of(volumes, cluster->data_directory);
    struct stat root;
    if (!volume || !json_bool(volume, "atomic", false) || stat(json_str(volume, "volume", ""), &root) != 0)
        return false;
    /* base/DATABASE and TABLESPACE/PG_15_x/DATABASE are the deepest directories that a cluster has. */
    if (!all_on_device(cluster->data_directory, root.st_dev, 2) ||
        volume_of(volumes, cluster->wal_directory) != volume || !all_on_device(cluster->wal_directory, root.st_dev, 1))
        return false;
    size_t i;
    json_t *path;
    json_array_foreach(cluster->tablespaces, i,
                       path) if (volume_of(volumes, json_string_value(path)) != volume ||
                                 !all_on_device(json_string_value(path), root.st_dev, 2)) return false;
    return true;
}
