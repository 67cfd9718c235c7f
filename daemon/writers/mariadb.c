/* The MariaDB writer: one component, the server. From freeze to thaw one session holds BACKUP STAGE BLOCK_COMMIT: no
 * table changes, and MyISAM and Aria tables are closed on disk. The server lets go when the session ends. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/mariadb/restore.h"
#include "writers/mariadb/server.h"
#include "writers/mariadb/session.h"
#include "writers/writer.h"

enum { FREEZE_TIMEOUT_MS = 60 * 1000 }; /* VSS: a writer holds 60 seconds at most */

static const char component_name[] = "main"; /* one per server; servers are told apart by their writers' names */

struct maria_state {
    char *name;
    char *data_directory; /* configured, or NULL: needed of a server that is down */
    int64_t freeze_timeout_ms;
    struct maria_session *session;
    struct maria_server server; /* as identify told it */
    bool selected;
    bool started;       /* BACKUP STAGE START */
    bool held;          /* BACKUP STAGE BLOCK_COMMIT */
    bool done;          /* was held from freeze to thaw without a break */
    int64_t give_up_ms; /* of the event in hand */
    json_t *facts;      /* of the instant, or NULL */
    struct maria_restore restore;
    char stamp[CLOCK_RFC3339_SIZE];
};

static void forget(struct maria_state *state)
{
    maria_session_disconnect(state->session);
    json_decref(state->facts);
    state->facts = NULL;
    state->selected = state->started = state->held = state->done = false;
}

static void maria_close(void *arg)
{
    struct maria_state *state = arg;
    forget(state);
    maria_restore_clear(&state->restore);
    maria_session_free(state->session);
    maria_server_clear(&state->server);
    free(state->data_directory);
    free(state->name);
    free(state);
}

static int maria_open(const json_t *configuration, void **ret_state, struct err *err)
{
    if (!json_str(configuration, "socket", NULL) == !json_str(configuration, "host", NULL))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Usually socket: /run/mysqld/mysqld.sock.",
                       "the writer needs exactly one of socket and host");
    struct maria_state *state = mem_new(sizeof(*state));
    state->name = str_dup(json_str(configuration, "name", "mariadb"));
    state->freeze_timeout_ms = json_int(configuration, "freeze_timeout_ms", FREEZE_TIMEOUT_MS);
    state->data_directory = str_dup(json_str(configuration, "data_directory", NULL));
    state->session = maria_session_new(configuration);
    maria_restore_open(&state->restore, configuration, state->session, &state->server);
    *ret_state = state;
    return 0;
}

static json_t *component(const struct maria_server *server)
{
    AUTO_FREE char *caption = server->offline ? str_new("MariaDB, %s (it is down)", server->data_directory)
                                              : str_new("MariaDB %s, %s", server->version, server->data_directory);
    json_t *component = json_pack("{s:s, s:s, s:s, s:b, s:b}", "type", "database", "logical_path", "", "name",
                                  component_name, "selectable", 1, "selectable_for_restore", 0);
    json_put(component, "caption", json_text(caption));
    json_put(component, "file_sets", maria_server_file_sets(server));
    json_put(component, "dependencies", json_array());
    return component;
}

/* A server that is down has no backup made of it, but may be restored: then its directory must be configured. */
static int read_server(struct maria_state *state, struct maria_server *ret, struct err *err)
{
    if (maria_session_connect(state->session, err) == 0)
        return maria_server_read(state->session, ret, err);
    struct err offline = {0};
    return state->data_directory && err->hr == (uint32_t)VSS_E_WRITERERROR_RETRYABLE &&
                   maria_server_read_offline(state->data_directory, ret, &offline) == 0
               ? 0
               : -1;
}

static int maria_identify(void *arg, int64_t deadline_ms, json_t **ret_metadata, struct err *err)
{
    struct maria_state *state = arg;
    struct maria_server server;
    maria_session_deadline(state->session, writer_give_up_ms(deadline_ms));
    if (read_server(state, &server, err) != 0)
        return -1;
    maria_server_clear(&state->server);
    state->server = server;
    if (!server.offline && maria_server_check_inside(&state->server, err) != 0)
        return -1;
    /* class_id: ours, fixed for ever. */
    json_t *metadata = json_pack("{s:s, s:s, s:s, s:I, s:s}", "class_id", "b3f5a1c0-6d1e-4a57-9c0b-5a1170000003",
                                 "usage", "user_data", "level", "back_end", "freeze_timeout_ms",
                                 (json_int_t)state->freeze_timeout_ms, "restore_method", "stop_restore_start");
    json_t *components = json_array();
    json_add(components, component(&state->server));
    json_put(metadata, "name", json_text(state->name));
    json_put(metadata, "instance_name", json_text(state->name));
    json_put(metadata, "backup_schema", json_pack("[s]", "new_target"));
    json_put(metadata, "components", components);
    json_put(metadata, "exclude", maria_server_excludes(&state->server));
    *ret_metadata = metadata;
    return 0;
}

/* The client chose from what identify told; a server that has moved since would be backed up in part. */
static int check_unchanged(struct maria_state *state, struct err *err)
{
    struct maria_server now;
    if (maria_server_read(state->session, &now, err) != 0)
        return -1;
    bool same = maria_server_same_place(&now, &state->server);
    maria_server_clear(&now);
    return same ? 0
                : err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Start a new session.",
                          "the server's directories have changed since the metadata was gathered");
}

static int run_all(struct maria_state *state, const char *const *statements, struct err *err)
{
    for (; *statements; statements++)
        if (maria_session_query(state->session, *statements, NULL, err) != 0)
            return -1;
    return 0;
}

static int release(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret, (void)err;
    forget(state);
    inplace_undo(state->restore.inplace, event->deadline_ms);
    return 0;
}

static int prepare_backup(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    forget(state);
    state->selected = state->server.data_directory[0] && writer_selected(event, component_name);
    if (!state->selected)
        return 0;
    if (maria_session_connect(state->session, err) != 0)
        return -1;
    return check_unchanged(state, err);
}

/* What closes tables and writes them out is done once without a hold, so that freeze has little left to do. FLUSH
 * already blocks writers of MyISAM and Aria tables: it is not kept until freeze, which alone has a lease. */
static int prepare_snapshot(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    static const char *const statements[] = {"BACKUP STAGE START", "BACKUP STAGE FLUSH", "BACKUP STAGE END",
                                             "BACKUP STAGE START", NULL};
    (void)ret;
    if (!state->selected)
        return 0;
    if (state->started)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "prepare_snapshot came twice");
    if (!maria_server_in_one_atomic_volume(&state->server, json_object_get(event->request, "volumes")))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                       "InnoDB goes on writing its files while commits are blocked: put them on one btrfs subvolume, "
                       "or a file system that is frozen or snapshotted as a whole.",
                       "%s: data directory and InnoDB's files do not lie in one volume with an atomic snapshot",
                       state->server.data_directory);
    int64_t most_ms = clock_mono_ms() + state->freeze_timeout_ms; /* FLUSH waits in front of other writers */
    maria_session_deadline(state->session, most_ms < state->give_up_ms ? most_ms : state->give_up_ms);
    if (check_unchanged(state, err) != 0 || run_all(state, statements, err) != 0) {
        forget(state);
        return -1;
    }
    state->started = true;
    return 0;
}

/* Where the binary log stands, for replicas and point-in-time recovery; null without one, or without the right to ask.
 */
static int read_facts(struct maria_state *state, struct err *err)
{
    AUTO_JSON json_t *master = NULL;
    AUTO_JSON json_t *gtid = NULL;
    struct err refused = {0};
    if (maria_session_query(state->session, "SHOW MASTER STATUS", &master, &refused) == 0)
        maria_session_query(state->session, "SELECT @@global.gtid_binlog_pos", &gtid, &refused);
    if (!maria_session_connected(state->session)) { /* and with it the hold is gone */
        *err = refused;
        return -1;
    }
    clock_rfc3339(clock_real_ms(), state->stamp);
    state->facts = json_object();
    json_put(state->facts, "version", json_text(state->server.version));
    json_put(state->facts, "binlog_file", json_text(maria_cell(master, 0, 0)));
    json_put(state->facts, "binlog_position", json_text(maria_cell(master, 0, 1)));
    json_put(state->facts, "gtid_binlog_pos", json_text(maria_cell(gtid, 0, 0)));
    return 0;
}

/* No table can be made between the look at the directories and the instant: the look comes after BLOCK_DDL. InnoDB
 * may have acknowledged what is not in its log yet. */
static int hold(struct maria_state *state, struct err *err)
{
    static const char *const before[] = {"BACKUP STAGE FLUSH", "BACKUP STAGE BLOCK_DDL", NULL};
    static const char *const after[] = {"BACKUP STAGE BLOCK_COMMIT", "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS", NULL};
    if (run_all(state, before, err) != 0 || maria_server_check_inside(&state->server, err) != 0 ||
        run_all(state, after, err) != 0 || maria_server_wait_written(state->session, err) != 0)
        return -1;
    return read_facts(state, err);
}

static int freeze(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret;
    if (!state->selected || state->held)
        return 0;
    if (!state->started)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Send prepare_snapshot first.", "freeze came out of turn");
    if (hold(state, err) != 0) {
        forget(state);
        return -1;
    }
    state->held = true;
    return 0;
}

/* END fails when the session holds no stage any more. */
static int thaw(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret;
    if (!state->held)
        return 0;
    if (maria_session_query(state->session, "BACKUP STAGE END", NULL, err) != 0) {
        forget(state);
        err->hr = VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT;
        return err_prefix(err, "the hold did not last until thaw");
    }
    state->held = state->started = false;
    state->done = true;
    return 0;
}

static int post_snapshot(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    if (!state->selected && !writer_selected(event, component_name))
        return 0;
    if (!state->done)
        return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Start a new session.",
                       "the server was not held from freeze to thaw");
    AUTO_FREE char *metadata = json_dumps(state->facts, JSON_COMPACT);
    *ret = json_array();
    json_add(*ret, json_pack("{s:s, s:s, s:s, s:s}", "logical_path", "", "name", component_name, "stamp", state->stamp,
                             "metadata", metadata));
    forget(state); /* nothing more is needed of the server */
    return 0;
}

static int pre_restore(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    const json_t *component = inplace_component(event, component_name, false);
    AUTO_JSON json_t *sets = maria_server_file_sets(&state->server);
    return component ? inplace_pre_restore(state->restore.inplace, event, component, sets, ret, err) : 0;
}

static int post_restore(struct maria_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    const json_t *component = inplace_component(event, component_name, false);
    return component ? inplace_post_restore(state->restore.inplace, event, component, err) : 0;
}

static int maria_event(void *arg, const struct writer_event *event, json_t **ret_components, struct err *err)
{
    static const struct {
        const char *name;
        int (*handle)(struct maria_state *, const struct writer_event *, json_t **, struct err *);
    } rows[] = {
        {"prepare_backup", prepare_backup},
        {"prepare_snapshot", prepare_snapshot},
        {"freeze", freeze},
        {"thaw", thaw},
        {"post_snapshot", post_snapshot},
        {"pre_restore", pre_restore},
        {"post_restore", post_restore},
        {"abort", release},
        {"backup_shutdown", release},
    };
    struct maria_state *state = arg;
    state->give_up_ms = writer_give_up_ms(event->deadline_ms);
    maria_session_deadline(state->session, state->give_up_ms);
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (str_eq(rows[i].name, event->name))
            return rows[i].handle(state, event, ret_components, err);
    return 0;
}

static int maria_watch_fd(void *arg)
{
    const struct maria_state *state = arg;
    return maria_session_fd(state->session);
}

static const struct writer writer_mariadb = {
    .abi = WRITER_ABI,
    .name = "mariadb",
    .open = maria_open,
    .identify = maria_identify,
    .event = maria_event,
    .watch_fd = maria_watch_fd,
    .close = maria_close,
    .leased = true,
};
WRITER_EXPORT(mariadb);
