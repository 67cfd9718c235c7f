#include "writers/postgresql/chain.h"

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
#include "base/log.h"
#include "base/str.h"
#include "writers/postgresql/wal.h"

#define WAL_DIRECTORY "quiesced_wal" /* pg_cluster_excludes leaves it out of backups */

static const char begin_mark[] = "# quiesced: a restore of log backups, begin\n";
static const char end_mark[] = "# quiesced: a restore of log backups, end\n";

static const json_t *links_of(const json_t *component)
{
    return json_object_get(component, "chain");
}

bool pg_chain_is(const json_t *component)
{
    return json_array_size(links_of(component)) > 0;
}

static json_t *facts_of(const json_t *link)
{
    const char *text = json_str(link, "backup_metadata", NULL);
    struct err ignored = {0};
    return text ? json_parse_strict(text, strlen(text), 8, &ignored) : NULL;
}

/* --- is it whole? --- */

static int refuse(const json_t *link, const char *hint, const char *why, struct err *err)
{
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, hint, "backup %s: %s", json_str(link, "backup_id", "(of the document)"), why);
}

/* Each log begins where the one before it ends, on the same history. */
static int check_link(const json_t *link, const json_t *facts, const json_t *before, struct err *err)
{
    const char *starts = json_str(facts, "start_lsn", NULL), *ended = json_str(before, "stop_lsn", NULL);
    uint64_t start, end;
    if (!str_eq(json_str(facts, "way", NULL), "log"))
        return refuse(link, NULL, "is no log backup, and stands among them", err);
    if (!str_eq(json_str(facts, "system_identifier", ""), json_str(before, "system_identifier", "?")) ||
        json_int(facts, "timeline", -1) != json_int(before, "timeline", -2))
        return refuse(link, "Restore a backup from before that.", "is of another history of the cluster than the one before it", err);
    if (wal_lsn_parse(starts, &start) && wal_lsn_parse(ended, &end) && start == end)
        return 0;
    AUTO_FREE char *why = str_new("its log begins at %s, and the backup before it ends at %s: the log between is missing", starts ? starts : "?",
                                  ended ? ended : "?");
    return refuse(link, "Restore a backup from before the gap.", why, err);
}

static int check_links(const json_t *links, struct err *err)
{
    AUTO_JSON json_t *before = NULL;
    size_t i;
    const json_t *link;
    json_array_foreach(links, i, link)
    {
        json_t *facts = facts_of(link);
        int bad = i == 0 && str_eq(json_str(facts, "way", NULL), "log") ? refuse(link, NULL, "is a log backup, and the chain has no full one", err)
                  : i > 0                                               ? check_link(link, facts, before, err)
                                                                        : 0;
        json_decref(before);
        before = facts;
        if (bad)
            return -1;
    }
    return 0;
}

/* --- how far? --- */

/* RFC 3339, and what PostgreSQL takes besides; above all nothing that ends a quoted setting. */
static bool is_time(const char *text)
{
    return text && strlen(text) < 64 && strspn(text, "0123456789") >= 4 && strspn(text, "0123456789TZ:.+- ") == strlen(text);
}

static int check_roll_forward(const json_t *component, struct err *err)
{
    const json_t *roll = json_object_get(component, "roll_forward");
    const char *type = json_str(roll, "type", NULL);
    if (!type)
        return 0;
    if (str_eq(type, "none") ? !pg_chain_is(component) : pg_chain_is(component) && (str_eq(type, "all") || is_time(json_str(roll, "point", NULL))))
        return 0;
    if (!pg_chain_is(component))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Restore a log backup: the full one comes with it.", "a full backup holds no log to roll forward with");
    if (str_eq(type, "none"))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Restore the full backup itself.", "a log backup is restored by rolling forward");
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Give a time: 2026-01-31T12:00:00Z.", "roll_forward: the point \"%.80s\" is no time",
                   json_str(roll, "point", ""));
}

json_t *pg_chain_component(const json_t *component, struct err *err)
{
    const json_t *links = links_of(component);
    if (check_roll_forward(component, err) != 0 || check_links(links, err) != 0)
        return NULL;
    json_t *whole = json_copy((json_t *)component);
    if (pg_chain_is(component))
        json_put(whole, "backup_metadata", json_incref(json_object_get(json_array_get(links, 0), "backup_metadata")));
    return whole;
}

uint32_t pg_chain_timeline(const json_t *component)
{
    AUTO_JSON json_t *facts = facts_of(json_array_get(links_of(component), 0));
    return (uint32_t)json_int(facts, "timeline", 0);
}

/* --- the directory of the logs --- */

int pg_chain_room(const char *directory, char **ret, struct err *err)
{
    AUTO_FREE char *path = str_new("%s/" WAL_DIRECTORY, directory);
    if ((mkdir(directory, 0700) != 0 && errno != EEXIST) || (mkdir(path, 0700) != 0 && errno != EEXIST))
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "Make the directory beforehand, with the server's owner and mode 0700.", "%s", path);
    *ret = TAKE_PTR(path);
    return 0;
}

void pg_chain_leave(const char *directory)
{
    AUTO_FREE char *path = str_new("%s/" WAL_DIRECTORY, directory);
    rmdir(path);
}

static void remove_logs(const char *directory)
{
    AUTO_FREE char *path = str_new("%s/" WAL_DIRECTORY, directory);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    if (rmdir(path) != 0 && errno != ENOENT)
        log_line(LOG_LEVEL_WARNING, &(struct log_context){.writer = "postgresql"}, "%s: %s: it may be removed by hand", path, strerror(errno));
}

/* --- settings --- */

/* The file's text without what an earlier restore has added; "" when there is no file. Caller frees; NULL with err. */
static char *settings_read(const char *path, struct err *err)
{
    enum { MOST = 1 << 20 };
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    AUTO_FREE char *text = mem_new(MOST + 1);
    ssize_t n = fd < 0 ? -1 : read(fd, text, MOST);
    if (n < 0 && errno != ENOENT) {
        err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s", path);
        return NULL;
    }
    text[n < 0 ? 0 : n] = '\0';
    char *begin = strstr(text, begin_mark), *end = begin ? strstr(begin, end_mark) : NULL;
    if (end)
        memmove(begin, end + strlen(end_mark), strlen(end + strlen(end_mark)) + 1);
    return TAKE_PTR(text);
}

static int write_all(const char *path, const char *text, struct err *err)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t length = strlen(text);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length || fsync(fd) != 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno ? errno : ENOSPC, NULL, "%s", path);
    return 0;
}

static int settings_write(const char *directory, const char *more, struct err *err)
{
    AUTO_FREE char *path = str_new("%s/postgresql.auto.conf", directory);
    AUTO_FREE char *new_path = str_new("%s/postgresql.auto.conf.quiesced", directory);
    AUTO_FREE char *before = settings_read(path, err);
    AUTO_FREE char *text = before ? str_new("%s%s%s", before, *before && before[strlen(before) - 1] != '\n' ? "\n" : "", more) : NULL;
    if (!text || write_all(new_path, text, err) != 0)
        return -1;
    return rename(new_path, path) == 0 ? 0 : err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s", path);
}

/* Before a server reads its zone files it knows offsets only: no Z. Caller frees. */
static char *plain_time(const char *time)
{
    size_t length = strlen(time);
    bool utc = length > 0 && time[length - 1] == 'Z';
    char *plain = str_new("%.*s%s", (int)(utc ? length - 1 : length), time, utc ? "+00" : "");
    char *t = strchr(plain, 'T');
    if (t)
        *t = ' ';
    return plain;
}

/* Of the last log: its restore point, which a server that misses a segment before it never reaches, and then refuses to start. */
static char *target_of(const json_t *component)
{
    const json_t *links = links_of(component);
    AUTO_JSON json_t *facts = facts_of(json_array_get(links, json_array_size(links) - 1));
    const char *point = json_str(facts, "restore_point", "");
    const json_t *roll = json_object_get(component, "roll_forward");
    AUTO_FREE char *time = plain_time(json_str(roll, "point", ""));
    if (str_eq(json_str(roll, "type", "all"), "partial"))
        return str_new("recovery_target_time = '%s'\n", time);
    return *point && strspn(point, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(point) ? str_new("recovery_target_name = '%s'\n", point) : NULL;
}

int pg_chain_configure(const json_t *component, const char *directory, struct err *err)
{
    if (!pg_chain_is(component))
        return 0;
    AUTO_FREE char *target = target_of(component);
    if (!target)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "the last log backup names no restore point");
    /* Commands run in the data directory (PostgreSQL manual, restore_command): nothing of its path needs quoting. */
    AUTO_FREE char *settings = str_new("%srestore_command = 'cp \"" WAL_DIRECTORY "/%%f\" \"%%p\"'\n%srecovery_target_action = 'promote'\n"
                                       "recovery_target_timeline = 'current'\n%s",
                                       begin_mark, target, end_mark);
    AUTO_FREE char *signal = str_new("%s/recovery.signal", directory);
    return settings_write(directory, settings, err) == 0 ? write_all(signal, "", err) : -1;
}

void pg_chain_clean(const char *directory)
{
    struct err err = {0};
    if (settings_write(directory, "", &err) != 0)
        log_err(LOG_LEVEL_WARNING, &(struct log_context){.writer = "postgresql"}, &err, "settings of the restore are left; they mean nothing to a running server");
    remove_logs(directory);
}
