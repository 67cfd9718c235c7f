#include "writers/mariadb/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "writers/inplace/service.h"
#include "writers/writer.h"

static const struct log_context here = {.writer = "mariadb"};

/* --- before --- */

/* "10.11" of "10.11.6-MariaDB". */
static size_t series(const char *version)
{
    size_t major = strcspn(version, ".");
    return version[major] ? major + 1 + strcspn(version + major + 1, ".-") : major;
}

static int fits(void *arg, const struct inplace_job *job, struct err *err)
{
    const struct maria_restore *restore = arg;
    const char *version = json_str(job->facts, "version", ""), *own = restore->server->version;
    if (json_bool(job->component, "additional_restores", false))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Restore full backups, without additional restores.",
                       "this writer starts the server after each restore: none can follow");
    if (version[0] && own[0] && (series(version) != series(own) || strncmp(version, own, series(own)) != 0))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Restore it with a server of its own version, to another directory.",
                       "the backup is of MariaDB %s, and the server is %s", version, own);
    if (job->elsewhere)
        return 0;
    if (!str_eq(job->directory, restore->server->data_directory))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Give the component a new target.",
                       "the backup is of the data directory %s, and the server's is %s", job->directory,
                       restore->server->data_directory);
    if (json_str(job->facts, "binlog_file", NULL) && !restore->server->offline && !restore->server->log_bin)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Set log_bin as it was when the backup was made.",
                       "the backup was made with a binary log and the server has none: it would not start");
    return 0;
}

/* InnoDB and Aria hold a record lock each while they have their files open. */
static bool is_locked(const char *directory, const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", directory, name);
    AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static pid_t works_in(void *arg, const char *directory)
{
    (void)arg;
    return is_locked(directory, "aria_log_control") || is_locked(directory, "ibdata1") ? -1 : 0;
}

static pid_t running(void *arg)
{
    const struct maria_restore *restore = arg;
    const char *directory = restore->server->data_directory;
    pid_t pid = service_process_in(directory);
    bool locked = works_in(arg, directory) != 0;
    size_t i;
    const json_t *other;
    json_array_foreach(restore->server->innodb, i, other) locked =
        locked || is_locked(json_string_value(other), "ibdata1");
    return pid ? pid : locked ? -1 : 0;
}

static bool answers(void *arg)
{
    const struct maria_restore *restore = arg;
    return maria_session_connected(restore->session);
}

static void let_go(void *arg)
{
    const struct maria_restore *restore = arg;
    maria_session_disconnect(restore->session);
}

/* --- the restored files --- */

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* What only a living server has. */
static void remove_stale(const char *directory)
{
    static const char *const patterns[] = {"*.pid", "*.sock", "*.sock.lock", "ibtmp*"};
    CLEANUP(closedir_cleanup) DIR *dir = opendir(directory);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        for (size_t i = 0; i < ELEMENTS(patterns); i++)
            if (fnmatch(patterns[i], entry->d_name, 0) == 0 && unlinkat(dirfd(dir), entry->d_name, 0) == 0)
                log_line(LOG_LEVEL_WARNING, &here, "removed a stale %s/%s", directory, entry->d_name);
}

static int ready(void *arg, const struct inplace_job *job, struct err *err)
{
    (void)arg;
    /* Without the first two the server would make new ones, and look whole. */
    static const char *const needed[] = {"mysql", "aria_log_control"};
    struct stat status;
    for (size_t i = 0; i < ELEMENTS(needed); i++) {
        AUTO_FREE char *path = str_new("%s/%s", job->directory, needed[i]);
        if (stat(path, &status) != 0)
            return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "The files were not all restored.", "%s", path);
    }
    if (stat(job->directory, &status) != 0 || status.st_uid != geteuid())
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                       "Restore as root, which keeps the files' owners; the writer's user must be the server's.",
                       "%s: does not belong to the writer's user", job->directory);
    remove_stale(job->directory);
    return 0;
}

/* --- the restored server --- */

static int wait_until_it_answers(struct maria_restore *restore, const struct inplace_job *job, struct err *err)
{
    struct err last = {0};
    maria_session_deadline(restore->session, job->give_up_ms);
    while (maria_session_connect(restore->session, &last) != 0)
        if (last.hr == (uint32_t)VSS_E_WRITERERROR_NONRETRYABLE)
            return err_set(err, last.hr, last.hint, "MariaDB was started: %s", last.text);
        else if (!inplace_wait(job->give_up_ms, "MariaDB was started, but did not answer", err))
            return err_set(err, err->hr, err->hint, "%s: %s", err->text, last.text);
    return 0;
}

static int check_place(struct maria_restore *restore, const struct inplace_job *job, struct err *err)
{
    struct maria_server now;
    if (maria_server_read(restore->session, &now, err) != 0)
        return -1;
    bool same = str_eq(now.data_directory, job->directory);
    maria_server_clear(&now);
    return same ? 0
                : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Correct start, socket or host.",
                          "another server than the restored one answers");
}

/* CHECK TABLE's own words: "status" "OK", or a note of an engine that knows no check. */
static int judge(const json_t *rows, struct err *err)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *type = maria_cell(rows, i, 2), *text = maria_cell(rows, i, 3);
        if (str_eq(type, "error") || str_eq(type, "warning") || (str_eq(type, "status") && !str_eq(text, "OK")))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "table %s: %s", maria_cell(rows, i, 0),
                           text ? text : "is not sound");
    }
    return 0;
}

static char *quoted(const char *name)
{
    char *text = mem_new(2 * strlen(name) + 3), *out = text;
    *out++ = '`';
    for (; *name; name++) {
        if (*name == '`')
            *out++ = '`';
        *out++ = *name;
    }
    *out = '`';
    return text;
}

/* As many tables as there is time for: the half of what is left. A table that is not sound is a failure; one that could
 * not be looked at is not. */
static int check_tables(struct maria_restore *restore, const struct inplace_job *job, struct err *err)
{
    static const char tables_sql[] = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = "
                                     "'BASE TABLE' AND TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema') "
                                     "ORDER BY TABLE_SCHEMA = 'mysql' DESC, DATA_LENGTH";
    int64_t now_ms = clock_mono_ms(), until_ms = now_ms + (job->give_up_ms - now_ms) / 2;
    AUTO_JSON json_t *tables = NULL;
    if (maria_session_query(restore->session, tables_sql, &tables, err) != 0)
        return -1;
    maria_session_deadline(restore->session, until_ms);
    size_t n = json_array_size(tables), i;
    for (i = 0; i < n && clock_mono_ms() < until_ms; i++) {
        AUTO_JSON json_t *rows = NULL;
        AUTO_FREE char *schema = quoted(maria_cell(tables, i, 0));
        AUTO_FREE char *table = quoted(maria_cell(tables, i, 1));
        AUTO_FREE char *sql = str_new("CHECK TABLE %s.%s QUICK", schema, table);
        if (maria_session_query(restore->session, sql, &rows, err) != 0) {
            if (err->hr == (uint32_t)VSS_E_WRITERERROR_TIMEOUT)
                break;
            return -1;
        }
        if (judge(rows, err) != 0)
            return -1;
    }
    log_line(i < n ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, &here, "CHECK TABLE QUICK: %zu of %zu tables are sound%s", i, n,
             i < n ? "; there was no time for the others" : "");
    return 0;
}

static int verify(void *arg, const struct inplace_job *job, struct err *err)
{
    struct maria_restore *restore = arg;
    if (wait_until_it_answers(restore, job, err) != 0 || check_place(restore, job, err) != 0 ||
        check_tables(restore, job, err) != 0)
        return -1;
    maria_session_disconnect(restore->session);
    return 0;
}

static const struct inplace_server server_ops = {
    .what = "MariaDB",
    .fits = fits,
    .running = running,
    .answers = answers,
    .works_in = works_in,
    .let_go = let_go,
    .ready = ready,
    .verify = verify,
};

void maria_restore_open(struct maria_restore *ret, const json_t *configuration, struct maria_session *session,
                        const struct maria_server *server)
{
    *ret = (struct maria_restore){.session = session, .server = server};
    ret->inplace = inplace_new(&server_ops, ret, configuration);
}

void maria_restore_clear(struct maria_restore *restore)
{
    inplace_free(restore->inplace);
    restore->inplace = NULL;
}
