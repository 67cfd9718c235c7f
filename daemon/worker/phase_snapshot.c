/* DoSnapshotSet: PrepareForSnapshot, Freeze by level, the providers' instant, Thaw in reverse, PostSnapshot.
 * Between the first Freeze and the last Thaw nothing is logged, sent to core, or written to a file. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/participation.h"

struct window {
    int64_t started_ms, ended_ms; /* wall clock */
    int64_t started_us, ended_us; /* monotonic */
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

/* When the first of the frozen writers' windows ends: providers must not go on beyond it. */
static int64_t window_end(const struct writers *writers)
{
    int64_t end = 0;
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_entry *entry = &writers->entries[i];
        int64_t own = entry->freeze_us + entry->freeze_timeout_ms * 1000;
        if (entry->frozen && (end == 0 || own < end))
            end = own;
    }
    return end;
}

static int create_in_window(struct worker *worker, struct err *err)
{
    worker->window_end_us = window_end(&worker->writers);
    int result = snapshots_create(worker, err);
    bool exceeded = worker->window_end_us && clock_mono_us() >= worker->window_end_us;
    worker->window_end_us = 0;
    if (result < 0 && exceeded && !wait_stopped(&worker->wait))
        return err_set(err, VSS_E_HOLD_WRITES_TIMEOUT, "Raise limits.freeze_seconds, or use a faster provider.",
                       "the snapshots were not ready when a writer's freeze window ended");
    return result;
}

/* First Freeze to last Thaw. The thaw comes whatever happened; what it says of late writers is judged by the caller. */
static int window_run(struct worker *worker, struct window *window, json_t *cleanup, struct err *err)
{
    writers_hold_logs(&worker->writers, true);
    window->started_ms = clock_real_ms();
    window->started_us = clock_mono_us();
    undo_push(&worker->undo, HOLD_SNAPSHOTS);
    undo_push(&worker->undo, HOLD_FROZEN);
    int result = freeze_levels(worker, err);
    bool fault_hit = result == 0 && fault("worker.snapshot.create");
    if (result == 0 && !fault_hit)
        result = create_in_window(worker, err);
    undo_release(worker, HOLD_FROZEN, cleanup);
    window->ended_us = clock_mono_us();
    window->ended_ms = clock_real_ms();
    writers_hold_logs(&worker->writers, false);
    return fault_hit ? worker_fault(worker, "worker.snapshot.create", err) : result;
}

static json_t *window_to_json(const struct window *window)
{
    char from[CLOCK_RFC3339_SIZE], to[CLOCK_RFC3339_SIZE];
    return json_pack("{s:s, s:s, s:f}", "started_at", clock_rfc3339(window->started_ms, from), "ended_at",
                     clock_rfc3339(window->ended_ms, to), "window_ms",
                     (double)(window->ended_us - window->started_us) / 1000.0);
}

/* Failure in strict mode counts from the moment that the phase began. */
static bool failed_since(const struct worker *worker, unsigned before)
{
    return worker->strict && worker->writers.failures > before;
}

/* In report mode a writer that failed after Freeze was asked still spoils what it holds, but only for itself. */
static int take_set(struct worker *worker, const json_t *args, json_t *result, json_t *cleanup, struct err *err)
{
    struct writers *writers = &worker->writers;
    unsigned before = writers->failures;
    if (participation_take(worker, args, err) < 0)
        return -1;
    if (snapshots_open(worker, args, err) < 0)
        return -1;
    worker_phase(worker, "prepare_snapshot");
    undo_push(&worker->undo, HOLD_PREPARED);
    writers_ask_all(writers, WRITER_PREPARE_SNAPSHOT);
    writers_tell(worker, TELL_STOPPABLE);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (failed_since(worker, before))
        return writers_first_failure(writers, err);
    if (snapshots_prepare(worker, err) < 0)
        return -1;
    struct window window = {0};
    worker_phase(worker, "freeze");
    if (window_run(worker, &window, cleanup, err) < 0)
        return -1;
    json_put(result, "freeze", window_to_json(&window));
    if (wait_look(&worker->wait))
        return worker_stopped(worker, err);
    if (failed_since(worker, before))
        return writers_first_failure(writers, err);
    worker_phase(worker, "post_snapshot");
    writers_ask_all(writers, WRITER_POST_SNAPSHOT);
    writers_tell(worker, TELL_STOPPABLE);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    return failed_since(worker, before) ? writers_first_failure(writers, err) : 0;
}

/* Abort follows a failure of Freeze, of Thaw, of a provider, and a cancel; a failure of PrepareForSnapshot or
 * PostSnapshot itself raises none (vss-model 2.6), but what the set holds is given back all the same. */
static bool abort_owed(const struct worker *worker)
{
    const struct writers *writers = &worker->writers;
    static const char *const no_abort[] = {"VSS_WS_FAILED_AT_PREPARE_SNAPSHOT", "VSS_WS_FAILED_AT_POST_SNAPSHOT"};
    if (wait_stopped(&worker->wait))
        return true;
    for (size_t i = 0; i < writers->n; i++)
        for (size_t k = 0; k < ELEMENTS(no_abort); k++)
            if (writers->entries[i].failed_order && str_eq(writers->entries[i].state, no_abort[k]))
                return false;
    return true;
}

int operation_snapshot(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *cleanup = undo_cleanup_new();
    int taken = take_set(worker, args, result, cleanup, err);
    if (taken < 0) {
        if (abort_owed(worker))
            undo_release(worker, HOLD_PREPARED, cleanup);
        undo_release(worker, HOLD_SNAPSHOTS, cleanup); /* nothing partial survives */
        json_put(result, "cleanup", json_incref(cleanup));
    } else {
        if (!worker->set.auto_release)
            undo_drop(&worker->undo, HOLD_SNAPSHOTS); /* persistent: outlives the session */
        json_put(result, "snapshots", snapshots_result(&worker->set));
    }
    json_put(result, "writers", writers_status(&worker->writers));
    json_put(result, "components", participation_answers(worker));
    return taken;
}
