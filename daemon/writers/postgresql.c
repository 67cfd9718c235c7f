/* The PostgreSQL writer: one component, the cluster. It holds nothing that stops the server: freeze only marks a
 * position. Backup mode and its replication slot belong to the session, and end with it; the slot of log backups stays. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "writers/postgresql/backup.h"
#include "writers/postgresql/cluster.h"
#include "writers/postgresql/log.h"
#include "writers/postgresql/restore.h"
#include "writers/postgresql/session.h"
#include "writers/writer.h"

struct pg_state {
    char *name;
    char *data_directory; /* configured, or NULL */
    struct pg_session *session;
    struct pg_cluster cluster; /* as identify told it */
    struct pg_backup backup;
    struct pg_restore restore;
    bool selected;
    int64_t give_up_ms; /* of the event in hand */
    bool log_backups;
    char slot[PG_SLOT_SIZE]; /* of log backups */
    bool slot_made;          /* by this session, and no backup that is complete goes on from it yet */
    char reached[24];        /* what the backup that post_snapshot answered for reaches; "" when it moves nothing */
};

static void pg_close(void *arg)
{
    struct pg_state *state = arg;
    pg_restore_clear(&state->restore);
    pg_session_free(state->session);
    pg_backup_clear(&state->backup);
    pg_cluster_clear(&state->cluster);
    free(state->data_directory);
    free(state->name);
    free(state);
}

static int pg_open(const json_t *configuration, void **ret_state, struct err *err)
{
    const char *data_directory = json_str(configuration, "data_directory", NULL);
    if (data_directory && !path_is_canonical(data_directory))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "data_directory: \"%s\" is not an absolute path",
                       data_directory);
    struct pg_state *state = mem_new(sizeof(*state));
    state->name = str_dup(json_str(configuration, "name", "postgresql"));
    state->data_directory = str_dup(data_directory);
    state->log_backups = json_bool(configuration, "log_backups", false);
    pg_log_slot_name(state->name, state->slot);
    AUTO_FREE char *application_name = str_new("quiesced: %s", state->name);
    state->session = pg_session_new(json_str(configuration, "connection", ""), application_name);
    pg_restore_open(&state->restore, configuration, state->session, &state->cluster);
    *ret_state = state;
    return 0;
}

static json_t *component(const struct pg_cluster *cluster, bool log_backups)
{
    AUTO_FREE char *caption = str_new("PostgreSQL %s cluster %s%s", cluster->version, cluster->data_directory,
                                      cluster->offline ? " (its server is down)" : "");
    json_t *component = json_pack("{s:s, s:s, s:s, s:b, s:b}", "type", "database", "logical_path", "", "name",
                                  cluster->name, "selectable", 1, "selectable_for_restore", 0);
    json_put(component, "hold", json_string("log")); /* freeze stops nothing */
    json_put(component, "caption", json_text(caption));
    json_put(component, "file_sets", pg_cluster_file_sets(cluster, log_backups));
    json_put(component, "dependencies", json_array());
    return component;
}

/* A server that is down has no backup made of it, but may be restored: then its directory must be configured. */
static int read_cluster(struct pg_state *state, struct pg_cluster *ret, struct err *err)
{
    if (pg_session_connect(state->session, err) == 0)
        return pg_cluster_read(state->session, state->data_directory, ret, err);
    struct err offline = {0};
    return state->data_directory && err->hr == (uint32_t)VSS_E_WRITERERROR_RETRYABLE &&
                   pg_cluster_read_offline(state->data_directory, ret, &offline) == 0
               ? 0
               : -1;
}

static int pg_identify(void *arg, int64_t deadline_ms, json_t **ret_metadata, struct err *err)
{
    struct pg_state *state = arg;
    struct pg_cluster cluster;
    pg_session_deadline(state->session, writer_give_up_ms(deadline_ms));
    if (read_cluster(state, &cluster, err) != 0)
        return -1;
    pg_cluster_clear(&state->cluster);
    state->cluster = cluster;
    /* class_id: ours, fixed for ever. */
    json_t *metadata =
        json_pack("{s:s, s:s, s:s, s:i, s:s}", "class_id", "b3f5a1c0-6d1e-4a57-9c0b-5a1170000002", "usage", "user_data",
                  "level", "back_end", "freeze_timeout_ms", 60000, "restore_method", "stop_restore_start");
    json_t *components = json_array();
    json_add(components, component(&cluster, state->log_backups));
    json_put(metadata, "name", json_text(state->name));
    json_put(metadata, "instance_name", json_text(state->name));
    json_put(metadata, "backup_schema", state->log_backups ? json_pack("[s, s, s, s, s]", "copy", "log", "lsn", "new_target", "roll_forward")
                                                           : json_pack("[s]", "new_target"));
    json_put(metadata, "components", components);
    json_put(metadata, "exclude", pg_cluster_excludes(&cluster));
    *ret_metadata = metadata;
    return 0;
}

/* The client chose from what identify told; a cluster that has changed since would be backed up in part. */
static int check_unchanged(struct pg_state *state, struct err *err)
{
    struct pg_cluster now;
    if (pg_cluster_read(state->session, state->data_directory, &now, err) != 0)
        return -1;
    bool same = pg_cluster_same_place(&now, &state->cluster);
    pg_cluster_clear(&now);
    return same ? 0
                : err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Start a new session.",
                          "cluster %s: its directories or tablespaces have changed since the metadata was gathered",
                          state->cluster.name);
}

/* Nothing goes on from a slot whose first backup did not come to its end. Undoing is never refused. */
static void forget_slot(struct pg_state *state)
{
    struct err err = {0};
    struct log_context where = {.writer = state->name};
    if (state->slot_made && (pg_session_connect(state->session, &err) != 0 || pg_log_drop(state->session, state->slot, &err) != 0))
        log_err(LOG_LEVEL_WARNING, &where, &err, "replication slot %s is kept until the next backup", state->slot);
    state->slot_made = false;
}

static int release(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret, (void)err;
    pg_restore_undo(&state->restore, event->deadline_ms);
    forget_slot(state);
    pg_session_disconnect(state->session);
    pg_backup_clear(&state->backup);
    state->reached[0] = '\0';
    state->selected = false;
    return 0;
}

/* A copy leaves everything as it is; the types that our schema does not name are full backups. */
static bool moves(const struct writer_event *event)
{
    return !str_eq(event->backup_type, "copy") && !str_eq(event->backup_type, "other");
}

static bool is_log(const struct pg_state *state, const struct writer_event *event)
{
    return state->log_backups && str_eq(event->backup_type, "log");
}

static const json_t *chosen(const struct pg_state *state, const struct writer_event *event)
{
    size_t i;
    json_t *component;
    json_array_foreach(event->components, i, component)
    {
        if (str_eq(json_str(component, "name", ""), state->cluster.name))
            return component;
    }
    return NULL;
}

static int prepare_backup(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    if (state->backup.way != PG_WAY_NONE)
        release(state, event, ret, err);
    state->selected = state->cluster.name[0] && writer_selected(event, state->cluster.name);
    if (!state->selected)
        return 0;
    if (pg_session_connect(state->session, err) != 0 || check_unchanged(state, err) != 0)
        return -1;
    if (!state->log_backups && moves(event)) /* switched off: what the slot kept is of no more use */
        return pg_log_drop(state->session, state->slot, err);
    if (!is_log(state, event))
        return 0;
    state->backup.session = state->session;
    state->backup.cluster = &state->cluster;
    if (pg_log_start(&state->backup, state->slot, json_str(chosen(state, event), "previous_stamp", NULL), err) == 0)
        return 0;
    pg_backup_clear(&state->backup);
    return -1;
}

static int prepare_snapshot(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (!state->selected)
        return 0;
    if (state->backup.way != (is_log(state, event) ? PG_WAY_LOG : PG_WAY_NONE) || state->backup.frozen)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "prepare_snapshot came twice, or without prepare_backup");
    if (check_unchanged(state, err) != 0)
        return -1;
    if (is_log(state, event))
        return 0;
    if (state->log_backups && moves(event) && pg_log_hold(state->session, state->slot, state->backup.chain, &state->slot_made, err) != 0)
        return -1;
    bool atomic = pg_cluster_in_one_atomic_volume(&state->cluster, json_object_get(event->request, "volumes"));
    return pg_backup_start(&state->backup, atomic ? PG_WAY_ATOMIC : PG_WAY_LABEL, state->session, &state->cluster, err);
}

static int freeze(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret;
    if (!state->selected)
        return 0;
    if (state->backup.way == PG_WAY_NONE)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Send prepare_snapshot first.", "freeze came out of turn");
    return pg_backup_mark(&state->backup, err);
}

static int thaw(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (!state->selected || !json_bool(event->request, "snapshot_taken", false))
        return 0;
    return pg_backup_end(&state->backup, err);
}

static json_t *component_answer(const struct pg_state *state, json_t *extra_files)
{
    AUTO_FREE char *metadata = pg_backup_metadata(&state->backup);
    AUTO_FREE char *stamp = pg_log_stamp(&state->backup);
    json_t *answer =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "logical_path", "", "name", state->cluster.name, "stamp",
                  stamp, "metadata", metadata, "consistent_at", pg_backup_point(&state->backup));
    json_put(answer, "extra_files", extra_files);
    return answer;
}

static int post_snapshot(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    if (!state->selected)
        return 0;
    if (!state->backup.frozen)
        return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Start a new session.",
                       "post_snapshot came without a freeze");
    json_t *extra_files = NULL;
    if (check_unchanged(state, err) != 0 || pg_backup_finish(&state->backup, json_str(event->request, "staging", NULL),
                                                             state->give_up_ms, &extra_files, err) != 0) {
        struct err ignored;
        release(state, event, ret, &ignored);
        return -1;
    }
    *ret = json_array();
    json_add(*ret, component_answer(state, extra_files));
    state->backup.frozen = false;
    if (state->log_backups && moves(event))
        str_copy(state->reached, sizeof(state->reached), state->backup.stop_lsn);
    pg_session_disconnect(state->session); /* nothing more is needed of the server for now */
    return 0;
}

static int pre_restore(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    return pg_restore_pre(&state->restore, event, ret, err);
}

static int post_restore(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    return pg_restore_post(&state->restore, event, ret, err);
}

/* The only place where WAL is given up: for a component that was saved, never for a copy. */
static int backup_complete(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    const json_t *component = chosen(state, event);
    if (!state->reached[0] || !moves(event) || !json_bool(event->request, "component_mode", true) || !json_bool(component, "succeeded", false))
        return 0;
    state->slot_made = false;
    int result = pg_session_connect(state->session, err) != 0 || pg_log_advance(state->session, state->slot, state->reached, err) != 0 ? -1 : 0;
    state->reached[0] = '\0';
    pg_session_disconnect(state->session);
    return result;
}

static int pg_event(void *arg, const struct writer_event *event, json_t **ret_components, struct err *err)
{
    static const struct {
        const char *name;
        int (*handle)(struct pg_state *, const struct writer_event *, json_t **, struct err *);
    } rows[] = {
        {"prepare_backup", prepare_backup},
        {"prepare_snapshot", prepare_snapshot},
        {"freeze", freeze},
        {"thaw", thaw},
        {"post_snapshot", post_snapshot},
        {"backup_complete", backup_complete},
        {"pre_restore", pre_restore},
        {"post_restore", post_restore},
        {"abort", release},
        {"backup_shutdown", release},
    };
    struct pg_state *state = arg;
    state->give_up_ms = writer_give_up_ms(event->deadline_ms);
    pg_session_deadline(state->session, state->give_up_ms);
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (str_eq(rows[i].name, event->name))
            return rows[i].handle(state, event, ret_components, err);
    return 0;
}

static int pg_watch_fd(void *arg)
{
    const struct pg_state *state = arg;
    return pg_session_fd(state->session);
}

static const struct writer writer_postgresql = {
    .abi = WRITER_ABI,
    .name = "postgresql",
    .open = pg_open,
    .identify = pg_identify,
    .event = pg_event,
    .watch_fd = pg_watch_fd,
    .close = pg_close,
};
WRITER_EXPORT(postgresql);
