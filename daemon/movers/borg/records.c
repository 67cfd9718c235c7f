#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/borg/borg_private.h"
#include "movers/program/record.h"

const char *const borg_list_all[] = {"list", "--json", "--consider-checkpoints", "--glob-archives", "quiesced-*", NULL};

/* --- names --- */

struct borg_archive borg_parse(const char *name)
{
    static const struct {
        const char *text;
        enum borg_part part;
    } parts[] = {{".data-", BORG_DATA}, {".record", BORG_RECORD}, {".seal-", BORG_SEAL}};
    static const char prefix[] = "quiesced-";
    struct borg_archive archive = {.part = BORG_NONE};
    const char *id = name + strlen(prefix);
    if (!str_starts(name, prefix) || strlen(id) < UUID_SIZE - 1)
        return archive;
    memcpy(archive.backup_id, id, UUID_SIZE - 1);
    archive.backup_id[UUID_SIZE - 1] = '\0';
    archive.rest = id + UUID_SIZE - 1;
    for (size_t i = 0; i < ELEMENTS(parts) && uuid_valid(archive.backup_id); i++) {
        if (!str_starts(archive.rest, parts[i].text))
            continue;
        archive.rest += strlen(parts[i].text);
        bool checkpoint = strstr(archive.rest, ".checkpoint") != NULL;
        archive.part = checkpoint ? BORG_DATA : parts[i].part;
        if (checkpoint)
            archive.rest = "";
        return archive;
    }
    return archive;
}

void borg_backup_clear(struct borg_backup *backup)
{
    free(backup->data);
    free(backup->data_id);
    free(backup->record);
    json_decref(backup->data_all);
    json_decref(backup->seals);
    *backup = (struct borg_backup){0};
}

int borg_archives(const struct borg *borg, json_t **ret_archives, struct err *err)
{
    struct borg_run run;
    AUTO_JSON json_t *answer = NULL;
    if (borg_start(&run, borg, borg_list_all, &borg_no_io, err) || borg_json_end(&run, &answer, err))
        return -1;
    json_t *archives = json_object_get(answer, "archives");
    if (!json_is_array(archives))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "borg's list holds no archives");
    *ret_archives = json_incref(archives);
    return 0;
}

static void replace(char **slot, const char *text)
{
    free(*slot);
    *slot = str_dup(text);
}

void borg_pick(const json_t *archives, const char *backup_id, struct borg_backup *ret)
{
    size_t i;
    const json_t *item;
    *ret = (struct borg_backup){.data_all = json_array(), .seals = json_array()};
    json_array_foreach(archives, i, item)
    {
        const char *name = json_str(item, "name", "");
        const struct borg_archive archive = borg_parse(name);
        if (archive.part == BORG_NONE || !str_eq(archive.backup_id, backup_id))
            continue;
        if (archive.part == BORG_SEAL) {
            json_add(ret->seals, json_string(name));
        } else if (archive.part == BORG_RECORD) {
            replace(&ret->record, name);
        } else {
            json_add(ret->data_all, json_string(name));
            if (*archive.rest) {
                replace(&ret->data, name);
                replace(&ret->data_id, json_str(item, "id", NULL));
            }
        }
    }
}

int borg_find(const struct borg *borg, const char *backup_id, struct borg_backup *ret, struct err *err)
{
    AUTO_JSON json_t *archives = NULL;
    *ret = (struct borg_backup){0};
    if (!uuid_valid(backup_id))
        return err_set(err, E_INVALIDARG, NULL, "backup id %.64s is not an id", backup_id);
    if (borg_check_settings(borg->repository, err) || borg_archives(borg, &archives, err))
        return -1;
    borg_pick(archives, backup_id, ret);
    return 0;
}

/* --- the record --- */

int borg_load(const struct borg *borg, const char *backup_id, json_t **ret_header, struct manifest *ret_manifest, struct err *err)
{
    struct borg_run run;
    AUTO_FREE char *archive = str_new("::quiesced-%s.record", backup_id);
    AUTO_FREE char *name = str_new("pp:quiesced-%s.jsonl", backup_id);
    const char *const argv[] = {"extract", "--stdout", archive, name, NULL};
    return borg_start(&run, borg, argv, &borg_no_io, err) ? -1 : record_read(BORG_FORMAT, &run.program, ret_header, ret_manifest, err);
}

/* --- storing and forgetting --- */

int borg_store_file(const struct borg *borg, const char *archive, const char *file, int fd, struct err *err)
{
    struct borg_run run;
    AUTO_FREE char *place = str_new("::%s", archive);
    const char *const argv[] = {"create", "--files-cache", "disabled", "--stdin-name", file, place, "-", NULL};
    if (borg_start(&run, borg, argv, &(const struct borg_io){.in_fd = fd, .work_fd = -1}, err))
        return -1;
    return program_drain(&run.program, err) || program_finish(&run.program, err) ? -1 : 0;
}

int borg_forget(const struct borg *borg, const struct borg_backup *backup, struct err *err)
{
    const json_t *lists[] = {backup->data_all, backup->seals}, *name;
    AUTO_FREE const char **argv = mem_new((json_array_size(lists[0]) + json_array_size(lists[1]) + 4) * sizeof(*argv));
    size_t n = 0, i;
    argv[n++] = "delete";
    argv[n++] = "::";
    size_t options = n;
    if (backup->record)
        argv[n++] = backup->record;
    for (size_t k = 0; k < ELEMENTS(lists); k++)
        json_array_foreach(lists[k], i, name) argv[n++] = json_string_value(name);
    return n > options ? borg_run(borg, argv, err) : 0;
}
