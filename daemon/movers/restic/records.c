#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/restic/restic_private.h"

enum { HEADER_MAX = 64 << 20 };

bool restic_has_tag(const json_t *snapshot, const char *tag)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(snapshot, "tags"), i,
                       item) if (str_eq(json_string_value(item), tag)) return true;
    return false;
}

void restic_backup_clear(struct restic_backup *backup)
{
    free(backup->data_id);
    free(backup->record_id);
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
    json_array_foreach(snapshots, i, snapshot)
    {
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

/* Reads the dump into memory (a memfd, which may be swapped); stops after the first line when that is all. */
static int fetch(struct restic_process *process, FILE *file, bool header_only, struct err *err)
{
    char block[65536];
    size_t total = 0;
    for (size_t n = 1; n > 0; total += n) {
        if (restic_read(process, block, sizeof(block), &n, err))
            return -1;
        if (fwrite(block, 1, n, file) != n)
            return err_set(err, E_OUTOFMEMORY, NULL, "no room for the backup's record");
        if (header_only && memchr(block, '\n', n))
            return 1;
        if (header_only && total > HEADER_MAX)
            return err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, NULL, "the backup's record has no header");
    }
    return 0;
}

static int parse(FILE *file, json_t **ret_header, struct manifest *ret_manifest, struct err *err)
{
    AUTO_FREE char *line = NULL;
    size_t room = 0;
    rewind(file);
    ssize_t n = getline(&line, &room, file);
    AUTO_JSON json_t *header = n > 0 ? json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!str_eq(json_str(header, "format", ""), "quiesced-restic") || json_int(header, "version", 0) != 1)
        return err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, "Use the program version that wrote it, or another backup.",
                       "the backup's record is damaged or of an unknown version");
    if (ret_manifest && manifest_read(ret_manifest, file, "the backup's record", err))
        return -1;
    *ret_header = TAKE_PTR(header);
    return 0;
}

int restic_load(const struct restic *restic, const char *backup_id, const char *record_id, json_t **ret_header,
                struct manifest *ret_manifest, struct err *err)
{
    struct restic_process process;
    AUTO_FREE char *name = str_new("/quiesced-%s.jsonl", backup_id);
    int fd = memfd_create("record", MFD_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w+e");
    if (!file) {
        fd_cleanup(&fd);
        return err_set(err, E_OUTOFMEMORY, NULL, "no room for the backup's record");
    }
    int result =
        restic_start(&process, restic, (const char *const[]){"dump", record_id, name, NULL}, &restic_no_io, err);
    if (!result) {
        int fetched = fetch(&process, file, !ret_manifest, err);
        if (fetched == 0)
            result = restic_finish(&process, err);
        else
            restic_stop(&process); /* the header is enough, or it failed */
        if (fetched < 0)
            result = -1;
    }
    if (!result)
        result = parse(file, ret_header, ret_manifest, err);
    fclose(file);
    return result;
}

int restic_forget(const struct restic *restic, const struct restic_backup *backup, bool prune, struct err *err)
{
    const char *argv[5] = {"forget"};
    size_t n = 1;
    if (prune)
        argv[n++] = "--prune";
    if (backup->record_id) /* both in one run; without its record the data is no backup any more */
        argv[n++] = backup->record_id;
    if (backup->data_id)
        argv[n++] = backup->data_id;
    return backup->record_id || backup->data_id ? restic_run(restic, argv, err) : 0;
}

static const char *tagged_id(const json_t *snapshot)
{
    static const char prefix[] = "quiesced-backup=";
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(snapshot, "tags"), i,
                       item) if (json_is_string(item) &&
                                 str_starts(json_string_value(item), prefix)) return json_string_value(item) +
        sizeof(prefix) - 1;
    return NULL;
}

int restic_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err)
{
    const struct restic restic = {repository, host};
    AUTO_JSON json_t *snapshots = NULL;
    AUTO_JSON json_t *items = json_array();
    if (restic_json(&restic, (const char *const[]){"snapshots", "--json", "--tag", "quiesced,quiesced-record", NULL},
                    &snapshots, err))
        return -1;
    size_t i;
    const json_t *snapshot;
    json_array_foreach(snapshots, i, snapshot)
    {
        const char *backup_id = tagged_id(snapshot), *record_id = json_str(snapshot, "id", NULL);
        AUTO_JSON json_t *header = NULL;
        struct err cause = {0};
        if (!uuid_valid(backup_id ? backup_id : "") || !record_id)
            continue; /* not ours after all */
        if (restic_load(&restic, backup_id, record_id, &header, NULL, &cause) &&
            cause.hr == (uint32_t)VSS_S_ASYNC_CANCELLED) {
            *err = cause;
            return -1;
        }
        json_t *item =
            json_pack("{s:s, s:s, s:O?, s:s?, s:I, s:I}", "backup_id", backup_id, "data_id",
                      json_str(header, "data_id", ""), "document", json_object_get(header, "document"), "created_at",
                      json_str(header, "created_at", json_str(snapshot, "time", NULL)), "bytes",
                      (json_int_t)json_int(header, "bytes", 0), "files", (json_int_t)json_int(header, "files", 0));
        if (!header)
            json_put(item, "damaged", json_string(cause.text));
        json_add(items, item);
    }
    *ret_items = TAKE_PTR(items);
    return 0;
}
