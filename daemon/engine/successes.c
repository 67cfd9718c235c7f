/* The last success of each label, for GET /metrics: in the store, since "no good backup for a day" must not be forgotten by a restart. It obeys the rule
 * by which quiescectl status and the dashboard judge (docs/monitoring.md): a backup that is damaged, missing or deleted does not count, and then
 * the newest one before it does. What a client carried away itself is in no catalog, and counts as long as nothing newer does. */
#include <string.h>

#include "base/openmetrics.h"
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/session/session.h"

enum {
    LABELS_MOST = 200,    /* of them the one whose success is the oldest is forgotten for a new one */
    PAGE = 50,
    LOOKED_AT_MOST = 2000 /* rows of the catalog, for one that counts: the loop waits */
};
#define LABEL_ID "label:" /* of its record: an id may not be empty */

struct success {
    char *label;
    char session_id[UUID_SIZE]; /* whose; "" = not known (a store of before) */
    int64_t at_ms;
};

struct successes {
    struct success rows[LABELS_MOST];
    size_t n;
};

static struct success *oldest(struct successes *successes)
{
    struct success *found = &successes->rows[0];
    for (size_t i = 1; i < successes->n; i++)
        if (successes->rows[i].at_ms < found->at_ms)
            found = &successes->rows[i];
    return found;
}

static struct success *success_of(struct successes *successes, const char *label)
{
    for (size_t i = 0; i < successes->n; i++)
        if (str_eq(successes->rows[i].label, label))
            return &successes->rows[i];
    return NULL;
}

/* --- memory --- */

static void forget(struct successes *successes, struct success *success)
{
    free(success->label);
    *success = successes->rows[--successes->n];
}

static void take(struct successes *successes, const json_t *row)
{
    const char *label = json_str(row, "label", "");
    struct success *success = success_of(successes, label);
    int64_t at_ms = json_int(row, "at_ms", 0);
    if (!at_ms) {
        if (success)
            forget(successes, success);
        return;
    }
    if (!success && successes->n == LABELS_MOST)
        forget(successes, oldest(successes));
    if (!success) {
        success = &successes->rows[successes->n++];
        *success = (struct success){.label = str_dup(label)};
    }
    success->at_ms = at_ms;
    str_copy(success->session_id, sizeof success->session_id, json_str(row, "session_id", ""));
}

void successes_committed(struct engine *engine, const json_t *changes)
{
    size_t i;
    const json_t *row;
    json_array_foreach(changes, i, row) take(engine->successes, row);
}

struct successes *successes_new(struct engine *engine, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    const struct store_query query = {.kind = STORE_SUCCESS, .limit = LABELS_MOST};
    if (store_list(engine->store, &query, &rows, NULL, err) == STORE_ERROR)
        return NULL;
    engine->successes = mem_new(sizeof *engine->successes);
    successes_committed(engine, rows);
    return engine->successes;
}

void successes_free(struct successes *successes)
{
    for (size_t i = 0; successes && i < successes->n; i++)
        free(successes->rows[i].label);
    free(successes);
}

/* --- changes --- */

/* at_ms 0: the label has none any more. */
static void put(struct task *task, struct store_batch *batch, const char *label, const char *session_id, int64_t at_ms)
{
    struct successes *successes = task->engine->successes;
    AUTO_FREE char *id = str_new(LABEL_ID "%s", label);
    json_t *row = json_pack("{s:s, s:s, s:s, s:I}", "id", id, "label", label, "session_id", session_id, "at_ms", (json_int_t)at_ms);
    if (!task->successes)
        task->successes = json_array();
    json_add(task->successes, row);
    if (!at_ms) {
        store_batch_delete(batch, STORE_SUCCESS, id);
        return;
    }
    const struct store_record record = {.id = id, .created_ms = at_ms, .doc = row};
    store_batch_put(batch, STORE_SUCCESS, &record);
    if (success_of(successes, label) || successes->n < LABELS_MOST)
        return;
    AUTO_FREE char *forgotten = str_new(LABEL_ID "%s", oldest(successes)->label);
    store_batch_delete(batch, STORE_SUCCESS, forgotten);
}

/* Is there anything that can be restored, and is it all that was chosen? As condition_counts has it of the backup in the catalog. */
static bool saved_something(const json_t *session_doc)
{
    const json_t *own = session_private(session_doc);
    size_t i;
    const json_t *component;
    json_array_foreach(json_object_get(own, "components"), i, component)
        if (!json_bool(component, "succeeded", false))
            return false;
    if (json_array_size(json_object_get(own, "backups")) > 0)
        return json_int(json_object_get(own, "copied"), "files", -1) != 0 || choice_goes_on(json_str(json_object_get(session_doc, "backup_state"), "type", "full"));
    return json_array_size(json_object_get(own, "components")) > 0;
}

void successes_complete(struct task *task, struct store_batch *batch)
{
    if (saved_something(task->draft))
        put(task, batch, json_str(task->draft, "label", ""), json_str(task->draft, "id", ""), clock_real_ms());
}

/* --- backups that are judged anew --- */

void successes_judge(struct task *task, const json_t *backup, bool counts)
{
    if (!task->judged)
        task->judged = json_object();
    json_put(task->judged, json_str(backup, "id", ""), json_pack("{s:O, s:b}", "backup", backup, "counts", counts));
}

static int64_t made_ms(const json_t *backup)
{
    return clock_from_rfc3339(json_str(backup, "created_at", NULL));
}

/* Of the label, in the store as it is: what is judged now left aside. *ret: new reference, or NULL where there is none. false: it is not known,
 * since the catalog cannot be read or too much of it would have to be. */
static bool newest_stored(const struct task *task, const char *label, json_t **ret)
{
    char last[UUID_SIZE] = "";
    size_t looked_at = 0, i;
    json_t *row;
    *ret = NULL;
    for (bool more = true; more;) {
        AUTO_JSON json_t *rows = NULL;
        const struct store_query query = {
            .kind = STORE_BACKUP, .job_id = *label ? label : NULL, .limit = PAGE, .after = *last ? last : NULL, .brief = true};
        if (looked_at >= LOOKED_AT_MOST || store_list(task->engine->store, &query, &rows, &more, NULL) > STORE_NONE)
            return false;
        json_array_foreach(rows, i, row)
        {
            str_copy(last, sizeof last, json_str(row, "id", ""));
            if (str_eq(json_str(row, "label", ""), label) && !json_object_get(task->judged, last) && condition_counts(row)) {
                *ret = json_incref(row);
                return true;
            }
        }
        looked_at += json_array_size(rows);
        more = more && json_array_size(rows) > 0;
    }
    return true;
}

/* The newest that counts once this is committed: new reference, or NULL. *ret_known: is there certainly none that is newer? */
static json_t *newest(const struct task *task, const char *label, bool *ret_known)
{
    json_t *found, *item;
    const char *id;
    *ret_known = newest_stored(task, label, &found);
    json_object_foreach(task->judged, id, item)
    {
        json_t *backup = json_object_get(item, "backup");
        if (!json_bool(item, "counts", false) || !str_eq(json_str(backup, "label", ""), label) || made_ms(backup) <= made_ms(found))
            continue;
        json_decref(found);
        found = json_incref(backup);
    }
    return found;
}

/* Does what the label's success stands on no longer count? */
static bool fallen(const struct task *task, const struct success *now, int64_t newest_ms)
{
    const char *id;
    json_t *item;
    json_object_foreach(task->judged, id, item)
    {
        const json_t *backup = json_object_get(item, "backup");
        if (json_bool(item, "counts", false) || !str_eq(json_str(backup, "label", ""), now->label))
            continue;
        if (*now->session_id ? str_eq(json_str(backup, "session_id", ""), now->session_id) : made_ms(backup) > newest_ms)
            return true;
    }
    return false;
}

static void judge_label(struct task *task, struct store_batch *batch, const char *label)
{
    const struct success *now = success_of(task->engine->successes, label);
    bool known;
    AUTO_JSON json_t *best = newest(task, label, &known);
    int64_t best_ms = best ? made_ms(best) : 0;
    const char *session_id = json_str(best, "session_id", "");
    if (best_ms > (now ? now->at_ms : 0) || (now && known && fallen(task, now, best_ms) && !(best && str_eq(session_id, now->session_id))))
        put(task, batch, label, session_id, best_ms);
}

void successes_batch_put(struct task *task, struct store_batch *batch)
{
    AUTO_JSON json_t *done = json_object();
    const char *id;
    json_t *item;
    json_object_foreach(task->judged, id, item)
    {
        const char *label = json_str(json_object_get(item, "backup"), "label", "");
        if (!json_object_get(done, label))
            judge_label(task, batch, label);
        json_put(done, label, json_true());
    }
}

/* --- writing --- */

void successes_write(const struct successes *successes, struct openmetrics *text)
{
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_last_success_timestamp_seconds",
                       "When BackupComplete last succeeded with something saved that still counts, by the label of the session; of the 200 labels with the newest successes.");
    for (size_t i = 0; i < successes->n; i++)
        openmetrics_one(text, "label", successes->rows[i].label, (double)successes->rows[i].at_ms / 1000);
}
