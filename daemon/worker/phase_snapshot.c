/* DoSnapshotSet: PrepareForSnapshot, Freeze by level, the providers' instant, Thaw in reverse, PostSnapshot.
 * Between the first Freeze and the last Thaw nothing is logged, sent to core, or written to a file. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/consistency.h"
#include "worker/context.h"
#include "worker/participation.h"
#include "worker/plan.h"

enum { FREEZE_SECONDS = 60 }; /* limits.freeze_seconds, when it is not told */

struct window {
    int64_t started_ms, ended_ms; /* wall clock */
    int64_t started_us, ended_us; /* monotonic */
    json_t *file_systems;         /* what freeze_set_windows says; NULL = none was to be frozen */
};

static int freeze_levels(struct worker *worker, struct err *err)
{
    struct writers *writers = &worker->writers;
    for (int level = 0; level < LEVEL_COUNT; level++) {
        writers_ask_all(writers, WRITER_FREEZE);
        for (size_t i = 0; i < writers->n; i++)
            if (writers->entries[i].level != (enum writer_level)level)
                writers->entries[i].asked = WRITER_EVENT_COUNT;
        size_t failed = writers_tell(worker, TELL_STOPPABLE);
        if (wait_stopped(&worker->wait))
            return worker_stopped(worker, err);
        if (failed && worker->strict)
            return writers_first_failure(writers, err);
    }
    return 0;
}

/* How long providers may go on: until the first frozen writer's window ends, since its failure is the set's. In report mode it is
 * that writer's own, and the last window counts. */
static int64_t window_end(const struct worker *worker)
{
    const struct writers *writers = &worker->writers;
    int64_t end = 0;
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_entry *entry = &writers->entries[i];
        int64_t own = entry->freeze_us + entry->freeze_timeout_ms * 1000;
        if (entry->frozen && (end == 0 || (worker->strict ? own < end : own > end)))
            end = own;
    }
    return end;
}

/* The file systems are frozen after the writers: what those flush is on disk by then. */
static int freeze_file_systems(struct worker *worker, struct err *err)
{
    int64_t *end = &worker->window_end_us;
    *end = window_end(worker);
    if (freeze_set_freeze(worker, err) < 0) {
        *end = 0;
        return -1;
    }
    if (worker->freeze.deadline_us && (*end == 0 || worker->freeze.deadline_us < *end))
        *end = worker->freeze.deadline_us;
    return 0;
}

static int create_in_window(struct worker *worker, struct err *err)
{
    if (freeze_file_systems(worker, err) < 0)
        return -1;
    worker->freeze.late_release = false;
    int result = snapshots_create(worker, err);
    bool exceeded = worker->window_end_us && clock_mono_us() >= worker->window_end_us;
    worker->window_end_us = 0;
    if (result < 0 && exceeded && !worker->freeze.late_release && !wait_stopped(&worker->wait))
        return err_set(err, VSS_E_HOLD_WRITES_TIMEOUT, "Raise limits.freeze_seconds, or use a faster provider.",
                       "the snapshots were not ready when the freeze window ended");
    return result;
}

static int window_work(struct worker *worker, struct err *err)
{
    if (worker_fault(worker, "worker.snapshot.freeze"))
        return worker_fault_error("freeze", err);
    if (freeze_levels(worker, err) < 0)
        return -1;
    if (worker_fault(worker, "worker.snapshot.create"))
        return worker_fault_error("snapshot", err);
    if (create_in_window(worker, err) < 0)
        return -1;
    return worker_fault(worker, "worker.snapshot.thaw") ? worker_fault_error("thaw", err) : 0;
}

/* --- what those who watch are told: before the first Freeze, and after the last Thaw --- */

static json_t *frozen_writers(const struct writers *writers)
{
    json_t *names = json_array();
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_entry *entry = &writers->entries[i];
        if (entry->metadata && entry->components && !entry->out)
            json_add(names, json_string(entry->name));
    }
    return names;
}

/* false: nothing will be held. */
static bool tell_freeze(struct worker *worker)
{
    char since[CLOCK_RFC3339_SIZE], deadline[CLOCK_RFC3339_SIZE];
    AUTO_JSON json_t *writers = frozen_writers(&worker->writers), *mount_points = json_array();
    size_t i;
    const json_t *file_system;
    json_array_foreach(worker->freeze.file_systems, i, file_system)
        json_add(mount_points, json_string(json_str(file_system, "mount_point", "")));
    if (json_array_size(writers) + json_array_size(mount_points) == 0)
        return false;
    int64_t now = clock_real_ms(), limit = worker_limit_ms(worker, "freeze_seconds", FREEZE_SECONDS);
    worker_say(worker, json_pack("{s:s, s:b, s:s, s:s, s:s, s:O, s:O}", "type", "window", "open", 1, "set", worker->set.id, "since", clock_rfc3339(now, since), "deadline",
                                 clock_rfc3339(now + limit, deadline), "file_systems", mount_points, "writers", writers));
    return true;
}

static void tell_thaw(struct worker *worker, const struct window *window)
{
    char until[CLOCK_RFC3339_SIZE];
    worker_say(worker, json_pack("{s:s, s:b, s:s, s:f}", "type", "window", "open", 0, "until", clock_rfc3339(window->ended_ms, until),
                                 "window_ms", (double)(window->ended_us - window->started_us) / 1000.0));
}

/* Of the writers we know that they go on; of the file systems only the agent can tell. */
static void tell_stuck(struct worker *worker)
{
    AUTO_JSON json_t *mount_points = json_array();
    size_t i;
    const json_t *file_system;
    json_array_foreach(worker->freeze.file_systems, i, file_system)
        json_add(mount_points, json_string(json_str(file_system, "mount_point", "")));
    worker_say(worker, json_pack("{s:s, s:b, s:s, s:s, s:O}", "type", "window", "open", 1, "set", worker->set.id, "stuck", FREEZE_SET_STUCK,
                                 "file_systems", mount_points));
}

/* First Freeze to last Thaw. The thaw comes whatever happened; what it says of late writers is judged by the caller. */
static int window_run(struct worker *worker, struct window *window, json_t *cleanup, struct err *err)
{
    bool told = tell_freeze(worker);
    window->started_ms = clock_real_ms();
    window->started_us = clock_mono_us();
    undo_push(&worker->undo, HOLD_FROZEN);
    undo_push(&worker->undo, HOLD_FILE_SYSTEMS);
    int result = window_work(worker, err);
    undo_release(worker, HOLD_FILE_SYSTEMS, cleanup);
    undo_release(worker, HOLD_FROZEN, cleanup);
    window->ended_us = clock_mono_us();
    window->ended_ms = clock_real_ms();
    if (result == 0)
        result = freeze_set_verdict(&worker->freeze, err);
    window->file_systems = freeze_set_windows(&worker->freeze, window->started_ms * 1000 - window->started_us);
    bool stuck = worker->freeze.stuck;
    if (told && stuck)
        tell_stuck(worker);
    freeze_set_close(worker);
    if (told && !stuck)
        tell_thaw(worker, window);
    return result;
}

/* Takes its file systems. */
static json_t *window_to_json(const struct worker *worker, const struct window *window)
{
    char from[CLOCK_RFC3339_SIZE], to[CLOCK_RFC3339_SIZE];
    return json_pack("{s:s, s:s, s:f, s:I, s:o*}", "started_at", clock_rfc3339(window->started_ms, from), "ended_at",
                     clock_rfc3339(window->ended_ms, to), "window_ms", (double)(window->ended_us - window->started_us) / 1000.0, "limit_ms",
                     (json_int_t)worker_limit_ms(worker, "freeze_seconds", FREEZE_SECONDS), "file_systems", window->file_systems);
}

/* Failure in strict mode counts from the moment that the phase began. */
static bool failed_since(const struct worker *worker, unsigned before)
{
    return worker->strict && worker->writers.failures > before;
}

/* A failure of PrepareForSnapshot or PostSnapshot itself raises no Abort (vss-model 2.6). */
static int fail_quietly(const struct writers *writers, bool *ret_abort, struct err *err)
{
    *ret_abort = false;
    return writers_first_failure(writers, err);
}

struct set_result {
    json_t *result, *cleanup; /* borrowed */
    bool abort;               /* when it failed: is Abort owed? */
};

/* In report mode a writer that failed after Freeze was asked still spoils what it holds, but only for itself. */
static int take_set(struct worker *worker, const json_t *args, struct set_result *ret, struct err *err)
{
    struct writers *writers = &worker->writers;
    unsigned before = writers->failures;
    ret->abort = true;
    if (participation_take(worker, args, err) < 0)
        return -1;
    if (snapshots_open(worker, args, err) < 0 || plan_check_set(worker, args, err) < 0)
        return -1;
    worker_phase(worker, "prepare_snapshot");
    undo_push(&worker->undo, HOLD_PREPARED);
    writers_ask_all(writers, WRITER_PREPARE_SNAPSHOT);
    writers_tell(worker, TELL_STOPPABLE);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (failed_since(worker, before))
        return fail_quietly(writers, &ret->abort, err);
    undo_push(&worker->undo, HOLD_SNAPSHOTS);
    if (snapshots_prepare(worker, err) < 0 || freeze_set_prepare(worker, err) < 0)
        return -1;
    struct window window = {0};
    worker_phase(worker, "freeze");
    if (!worker->freeze.file_systems) /* else core waits for us with its store parked */
        snapshots_settle(worker);
    int ran = window_run(worker, &window, ret->cleanup, err);
    json_put(ret->result, "freeze", window_to_json(worker, &window)); /* of a failure, too: applications waited */
    json_put(ret->result, "windows", writers_windows(writers));
    if (ran < 0)
        return -1;
    if (wait_look(&worker->wait))
        return worker_stopped(worker, err);
    if (failed_since(worker, before))
        return writers_first_failure(writers, err);
    if (!worker->set.auto_release && snapshots_make_durable(worker, err) < 0)
        return -1;
    if (worker_fault(worker, "worker.snapshot.post"))
        return worker_fault_error("post_snapshot", err);
    worker_phase(worker, "post_snapshot");
    writers_ask_all(writers, WRITER_POST_SNAPSHOT);
    writers_tell(worker, TELL_STOPPABLE);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    return failed_since(worker, before) ? fail_quietly(writers, &ret->abort, err) : 0;
}

int operation_snapshot(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *cleanup = undo_cleanup_new();
    struct set_result set = {.result = result, .cleanup = cleanup};
    int taken = take_set(worker, args, &set, err);
    freeze_set_close(worker); /* when it came no further than its preparation */
    if (taken < 0) {
        /* It follows a failure of Freeze, of Thaw, of a provider, and a cancel; what the set holds is given back in any case. */
        if (set.abort || wait_stopped(&worker->wait))
            undo_release(worker, HOLD_PREPARED, cleanup);
        undo_release(worker, HOLD_SNAPSHOTS, cleanup); /* nothing partial survives */
        json_put(result, "cleanup", json_incref(cleanup));
    } else {
        snapshots_let_go(&worker->set);
        if (!worker->set.auto_release)
            undo_drop(&worker->undo, HOLD_SNAPSHOTS); /* persistent: outlives the session */
        json_put(result, "snapshots", snapshots_result(&worker->set));
        json_put(result, "consistency", consistency_result(worker, json_object_get(args, "paths")));
    }
    json_put(result, "writers", writers_status(&worker->writers));
    json_put(result, "components", participation_answers(worker));
    return taken;
}
