#include "worker/freeze_set.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/place.h"
#include "providers/tree.h"
#include "worker/context.h"
#include "worker/mounts.h"
#include "worker/superblocks.h"
#include "worker/volumes.h"

enum {
    GUARD_MS = 15000,      /* until a guardian holds */
    PARK_MS = 5000,        /* until core has parked its store */
    THAW_MS = 5000,        /* until the guardian has thawed (FITHAW writes a superblock); then the agent is asked */
    THAW_AGENT_MS = 60000, /* a FIFREEZE that hangs ends when its dirty data is written */
    FREEZE_SECONDS = 60,
};

/* --- which file systems, in which order --- */

struct candidate {
    const struct provider_snapshot *item;
    int fd;
    char device[32];
    unsigned depth;
    size_t order;
};

static int leaf_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->depth != y->depth)
        return x->depth > y->depth ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int open_candidate(struct libmnt_table *mounts, const struct superblocks *superblocks,
                          struct candidate *candidate, struct err *err)
{
    const struct volume *volume = &candidate->item->volume;
    struct statx mount;
    candidate->fd = place_open_path(volume->mount_point, O_RDONLY);
    if (candidate->fd < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", volume->mount_point);
    if (statx(candidate->fd, "", AT_EMPTY_PATH, TREE_STATX, &mount) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "%s", volume->mount_point);
    struct libmnt_fs *fs = mounts_by_id(mounts, mount.stx_mnt_id);
    dev_t device = fs ? mnt_fs_get_devno(fs) : makedev(mount.stx_dev_major, mount.stx_dev_minor);
    str_format(candidate->device, sizeof(candidate->device), "%u:%u", major(device), minor(device));
    candidate->depth = superblocks_depth(superblocks, volume->superblock);
    return 0;
}

static bool chosen(const struct candidate *candidates, size_t n, const char *superblock)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(candidates[i].item->volume.superblock, superblock))
            return true;
    return false;
}

static int collect(struct worker *worker, const struct superblocks *superblocks, struct candidate *candidates,
                   size_t *ret_n, struct err *err)
{
    const struct snapshot_set *set = &worker->set;
    AUTO_MOUNTS struct libmnt_table *mounts = mounts_read(err);
    if (!mounts)
        return -1;
    for (size_t i = 0; i < set->n; i++) {
        const struct provider_snapshot *item = &set->items[i];
        if ((item->freeze != FREEZE_WANTED && item->freeze != FREEZE_LENT) || chosen(candidates, *ret_n, item->volume.superblock))
            continue;
        if (*ret_n == FREEZE_SET_MAX_FILE_SYSTEMS)
            return err_set(err, VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED, NULL,
                           "more than %d file systems are to be frozen at once", FREEZE_SET_MAX_FILE_SYSTEMS);
        struct candidate *candidate = &candidates[*ret_n];
        *candidate = (struct candidate){.item = item, .fd = -1, .order = *ret_n};
        (*ret_n)++;
        if (open_candidate(mounts, superblocks, candidate, err) < 0)
            return -1;
    }
    return 0;
}

static void adopt(struct freeze_set *freeze, const struct superblocks *superblocks, const struct candidate *candidates,
                  size_t n)
{
    AUTO_JSON json_t *frozen = json_array();
    freeze->file_systems = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct volume *volume = &candidates[i].item->volume;
        json_add(freeze->file_systems,
                 json_pack("{s:s, s:s, s:s, s:s, s:b}", "device", candidates[i].device, "mount_point", volume->mount_point,
                           "source", volume->source, "fs_type", volume->fs_type, "lent", candidates[i].item->freeze == FREEZE_LENT));
        json_add(frozen, json_string(volume->superblock));
        freeze->fds[freeze->n++] = candidates[i].fd;
    }
    freeze->superblocks = superblocks_blocked(superblocks, frozen);
}

/* That no other provider of the set has to write where this blocks is the planner's rule (worker/plan.h). */
static int choose(struct worker *worker, struct err *err)
{
    AUTO_FREE struct candidate *candidates = mem_new((FREEZE_SET_MAX_FILE_SYSTEMS + 1) * sizeof(*candidates));
    CLEANUP(superblocks_clear) struct superblocks superblocks = {0};
    size_t n = 0;
    if (superblocks_read(&superblocks, err) < 0)
        return -1;
    int result = collect(worker, &superblocks, candidates, &n, err);
    qsort(candidates, n, sizeof(*candidates), leaf_first);
    if (result == 0 && n > 0)
        adopt(&worker->freeze, &superblocks, candidates, n);
    for (size_t i = 0; result < 0 && i < n; i++)
        fd_cleanup(&candidates[i].fd);
    return result;
}

/* --- guardian and core --- */

/* Waits for the agent's word on our set (new reference), or NULL. */
static json_t *agent_word(struct worker *worker, int64_t timeout_ms, bool stoppable)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    struct wait *wait = &worker->wait;
    while (!wait->agent_answer && wait->agent_fd >= 0 && clock_mono_ms() < deadline &&
           !(stoppable && wait_stopped(wait))) {
        writers_turn(worker, NULL, 0, deadline);
        if (wait->agent_answer && !str_eq(json_str(wait->agent_answer, "set", ""), worker->set.id))
            json_decref(TAKE_PTR(wait->agent_answer)); /* a late word on an earlier one */
    }
    return TAKE_PTR(wait->agent_answer);
}

static int guard(struct worker *worker, struct err *err)
{
    struct freeze_set *freeze = &worker->freeze;
    AUTO_JSON json_t *ask = json_pack(
        "{s:s, s:s, s:s, s:I, s:O}", "type", "guard", "set", worker->set.id, "session", worker->session, "freeze_ms",
        (json_int_t)worker_limit_ms(worker, "freeze_seconds", FREEZE_SECONDS), "file_systems", freeze->file_systems);
    json_decref(TAKE_PTR(worker->wait.agent_answer));
    if (ipc_send(worker->wait.agent_fd, ask, freeze->fds, freeze->n, err) < 0)
        return err_prefix(err, "guardian");
    AUTO_JSON json_t *answer = agent_word(worker, GUARD_MS, true);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (str_eq(json_str(answer, "type", ""), "guard_failed")) {
        err_from_json(err, json_object_get(answer, "error"));
        return -1;
    }
    if (!str_eq(json_str(answer, "type", ""), "guarded") || worker->wait.guardian_fd < 0)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the agent has not made a guardian in time");
    freeze->guardian_fd = TAKE_FD(worker->wait.guardian_fd);
    return 0;
}

static int park(struct worker *worker, struct err *err)
{
    struct freeze_set *freeze = &worker->freeze;
    int64_t deadline = clock_mono_ms() + PARK_MS;
    worker->wait.parked = false;
    json_decref(TAKE_PTR(worker->wait.release)); /* one of an earlier set */
    freeze->announced = true;
    worker_say(worker, json_pack("{s:s, s:s, s:O}", "type", "freezing", "id", worker->set.id, "superblocks",
                                 freeze->superblocks));
    while (!worker->wait.parked && clock_mono_ms() < deadline && !wait_stopped(&worker->wait))
        writers_turn(worker, NULL, 0, deadline);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    return worker->wait.parked ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "core has not parked its store in time");
}

int freeze_set_prepare(struct worker *worker, struct err *err)
{
    struct freeze_set *freeze = &worker->freeze;
    *freeze = (struct freeze_set){.guardian_fd = -1};
    if (choose(worker, err) < 0)
        return -1;
    if (!freeze->file_systems)
        return 0;
    for (size_t i = 0; i < freeze->n; i++) { /* seconds, outside of the window, for what would be seconds within it */
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        if (syncfs(freeze->fds[i]) < 0)
            return err_errno(err, VSS_E_UNEXPECTED_PROVIDER_ERROR, errno, NULL, "%s: dirty data cannot be written",
                             json_str(json_array_get(freeze->file_systems, i), "mount_point", "?"));
    }
    if (guard(worker, err) < 0 || park(worker, err) < 0)
        return -1;
    return worker_fault(worker, "worker.snapshot.guard") ? worker_fault_error("guard", err) : 0;
}

/* --- the guardian's words --- */

static void guardian_ready(void *arg, int fd, short revents)
{
    struct freeze_set *freeze = arg;
    json_t *message = NULL;
    size_t n_fds = 0;
    (void)revents;
    if (ipc_recv(fd, THAW_MS, &message, NULL, &n_fds, NULL) == 1) {
        json_decref(freeze->answer);
        freeze->answer = message;
        return;
    }
    close(TAKE_FD(freeze->guardian_fd));
}

/* Waits until the guardian says one of two things, is gone, or the time is over; borrowed, NULL when it has not. */
static const json_t *guardian_word(struct worker *worker, const char *word, const char *or_word, int64_t deadline_ms,
                                   bool stoppable)
{
    struct freeze_set *freeze = &worker->freeze;
    for (;;) {
        const char *said = json_str(freeze->answer, "type", "");
        if (str_eq(said, word) || str_eq(said, or_word))
            return freeze->answer;
        if (freeze->guardian_fd < 0 || clock_mono_ms() >= deadline_ms || (stoppable && wait_stopped(&worker->wait)))
            return NULL;
        const struct wait_source source = {freeze->guardian_fd, POLLIN, guardian_ready, freeze};
        writers_turn(worker, &source, 1, deadline_ms);
    }
}

static void ask_guardian(struct freeze_set *freeze, const char *word)
{
    AUTO_JSON json_t *message = json_pack("{s:s}", "type", word);
    if (freeze->guardian_fd >= 0)
        ipc_send(freeze->guardian_fd, message, NULL, 0, NULL); /* gone: end-of-file says so */
}

int freeze_set_freeze(struct worker *worker, struct err *err)
{
    struct freeze_set *freeze = &worker->freeze;
    if (!freeze->file_systems)
        return 0;
    int64_t limit = worker_limit_ms(worker, "freeze_seconds", FREEZE_SECONDS);
    int64_t deadline = clock_mono_ms() + limit;
    if (worker->window_end_us && worker->window_end_us / 1000 < deadline)
        deadline = worker->window_end_us / 1000;
    freeze->frozen = true;
    ask_guardian(freeze, "freeze");
    const json_t *word = guardian_word(worker, "frozen", "freeze_failed", deadline, true);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    if (!word && freeze->guardian_fd < 0)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the guardian of the freeze set is gone");
    if (!word)
        return err_set(err, VSS_E_FLUSH_WRITES_TIMEOUT,
                       "Raise limits.freeze_seconds, or back up when less is being written.",
                       "the file systems were not frozen in time");
    if (str_eq(json_str(word, "type", ""), "freeze_failed")) {
        err_from_json(err, json_object_get(word, "error"));
        return -1;
    }
    freeze->deadline_us = json_int(word, "deadline_us", 0);
    return 0;
}

enum { LATE_US = 250000 };

const json_t *freeze_set_await_release(void *arg, struct err *err)
{
    struct worker *worker = arg;
    struct freeze_set *freeze = &worker->freeze;
    char since[CLOCK_RFC3339_SIZE], deadline[CLOCK_RFC3339_SIZE];
    int64_t end = worker->window_end_us ? worker->window_end_us : INT64_MAX;
    int64_t now = clock_real_ms(), left_ms = (end - clock_mono_us()) / 1000;
    worker_say(worker, json_pack("{s:s, s:s, s:s}", "type", "holding", "since", clock_rfc3339(now, since), "deadline",
                                 clock_rfc3339(now + left_ms, deadline)));
    while (!worker->wait.release && !wait_stopped(&worker->wait) && clock_mono_us() < end && freeze->guardian_fd >= 0) {
        const struct wait_source source = {freeze->guardian_fd, POLLIN, guardian_ready, freeze};
        writers_turn(worker, &source, 1, (end + 999) / 1000);
    }
    if (worker->wait.release)
        return worker->wait.release;
    if (wait_stopped(&worker->wait)) {
        worker_stopped(worker, err);
        return NULL;
    }
    bool late = freeze->guardian_fd >= 0 || clock_mono_us() >= end - LATE_US; /* the guardian thaws at that very moment, too, and goes */
    freeze->late_release = late;
    err_set(err, VSS_E_HOLD_WRITES_TIMEOUT,
            late ? "The release came too late: release sooner, or give every hold more time (limits.freeze_seconds)." : "Take the snapshot again; the log says how the guardian ended.",
            late ? "nobody released the hold before its deadline" : "the guardian of the freeze set is gone");
    return NULL;
}

static bool all_held(const json_t *word)
{
    const json_t *held = json_object_get(word, "held");
    size_t i;
    const json_t *item;
    json_array_foreach(held, i, item) if (!json_is_true(item)) return false;
    return json_array_size(held) > 0 && !json_bool(word, "expired", true);
}

/* The guardian is dead, stopped, or hangs: the second holder does it. */
static bool agent_thaws(struct worker *worker)
{
    AUTO_JSON json_t *ask = json_pack("{s:s, s:s}", "type", "thaw", "set", worker->set.id);
    json_decref(TAKE_PTR(worker->wait.agent_answer));
    if (worker->wait.agent_fd < 0 || ipc_send(worker->wait.agent_fd, ask, NULL, 0, NULL) < 0)
        return false;
    AUTO_JSON json_t *answer = agent_word(worker, THAW_AGENT_MS, false);
    return str_eq(json_str(answer, "type", ""), "thawed");
}

void freeze_set_thaw(struct worker *worker, json_t *cleanup)
{
    struct freeze_set *freeze = &worker->freeze;
    if (!freeze->frozen)
        return;
    freeze->frozen = false;
    bool failed_before =
        str_eq(json_str(freeze->answer, "type", ""), "freeze_failed"); /* it has thawed what it had frozen */
    if (failed_before)
        return;
    ask_guardian(freeze, "thaw");
    const json_t *word = guardian_word(worker, "thawed", "freeze_failed", clock_mono_ms() + THAW_MS, false);
    freeze->held = str_eq(json_str(word, "type", ""), "thawed") && all_held(word);
    freeze->spans = json_incref(json_object_get(word, "spans"));
    bool thawed = word || (!worker_fault(worker, "worker.snapshot.stuck") && agent_thaws(worker));
    freeze->stuck = !thawed;
    size_t i;
    const json_t *item;
    json_array_foreach(freeze->file_systems, i, item)
    {
        if (thawed)
            json_add(json_object_get(cleanup, "thawed"), json_string(json_str(item, "mount_point", "")));
        else
            json_add(json_object_get(cleanup, "failed"),
                     json_pack("{s:s, s:s, s:b}", "object", json_str(item, "mount_point", ""), "reason", FREEZE_SET_STUCK,
                               "outside", 1)); /* no worker removes it by another attempt: it stays told */
    }
}

static json_t *window_of(const json_t *file_system, const json_t *span, int64_t wall_us)
{
    char from[CLOCK_RFC3339_SIZE], to[CLOCK_RFC3339_SIZE];
    int64_t from_us = json_integer_value(json_array_get(span, 0)), until_us = json_integer_value(json_array_get(span, 1));
    return json_pack("{s:s, s:s, s:s, s:s, s:f}", "mount_point", json_str(file_system, "mount_point", ""), "fs_type",
                     json_str(file_system, "fs_type", ""), "started_at", clock_rfc3339((from_us + wall_us) / 1000, from), "ended_at",
                     clock_rfc3339((until_us + wall_us) / 1000, to), "window_ms", (double)(until_us - from_us) / 1000.0);
}

json_t *freeze_set_windows(const struct freeze_set *set, int64_t wall_us)
{
    if (!set->file_systems)
        return NULL;
    json_t *windows = json_array();
    size_t i;
    const json_t *file_system;
    json_array_foreach(set->file_systems, i, file_system)
    {
        const json_t *span = json_array_get(set->spans, i);
        if (json_array_size(span) == 2)
            json_add(windows, window_of(file_system, span, wall_us));
    }
    return windows;
}

int freeze_set_verdict(const struct freeze_set *freeze, struct err *err)
{
    if (!freeze->file_systems || freeze->held)
        return 0;
    return err_set(err, VSS_E_HOLD_WRITES_TIMEOUT,
                   "Find out who thaws file systems beside quiesced, or raise limits.freeze_seconds.",
                   "the file systems did not stay frozen until the end of the window");
}

void freeze_set_close(struct worker *worker)
{
    struct freeze_set *freeze = &worker->freeze;
    for (size_t i = 0; i < freeze->n; i++)
        fd_cleanup(&freeze->fds[i]);
    fd_cleanup(&freeze->guardian_fd);
    if (freeze->announced && !freeze->stuck) /* else the store would block: it goes on at core's deadline, or at our end */
        worker_say(worker, json_pack("{s:s, s:s}", "type", "thawed", "id", worker->set.id));
    json_decref(freeze->answer);
    json_decref(freeze->file_systems);
    json_decref(freeze->superblocks);
    json_decref(freeze->spans);
    *freeze = (struct freeze_set){.guardian_fd = -1};
}
