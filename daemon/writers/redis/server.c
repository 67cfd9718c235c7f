#include "writers/redis/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { OLDEST_MAJOR = 7 }; /* the AOF is a directory with a manifest since 7.0, CLIENT UNPAUSE is there since 6.2 */

/* INFO: lines "name:value\r\n". False when the field is not there. */
static bool field(const char *info, const char *name, char *ret, size_t size)
{
    size_t length = strlen(name);
    for (const char *line = info; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            const char *value = line + length + 1;
            size_t n = strcspn(value, "\r\n");
            if (n >= size)
                n = size - 1;
            memcpy(ret, value, n);
            ret[n] = '\0';
            return true;
        }
    ret[0] = '\0';
    return false;
}

static int64_t number(const char *info, const char *name)
{
    char text[32];
    int64_t value = 0;
    return field(info, name, text, sizeof(text)) && str_to_int(text, INT64_MIN, INT64_MAX, &value) ? value : 0;
}

static bool is_ok(const char *info, const char *name)
{
    char text[32];
    return field(info, name, text, sizeof(text)) && str_eq(text, "ok");
}

/* CONFIG GET answers name and value, a line each. */
static int setting(struct redis_session *session, const char *name, char *ret, size_t size, struct err *err)
{
    AUTO_FREE char *text = NULL;
    if (redis_session_command(session, (const char *[]){"CONFIG", "GET", name, NULL}, &text, err) != 0)
        return -1;
    const char *value = strchr(text, '\n');
    size_t n = value ? strcspn(value + 1, "\n") : 0;
    if (!value || n >= size)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "Redis does not tell its setting %s", name);
    memcpy(ret, value + 1, n);
    ret[n] = '\0';
    return 0;
}

static int read_identity(struct redis_session *session, struct redis_server *server, struct err *err)
{
    char role[16] = "";
    AUTO_FREE char *about = NULL;
    AUTO_FREE char *replication = NULL;
    AUTO_FREE char *persistence = NULL;
    if (redis_session_command(session, (const char *[]){"INFO", "server", NULL}, &about, err) != 0 ||
        redis_session_command(session, (const char *[]){"INFO", "replication", NULL}, &replication, err) != 0 ||
        redis_session_command(session, (const char *[]){"INFO", "persistence", NULL}, &persistence, err) != 0)
        return -1;
    field(about, "redis_version", server->version, sizeof(server->version));
    field(replication, "role", role, sizeof(role));
    if (strtol(server->version, NULL, 10) < OLDEST_MAJOR)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Redis 7.0 and later are supported.", "Redis %s is too old",
                       server->version);
    if (!str_eq(role, "master"))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Back up its master.",
                       "this Redis server is a replica: its writes cannot be paused");
    if (number(persistence, "loading"))
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Wait until it is done.", "the server still loads its data");
    return 0;
}

int redis_server_read(struct redis_session *session, struct redis_server *ret, struct err *err)
{
    char directory[PATH_MAX], aof[8];
    *ret = (struct redis_server){0};
    if (read_identity(session, ret, err) != 0 || setting(session, "dir", directory, sizeof(directory), err) != 0 ||
        setting(session, "appendonly", aof, sizeof(aof), err) != 0 ||
        setting(session, "appenddirname", ret->append_directory, sizeof(ret->append_directory), err) != 0 ||
        setting(session, "dbfilename", ret->rdb_file, sizeof(ret->rdb_file), err) != 0)
        return -1;
    ret->aof = str_eq(aof, "yes");
    if (!realpath(directory, ret->directory))
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "Set the writer's user to the server's (redis).",
                         "%s", directory);
    return 0;
}

bool redis_server_same_place(const struct redis_server *a, const struct redis_server *b)
{
    return a->aof == b->aof && str_eq(a->directory, b->directory) && str_eq(a->append_directory, b->append_directory) &&
           str_eq(a->rdb_file, b->rdb_file);
}

static void add_set(json_t *sets, const char *path, const char *spec, bool recursive)
{
    json_t *set = json_object();
    json_put(set, "path", json_text(path));
    json_put(set, "spec", json_text(spec));
    json_put(set, "recursive", json_boolean(recursive));
    json_add(sets, set);
}

json_t *redis_server_append_path(const struct redis_server *server)
{
    AUTO_FREE char *path = str_new("%s/%s", server->directory, server->append_directory);
    return json_text(path);
}

/* What the server loads when it starts, and nothing else: an RDB file beside an AOF is older than it. */
json_t *redis_server_file_sets(const struct redis_server *server)
{
    json_t *sets = json_array();
    AUTO_FREE char *append = str_new("%s/%s", server->directory, server->append_directory);
    if (server->aof)
        add_set(sets, append, "*", true);
    else
        add_set(sets, server->directory, server->rdb_file, false);
    return sets;
}

json_t *redis_server_excludes(const struct redis_server *server)
{
    json_t *sets = json_array();
    AUTO_FREE char *append = str_new("%s/%s", server->directory, server->append_directory);
    add_set(sets, append, "temp*", true);          /* an unfinished manifest */
    add_set(sets, append, ".quiesced-*", false); /* a restore's old data */
    return sets;
}

int redis_server_persistence(struct redis_session *session, struct redis_persistence *ret, struct err *err)
{
    AUTO_FREE char *info = NULL;
    if (redis_session_command(session, (const char *[]){"INFO", "persistence", NULL}, &info, err) != 0)
        return -1;
    *ret = (struct redis_persistence){
        .rewriting = number(info, "aof_rewrite_in_progress") || number(info, "aof_rewrite_scheduled"),
        .saving = number(info, "rdb_bgsave_in_progress"),
        .save_ok = is_ok(info, "rdb_last_bgsave_status"),
        .write_ok = is_ok(info, "aof_last_write_status"),
        .changes = number(info, "rdb_changes_since_last_save"),
        .aof_bytes = number(info, "aof_current_size"),
        .aof_unwritten = number(info, "aof_buffer_length"),
    };
    field(info, "rdb_last_save_time", ret->last_save, sizeof(ret->last_save));
    return 0;
}
