#include "writers/mariadb/server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/inplace/service.h"
#include "writers/volumes.h"

static const char variables_sql[] =
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'datadir', 'innodb_data_home_dir', "
    "'innodb_log_group_home_dir', 'innodb_undo_directory', 'innodb_data_file_path', 'log_bin_basename')";

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

void maria_server_clear(struct maria_server *server)
{
    json_decref(server->innodb);
    *server = (struct maria_server){0};
}

static int canonical(const char *path, char ret[PATH_MAX], struct err *err)
{
    if (realpath(path, ret))
        return 0;
    return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "Set the writer's user to the server's (mysql).", "%s",
                     path);
}

static const char *variable(const json_t *rows, const char *name)
{
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (str_eq(maria_cell(rows, i, 0), name)) {
            const char *value = maria_cell(rows, i, 1);
            return value ? value : "";
        }
    return "";
}

/* A directory of InnoDB: empty and relative ones mean the data directory and beneath (MariaDB manual). */
static int add_innodb(struct maria_server *server, const char *configured, struct err *err)
{
    char path[PATH_MAX];
    AUTO_FREE char *whole =
        configured[0] == '/' ? str_dup(configured) : str_new("%s/%s", server->data_directory, configured);
    if (canonical(whole, path, err) != 0)
        return -1;
    if (!path_beneath(path, server->data_directory) && !json_has_string(server->innodb, path))
        json_add(server->innodb, json_text(path));
    return 0;
}

static int read_binlog(struct maria_server *server, const char *basename, struct err *err)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(basename, '/');
    server->log_bin = basename[0] != '\0';
    if (!slash)
        return 0; /* off, or in the data directory */
    AUTO_FREE char *parent = slash == basename ? str_dup("/") : strndup(basename, (size_t)(slash - basename));
    if (canonical(parent, directory, err) != 0)
        return -1;
    if (path_beneath(directory, server->data_directory))
        return 0;
    str_copy(server->binlog_directory, sizeof(server->binlog_directory), directory);
    str_format(server->binlog_spec, sizeof(server->binlog_spec), "%s.*", slash + 1);
    return 0;
}

static int read_variables(struct maria_server *server, const json_t *rows, struct err *err)
{
    static const char *const homes[] = {"innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory"};
    str_copy(server->version, sizeof(server->version), variable(rows, "version"));
    if (variable(rows, "datadir")[0] != '/')
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "the server does not tell its data directory");
    if (canonical(variable(rows, "datadir"), server->data_directory, err) != 0)
        return -1;
    if (strchr(variable(rows, "innodb_data_file_path"), '/'))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Use innodb_data_home_dir instead.",
                       "innodb_data_file_path names directories: this layout is not supported");
    for (size_t i = 0; i < ELEMENTS(homes); i++)
        if (add_innodb(server, variable(rows, homes[i]), err) != 0)
            return -1;
    return read_binlog(server, variable(rows, "log_bin_basename"), err);
}

int maria_server_read(struct maria_session *session, struct maria_server *ret, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    *ret = (struct maria_server){.innodb = json_array()};
    if (maria_session_query(session, variables_sql, &rows, err) == 0 && read_variables(ret, rows, err) == 0)
        return 0;
    maria_server_clear(ret);
    return -1;
}

int maria_server_read_offline(const char *data_directory, struct maria_server *ret, struct err *err)
{
    *ret = (struct maria_server){.offline = true, .innodb = json_array()};
    if (!realpath(data_directory, ret->data_directory))
        str_copy(ret->data_directory, sizeof(ret->data_directory), data_directory);
    pid_t process = service_process_in(ret->data_directory);
    if (!process)
        return 0;
    err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "process %d works in %s", (int)process, ret->data_directory);
    maria_server_clear(ret);
    return -1;
}

bool maria_server_same_place(const struct maria_server *a, const struct maria_server *b)
{
    return str_eq(a->data_directory, b->data_directory) && json_equal(a->innodb, b->innodb) &&
           str_eq(a->binlog_directory, b->binlog_directory) && str_eq(a->binlog_spec, b->binlog_spec);
}

/* InnoDB keeps the way to a table elsewhere in TABLE.isl; MyISAM and Aria use symbolic links; so does a database. */
static bool leads_outside(int directory, const struct dirent *entry, bool top)
{
    struct stat target;
    size_t length = strlen(entry->d_name);
    if (entry->d_type == DT_LNK)
        return !top || (fstatat(directory, entry->d_name, &target, 0) == 0 && S_ISDIR(target.st_mode));
    return !top && length > 4 && str_eq(entry->d_name + length - 4, ".isl");
}

static int check_directory(const char *path, bool top, struct err *err)
{
    CLEANUP(closedir_cleanup) DIR *dir = opendir(path);
    if (!dir && errno == ENOENT && !top)
        return 0; /* dropped meanwhile */
    if (!dir)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "Set the writer's user to the server's (mysql).",
                         "%s", path);
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        /* lost+found: the file system's own, root's alone, where the data directory is a mount point */
        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..") || (top && str_eq(entry->d_name, "lost+found")))
            continue;
        AUTO_FREE char *child = str_new("%s/%s", path, entry->d_name);
        if (leads_outside(dirfd(dir), entry, top))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Move it into the data directory.",
                           "%s leads out of the data directory: the backup would lack what it names", child);
        if (top && entry->d_type == DT_DIR && check_directory(child, false, err) != 0)
            return -1;
    }
    return 0;
}

int maria_server_check_inside(const struct maria_server *server, struct err *err)
{
    return check_directory(server->data_directory, true, err);
}

static void add_set(json_t *sets, const char *path, const char *spec, bool recursive)
{
    json_t *set = json_object();
    json_put(set, "path", json_text(path));
    json_put(set, "spec", json_text(spec));
    json_put(set, "recursive", json_boolean(recursive));
    json_add(sets, set);
}

json_t *maria_server_file_sets(const struct maria_server *server)
{
    json_t *sets = json_array();
    size_t i;
    json_t *path;
    add_set(sets, server->data_directory, "*", true);
    json_array_foreach(server->innodb, i, path) add_set(sets, json_string_value(path), "*", true);
    if (server->binlog_directory[0])
        add_set(sets, server->binlog_directory, server->binlog_spec, false);
    return sets;
}

/* Process number, socket, and InnoDB's temporary tablespace, which the server makes anew when it starts. */
json_t *maria_server_excludes(const struct maria_server *server)
{
    static const char *const specs[] = {"*.pid", "*.sock", "*.sock.lock", "ibtmp*", ".quiesced-*" /* a restore's old data */};
    json_t *sets = json_array();
    for (size_t i = 0; i < ELEMENTS(specs); i++)
        add_set(sets, server->data_directory, specs[i], false);
    size_t i;
    json_t *path;
    json_array_foreach(server->innodb, i, path) add_set(sets, json_string_value(path), "ibtmp*", false);
    return sets;
}

bool maria_server_in_one_atomic_volume(const struct maria_server *server, const json_t *volumes)
{
    AUTO_JSON json_t *directories = json_array();
    json_add(directories, json_text(server->data_directory));
    json_array_extend(directories, server->innodb);
    return volumes_one_atomic(volumes, directories, 1); /* databases are the deepest directories */
}

/* --- InnoDB's log --- */

static const char lazy_sql[] =
    "SHOW GLOBAL VARIABLES WHERE Variable_name = 'innodb_flush_log_at_trx_commit' AND Value = '0'";
static const char log_sql[] = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_lsn_current', 'Innodb_lsn_flushed')";
static const char lazy_hint[] = "Set innodb_flush_log_at_trx_commit to 1 or 2, or innodb_flush_log_at_timeout to 1.";

static int log_positions(struct maria_session *session, uint64_t *ret_current, uint64_t *ret_flushed, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    if (maria_session_query(session, log_sql, &rows, err) != 0)
        return -1;
    *ret_current = strtoull(variable(rows, "Innodb_lsn_current"), NULL, 10);
    *ret_flushed = strtoull(variable(rows, "Innodb_lsn_flushed"), NULL, 10);
    return *ret_current && *ret_flushed
               ? 0
               : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, lazy_hint, "the server does not tell how far its log is");
}

int maria_server_wait_written(struct maria_session *session, struct err *err)
{
    uint64_t wanted = 0, current = 0, flushed = 0;
    AUTO_JSON json_t *lazy = NULL;
    if (maria_session_query(session, lazy_sql, &lazy, err) != 0)
        return -1;
    if (json_array_size(lazy) == 0)
        return 0;
    for (;;) {
        if (log_positions(session, &current, &flushed, err) != 0)
            return -1;
        wanted = wanted ? wanted : current; /* what InnoDB adds by itself is no commit */
        if (flushed >= wanted)
            return 0;
        if (maria_session_query(session, "DO SLEEP(0.01)", NULL, err) == 0)
            continue;
        if (err->hr == (uint32_t)VSS_E_WRITERERROR_TIMEOUT)
            str_copy(err->hint, sizeof(err->hint), lazy_hint);
        return err_prefix(err, "InnoDB has not written its log yet");
    }
}
