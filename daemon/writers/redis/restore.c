#include "writers/redis/restore.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/inplace/service.h"

static int fits(void *arg, const struct inplace_job *job, struct err *err)
{
    const struct redis_restore *restore = arg;
    const char *way = json_str(job->facts, "way", NULL), *version = json_str(job->facts, "version", NULL);
    if (json_bool(job->component, "additional_restores", false))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Restore full backups, without additional restores.",
                       "this writer starts the server after each restore: none can follow");
    if (job->elsewhere)
        return 0;
    if (version && strtol(version, NULL, 10) > strtol(restore->server->version, NULL, 10))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Update the server.",
                       "the backup is of Redis %s, and the server is %s", version, restore->server->version);
    if (way && str_eq(way, "aof") != restore->server->aof)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Set appendonly as it was when the backup was made.",
                       "the backup is of %s, and the server would load %s", restore->server->aof ? "an RDB file" : "an AOF",
                       restore->server->aof ? "an AOF" : "an RDB file");
    return 0;
}

static pid_t running(void *arg)
{
    const struct redis_restore *restore = arg;
    return service_process_in(restore->server->directory);
}

/* A server works in its dir; the AOF's directory lies in that. */
static pid_t works_in(void *arg, const char *directory)
{
    (void)arg;
    static const char within[] = "/appendonlydir";
    size_t length = strlen(directory), more = strlen(within);
    pid_t process = service_process_in(directory);
    if (process || length <= more || !str_eq(directory + length - more, within))
        return process;
    AUTO_FREE char *parent = str_new("%.*s", (int)(length - more), directory);
    return service_process_in(parent);
}

static bool answers(void *arg)
{
    const struct redis_restore *restore = arg;
    return redis_session_fd(restore->session) >= 0;
}

static void let_go(void *arg)
{
    const struct redis_restore *restore = arg;
    redis_session_disconnect(restore->session);
}

/* Without its files the server would start, and be empty. */
static int ready(void *arg, const struct inplace_job *job, struct err *err)
{
    struct redis_restore *restore = arg;
    bool aof = str_eq(json_str(job->facts, "way", restore->server->aof ? "aof" : "rdb"), "aof"), found = false;
    const char *pattern = aof ? "*.manifest" : job->elsewhere ? "*" : restore->server->rdb_file;
    DIR *dir = opendir(job->directory);
    struct stat status;
    json_decref(restore->sizes);
    restore->sizes = json_object();
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        found = found || fnmatch(pattern, entry->d_name, 0) == 0;
        if (fnmatch("*.aof", entry->d_name, 0) == 0)
            json_put(restore->sizes, entry->d_name, json_integer(status.st_size));
    }
    if (dir)
        closedir(dir);
    return found ? 0
                 : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "The files were not all restored.", "%s/%s is missing",
                           job->directory, pattern);
}

/* With aof-load-truncated a server that finds its AOF cut off shortens it to the last whole command, and starts. */
static int check_sizes(const struct redis_restore *restore, const struct inplace_job *job, struct err *err)
{
    const char *name;
    json_t *size;
    json_object_foreach(restore->sizes, name, size)
    {
        AUTO_FREE char *path = str_new("%s/%s", job->directory, name);
        struct stat status;
        if (stat(path, &status) == 0 && status.st_size < json_integer_value(size))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "The files were not all restored.",
                           "%s: was not whole, and Redis cut it off from %lld to %lld bytes", path,
                           (long long)json_integer_value(size), (long long)status.st_size);
    }
    return 0;
}

static int verify(void *arg, const struct inplace_job *job, struct err *err)
{
    struct redis_restore *restore = arg;
    struct redis_server now;
    struct err last = {0};
    redis_session_deadline(restore->session, job->give_up_ms);
    while (redis_session_connect(restore->session, &last) != 0 || redis_server_read(restore->session, &now, &last) != 0)
        if (last.hr == (uint32_t)VSS_E_WRITERERROR_NONRETRYABLE)
            return err_set(err, last.hr, last.hint, "Redis was started: %s", last.text);
        else if (!inplace_wait(job->give_up_ms, "Redis was started, but did not answer", err))
            return err_set(err, err->hr, err->hint, "%s: %s", err->text, last.text);
    if (!redis_server_same_place(&now, restore->server))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Correct start, socket or host.",
                       "another server than the restored one answers");
    if (check_sizes(restore, job, err) != 0)
        return -1;
    redis_session_disconnect(restore->session);
    return 0;
}

static const struct inplace_server server_ops = {
    .what = "Redis",
    .fits = fits,
    .running = running,
    .answers = answers,
    .works_in = works_in,
    .let_go = let_go,
    .ready = ready,
    .verify = verify,
};

void redis_restore_open(struct redis_restore *ret, const json_t *configuration, struct redis_session *session,
                        const struct redis_server *server)
{
    *ret = (struct redis_restore){.session = session, .server = server};
    ret->inplace = inplace_new(&server_ops, ret, configuration);
}

void redis_restore_clear(struct redis_restore *restore)
{
    inplace_free(restore->inplace);
    json_decref(restore->sizes);
    restore->inplace = NULL;
    restore->sizes = NULL;
}
