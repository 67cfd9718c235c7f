/* The Redis writer: one component, the server. From freeze to thaw its writes are paused (CLIENT PAUSE WRITE), and what
 * it would load (the AOF, else the RDB file) holds every write before that. A pause is the server's own and outlives
 * us: so it is short, and renewed while we live. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/redis/restore.h"
#include "writers/redis/server.h"
#include "writers/redis/session.h"
#include "writers/volumes.h"
#include "writers/writer.h"

enum {
    FREEZE_TIMEOUT_MS = 60 * 1000, /* VSS: a writer holds 60 seconds at most */
    PAUSE_MS = 5000,               /* how long a dead writer's pause lasts */
    RENEW_MS = 1000,               /* leaves a busy machine four seconds to let us run */
    LAST_WORDS_MS = 2000,
    LOOK_MS = 5,   /* between two looks at the server's persistence while it is paused */
    REST_MS = 100, /* while it is not */
};

static const char component_name[] = "main"; /* one per server; servers are told apart by their writers' names */

struct redis_state {
    char *name;
    int64_t freeze_timeout_ms;
    struct redis_session *session;
    struct redis_server server; /* as identify told it */
    bool selected, prepared;
    bool atomic; /* the AOF's directory lies in a volume that is snapshotted at one instant: a rewrite does no harm */
    bool held;
    bool done;               /* was held from freeze to thaw without a break */
    int64_t paused_until_ms; /* CLOCK_MONOTONIC, the earliest moment at which the server may go on; 0 = not paused */
    int64_t hold_end_ms;     /* no pause goes beyond it */
    struct redis_persistence frozen; /* as it was at the freeze */
    int64_t give_up_ms;              /* of the event in hand */
    char stamp[CLOCK_RFC3339_SIZE];
    struct redis_restore restore;
};

/* Also when the connection is lost: the pause does not end with it. */
static void unpause(struct redis_state *state)
{
    struct err ignored = {0};
    if (!state->paused_until_ms)
        return;
    redis_session_last_words(state->session, LAST_WORDS_MS);
    const char *const words[] = {"CLIENT", "UNPAUSE", NULL};
    if (redis_session_fd(state->session) < 0 || redis_session_command(state->session, words, NULL, &ignored) != 0)
        if (redis_session_connect(state->session, &ignored) == 0)
            redis_session_command(state->session, words, NULL, &ignored);
    state->paused_until_ms = 0;
}

/* Begins or prolongs the pause. Fails when it may have ended in between: the server takes the new one after the old. */
static int pause_writes(struct redis_state *state, struct err *err)
{
    int64_t before = clock_mono_ms(), left = state->hold_end_ms - before;
    if (left <= 0)
        return err_set(err, VSS_E_WRITERERROR_TIMEOUT, NULL, "the freeze window is over");
    int64_t ms = left < PAUSE_MS ? left : PAUSE_MS;
    bool prolongs = state->paused_until_ms != 0;
    int64_t until = state->paused_until_ms;
    AUTO_FREE char *text = str_new("%lld", (long long)ms);
    if (!prolongs)
        state->paused_until_ms = before; /* from here on there may be something to release */
    if (redis_session_command(state->session, (const char *[]){"CLIENT", "PAUSE", text, "WRITE", NULL}, NULL, err) != 0)
        return -1;
    state->paused_until_ms = before + ms;
    if (prolongs && clock_mono_ms() > until)
        return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "The machine is too busy.",
                       "the pause of Redis ended before it was renewed");
    return 0;
}

static int keep_paused(struct redis_state *state, struct err *err)
{
    return state->paused_until_ms && state->paused_until_ms - clock_mono_ms() < PAUSE_MS - RENEW_MS
               ? pause_writes(state, err)
               : 0;
}

static void forget(struct redis_state *state)
{
    unpause(state);
    redis_session_disconnect(state->session);
    state->selected = state->prepared = state->held = state->done = false;
}

static void redis_close(void *arg)
{
    struct redis_state *state = arg;
    forget(state);
    redis_restore_clear(&state->restore);
    redis_session_free(state->session);
    free(state->name);
    free(state);
}

static int redis_open(const json_t *configuration, void **ret_state, struct err *err)
{
    if (!json_str(configuration, "socket", NULL) == !json_str(configuration, "host", NULL))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "For example host: 127.0.0.1.",
                       "the writer needs exactly one of socket and host");
    struct redis_state *state = mem_new(sizeof(*state));
    state->name = str_dup(json_str(configuration, "name", "redis"));
    state->freeze_timeout_ms = json_int(configuration, "freeze_timeout_ms", FREEZE_TIMEOUT_MS);
    state->session = redis_session_new(configuration);
    redis_restore_open(&state->restore, configuration, state->session, &state->server);
    *ret_state = state;
    return 0;
}

static json_t *component(const struct redis_server *server)
{
    AUTO_FREE char *caption =
        str_new("Redis %s, %s in %s", server->version, server->aof ? "AOF" : "RDB file", server->directory);
    json_t *component = json_pack("{s:s, s:s, s:s, s:b, s:b}", "type", "database", "logical_path", "", "name",
                                  component_name, "selectable", 1, "selectable_for_restore", 0);
    json_put(component, "caption", json_text(caption));
    json_put(component, "file_sets", redis_server_file_sets(server));
    json_put(component, "dependencies", json_array());
    return component;
}

static int redis_identify(void *arg, int64_t deadline_ms, json_t **ret_metadata, struct err *err)
{
    struct redis_state *state = arg;
    redis_session_deadline(state->session, writer_give_up_ms(deadline_ms));
    if (redis_session_connect(state->session, err) != 0 || redis_server_read(state->session, &state->server, err) != 0)
        return -1;
    /* class_id: ours, fixed for ever. */
    json_t *metadata = json_pack("{s:s, s:s, s:s, s:I, s:s}", "class_id", "b3f5a1c0-6d1e-4a57-9c0b-5a1170000004",
                                 "usage", "user_data", "level", "back_end", "freeze_timeout_ms",
                                 (json_int_t)state->freeze_timeout_ms, "restore_method", "stop_restore_start");
    json_t *components = json_array();
    json_add(components, component(&state->server));
    json_put(metadata, "name", json_text(state->name));
    json_put(metadata, "instance_name", json_text(state->name));
    json_put(metadata, "backup_schema", json_pack("[s]", "new_target"));
    json_put(metadata, "components", components);
    json_put(metadata, "exclude", redis_server_excludes(&state->server));
    *ret_metadata = metadata;
    return 0;
}

/* The client chose from what identify told. */
static int check_unchanged(struct redis_state *state, struct err *err)
{
    struct redis_server now;
    if (redis_server_read(state->session, &now, err) != 0)
        return -1;
    return redis_server_same_place(&now, &state->server)
               ? 0
               : err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Start a new session.",
                         "the server's persistence or directory has changed since the metadata was gathered");
}

/* The RDB file holds all when nothing has changed since it was saved; else it is saved. */
static int save(struct redis_state *state, struct err *err)
{
    bool begun = false;
    for (;;) {
        struct redis_persistence now;
        if (keep_paused(state, err) != 0 || redis_server_persistence(state->session, &now, err) != 0)
            return -1;
        if (!now.saving && begun && !now.save_ok)
            return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "Redis: BGSAVE failed");
        if (!now.saving && now.save_ok && (now.changes == 0 || (begun && !state->paused_until_ms))) {
            state->frozen = now;
            return 0;
        }
        if (!now.saving) {
            if (redis_session_command(state->session, (const char *[]){"BGSAVE", NULL}, NULL, err) != 0)
                return -1;
            begun = true;
        }
        if (redis_session_wait(state->session, LOOK_MS, err) != 0)
            return -1;
    }
}

static int aof_failing(struct err *err)
{
    return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log; its disk may be full.",
                   "Redis cannot write its AOF");
}

/* The AOF's files change while they are rewritten: not with the server paused, but before, is that waited for. */
static int wait_rewritten(struct redis_state *state, struct err *err)
{
    for (;;) {
        struct redis_persistence now;
        if (redis_server_persistence(state->session, &now, err) != 0)
            return -1;
        if (!now.write_ok)
            return aof_failing(err);
        if (!now.rewriting || state->atomic)
            return 0;
        if (redis_session_wait(state->session, REST_MS, err) != 0)
            return -1;
    }
}

/* Paused, and every acknowledged write is in the AOF: the server may acknowledge up to two seconds ahead of a slow
 * disk. */
static int hold_aof(struct redis_state *state, struct err *err)
{
    if (wait_rewritten(state, err) != 0 || pause_writes(state, err) != 0)
        return -1;
    for (;;) {
        if (keep_paused(state, err) != 0 || redis_server_persistence(state->session, &state->frozen, err) != 0)
            return -1;
        if (!state->frozen.write_ok)
            return aof_failing(err);
        if (state->frozen.rewriting && !state->atomic) { /* began just before the pause */
            int64_t give_up_ms = state->give_up_ms;
            unpause(state);
            redis_session_deadline(state->session, give_up_ms);
            if (wait_rewritten(state, err) != 0 || pause_writes(state, err) != 0)
                return -1;
            continue;
        }
        if (state->frozen.aof_unwritten == 0)
            return 0;
        if (redis_session_wait(state->session, LOOK_MS, err) != 0)
            return -1;
    }
}

static int hold(struct redis_state *state, struct err *err)
{
    if (state->server.aof)
        return hold_aof(state, err);
    return pause_writes(state, err) == 0 ? save(state, err) : -1;
}

static int release(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret, (void)err;
    forget(state);
    inplace_undo(state->restore.inplace, event->deadline_ms);
    return 0;
}

static int prepare_backup(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    forget(state);
    redis_session_deadline(state->session, state->give_up_ms);
    state->selected = state->server.directory[0] && writer_selected(event, component_name);
    if (!state->selected)
        return 0;
    return redis_session_connect(state->session, err) == 0 ? check_unchanged(state, err) : -1;
}

/* Without a hold: a save that cannot work fails here, and the one within the freeze finds the machine warm. */
static int prepare_snapshot(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (!state->selected)
        return 0;
    AUTO_JSON json_t *directories = json_array();
    json_add(directories, redis_server_append_path(&state->server));
    state->atomic = volumes_one_atomic(json_object_get(event->request, "volumes"), directories, 0);
    if (check_unchanged(state, err) != 0 || (state->server.aof ? wait_rewritten(state, err) : save(state, err)) != 0)
        return -1;
    state->prepared = true;
    return 0;
}

static int freeze(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    if (!state->selected || state->held)
        return 0;
    if (!state->prepared)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Send prepare_snapshot first.", "freeze came out of turn");
    int64_t own_end_ms = clock_mono_ms() + state->freeze_timeout_ms;
    state->hold_end_ms = own_end_ms < event->deadline_ms ? own_end_ms : event->deadline_ms;
    if (check_unchanged(state, err) != 0 || hold(state, err) != 0) {
        forget(state);
        return -1;
    }
    clock_rfc3339(clock_real_ms(), state->stamp);
    state->held = true;
    return 0;
}

/* Nothing was written, although somebody else may have ended the pause, and no file that is copied one after the other
 * was rewritten. A save that ends meanwhile sets the count of changes back: then the AOF's length tells. */
static bool unchanged_since_freeze(const struct redis_state *state, const struct redis_persistence *now)
{
    const struct redis_persistence *then = &state->frozen;
    if (!state->server.aof)
        return now->changes == 0;
    bool same_files = now->aof_bytes == then->aof_bytes && !now->rewriting;
    bool same_count = now->changes == then->changes && str_eq(now->last_save, then->last_save);
    return (same_files || same_count) && now->aof_unwritten == 0 && (same_files || state->atomic);
}

static int thaw(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)event, (void)ret;
    if (!state->held)
        return 0;
    struct redis_persistence now;
    bool answered = check_unchanged(state, err) == 0 && redis_server_persistence(state->session, &now, err) == 0;
    bool lasted = clock_mono_ms() <= state->paused_until_ms;
    unpause(state);
    state->held = state->prepared = false;
    if (!answered) {
        err->hr = VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT;
        return err_prefix(err, "it is not known whether the hold lasted until thaw");
    }
    if (!lasted || !unchanged_since_freeze(state, &now))
        return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Start a new session.", "Redis: %s",
                       lasted ? "its files changed between freeze and thaw" : "the pause did not last until thaw");
    state->done = true;
    return 0;
}

static int post_snapshot(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    if (!state->selected && !writer_selected(event, component_name))
        return 0;
    if (!state->done)
        return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Start a new session.",
                       "the server was not held from freeze to thaw");
    AUTO_JSON json_t *facts =
        json_pack("{s:s, s:s}", "version", state->server.version, "way", state->server.aof ? "aof" : "rdb");
    if (state->server.aof)
        json_put(facts, "aof_bytes", json_integer(state->frozen.aof_bytes));
    else
        json_put(facts, "rdb_last_save_time", json_text(state->frozen.last_save));
    AUTO_FREE char *metadata = json_dumps(facts, JSON_COMPACT);
    *ret = json_array();
    json_add(*ret, json_pack("{s:s, s:s, s:s, s:s}", "logical_path", "", "name", component_name, "stamp", state->stamp,
                             "metadata", metadata));
    forget(state); /* nothing more is needed of the server */
    return 0;
}

static int pre_restore(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    const json_t *component = inplace_component(event, component_name, false);
    AUTO_JSON json_t *sets = redis_server_file_sets(&state->server);
    return component ? inplace_pre_restore(state->restore.inplace, event, component, sets, ret, err) : 0;
}

static int post_restore(struct redis_state *state, const struct writer_event *event, json_t **ret, struct err *err)
{
    (void)ret;
    const json_t *component = inplace_component(event, component_name, false);
    return component ? inplace_post_restore(state->restore.inplace, event, component, err) : 0;
}

static int redis_event(void *arg, const struct writer_event *event, json_t **ret_components, struct err *err)
{
    static const struct {
        const char *name;
        int (*handle)(struct redis_state *, const struct writer_event *, json_t **, struct err *);
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
    struct redis_state *state = arg;
    state->give_up_ms = writer_give_up_ms(event->deadline_ms);
    redis_session_deadline(state->session, state->give_up_ms);
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (str_eq(rows[i].name, event->name))
            return rows[i].handle(state, event, ret_components, err);
    return 0;
}

static int redis_renew(void *arg, struct err *err)
{
    struct redis_state *state = arg;
    if (!state->held)
        return 0;
    if (clock_mono_ms() > state->paused_until_ms)
        return err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT,
                       "The machine is too busy, or the writer was stopped.",
                       "the pause of Redis ended before it was renewed");
    redis_session_deadline(state->session, state->paused_until_ms);
    return pause_writes(state, err);
}

static int redis_watch_fd(void *arg)
{
    const struct redis_state *state = arg;
    return redis_session_fd(state->session);
}

static const struct writer writer_redis = {
    .abi = WRITER_ABI,
    .name = "redis",
    .open = redis_open,
    .identify = redis_identify,
    .event = redis_event,
    .watch_fd = redis_watch_fd,
    .close = redis_close,
    .leased = true,
    .renew = redis_renew,
    .renew_ms = RENEW_MS,
};
WRITER_EXPORT(redis);
