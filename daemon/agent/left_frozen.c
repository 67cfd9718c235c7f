#include "agent/left_frozen.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "guardian/record.h"
#include "guardian/thaw_all.h"

DEFINE_CLEANUP(DIR *, closedir)

enum { RETRY_FIRST_MS = 500, RETRY_MAX_MS = 10000 };

/* A child that tries to thaw what a record lists. It may wait for ever; the other records are tried again meanwhile. */
struct attempt {
    LIST_ENTRY(attempt) all;
    char path[PATH_MAX];
    pid_t child;
};

struct left_frozen {
    struct loop_timer *timer;
    void (*changed)(void *arg);
    void *arg;
    char records[PATH_MAX], installation[128];
    json_t *sets;
    LIST_HEAD(, attempt) attempts;
    int64_t retry_ms;
};

/* --- what the records say --- */

static json_t *marked(const struct freeze_record *record)
{
    json_t *mount_points = json_array();
    for (size_t i = 0; i < record->n; i++)
        if (record_mark(record, i) == FREEZE_MARK_OURS)
            json_add(mount_points, json_string(json_str(json_array_get(json_object_get(record->doc, "file_systems"), i), "mount_point", "?")));
    return mount_points;
}

static void take(struct left_frozen *left, const char *path, json_t *sets)
{
    struct freeze_record record;
    char boot_id[64];
    if (record_open(path, &record, NULL) < 0)
        return; /* removed meanwhile; a damaged one is set aside by the next thaw */
    record_boot_id(boot_id);
    AUTO_JSON json_t *mount_points = marked(&record);
    if (str_eq(left->installation, json_str(record.doc, "installation", "")) && str_eq(boot_id, json_str(record.doc, "boot_id", "")) &&
        !record_process_acts(json_object_get(record.doc, "agent")) && json_array_size(mount_points) > 0)
        json_add(sets, json_pack("{s:s, s:s, s:I, s:I, s:O}", "session", json_str(record.doc, "session", ""), "set", json_str(record.doc, "set", ""),
                                 "since_ms", json_int(record.doc, "since_ms", 0), "freeze_ms", json_int(record.doc, "freeze_ms", 0),
                                 "file_systems", mount_points));
    record_close(&record);
}

static void each_record(struct left_frozen *left, void (*fn)(struct left_frozen *left, const char *path, json_t *sets), json_t *sets)
{
    static const char ending[] = ".freeze";
    CLEANUP(closedir_p) DIR *directory = opendir(left->records);
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        char path[PATH_MAX];
        size_t length = strlen(entry->d_name);
        if (length > strlen(ending) && str_eq(entry->d_name + length - strlen(ending), ending) &&
            str_format(path, sizeof(path), "%s/%s", left->records, entry->d_name))
            fn(left, path, sets);
    }
}

/* --- trying again --- */

/* Failures are shown for as long as they last, and were logged by serve's own attempt. */
static void tell(void *arg, bool failed, const char *line)
{
    (void)arg;
    if (!failed)
        log_line(LOG_LEVEL_WARNING, NULL, "left frozen by an earlier run: %s", line);
}

static bool is_tried(const struct left_frozen *left, const char *path)
{
    const struct attempt *attempt;
    LIST_FOREACH(attempt, &left->attempts, all)
    if (str_eq(attempt->path, path))
        return true;
    return false;
}

/* Our own death must show as end-of-file to workers and guardians, however long this child has to wait. */
static void try(struct left_frozen *left, const char *path, json_t *sets)
{
    const struct thaw_all options = {.records = left->records, .installation = left->installation, .orphans = true, .tell = tell};
    (void)sets;
    if (is_tried(left, path))
        return;
    pid_t child = fork();
    if (child < 0)
        return; /* the next time */
    if (child == 0) {
        syscall(SYS_close_range, 3U, ~0U, 0U);
        thaw_one(&options, path);
        _exit(0);
    }
    struct attempt *attempt = mem_new(sizeof(*attempt));
    attempt->child = child;
    str_copy(attempt->path, sizeof(attempt->path), path);
    LIST_INSERT_HEAD(&left->attempts, attempt, all);
}

static void forget(struct attempt *attempt)
{
    LIST_REMOVE(attempt, all);
    free(attempt);
}

static void forget_ended(struct left_frozen *left)
{
    struct attempt *attempt, *next;
    for (attempt = LIST_FIRST(&left->attempts); attempt; attempt = next) {
        next = LIST_NEXT(attempt, all);
        if (waitpid(attempt->child, NULL, WNOHANG) != 0)
            forget(attempt);
    }
}

static void on_timer(void *arg)
{
    struct left_frozen *left = arg;
    json_t *now = json_array();
    forget_ended(left);
    each_record(left, take, now);
    bool changed = !json_equal(now, left->sets);
    json_decref(left->sets);
    left->sets = now;
    if (changed)
        left->changed(left->arg);
    if (json_array_size(now) == 0 && LIST_EMPTY(&left->attempts))
        return;
    each_record(left, try, NULL);
    loop_timer_set(left->timer, left->retry_ms);
    left->retry_ms = 2 * left->retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS : 2 * left->retry_ms;
}

struct left_frozen *left_frozen_new(struct loop *loop, void (*changed)(void *arg), void *arg)
{
    struct left_frozen *left = mem_new(sizeof(*left));
    *left = (struct left_frozen){.changed = changed, .arg = arg, .sets = json_array(), .retry_ms = RETRY_FIRST_MS};
    LIST_INIT(&left->attempts);
    left->timer = loop_timer_new(loop, on_timer, left);
    return left;
}

void left_frozen_free(struct left_frozen *left)
{
    if (!left)
        return;
    while (!LIST_EMPTY(&left->attempts))
        forget(LIST_FIRST(&left->attempts));
    loop_timer_free(left->timer);
    json_decref(left->sets);
    free(left);
}

void left_frozen_begin(struct left_frozen *left, const json_t *start)
{
    str_copy(left->records, sizeof(left->records), json_str(start, "records", ""));
    str_copy(left->installation, sizeof(left->installation), json_str(start, "installation", ""));
    if (*left->records && *left->installation)
        loop_timer_set(left->timer, 0);
}

json_t *left_frozen_sets(const struct left_frozen *left)
{
    return left->sets;
}

void left_frozen_figures(const struct left_frozen *left, json_t *figures)
{
    json_int_t n = (json_int_t)json_array_size(left->sets);
    if (n == 0)
        return;
    int64_t since = json_int(figures, "frozen_since_us", 0), elapsed_us = clock_mono_us() - clock_real_ms() * 1000;
    size_t i;
    const json_t *set;
    json_array_foreach(left->sets, i, set)
    {
        int64_t own = json_int(set, "since_ms", 0) * 1000 + elapsed_us; /* as of the monotonic clock */
        own = own < 1 ? 1 : own;
        since = !since || own < since ? own : since;
    }
    json_put(figures, "frozen", json_integer(json_int(figures, "frozen", 0) + n));
    json_put(figures, "frozen_since_us", json_integer(since));
}

bool left_frozen_own(const struct left_frozen *left, pid_t pid)
{
    const struct attempt *attempt;
    LIST_FOREACH(attempt, &left->attempts, all)
    if (attempt->child == pid)
        return true;
    return false;
}
