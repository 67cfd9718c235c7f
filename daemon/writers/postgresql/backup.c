#include "writers/postgresql/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/postgresql/log.h"
#include "writers/postgresql/wal.h"
#include "writers/writer.h"

enum {
    FLUSH_POLL_MS = 20,
    SEGMENTS_MAX = 2000, /* an answer is one line of at most 1 MiB, and names each twice */
};

static int start_atomic(struct pg_backup *backup, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    int64_t timeline;
    /* Now, not in the window: it flushes the buffers and shortens the recovery. */
    if (pg_session_query(backup->session, "CHECKPOINT", NULL, NULL, err) != 0 ||
        pg_session_query(backup->session, "SELECT redo_lsn::text, timeline_id::text FROM pg_control_checkpoint()", NULL,
                         &rows, err) != 0)
        return -1;
    if (!pg_cell(rows, 0, 0) || !str_to_int(pg_cell(rows, 0, 1), 1, UINT32_MAX, &timeline))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "PostgreSQL gave an answer that cannot be read");
    str_copy(backup->start_lsn, sizeof(backup->start_lsn), pg_cell(rows, 0, 0));
    backup->timeline = (uint32_t)timeline;
    return 0;
}

static int start_label(struct pg_backup *backup, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    AUTO_FREE char *label = str_new("quiesced %lld", (long long)clock_real_ms());
    str_format(backup->slot, sizeof(backup->slot), "quiesced_%d_%lld", (int)getpid(), (long long)clock_real_ms());
    const char *slot[] = {backup->slot, NULL};
    const char *params[] = {label, NULL};
    /* The slot first: from then on no segment that the backup needs is recycled. Both end with the session. */
    if (pg_session_query(backup->session, "SELECT pg_create_physical_replication_slot($1, true, true)", slot, NULL,
                         err) != 0 ||
        pg_session_query(backup->session, "SELECT pg_backup_start($1, fast => true)::text", params, &rows, err) != 0)
        return -1;
    if (!pg_cell(rows, 0, 0))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "PostgreSQL gave an answer that cannot be read");
    str_copy(backup->start_lsn, sizeof(backup->start_lsn), pg_cell(rows, 0, 0));
    return 0;
}

int pg_backup_start(struct pg_backup *backup, enum pg_way way, struct pg_session *session,
                    const struct pg_cluster *cluster, struct err *err)
{
    int (*const start)(struct pg_backup *, struct err *) = way == PG_WAY_ATOMIC ? start_atomic : start_label;
    backup->way = way;
    backup->session = session;
    backup->cluster = cluster;
    if (start(backup, err) == 0)
        return 0;
    pg_session_disconnect(session); /* backup mode may have begun unheard */
    pg_backup_clear(backup);
    return -1;
}

int pg_backup_mark(struct pg_backup *backup, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    if (pg_session_query(backup->session, "SELECT pg_current_wal_flush_lsn()::text", NULL, &rows, err) != 0)
        return -1;
    str_copy(backup->stop_lsn, sizeof(backup->stop_lsn), pg_cell(rows, 0, 0) ? pg_cell(rows, 0, 0) : "");
    backup->frozen = true;
    return 0;
}

static int staging_make(struct pg_backup *backup, const char *staging, struct err *err)
{
    if (!staging || !path_is_canonical(staging))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "the request names no staging directory");
    AUTO_FREE char *path = str_new("%s/postgresql-XXXXXX", staging);
    if (!mkdtemp(path) || !str_copy(backup->staging, sizeof(backup->staging), path))
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno,
                         "The staging directory must belong to the writer's user.", "staging directory %s", staging);
    return 0;
}

static void add_extra(json_t *extra_files, const char *path, const char *source)
{
    json_t *file = json_object();
    json_put(file, "path", json_text(path));
    json_put(file, "source", json_text(source));
    json_add(extra_files, file);
}

static int add_text(const struct pg_backup *backup, const char *name, const char *text, json_t *extra_files,
                    struct err *err)
{
    AUTO_FREE char *source = str_new("%s/%s", backup->staging, name);
    AUTO_FREE char *path = str_new("%s/%s", backup->cluster->data_directory, name);
    AUTO_FD int fd = open(source, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    size_t length = strlen(text);
    errno = ENOSPC; /* what a short write means */
    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        return err_errno(err, VSS_E_WRITERERROR_OUTOFRESOURCES, errno, NULL, "cannot write %s", source);
    add_extra(extra_files, path, source);
    return 0;
}

/* pg_backup_stop has switched to a new segment; the last one is whole once the log is flushed that far. */
static int wait_for_flush(const struct pg_backup *backup, const char *lsn, int64_t give_up_ms, struct err *err)
{
    const char *params[] = {lsn, NULL};
    for (;;) {
        AUTO_JSON json_t *rows = NULL;
        if (pg_session_query(backup->session, "SELECT (pg_current_wal_flush_lsn() >= $1::pg_lsn)::text", params, &rows,
                             err) != 0)
            return -1;
        if (str_eq(pg_cell(rows, 0, 0), "true"))
            return 0;
        if (clock_mono_ms() >= give_up_ms || writer_abandoned())
            return err_set(err, VSS_E_WRITERERROR_TIMEOUT, NULL, "the log was not flushed to %s in time", lsn);
        nanosleep(&(struct timespec){.tv_nsec = FLUSH_POLL_MS * 1000000L}, NULL);
    }
}

static int too_many(const struct pg_backup *backup, struct err *err)
{
    if (backup->way == PG_WAY_LOG)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Take a full backup now, and log backups more often.",
                       "more than %d WAL segments were written since the previous backup", SEGMENTS_MAX);
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                   "Put data and WAL on one volume that is snapshotted atomically, or use larger WAL segments.",
                   "more than %d WAL segments were written during the backup", SEGMENTS_MAX);
}

/* A segment that a chain needs and that is gone does not come back. */
static int copy_segment(const struct pg_backup *backup, const struct wal_segment *segment, struct err *err)
{
    if (wal_segment_copy(segment, err) == 0)
        return 0;
    if (backup->way == PG_WAY_LOG && err->hr != (uint32_t)VSS_E_WRITERERROR_OUTOFRESOURCES) {
        err->hr = (uint32_t)VSS_E_WRITERERROR_NONRETRYABLE;
        str_copy(err->hint, sizeof(err->hint), "Take a full backup: the log since the previous one is not whole.");
    }
    return -1;
}

static int copy_wal(const struct pg_backup *backup, int64_t give_up_ms, json_t *extra_files, struct err *err)
{
    uint64_t start, stop;
    if (!wal_lsn_parse(backup->start_lsn, &start) || !wal_lsn_parse(backup->stop_lsn, &stop) || stop < start)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL,
                       "PostgreSQL gave positions that cannot be read: %s to %s", backup->start_lsn, backup->stop_lsn);
    if ((stop - start) / backup->cluster->segment_size >= SEGMENTS_MAX)
        return too_many(backup, err);
    for (uint64_t number = wal_segment_of(start, backup->cluster->segment_size);
         number <= wal_segment_before(stop, backup->cluster->segment_size); number++) {
        char name[WAL_NAME_SIZE];
        wal_segment_name(backup->timeline, number, backup->cluster->segment_size, name);
        AUTO_FREE char *from = str_new("%s/%s", backup->cluster->wal_directory, name);
        AUTO_FREE char *to = str_new("%s/%s", backup->staging, name);
        struct wal_segment segment = {.from = from,
                                      .to = to,
                                      .number = number,
                                      .size = backup->cluster->segment_size,
                                      .system_identifier = backup->cluster->system_identifier};
        if (clock_mono_ms() >= give_up_ms || writer_abandoned())
            return err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Raise limits.writer_seconds.post_snapshot.",
                           "the log was not copied in time");
        if (copy_segment(backup, &segment, err) != 0)
            return -1;
        add_extra(extra_files, from, to);
    }
    return 0;
}

/* Recovery goes on to the end of the segment that this call fills up and leaves: no later commit is in the backup. */
static int stop_label(struct pg_backup *backup, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    if (pg_session_query(backup->session,
                         "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(wait_for_archive => false)", NULL,
                         &rows, err) != 0)
        return -1;
    if (!pg_cell(rows, 0, 0) || !wal_label_timeline(pg_cell(rows, 0, 1), &backup->timeline))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "PostgreSQL gave a backup label that cannot be read");
    str_copy(backup->stop_lsn, sizeof(backup->stop_lsn), pg_cell(rows, 0, 0));
    backup->stopped = TAKE_PTR(rows);
    return 0;
}

int pg_backup_end(struct pg_backup *backup, struct err *err)
{
    if (backup->way == PG_WAY_LOG && backup->frozen) {
        backup->stopped_at_thaw = pg_log_end(backup, err) == 0;
        return backup->stopped_at_thaw ? 0 : -1;
    }
    if (backup->way != PG_WAY_LABEL || !backup->frozen || backup->stopped)
        return 0;
    if (stop_label(backup, err) != 0)
        return -1;
    backup->stopped_at_thaw = true;
    return 0;
}

const char *pg_backup_point(const struct pg_backup *backup)
{
    if (backup->way == PG_WAY_ATOMIC)
        return "snapshot";
    return backup->stopped_at_thaw ? "thaw" : "later";
}

static int finish_label(struct pg_backup *backup, int64_t give_up_ms, json_t *extra_files, struct err *err)
{
    const char *slot[] = {backup->slot, NULL};
    if (!backup->stopped && stop_label(backup, err) != 0)
        return -1;
    const char *lsn = backup->stop_lsn, *label = pg_cell(backup->stopped, 0, 1), *map = pg_cell(backup->stopped, 0, 2);
    if (wait_for_flush(backup, lsn, give_up_ms, err) != 0 || copy_wal(backup, give_up_ms, extra_files, err) != 0 ||
        add_text(backup, "backup_label", label, extra_files, err) != 0)
        return -1;
    if (map && map[0] && add_text(backup, "tablespace_map", map, extra_files, err) != 0)
        return -1;
    return pg_session_query(backup->session, "SELECT pg_drop_replication_slot($1)", slot, NULL, err);
}

static int finish_log(struct pg_backup *backup, int64_t give_up_ms, json_t *extra_files, struct err *err)
{
    if (pg_log_end(backup, err) != 0 || wait_for_flush(backup, backup->switched_lsn, give_up_ms, err) != 0)
        return -1;
    return copy_wal(backup, give_up_ms, extra_files, err);
}

int pg_backup_finish(struct pg_backup *backup, const char *staging, int64_t give_up_ms, json_t **ret_extra_files,
                     struct err *err)
{
    AUTO_JSON json_t *extra_files = json_array();
    int (*const finish)(struct pg_backup *, int64_t, json_t *, struct err *) = backup->way == PG_WAY_LOG     ? finish_log
                                                                               : backup->way == PG_WAY_LABEL ? finish_label
                                                                                                             : NULL;
    if (finish && (staging_make(backup, staging, err) != 0 || finish(backup, give_up_ms, extra_files, err) != 0))
        return -1;
    *ret_extra_files = TAKE_PTR(extra_files);
    return 0;
}

char *pg_backup_metadata(const struct pg_backup *backup)
{
    static const char *const ways[] = {[PG_WAY_NONE] = "none", [PG_WAY_ATOMIC] = "atomic-snapshot", [PG_WAY_LABEL] = "backup-label", [PG_WAY_LOG] = "log"};
    AUTO_FREE char *identifier = str_new("%llu", (unsigned long long)backup->cluster->system_identifier);
    AUTO_JSON json_t *facts = json_pack(
        "{s:s, s:s, s:s, s:I, s:s, s:s}", "way", ways[backup->way],
        "start_lsn", backup->start_lsn, "stop_lsn", backup->stop_lsn, "timeline", (json_int_t)backup->timeline,
        "system_identifier", identifier, "version", backup->cluster->version);
    if (backup->restore_point[0])
        json_put(facts, "restore_point", json_string(backup->restore_point));
    return json_dumps(facts, JSON_COMPACT);
}

void pg_backup_clear(struct pg_backup *backup)
{
    DIR *dir = backup->staging[0] ? opendir(backup->staging) : NULL;
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir) {
        closedir(dir);
        rmdir(backup->staging);
    }
    json_decref(backup->stopped);
    *backup = (struct pg_backup){0};
}
