#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/restic/restic_private.h"
#include "movers/program/record.h"

bool restic_has_tag(const json_t *snapshot, const char *tag)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(snapshot, "tags"), i,
                       item) if (str_eq(json_string_value(item), tag)) return true;
    return false;
}

const char *restic_tagged_id(const json_t *snapshot)
{
    static const char prefix[] = "quiesced-backup=";
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(snapshot, "tags"), i, item)
    {
        const char *tag = json_string_value(item);
        if (tag && str_starts(tag, prefix) && uuid_valid(tag + strlen(prefix)))
            return tag + strlen(prefix);
    }
    return NULL;
}

void restic_backup_clear(struct restic_backup *backup)
{
    free(backup->data_id);
    free(backup->record_id);
    json_decref(backup->seals);
    *backup = (struct restic_backup){0};
}

int restic_find(const struct restic *restic, const char *backup_id, struct restic_backup *ret, struct err *err)
{
    *ret = (struct restic_backup){0};
    if (!uuid_valid(backup_id))
        return err_set(err, E_INVALIDARG, NULL, "backup id %.64s is not an id", backup_id);
    AUTO_FREE char *tags = str_new("quiesced,quiesced-backup=%s", backup_id);
    AUTO_JSON json_t *snapshots = NULL;
    if (restic_json(restic, (const char *const[]){"snapshots", "--json", "--tag", tags, NULL}, &snapshots, err))
        return -1;
    size_t i;
    const json_t *snapshot;
    ret->seals = json_array();
    json_array_foreach(snapshots, i, snapshot)
    {
        if (restic_has_tag(snapshot, "quiesced-seal"))
            json_add(ret->seals, json_string(json_str(snapshot, "id", "")));
        char **slot = restic_has_tag(snapshot, "quiesced-record") ? &ret->record_id
                      : restic_has_tag(snapshot, "quiesced-data") ? &ret->data_id
                                                                  : NULL;
        if (!slot)
            continue;
        free(*slot);
        *slot = str_dup(json_str(snapshot, "id", NULL));
    }
    return 0;
}

/* --- the record --- */

int restic_load(const struct restic *restic, const char *backup_id, const char *record_id, json_t **ret_header,
                struct manifest *ret_manifest, struct err *err)
{
    struct program process;
    AUTO_FREE char *name = str_new("/quiesced-%s.jsonl", backup_id);
    const char *const argv[] = {"dump", record_id, name, NULL};
    return restic_start(&process, restic, argv, &restic_no_io, err) ? -1 : record_read(RESTIC_FORMAT, &process, ret_header, ret_manifest, err);
}

int restic_forget(const struct restic *restic, const struct restic_backup *backup, bool prune, struct err *err)
{
    AUTO_FREE const char **argv = mem_new((json_array_size(backup->seals) + 5) * sizeof(*argv));
    size_t n = 0, i;
    const json_t *seal;
    argv[n++] = "forget";
    if (prune)
        argv[n++] = "--prune";
    size_t options = n;
    if (backup->record_id) /* all in one run; without its record the data is no backup any more */
        argv[n++] = backup->record_id;
    if (backup->data_id)
        argv[n++] = backup->data_id;
    json_array_foreach(backup->seals, i, seal) argv[n++] = json_string_value(seal);
    return n > options ? restic_run(restic, argv, err) : 0;
}
