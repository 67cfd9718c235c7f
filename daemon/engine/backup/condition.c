/* Is what the catalog tells of still in its repository, and whole? */
#include <string.h>

#include "base/utf8.h"
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

enum {
    TOLD = 3,         /* of the damaged entries, in an error's text; result.damaged has the rest */
    TOLD_BYTES = 200, /* of each, so that all of them fit into err.text */
    LISTED_MOST = 1000 /* TAR_DAMAGED_MAX: a mover stops listing there, and there may be more */
};

/* Ends before the character that does not fit. */
static void cut(char *text, size_t most)
{
    size_t at = 0, length = strlen(text);
    while (at < length) {
        size_t n = utf8_span(text + at, length - at);
        n = n ? n : 1;
        if (at + n > most)
            break;
        at += n;
    }
    text[at] = '\0';
}

int damage_refuse(const json_t *damaged, struct err *err)
{
    size_t n = json_array_size(damaged), i;
    char first[TOLD * (TOLD_BYTES + 8)] = "";
    const json_t *entry;
    if (n == 0)
        return 0;
    json_array_foreach(damaged, i, entry)
    {
        if (i == TOLD)
            break;
        AUTO_FREE char *one = str_new("%s: %s", json_str(entry, "path", "/"), json_str(entry, "reason", "damaged"));
        cut(one, TOLD_BYTES);
        size_t at = strlen(first);
        str_format(first + at, sizeof first - at, "%s%s", i ? "; " : "", one);
    }
    return err_set(err, ERROR_FILE_CORRUPT, "result.damaged of the job lists them. Restore from another backup, and make a new one.",
                   "%s%zu entr%s damaged or missing: %s%s", n >= LISTED_MOST ? "at least " : "", n, n == 1 ? "y is" : "ies are", first,
                   n > TOLD ? "; …" : "");
}

/* --- in the catalog --- */

enum { PAGE = 200 };
static const char *const names[] = {[CONDITION_UNKNOWN] = NULL, [CONDITION_GOOD] = "good", [CONDITION_DAMAGED] = "damaged", [CONDITION_MISSING] = "missing"};

static bool is(const json_t *backup, enum condition condition)
{
    return str_eq(json_str(backup, "condition", NULL), names[condition]);
}

bool condition_bad(const json_t *backup)
{
    return is(backup, CONDITION_DAMAGED) || is(backup, CONDITION_MISSING);
}

static enum seal_state seal_of(const json_t *backup)
{
    const json_t *own = session_private(backup);
    return json_bool(own, "unsealed", false) ? SEAL_DUE : json_bool(own, "sealed", false) ? SEAL_WRITTEN : SEAL_NONE;
}

/* Whoever made it has not said of each component that it was copied, or nothing was: BackupComplete was reached all the same. */
static bool lacks(const json_t *backup)
{
    const char *type = json_str(backup, "type", "full");
    size_t i;
    const json_t *component;
    json_array_foreach(json_object_get(backup, "components"), i, component)
        if (!json_bool(component, "succeeded", true))
            return true;
    return !choice_goes_on(type) && json_int(backup, "files", -1) == 0;
}

bool condition_counts(const json_t *backup)
{
    return json_bool(backup, "complete", false) && !condition_bad(backup) && !lacks(backup);
}

static void set(struct task *task, json_t *backup, enum condition condition, const char *reason)
{
    bool counted = condition_counts(backup);
    char now[CLOCK_RFC3339_SIZE];
    const char *name = names[condition];
    json_put(backup, "condition", name ? json_string(name) : json_null());
    json_put(backup, "condition_reason", reason ? json_text(reason) : json_null());
    json_put(backup, "checked_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    if (condition_counts(backup) != counted)
        successes_judge(task, backup, !counted);
}

void condition_mark(struct task *task, struct store_batch *batch, const char *backup_id, enum condition condition, const char *reason)
{
    AUTO_JSON json_t *backup = NULL;
    if (backup_being_removed(task->engine, backup_id) || store_get(task->engine->store, STORE_BACKUP, backup_id, &backup, NULL, NULL) != STORE_OK)
        return;
    set(task, backup, condition, reason);
    catalog_put(batch, backup, seal_of(backup));
}

void condition_of_failure(struct task *task, struct store_batch *batch, const char *backup_id, const struct err *err)
{
    if (err->hr == (uint32_t)ERROR_FILE_CORRUPT)
        condition_mark(task, batch, backup_id, CONDITION_DAMAGED, err->text);
    else if (str_eq(err->reason, "backup_missing"))
        condition_mark(task, batch, backup_id, CONDITION_MISSING, err->text);
}

/* One row of the catalog. item: what the repository lists of it, or NULL. True when it is missing. */
static bool hold_against(struct task *task, json_t *backup, const json_t *item, struct store_batch *batch)
{
    const char *damaged = json_str(item, "damaged", NULL), *id = json_str(backup, "id", "");
    int64_t made = json_int(session_private(backup), "created_ms", 0), began = json_int(session_private(task->job->doc), "created_ms", 0);
    if (backup_being_removed(task->engine, id))
        return false;
    if (damaged) {
        set(task, backup, CONDITION_DAMAGED, damaged);
        catalog_put(batch, backup, seal_of(backup));
    } else if (item && is(backup, CONDITION_MISSING)) { /* it is back; whether it is whole a verify tells */
        bool told = json_bool(json_object_get(item, "seal"), "complete", false) || !json_bool(backup, "complete", false);
        set(task, backup, CONDITION_UNKNOWN, NULL);
        catalog_put(batch, backup, told ? seal_of(backup) : SEAL_DUE);
    } else if (!item && made < began) { /* one that was made meanwhile may have come after the listing */
        set(task, backup, CONDITION_MISSING, "a scan of its repository did not find it");
        catalog_put(batch, backup, seal_of(backup));
        return true;
    }
    return false;
}

json_int_t condition_scanned(struct task *task, const json_t *items, struct store_batch *batch)
{
    AUTO_JSON json_t *listed = json_object();
    const char *repository = json_str(json_object_get(task->job->args, "repository"), "name", "");
    char last[UUID_SIZE] = "";
    json_int_t missing = 0;
    size_t i;
    json_t *row;
    json_array_foreach(items, i, row) json_put(listed, json_str(row, "backup_id", ""), json_incref(row));
    for (bool more = true; more;) {
        const struct store_query query = {.kind = STORE_BACKUP, .operation = repository, .limit = PAGE, .after = last[0] ? last : NULL};
        AUTO_JSON json_t *rows = NULL;
        struct err err;
        if (store_list(task->engine->store, &query, &rows, &more, &err) == STORE_ERROR) {
            store_batch_fail(batch, &err); /* "none is missing" would not be known */
            return 0;
        }
        json_array_foreach(rows, i, row)
        {
            str_copy(last, sizeof last, json_str(row, "id", ""));
            missing += hold_against(task, row, json_object_get(listed, last), batch);
        }
        more = more && json_array_size(rows) > 0;
    }
    return missing;
}
