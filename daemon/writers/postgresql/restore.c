#include "writers/postgresql/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "writers/inplace/service.h"
#include "writers/postgresql/chain.h"
#include "writers/postgresql/verify.h"
#include "writers/postgresql/wal.h"

static int refuse(struct err *err, const char *hint, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct err *err, const char *hint, const char *fmt, ...)
{
    char text[sizeof(err->text)];
    va_list arguments;
    va_start(arguments, fmt);
    vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, hint, "%s", text);
}

/* --- before --- */

static bool same_major(const char *a, const char *b)
{
    size_t length = strcspn(a, ".");
    return length == strcspn(b, ".") && strncmp(a, b, length) == 0;
}

/* "/PG_15_202209061" at the end of a tablespace's path, or NULL. */
static const char *of_version(const char *path)
{
    const char *last = strrchr(path, '/');
    return last && str_starts(last, "/PG_") ? last : NULL;
}

/* The server looks for that name, and for no other, in the place that it is led to. */
static int check_new_names(const json_t *targets, struct err *err)
{
    size_t i;
    const json_t *target;
    json_array_foreach (targets, i, target) {
        const char *from = json_str(target, "path", ""), *to = json_str(target, "new_path", "");
        const char *name = of_version(from), *new_name = strrchr(to, '/');
        if (!name || (str_eq(name, new_name) && new_name != to))
            continue;
        AUTO_FREE char *hint = str_new("Let its new_path end in %s.", name);
        return refuse(err, hint, "the new target %s of the tablespace %s has another name", to, from);
    }
    return 0;
}

static int fits(void *arg, const struct inplace_job *job, struct err *err)
{
    const struct pg_restore *restore = arg;
    const char *version = json_str(job->facts, "version", NULL);
    if (str_eq(json_str(job->facts, "way", NULL), "log"))
        return refuse(err, "Restore the full backup that it goes on from, and recover with the log (docs/writers/postgresql.md).",
                      "a log backup holds WAL, and no cluster");
    if (json_bool(job->component, "additional_restores", false))
        return refuse(err, "Restore full backups, without additional restores.",
                      "this writer starts the server after each restore: none can follow");
    if (version && restore->cluster->version[0] && !same_major(version, restore->cluster->version))
        return refuse(err, "Restore it with a server of its own version, to another directory.",
                      "the backup is of PostgreSQL %s, and the server is %s", version, restore->cluster->version);
    if (!job->elsewhere && !str_eq(job->directory, restore->cluster->data_directory))
        return refuse(err, "Give the component a new target.",
                      "the backup is of the data directory %s, and the server's is %s", job->directory,
                      restore->cluster->data_directory);
    return check_new_names(json_object_get(job->component, "new_targets"), err);
}

static pid_t pid_of_file(const char *directory)
{
    AUTO_FREE char *path = str_new("%s/postmaster.pid", directory);
    FILE *file = fopen(path, "re");
    int pid = 0;
    if (!file)
        return 0;
    if (fscanf(file, "%d", &pid) != 1)
        pid = 0;
    fclose(file);
    return pid;
}

static pid_t works_in(void *arg, const char *directory)
{
    (void)arg;
    return service_process_known(pid_of_file(directory), directory);
}

/* The postmaster and all its children work in the data directory; the pid file alone may be a dead server's. */
static pid_t running(void *arg)
{
    const struct pg_restore *restore = arg;
    const char *directory = restore->cluster->data_directory;
    pid_t named = works_in(arg, directory), seen = named > 0 ? named : service_process_in(directory);
    return seen ? seen : named;
}

static bool answers(void *arg)
{
    const struct pg_restore *restore = arg;
    return pg_session_connected(restore->session);
}

static void let_go(void *arg)
{
    const struct pg_restore *restore = arg;
    pg_session_disconnect(restore->session);
}

/* --- the restored files --- */

static bool exists(const char *directory, const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", directory, name);
    struct stat status;
    return lstat(path, &status) == 0;
}

static void remove_stale(const char *directory, const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", directory, name);
    if (unlink(path) == 0)
        log_line(LOG_LEVEL_WARNING, &(struct log_context){.writer = "postgresql"}, "removed a stale %s", path);
}

/* The first 64 bits of global/pg_control, here and in the backup. */
static int check_control(const struct inplace_job *job, struct err *err)
{
    AUTO_FREE char *path = str_new("%s/global/pg_control", job->directory);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t identifier = 0;
    if (fd < 0 || read(fd, &identifier, sizeof(identifier)) != sizeof(identifier))
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "The files were not all restored.", "%s", path);
    const char *known = json_str(job->facts, "system_identifier", NULL);
    AUTO_FREE char *found = str_new("%llu", (unsigned long long)identifier);
    if (known && !str_eq(known, found))
        return refuse(err, NULL, "%s: is of cluster %s, and the backup is of cluster %s", path, found, known);
    return 0;
}

/* Without its label such a backup would start, recover from the wrong place, and be corrupt without a word. */
static int check_label(const struct inplace_job *job, struct err *err)
{
    const char *way = json_str(job->facts, "way", NULL), *start = json_str(job->facts, "start_lsn", "");
    char label[512] = "";
    if (str_eq(way, "atomic-snapshot")) {
        remove_stale(job->directory, "backup_label"); /* of an earlier backup: recovery would begin at its position */
        remove_stale(job->directory, "tablespace_map");
    }
    if (!str_eq(way, "backup-label"))
        return 0;
    AUTO_FREE char *path = str_new("%s/backup_label", job->directory);
    AUTO_FREE char *line = str_new("START WAL LOCATION: %s ", start);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, label, sizeof(label) - 1);
    if (n < 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "The files were not all restored.", "%s", path);
    if (!str_starts(label, line))
        return refuse(err, NULL, "%s: is not of this backup, which begins at %s", path, start);
    return 0;
}

/* The server refuses a data directory that others may look into. */
static int check_mode(const char *directory, struct err *err)
{
    struct stat status;
    if (stat(directory, &status) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "The files were not all restored.", "%s", directory);
    if (status.st_uid != geteuid())
        return refuse(err, "Restore as root, which keeps the files' owners; the writer's user must be the server's.",
                      "%s: does not belong to the writer's user", directory);
    if ((status.st_mode & 027) && chmod(directory, 0700) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s", directory);
    return 0;
}

/* --- links --- */

/* The link of a tablespace names the location that its file set, PG_MAJOR_CATALOG, lies in. Caller frees; NULL: none. */
static char *new_place(const json_t *targets, const char *path)
{
    size_t i;
    const json_t *target;
    json_array_foreach (targets, i, target) {
        const char *from = json_str(target, "path", ""), *to = json_str(target, "new_path", NULL);
        const char *last = of_version(from);
        if (to && str_eq(from, path))
            return str_dup(to);
        if (to && last && strlen(path) == (size_t)(last - from) && str_starts(from, path))
            return str_new("%.*s", (int)(strlen(to) - strlen(last)), to);
    }
    return NULL;
}

/* A copy that is started with a link to the original's place writes into the living server's files. */
static int redirect(const char *link, const json_t *targets, struct err *err)
{
    char to[PATH_MAX];
    ssize_t n = readlink(link, to, sizeof(to) - 1);
    if (n < 0)
        return errno == EINVAL || errno == ENOENT ? 0 : err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s", link);
    to[n] = '\0';
    AUTO_FREE char *place = new_place(targets, to);
    if (!place)
        return refuse(err, "Give that directory a new target as well, under the path that the link names.",
                      "%s leads to the original's %s", link, to);
    if (unlink(link) != 0 || symlink(place, link) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s", link);
    return 0;
}

static int redirect_links(const struct inplace_job *job, struct err *err)
{
    const json_t *targets = json_object_get(job->component, "new_targets");
    AUTO_FREE char *wal = str_new("%s/pg_wal", job->directory);
    AUTO_FREE char *spaces = str_new("%s/pg_tblspc", job->directory);
    DIR *dir = opendir(spaces);
    const struct dirent *entry;
    int result = redirect(wal, targets, err);
    while (result == 0 && dir && (entry = readdir(dir))) {
        AUTO_FREE char *link = str_new("%s/%s", spaces, entry->d_name);
        if (entry->d_name[0] != '.')
            result = redirect(link, targets, err);
    }
    if (dir)
        closedir(dir);
    /* It would have the server make the links anew, to the original's places; they are made already. */
    if (result == 0)
        remove_stale(job->directory, "tablespace_map");
    return result;
}

static int ready(void *arg, const struct inplace_job *job, struct err *err)
{
    (void)arg;
    static const char *const stale[] = {"postmaster.pid", "recovery.signal", "standby.signal"};
    if (!exists(job->directory, "PG_VERSION"))
        return refuse(err, "The files were not all restored.", "%s/PG_VERSION is missing", job->directory);
    if (check_control(job, err) != 0 || check_mode(job->directory, err) != 0 || check_label(job, err) != 0)
        return -1;
    for (size_t i = 0; i < ELEMENTS(stale); i++)
        remove_stale(job->directory, stale[i]);
    if (job->elsewhere && redirect_links(job, err) != 0)
        return -1;
    return pg_chain_configure(job->component, job->directory, err);
}

/* --- the restored server --- */

/* Does it take statements, and has it recovered? */
static bool answers_now(struct pg_restore *restore, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    if (pg_session_connect(restore->session, err) != 0 ||
        pg_session_query(restore->session, "SELECT pg_is_in_recovery()::text", NULL, &rows, err) != 0)
        return false;
    return str_eq(pg_cell(rows, 0, 0), "false") || err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "it still recovers") == 0;
}

static int wait_until_it_answers(struct pg_restore *restore, const struct inplace_job *job, struct err *err)
{
    struct err last = {0};
    pg_session_deadline(restore->session, job->give_up_ms);
    while (!answers_now(restore, &last))
        if (last.hr == (uint32_t)VSS_E_WRITERERROR_NONRETRYABLE ||
            !inplace_wait(job->give_up_ms, "PostgreSQL was started, but did not answer", err)) {
            bool refused = last.hr == (uint32_t)VSS_E_WRITERERROR_NONRETRYABLE;
            return refused ? err_set(err, last.hr, last.hint, "PostgreSQL was started: %s", last.text)
                           : err_set(err, err->hr, err->hint, "%s: %s", err->text, last.text);
        }
    return 0;
}

/* Every transaction acknowledged before the freeze lies before stop_lsn: it must have been recovered that far. */
static int check_position(struct pg_restore *restore, const struct inplace_job *job, struct err *err)
{
    const char *stop = json_str(job->facts, "stop_lsn", NULL);
    const char *params[] = {stop, NULL};
    AUTO_JSON json_t *rows = NULL;
    uint64_t lsn;
    if (!wal_lsn_parse(stop, &lsn))
        return 0;
    if (pg_session_query(restore->session,
                         "SELECT (pg_current_wal_insert_lsn() >= $1::pg_lsn)::text, pg_current_wal_insert_lsn()::text, "
                         "(SELECT system_identifier::text FROM pg_control_system())",
                         params, &rows, err) != 0)
        return -1;
    if (!str_eq(pg_cell(rows, 0, 0), "true"))
        return refuse(err, NULL, "PostgreSQL recovered up to %s only, and the backup reaches to %s", pg_cell(rows, 0, 1), stop);
    const char *known = json_str(job->facts, "system_identifier", NULL);
    if (known && !str_eq(known, pg_cell(rows, 0, 2)))
        return refuse(err, "Correct start or connection.", "another cluster than the restored one answers");
    return 0;
}

/* It came by way of the recovery that it was told of, which ends on a timeline of its own. */
static int check_rolled(struct pg_restore *restore, const struct inplace_job *job, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    unsigned timeline = 0;
    if (!pg_chain_is(job->component))
        return 0;
    if (pg_session_query(restore->session, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())", NULL, &rows, err) != 0)
        return -1;
    const char *segment = pg_cell(rows, 0, 0);
    if (!segment || sscanf(segment, "%8X", &timeline) != 1 || timeline == pg_chain_timeline(job->component))
        return refuse(err, "Let nothing but start tell the server how to recover.", "PostgreSQL was started, and has not rolled the logs forward");
    pg_chain_clean(job->directory);
    return 0;
}

static int verify(void *arg, const struct inplace_job *job, struct err *err)
{
    struct pg_restore *restore = arg;
    if (wait_until_it_answers(restore, job, err) != 0 || check_position(restore, job, err) != 0 ||
        pg_verify_databases(restore->session, restore->connection, job->give_up_ms, err) != 0 || check_rolled(restore, job, err) != 0)
        return -1;
    pg_session_disconnect(restore->session);
    return 0;
}

/* --- the events --- */

static const struct inplace_server server = {
    .what = "PostgreSQL",
    .fits = fits,
    .running = running,
    .answers = answers,
    .works_in = works_in,
    .let_go = let_go,
    .ready = ready,
    .verify = verify,
};

void pg_restore_open(struct pg_restore *ret, const json_t *configuration, struct pg_session *session,
                     const struct pg_cluster *cluster)
{
    *ret = (struct pg_restore){
        .session = session, .cluster = cluster, .connection = str_dup(json_str(configuration, "connection", ""))};
    ret->inplace = inplace_new(&server, ret, configuration);
}

void pg_restore_clear(struct pg_restore *restore)
{
    inplace_free(restore->inplace);
    if (restore->room)
        pg_chain_leave(restore->room);
    free(restore->room);
    free(restore->connection);
    restore->room = NULL;
    restore->inplace = NULL;
    restore->connection = NULL;
}

static const json_t *component_of(const struct pg_restore *restore, const struct writer_event *event)
{
    return inplace_component(event, restore->cluster->name, restore->cluster->offline);
}

/* Where the cluster comes to lie: its first file set, or the new target of that. */
static const char *place_of(const struct writer_event *event, const json_t *component)
{
    const json_t *targets = json_object_get(component, "new_targets"), *target;
    const char *path = json_str(json_array_get(json_object_get(component, "file_sets"), 0), "path", NULL);
    size_t i;
    if (json_array_size(targets) == 0)
        targets = json_object_get(event->request, "new_targets");
    json_array_foreach(targets, i, target)
        if (path && str_eq(json_str(target, "path", NULL), path))
            return json_str(target, "new_path", NULL);
    return path;
}

/* Room for the logs, and the word to the worker that they go there. */
static int make_room(struct pg_restore *restore, const struct writer_event *event, const json_t *component, json_t **ret_components, struct err *err)
{
    AUTO_FREE char *room = NULL;
    const char *directory = place_of(event, component);
    if (!directory)
        return refuse(err, NULL, "the component has no file sets");
    if (pg_chain_room(directory, &room, err) != 0) {
        inplace_undo(restore->inplace, event->deadline_ms);
        return -1;
    }
    free(restore->room);
    restore->room = str_dup(directory);
    if (!*ret_components)
        *ret_components = json_pack("[{s:s, s:s, s:s}]", "logical_path", json_str(component, "logical_path", ""), "name", json_str(component, "name", ""),
                                    "restore_target", "original");
    json_put(json_array_get(*ret_components, 0), "chain_target", json_text(room));
    return 0;
}

int pg_restore_pre(struct pg_restore *restore, const struct writer_event *event, json_t **ret_components, struct err *err)
{
    const json_t *asked = component_of(restore, event);
    if (!asked)
        return 0;
    AUTO_JSON json_t *component = pg_chain_component(asked, err);
    AUTO_JSON json_t *sets = pg_cluster_file_sets(restore->cluster, false);
    if (!component || inplace_pre_restore(restore->inplace, event, component, sets, ret_components, err) != 0)
        return -1;
    return pg_chain_is(component) ? make_room(restore, event, component, ret_components, err) : 0;
}

int pg_restore_post(struct pg_restore *restore, const struct writer_event *event, json_t **ret_components, struct err *err)
{
    (void)ret_components;
    const json_t *asked = component_of(restore, event);
    if (!asked)
        return 0;
    AUTO_JSON json_t *component = pg_chain_component(asked, err);
    return component ? inplace_post_restore(restore->inplace, event, component, err) : -1;
}

void pg_restore_undo(struct pg_restore *restore, int64_t deadline_ms)
{
    inplace_undo(restore->inplace, deadline_ms);
    if (restore->room)
        pg_chain_leave(restore->room);
    free(restore->room);
    restore->room = NULL;
}
