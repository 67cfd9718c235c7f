/* A log backup is restored with what it goes on from: the full backup, and every log since. The catalog knows the links (chain.c); the
 * writer, which must say `roll_forward` in its backup_schema, hears of all of them in PreRestore and says where the logs go. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/restore/restore.h"
#include "engine/session/session.h"
#include "model/restore_plan.h"
#include "model/restore_rules.h"

#include <string.h>

enum { LINKS_MAX = 5000 };

bool chain_rolls(const json_t *session_doc, const json_t *component)
{
    const json_t *document = json_object_get(session_private(session_doc), "document");
    return str_eq(json_str(component, "backup_type", ""), "log") && restore_schema(document, component, "roll_forward");
}

/* --- the links --- */

struct walk {
    const struct task *task;
    const json_t *component; /* of the session */
    json_t *links;           /* newest first while it is walked */
};

/* "log backup B goes on from PREVIOUS, WHY" */
static int gap(const struct walk *walk, const json_t *link, const char *why, struct err *err)
{
    const char *before = json_str(link, "previous_backup_id", NULL), *stamp = json_str(link, "previous_stamp", NULL);
    const char *own = json_str(link, "backup_id", NULL);
    AUTO_FREE char *previous = before ? str_new("backup %s", before) : str_new("a backup with the stamp %s", stamp ? stamp : "(none)");
    AUTO_FREE char *text = str_new("component %s: %s%s goes on from %s, %s", json_str(walk->component, "name", ""), own ? "log backup " : "the log backup",
                                   own ? own : "", previous, why);
    err_set(err, VSS_E_BAD_STATE, "Scan the repository that holds it; or restore a backup from before the gap.", "%s", text);
    str_copy(err->reason, sizeof err->reason, "chain_gap");
    return -1;
}

static void add_link(struct walk *walk, const char *backup_id, const json_t *part)
{
    static const char *const kept[] = {"backup_type", "backup_stamp", "previous_stamp", "previous_backup_id", "backup_metadata"};
    json_t *link = json_pack("{s:s?}", "backup_id", backup_id);
    for (size_t i = 0; i < ELEMENTS(kept); i++) {
        json_t *value = json_object_get(part, kept[i]);
        json_put(link, kept[i], value ? json_incref(value) : json_null());
    }
    json_add(walk->links, link);
}

static const json_t *part_of(const json_t *backup, const json_t *component)
{
    size_t i;
    const json_t *part;
    json_array_foreach(json_object_get(backup, "components"), i, part)
        if (chain_same_component(part, component))
            return part;
    return NULL;
}

/* NULL: it can be gone back to. Otherwise why not. */
static const char *unfit(const struct walk *walk, const json_t *backup)
{
    const json_t *part = part_of(backup, walk->component);
    AUTO_JSON json_t *repository = repository_find(walk->task->engine, json_str(backup, "repository", ""));
    if (!principal_sees_backup(walk->task->request->principal, json_str(backup, "owner", "")))
        return "which is not in the catalog";
    if (backup_being_removed(walk->task->engine, json_str(backup, "id", "")))
        return "which is being removed";
    if (!json_bool(backup, "complete", false))
        return "which is not complete";
    if (!part || !json_bool(part, "succeeded", false) || !str_eq(json_str(part, "failure", "S_OK"), "S_OK"))
        return "in which this component did not succeed";
    return repository ? NULL : "whose repository is not there";
}

/* The backup that a link goes on from. New reference; NULL with err. */
static json_t *previous(const struct walk *walk, const json_t *link, struct err *err)
{
    struct engine *engine = walk->task->engine;
    const char *id = json_str(link, "previous_backup_id", NULL), *stamp = json_str(link, "previous_stamp", NULL);
    const char *why = "which is not in the catalog";
    AUTO_JSON json_t *ids = id ? json_pack("[s]", id) : json_array();
    size_t i;
    const json_t *item;
    if (!id && stamp && chain_find_stamp(engine, walk->component, stamp, json_str(link, "backup_id", ""), ids, err))
        return NULL;
    json_array_foreach(ids, i, item)
    {
        json_t *backup = NULL;
        enum store_result result = store_get(engine->store, STORE_BACKUP, json_string_value(item), &backup, NULL, err);
        if (result == STORE_ERROR)
            return NULL;
        const char *bad = result == STORE_OK ? unfit(walk, backup) : why;
        if (!bad)
            return backup;
        why = bad;
        json_decref(backup);
    }
    gap(walk, link, why, err);
    return NULL;
}

static void turn_round(json_t *links)
{
    AUTO_JSON json_t *copy = json_copy(links);
    json_array_clear(links);
    for (size_t i = json_array_size(copy); i-- > 0;)
        json_add(links, json_incref(json_array_get(copy, i)));
}

/* Back to what is no log. *ret_base: its record, new reference. */
static int walk_back(struct walk *walk, json_t **ret_base, struct err *err)
{
    AUTO_JSON json_t *base = NULL;
    add_link(walk, json_str(walk->task->session->doc, "backup_id", NULL), walk->component);
    for (;;) {
        const json_t *link = json_array_get(walk->links, json_array_size(walk->links) - 1);
        if (!str_eq(json_str(link, "backup_type", "full"), "log"))
            break;
        if (json_array_size(walk->links) >= LINKS_MAX)
            return gap(walk, link, "and the chain has no beginning", err);
        json_t *before = previous(walk, link, err);
        if (!before)
            return -1;
        json_decref(base);
        base = before;
        add_link(walk, json_str(base, "id", ""), part_of(base, walk->component));
    }
    turn_round(walk->links);
    *ret_base = TAKE_PTR(base);
    return 0;
}

/* --- where the files of the first link go --- */

static const json_t *document_of(const json_t *backup)
{
    return json_object_get(session_private(backup), "document");
}

/* As the session's component, with the files that belong to this link. New reference. */
static json_t *component_in(const json_t *component, const json_t *backup)
{
    json_t *copy = json_copy((json_t *)component), *added = json_object_get(part_of(backup, component), "added_files");
    json_put(copy, "added_files", added ? json_incref(added) : json_array());
    return copy;
}

/* A place that came since the full backup would be made at its original path, whatever the requester wants. */
static int same_places(const struct walk *walk, const json_t *base, const json_t *sets, struct err *err)
{
    const json_t *document = json_object_get(session_private(walk->task->session->doc), "document");
    AUTO_JSON json_t *now = restore_plan_sets_as(document, walk->component, "full");
    if (json_equal(now, sets))
        return 0;
    return err_set(err, VSS_E_BAD_STATE, "Restore it by hand: POST /backups/{id}/restore of each of them.",
                   "component %s: its files lie in other places than when backup %s was made", json_str(walk->component, "name", ""),
                   json_str(base, "id", ""));
}

static int confined(const struct walk *walk, const json_t *base, struct err *err)
{
    AUTO_JSON json_t *parts = json_array();
    json_add(parts, component_in(walk->component, base));
    AUTO_JSON json_t *items = restore_plan_unspoken(document_of(base), parts);
    return restore_plan_confined(items, json_object_get(json_object_get(walk->task->engine->config, "restore"), "roots"), err);
}

int chain_of(struct task *task, const json_t *component, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *links = json_array(), *base = NULL;
    struct walk walk = {.task = task, .component = component, .links = links};
    if (walk_back(&walk, &base, err))
        return -1;
    AUTO_JSON json_t *sets = restore_plan_sets_as(document_of(base), component, "full");
    if (same_places(&walk, base, sets, err) || confined(&walk, base, err))
        return -1;
    *ret = json_pack("{s:O, s:O}", "links", links, "file_sets", sets);
    return 0;
}

/* --- the files --- */

static void add_log(json_t *items, const json_t *component, const char *path, const char *target, size_t from)
{
    AUTO_FREE char *folder = str_dup(path);
    char *slash = strrchr(folder, '/');
    size_t i;
    const json_t *have;
    slash[slash == folder] = '\0';
    json_array_foreach(items, i, have) /* of one link, and most of them lie in one folder */
        if (json_int(have, "from", -1) == (json_int_t)from && str_eq(json_str(have, "path", ""), folder))
            return;
    json_add(items, json_pack("{s:s, s:s, s:s, s:b, s:s, s:n, s:b, s:n, s:I}", "component", json_str(component, "id", ""), "path", folder, "spec", "*",
                              "recursive", 0, "to", target, "rename", "overwrite", 1, "mapping", "from", (json_int_t)from));
}

static int add_base(json_t *items, const json_t *component, const json_t *backup, size_t from, struct err *err)
{
    AUTO_JSON json_t *parts = json_array();
    json_add(parts, component_in(component, backup));
    AUTO_JSON json_t *planned = restore_plan(document_of(backup), parts, err);
    size_t i;
    json_t *item;
    if (!planned)
        return -1;
    json_array_foreach(planned, i, item)
    {
        json_put(item, "from", json_integer((json_int_t)from));
        json_add(items, json_incref(item));
    }
    return 0;
}

/* own: the record of the session's own backup, which a session that was made from a document names only now. */
static int add_link_files(struct task *task, const json_t *component, const json_t *link, const json_t *own, struct chain_files *ret, struct err *err)
{
    const char *id = json_str(link, "backup_id", json_str(own, "id", ""));
    AUTO_JSON json_t *backup = NULL;
    enum store_result result = store_get(task->engine->store, STORE_BACKUP, id, &backup, NULL, err);
    if (result == STORE_NONE)
        err_set(err, VSS_E_OBJECT_NOT_FOUND, "Begin a restore session anew.", "backup %s: no such backup", id);
    json_t *source = result == STORE_OK ? backup_for_worker(task->engine, backup, err) : NULL;
    if (!source)
        return -1;
    size_t from = json_array_size(ret->links), i;
    const json_t *path;
    json_add(ret->links, source);
    if (!str_eq(json_str(link, "backup_type", "full"), "log"))
        return add_base(ret->items, component, backup, from, err);
    json_array_foreach(json_object_get(part_of(backup, component), "added_files"), i, path)
        add_log(ret->items, component, json_string_value(path), ret->target, from);
    return 0;
}

int chain_files(struct task *task, const json_t *component, const json_t *chain, const json_t *own, struct chain_files *ret, struct err *err)
{
    size_t i;
    const json_t *link;
    json_array_foreach(json_object_get(chain, "links"), i, link)
        if (add_link_files(task, component, link, own, ret, err))
            return -1;
    return 0;
}
