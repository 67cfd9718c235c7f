/* The PostgreSQL writer: one component, the cluster. It holds nothing that stops the server: freeze only marks a
 * position. Backup mode and the replication slot belong to the session, and end with it. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/postgresql/backup.h"
#include "writers/postgresql/cluster.h"
#include "writers/postgresql/session.h"
#include "writers/writer.h"

struct pg_state {
    char *name;
    char *data_directory; /* configured, or NULL */
    struct pg_session *session;
    struct pg_cluster cluster; /* as identify told it */
    struct pg_backup backup;
    bool selected;
    int64_t give_up_ms; /* of the event in hand */
};

static void pg_close(void *arg)
{
    struct pg_state *state = arg;
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
    AUTO_FREE char *application_name = str_new("quiesced: %s", state->name);
    state->session = pg_session_new(json_str(configuration, "connection", ""), application_name);
    *ret_state = state;
    return 0;
}

static json_t *component(const struct pg_cluster *cluster)
{
    AUTO_FREE char *caption = str_new("PostgreSQL %s cluster %s", cluster->version, cluster->data_directory);
    json_t *component = json_pack("{s:s, s:s, s:s, s:b, s:b}", "type", "database", "logical_path", "", "name",
                                  cluster->name, "selectable", 1, "selectable_for_restore", 0);
    json_put(component, "caption", json_text(caption));
    json_put(component, "file_sets", pg_cluster_file_sets(cluster));
    json_put(component, "dependencies", json_array());
    return component;
}

static int pg_identify(void *arg, int64_t deadline_ms, json_t **ret_metadata, struct err *err)
{
    struct pg_state *state = arg;
    struct pg_cluster cluster;
    pg_session_deadline(state->session, writer_give_up_ms(deadline_ms));
    if (pg_session_connect(state->session, err) != 0 ||
        pg_cluster_read(state->session, state->data_directory, &cluster, err) != 0)
        return -1;
    pg_cluster_clear(&state->cluster);
    state->cluster = cluster;
    /* class_id: ours, fixed for ever. */
    json_t *metadata =
        json_pack("{s:s, s:s, s:s, s:i, s:s}", "class_id", "b3f5a1c0-6d1e-4a57-9c0b-5a1170000002", "usage", "user_data",
                  "level", "back_end", "freeze_timeout_ms", 60000, "restore_method", "stop_restore_start");
    json_t *components = json_array();
    json_add(components, component(&cluster));
    json_put(metadata, "name", json_text(state->name));
    json_put(metadata, "instance_name", json_text(state->name));
    json_put(metadata, "backup_schema", json_array());
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

static int release(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret, (void)err;
    pg_session_disconnect(state->session);
    pg_backup_clear(&state->backup);
    state->selected = false;
    return 0;
}

static int prepare_backup(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (state->backup.way != PG_WAY_NONE)
        release(state, event, ret, err);
    state->selected = state->cluster.name[0] && writer_selected(event, state->cluster.name);
    if (!state->selected)
        return 0;
    if (pg_session_connect(state->session, err) != 0)
        return -1;
    return check_unchanged(state, err);
}

static int prepare_snapshot(struct pg_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (!state->selected)
        return 0;
    if (state->backup.way != PG_WAY_NONE)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "prepare_snapshot came twice");
    if (check_unchanged(state, err) != 0)
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

static json_t *component_answer(const struct pg_state *state, json_t *extra_files)
{
    AUTO_FREE char *metadata = pg_backup_metadata(&state->backup);
    json_t *answer = json_pack("{s:s, s:s, s:s, s:s}", "logical_path", "", "name", state->cluster.name, "stamp",
                               state->backup.stop_lsn, "metadata", metadata);
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
    pg_session_disconnect(state->session); /* nothing more is needed of the server */
    return 0;
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
        {"post_snapshot", post_snapshot},
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
