/* What backups go on from: an incremental, differential or log backup is worth nothing without the one before it. Rows of the store
 * (STORE_LINK) lead both ways: from a backup to those that go on from it, and from a stamp to the backup that bears it. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/session/session.h"

#include <search.h>

enum { DEPENDENTS_TOLD = 20, ROWS = 100 };

/* --- the rows --- */

/* way: "on" or "own". Caller frees. */
static char *key_of_stamp(const char *way, const json_t *component, const char *stamp)
{
    return str_new("%s\n%s\n%s\n%s\n%s", way, json_str(component, "instance_id", ""), json_str(component, "logical_path", ""),
                   json_str(component, "name", ""), stamp);
}

/* The key under which the one before is found to have this one after it; NULL when it goes on from none. Caller frees. */
static char *key_before(const json_t *component)
{
    const char *id = json_str(component, "previous_backup_id", NULL), *stamp = json_str(component, "previous_stamp", NULL);
    if (id)
        return str_new("on\n%s", id);
    return stamp && choice_goes_on(json_str(component, "backup_type", "")) ? key_of_stamp("on", component, stamp) : NULL;
}

static void put(struct store_batch *batch, const json_t *backup, size_t n, const char *way, const char *key)
{
    const char *backup_id = json_str(backup, "id", "");
    AUTO_FREE char *id = str_new("%s:%zu:%s", backup_id, n, way);
    AUTO_JSON json_t *doc = json_pack("{s:s, s:s}", "id", id, "backup_id", backup_id);
    const struct store_record record = {.id = id, .session_id = backup_id, .operation = key,
                                        .created_ms = json_int(session_private(backup), "created_ms", 0), .doc = doc};
    store_batch_put(batch, STORE_LINK, &record);
}

void chain_batch_put(struct store_batch *batch, const json_t *backup)
{
    size_t i;
    const json_t *component;
    json_array_foreach(json_object_get(backup, "components"), i, component)
    {
        const char *stamp = json_str(component, "backup_stamp", NULL);
        AUTO_FREE char *before = key_before(component);
        AUTO_FREE char *own = stamp ? key_of_stamp("own", component, stamp) : NULL;
        if (before)
            put(batch, backup, i, "on", before);
        if (own)
            put(batch, backup, i, "own", own);
    }
}

void chain_batch_delete(struct store_batch *batch, const json_t *backup)
{
    static const char *const ways[] = {"on", "own"};
    for (size_t i = 0; i < json_array_size(json_object_get(backup, "components")); i++)
        for (size_t k = 0; k < ELEMENTS(ways); k++) {
            AUTO_FREE char *id = str_new("%s:%zu:%s", json_str(backup, "id", ""), i, ways[k]);
            store_batch_delete(batch, STORE_LINK, id);
        }
}

/* Appends the backups of the catalog, but for one, that have a row with this key. */
static int find(struct engine *engine, const char *key, const char *but, json_t *ids, struct err *err)
{
    const struct store_query query = {.kind = STORE_LINK, .operation = key, .limit = ROWS};
    AUTO_JSON json_t *rows = NULL;
    size_t i;
    const json_t *row;
    if (store_list(engine->store, &query, &rows, NULL, err) == STORE_ERROR)
        return -1;
    json_array_foreach(rows, i, row)
    {
        const char *id = json_str(row, "backup_id", "");
        AUTO_JSON json_t *there = NULL;
        if (str_eq(id, but) || json_has_string(ids, id))
            continue;
        enum store_result result = store_get(engine->store, STORE_BACKUP, id, &there, NULL, err);
        if (result == STORE_ERROR)
            return -1;
        if (result == STORE_OK)
            json_add(ids, json_string(id));
    }
    return 0;
}

int chain_find_stamp(struct engine *engine, const json_t *component, const char *stamp, const char *but, json_t *ids, struct err *err)
{
    AUTO_FREE char *key = key_of_stamp("own", component, stamp);
    return find(engine, key, but, ids, err);
}

/* --- who goes on from a backup --- */

struct look {
    const json_t *backup;
    const struct session *found;
};

bool chain_same_component(const json_t *a, const json_t *b)
{
    return str_eq(json_str(a, "instance_id", ""), json_str(b, "instance_id", "")) && str_eq(json_str(a, "name", ""), json_str(b, "name", "")) &&
           str_eq(json_str(a, "logical_path", ""), json_str(b, "logical_path", ""));
}

static bool goes_on_from(const json_t *component, const json_t *backup)
{
    const char *id = json_str(component, "previous_backup_id", NULL), *stamp = json_str(component, "previous_stamp", NULL);
    size_t i;
    const json_t *part;
    if (id)
        return str_eq(id, json_str(backup, "id", ""));
    json_array_foreach(json_object_get(backup, "components"), i, part)
        if (stamp && chain_same_component(component, part) && str_eq(stamp, json_str(part, "backup_stamp", NULL)))
            return true;
    return false;
}

static void look_at_session(const void *node, VISIT visit, void *arg)
{
    struct look *look = arg;
    const struct session *session = *(struct session *const *)node;
    if (visit != postorder && visit != leaf)
        return;
    enum session_state state = session_state(session->doc);
    size_t i;
    const json_t *component;
    if (str_eq(json_str(session->doc, "kind", ""), "restore") || state == SESSION_COMPLETED || state == SESSION_ABORTED)
        return;
    json_array_foreach(json_object_get(session_private(session->doc), "components"), i, component)
        if (goes_on_from(component, look->backup))
            look->found = session;
}

static int refuse(struct err *err, const char *hint, const char *text)
{
    err_set(err, VSS_E_BAD_STATE, hint, "%s", text);
    str_copy(err->reason, sizeof err->reason, "has_dependents");
    return -1;
}

int chain_check_session(struct engine *engine, const json_t *backup, struct err *err)
{
    struct look look = {.backup = backup};
    twalk_r(engine->sessions, look_at_session, &look);
    if (!look.found)
        return 0;
    AUTO_FREE char *text = str_new("backup %s: session %s is making a backup that goes on from it", json_str(backup, "id", ""), look.found->id);
    return refuse(err, "Wait for its end, or end it.", text);
}

/* "A, B and 3 more". Caller frees. */
static char *names(const json_t *ids)
{
    size_t n = json_array_size(ids), told = n < DEPENDENTS_TOLD ? n : DEPENDENTS_TOLD / 2;
    char *text = str_dup("");
    for (size_t i = 0; i < told; i++) {
        char *longer = str_new("%s%s%s", text, i ? ", " : "", json_string_value(json_array_get(ids, i)));
        free(text);
        text = longer;
    }
    if (told == n)
        return text;
    char *whole = str_new("%s and %zu more", text, n - told);
    free(text);
    return whole;
}

int chain_check_unused(struct engine *engine, const json_t *backup, json_t **ret_dependents, struct err *err)
{
    const char *id = json_str(backup, "id", "");
    AUTO_JSON json_t *ids = json_array();
    AUTO_FREE char *by_id = str_new("on\n%s", id);
    size_t i;
    const json_t *component;
    *ret_dependents = NULL;
    if (find(engine, by_id, id, ids, err))
        return -1;
    json_array_foreach(json_object_get(backup, "components"), i, component)
    {
        const char *stamp = json_str(component, "backup_stamp", NULL);
        AUTO_FREE char *key = stamp ? key_of_stamp("on", component, stamp) : NULL;
        if (key && find(engine, key, id, ids, err))
            return -1;
    }
    if (json_array_size(ids) == 0)
        return chain_check_session(engine, backup, err);
    AUTO_FREE char *listed = names(ids);
    AUTO_FREE char *text = str_new("backup %s cannot be deleted: without it there is no restoring %s, which %s from it", id, listed,
                                   json_array_size(ids) == 1 ? "goes on" : "go on");
    *ret_dependents = TAKE_PTR(ids);
    return refuse(err, "Delete those first, the newest before the others.", text);
}
