/* The components of POST /backups: those that are named, what must come along with them, and what each goes on from. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "model/selection.h"

enum {
    CATALOG_PAGE = 100,
    CATALOG_DEPTH = 1000, /* the catalog is read on the loop: a chain that lay idle for longer begins anew */
};

/* --- which --- */

static void add(json_t *chosen, const json_t *writer, const json_t *component)
{
    json_add(chosen, component_record(writer, component));
}

/* Without a name: whatever this writer offers that is no member of a set. */
static bool named(const json_t *want, const json_t *writer, const json_t *component)
{
    const char *name = json_str(want, "name", NULL);
    if (!name)
        return selection_root(writer, component) == component;
    return str_eq(name, json_str(component, "name", "")) &&
           str_eq(json_str(want, "logical_path", ""), json_str(component, "logical_path", ""));
}

static int take_named(const json_t *writer, const json_t *want, size_t index, json_t *chosen, bool *ret_found, struct err *err)
{
    size_t i;
    json_t *component;
    json_array_foreach(json_object_get(writer, "components"), i, component)
    {
        if (!named(want, writer, component))
            continue;
        if (selection_may_add(writer, component, err))
            return err_prefix(err, "/components/%zu", index);
        *ret_found = true;
        add(chosen, writer, component);
    }
    return 0;
}

static int take_wanted(const json_t *writers, const json_t *wanted, json_t *chosen, struct err *err)
{
    size_t i, j;
    json_t *want, *writer;
    json_array_foreach(wanted, i, want)
    {
        const char *whose = json_str(want, "writer", "");
        bool found = false, known = false;
        json_array_foreach(writers, j, writer)
        {
            bool meant = str_eq(whose, json_str(writer, "name", "")) || str_eq(whose, json_str(writer, "instance_name", ""));
            known = known || meant;
            if (meant && take_named(writer, want, i, chosen, &found, err))
                return -1;
        }
        if (!known)
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /writers lists what there is.", "/components/%zu: there is no writer %s", i, whose);
        if (!found)
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /writers lists what there is.", "/components/%zu: writer %s offers no component %s", i,
                           whose, json_str(want, "name", "(any)"));
    }
    return 0;
}

/* Named twice, or a member of a set that was chosen as well: once is enough. */
static void drop_doubles(const json_t *writers, json_t *chosen)
{
    for (size_t i = json_array_size(chosen); i-- > 0;) {
        AUTO_JSON json_t *others = json_copy(chosen);
        const json_t *own = json_array_get(chosen, i), *writer = selection_writer(writers, json_str(own, "instance_id", ""));
        json_array_remove(others, i);
        if (selection_included(writer, others, own))
            json_array_remove(chosen, i);
    }
}

int choice_components(const json_t *writers, const json_t *wanted, json_t *chosen, struct err *err)
{
    struct selection_missing missing;
    if (take_wanted(writers, wanted, chosen, err))
        return -1;
    while (!selection_whole(writers, chosen, &missing)) {
        if (!missing.component)
            return selection_tell_missing(&missing, err);
        add(chosen, missing.writer, missing.component);
    }
    drop_doubles(writers, chosen);
    return 0;
}

/* --- since when --- */

/* What a backup of a type goes on from, and what must not lie between under an exclusive schema (vss-model 4.6, 4.10). */
static const struct base_row {
    const char *type, *bases[4], *excluded;
} base_rows[] = {
    {"incremental", {"full", "incremental", NULL}, "differential"},
    {"differential", {"full", NULL}, "incremental"},
    {"log", {"full", "incremental", "log", NULL}, NULL},
};

static const struct base_row *base_row(const char *type)
{
    for (size_t i = 0; i < ELEMENTS(base_rows); i++)
        if (str_eq(base_rows[i].type, type))
            return &base_rows[i];
    return NULL;
}

static bool is_base(const struct base_row *row, const char *type)
{
    for (size_t i = 0; row->bases[i]; i++)
        if (str_eq(row->bases[i], type))
            return true;
    return false;
}

/* The same component in a backup of the catalog, if it is good there; or NULL. */
static const json_t *backed_up(const json_t *backup, const json_t *component)
{
    static const char *const key[] = {"instance_id", "logical_path", "name"};
    size_t i;
    json_t *other;
    json_array_foreach(json_object_get(backup, "components"), i, other)
    {
        size_t same = 0;
        for (size_t k = 0; k < ELEMENTS(key); k++)
            same += str_eq(json_str(component, key[k], ""), json_str(other, key[k], ""));
        const char *failure = json_str(other, "failure", "S_OK");
        if (same == ELEMENTS(key) && json_bool(other, "succeeded", false) && str_eq(failure, "S_OK"))
            return other;
    }
    return NULL;
}

/* A backup from before components told their own type. */
static const char *type_of(const json_t *backup, const json_t *component)
{
    const char *type = json_str(component, "backup_type", NULL);
    if (type)
        return type;
    return str_eq(json_str(backup, "type", ""), "copy") || str_eq(json_str(backup, "type", ""), "other") ? "copy" : "full";
}

static int unusable(const json_t *component, const char *type, const char *why, struct err *err)
{
    err_set(err, VSS_E_BAD_STATE, "Take a full backup of it first, into the same repository.", "writer %s, component %s: no %s backup is possible: %s",
            json_str(component, "writer", ""), json_str(component, "name", ""), type, why);
    str_copy(err->reason, sizeof err->reason, "no_previous_backup");
    return -1;
}

static int check_base(const struct choice_chain *chain, const json_t *backup, const json_t *component, const struct base_row *row, struct err *err)
{
    AUTO_FREE char *elsewhere = str_new("the backup that it goes on from is in repository %s", json_str(backup, "repository", ""));
    const json_t *document = json_object_get(session_private(backup), "document");
    if (!str_eq(json_str(backup, "repository", ""), chain->repository))
        return unusable(component, row->type, elsewhere, err);
    if (!chain->any_owner && !str_eq(json_str(backup, "owner", ""), chain->owner))
        return unusable(component, row->type, "the backup that it goes on from belongs to another principal", err);
    if (!str_eq(json_str(document, "node", chain->engine->node), chain->engine->node))
        return unusable(component, row->type, "the backup that it goes on from was made on another host", err);
    if (condition_bad(backup))
        return unusable(component, row->type, "the backup that it goes on from is damaged, or gone from its repository (condition)", err);
    if (backup_being_removed(chain->engine, json_str(backup, "id", "")))
        return unusable(component, row->type, "the backup that it goes on from is being removed", err);
    return 0;
}

/* One backup, newest first; every chosen component that has not found its base yet looks at it. */
static int consider(const struct choice_chain *chain, const json_t *backup, json_t *chosen, size_t *open, struct err *err)
{
    size_t i;
    json_t *component;
    json_array_foreach(chosen, i, component)
    {
        const struct base_row *row = base_row(json_str(component, "backup_type", ""));
        const json_t *before = row && json_is_null(json_object_get(component, "previous_backup_id")) ? backed_up(backup, component) : NULL;
        if (!before)
            continue;
        const char *type = type_of(backup, before);
        const json_t *writer = selection_writer(chain->writers, json_str(component, "instance_id", ""));
        if (row->excluded && str_eq(type, row->excluded) && selection_schema(writer, "exclusive_incremental_differential"))
            return unusable(component, row->type, "its writer does not mix incremental and differential backups after one full backup", err);
        if (!is_base(row, type))
            continue;
        if (check_base(chain, backup, component, row, err))
            return -1;
        json_t *stamp = json_object_get(before, "backup_stamp");
        json_put(component, "previous_stamp", stamp ? json_incref(stamp) : json_null());
        json_put(component, "previous_backup_id", json_string(json_str(backup, "id", "")));
        (*open)--;
    }
    return 0;
}

static int look_back(const struct choice_chain *chain, json_t *chosen, size_t *open, struct err *err)
{
    char last[UUID_SIZE] = "";
    bool more = true;
    for (size_t seen = 0; *open && more && seen < CATALOG_DEPTH; seen += CATALOG_PAGE) {
        const struct store_query query = {.kind = STORE_BACKUP, .limit = CATALOG_PAGE, .after = last[0] ? last : NULL};
        AUTO_JSON json_t *rows = NULL;
        size_t i;
        json_t *backup;
        if (store_list(chain->engine->store, &query, &rows, &more, err) == STORE_ERROR)
            return -1;
        json_array_foreach(rows, i, backup)
        {
            str_copy(last, sizeof last, json_str(backup, "id", ""));
            if (*open && json_bool(backup, "complete", false) && consider(chain, backup, chosen, open, err))
                return -1;
        }
    }
    return 0;
}

void choice_types(const json_t *writers, const char *type, json_t *chosen)
{
    size_t i;
    json_t *component;
    json_array_foreach(chosen, i, component)
    {
        const json_t *writer = selection_writer(writers, json_str(component, "instance_id", ""));
        json_put(component, "backup_type", json_string(selection_type(writer, type)));
    }
}

bool choice_goes_on(const char *type)
{
    return base_row(type) != NULL;
}

const char *choice_type_done(const json_t *state, const json_t *components)
{
    const char *type = json_str(state, "type", "full");
    size_t i;
    const json_t *component;
    if (!choice_goes_on(type) || !json_bool(state, "component_mode", true)) /* else every writer takes part, named or not */
        return type;
    json_array_foreach(components, i, component)
        if (str_eq(json_str(component, "backup_type", type), type))
            return type;
    return "full";
}

int choice_previous(const struct choice_chain *chain, json_t *chosen, struct err *err)
{
    size_t i, open = 0;
    json_t *component;
    choice_types(chain->writers, chain->type, chosen);
    json_array_foreach(chosen, i, component) open += base_row(json_str(component, "backup_type", "")) != NULL;
    if (open && look_back(chain, chosen, &open, err))
        return -1;
    json_array_foreach(chosen, i, component)
    {
        const char *type = json_str(component, "backup_type", "");
        if (open && base_row(type) && json_is_null(json_object_get(component, "previous_backup_id")))
            return unusable(component, type, "the catalog has no complete backup that it could go on from", err);
    }
    return 0;
}
