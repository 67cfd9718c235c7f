#include "cli/protection.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { USUAL_AT_LEAST_MS = 86400 * 1000, LATE_FACTOR = 2, INTERVALS = 20 };

/* --- what counts --- */

/* What `quiescectl hold` holds for somebody else, a freeze or a snapshot, is no backup. */
static bool is_hold(const json_t *one)
{
    const char *label = json_str(one, "label", "");
    return str_starts(label, "hold:") || str_eq(label, "hold-snapshot");
}

/* Did a session end badly? What its own caller cancelled did not. */
static bool failed_session(const json_t *session)
{
    const char *state = json_str(session, "state", "");
    return (str_eq(state, "aborted") || str_eq(state, "snapshot_failed")) && !str_eq(json_str(session, "reason", ""), "cancelled");
}

/* Is an incomplete backup an attempt that ended badly? Not while its session goes on, nor when that was cancelled. Where the session is not told
 * (older than retention, or somebody else's), what was written into the repository decides. Of a session that failed the session is told. */
static bool failed_backup(const json_t *backup, const json_t *sessions)
{
    const json_t *session = json_find(sessions, "id", json_str(backup, "session_id", ""));
    return session ? str_eq(json_str(session, "state", ""), "completed") : json_bool(backup, "sealed", false);
}

/* As a verify, a restore or a scan has found it: it is known that nothing can be restored from it. */
static bool is_unsound(const json_t *backup)
{
    const char *condition = json_str(backup, "condition", NULL);
    return str_eq(condition, "damaged") || str_eq(condition, "missing");
}

/* BackupComplete was reached, but not of each component it was said that it had been copied, or nothing at all was. */
static bool lacks(const json_t *backup)
{
    const char *type = json_str(backup, "type", "full");
    size_t i;
    const json_t *component;
    json_array_foreach(json_object_get(backup, "components"), i, component)
        if (!json_bool(component, "succeeded", true))
            return true;
    return (str_eq(type, "full") || str_eq(type, "copy")) && json_int(backup, "files", -1) == 0;
}

/* --- the labels --- */

static json_t *row_of(json_t *labels, const char *label)
{
    json_t *row = json_find(labels, "label", label);
    if (!row)
        json_add(labels, row = json_pack("{s:s, s:n, s:n, s:n, s:n, s:n, s:n, s:b, s:[], s:b}", "label", label, "last_good", "backup_id", "freeze_ms", "grade", "unsound",
                                         "newest_condition", "late", 0, "good", "ended", 0));
    return row;
}

static void note_failure(json_t *row, const json_t *attempt)
{
    const char *at = json_str(attempt, "created_at", "");
    json_put(row, "ended", json_true());
    if (strcmp(at, json_str(row, "failed_since", "")) > 0)
        json_put(row, "failed_since", json_string(at));
}

static void note_good(json_t *row, const json_t *backup)
{
    json_t *good = json_object_get(row, "good");
    json_add(good, json_integer(clock_from_rfc3339(json_str(backup, "created_at", NULL))));
    if (json_array_size(good) > 1)
        return;
    json_put(row, "last_good", json_incref(json_object_get(backup, "created_at")));
    json_put(row, "backup_id", json_incref(json_object_get(backup, "id")));
    json_put(row, "freeze_ms", json_incref(json_object_get(json_object_get(backup, "freeze"), "window_ms")));
    json_put(row, "grade", json_text(json_str(json_object_get(backup, "consistency"), "grade", "")));
}

static void note_backup(json_t *row, const json_t *backup, const json_t *sessions)
{
    if (!json_bool(backup, "complete", false)) {
        if (failed_backup(backup, sessions))
            note_failure(row, backup);
        return;
    }
    if (lacks(backup)) {
        note_failure(row, backup);
        return;
    }
    bool newest = json_is_null(json_object_get(row, "unsound")) && json_array_size(json_object_get(row, "good")) == 0;
    if (newest)
        json_put(row, "newest_condition", json_pack("s?", json_str(backup, "condition", NULL)));
    json_put(row, "ended", json_true());
    if (!is_unsound(backup))
        note_good(row, backup);
    else if (newest)
        json_put(row, "unsound", json_text(json_str(backup, "id", "")));
}

static int by_size(const void *a, const void *b)
{
    const int64_t *one = a, *other = b;
    return *one < *other ? -1 : *one > *other;
}

/* From one good backup to the next: the median of the newest ones, which a few made by hand or a week of holidays do not move. 0: there are no two. */
static int64_t usual_ms(const json_t *good)
{
    int64_t intervals[INTERVALS];
    size_t n = json_array_size(good), kept = 0;
    for (size_t i = 0; i + 1 < n && kept < INTERVALS; i++)
        intervals[kept++] = json_integer_value(json_array_get(good, i)) - json_integer_value(json_array_get(good, i + 1));
    qsort(intervals, kept, sizeof *intervals, by_size);
    return kept ? intervals[kept / 2] : 0;
}

/* False: nothing of that label has ended, well or badly. */
static bool row_judge(json_t *row, int64_t now_ms)
{
    const json_t *good = json_object_get(row, "good");
    bool any = json_array_size(good) > 0, ended = json_bool(row, "ended", false);
    int64_t usual = usual_ms(good);
    usual = usual > USUAL_AT_LEAST_MS ? usual : USUAL_AT_LEAST_MS;
    json_put(row, "late", json_boolean(any && now_ms - json_integer_value(json_array_get(good, 0)) > LATE_FACTOR * usual));
    if (any && strcmp(json_str(row, "failed_since", ""), json_str(row, "last_good", "")) <= 0)
        json_object_del(row, "failed_since");
    json_object_del(row, "good");
    json_object_del(row, "ended");
    return ended;
}

json_t *protection_labels(const json_t *backups, const json_t *sessions, int64_t now_ms)
{
    json_t *labels = json_array(), *row;
    size_t i;
    const json_t *one;
    json_array_foreach(backups, i, one)
        if (!is_hold(one))
            note_backup(row_of(labels, json_str(one, "label", "")), one, sessions);
    json_array_foreach(sessions, i, one)
    { /* attempts that ended badly need not have come as far as the catalog. Without a label there is no series that could have a gap */
        const char *label = json_str(one, "label", "");
        if (failed_session(one) && !is_hold(one) && (*label || json_find(labels, "label", label)))
            note_failure(row_of(labels, label), one);
    }
    for (i = json_array_size(labels); i-- > 0;) {
        row = json_array_get(labels, i);
        if (!row_judge(row, now_ms))
            json_array_remove(labels, i);
    }
    return labels;
}

/* --- the answer --- */

static bool has_no_good(const json_t *row)
{
    return !json_is_string(json_object_get(row, "last_good"));
}

static bool is_late(const json_t *row)
{
    return json_bool(row, "late", false);
}

static bool newest_is_unsound(const json_t *row)
{
    return json_is_string(json_object_get(row, "unsound"));
}

static bool newest_has_failed(const json_t *row)
{
    return json_object_get(row, "failed_since") != NULL;
}

static bool is_any(const json_t *row)
{
    return row != NULL;
}

static const struct {
    bool (*is)(const json_t *row);
    const char *words[2]; /* [1]: to who sees only his own */
} worst_first[] = {
    {has_no_good, {"not protected: a label has no good backup", "not protected: a label of yours has no good backup"}},
    {is_late, {"not protected: a label has no backup in time", "not protected: a label of yours has no backup in time"}},
    {newest_is_unsound,
     {"at risk: the newest backup of a label is damaged, or gone from its repository", "at risk: the newest backup of a label of yours is damaged, or gone from its repository"}},
    {newest_has_failed, {"at risk: the newest backup of a label did not end well", "at risk: the newest backup of a label of yours did not end well"}},
    {is_any, {"protected", "protected, as to backups of yours: those of others are not shown to you"}},
};

/* The row of worst_first that any label is in; how many there are when there is no label. */
static size_t worst(const json_t *labels)
{
    size_t k, i;
    const json_t *row;
    for (k = 0; k < ELEMENTS(worst_first); k++)
        json_array_foreach(labels, i, row)
            if (worst_first[k].is(row))
                return k;
    return k;
}

const char *protection_words(const json_t *labels, bool all)
{
    size_t k = worst(labels);
    if (k < ELEMENTS(worst_first))
        return worst_first[k].words[!all];
    return all ? "not protected: there is no backup yet" : "not protected: there is no backup of yours yet";
}

char *protection_meant(const json_t *labels)
{
    size_t k = worst(labels), i;
    const json_t *row;
    char *names = str_dup("");
    if (k >= ELEMENTS(worst_first) || worst_first[k].is == is_any)
        return names;
    json_array_foreach(labels, i, row)
    {
        const char *label = json_str(row, "label", "");
        if (!worst_first[k].is(row))
            continue;
        char *longer = str_new("%s%s%s", names, *names ? ", " : "", *label ? label : "backups without a label");
        free(names);
        names = longer;
    }
    return names;
}
