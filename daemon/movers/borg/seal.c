/* What the repository says of itself: the list of its backups, and the seal that tells whether BackupComplete was
 * reached. A seal is replaced by a newer one before the older goes, so that one of them can always be read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/borg/borg_private.h"

static int64_t age_of(const char *seal)
{
    return strtoll(borg_parse(seal).rest, NULL, 10);
}

/* After every other seal of this backup, whatever the clock did meanwhile. */
static int64_t next_age(const json_t *seals)
{
    int64_t next = clock_real_ms();
    size_t i;
    const json_t *seal;
    json_array_foreach(seals, i, seal) if (age_of(json_string_value(seal)) >= next) next = age_of(json_string_value(seal)) + 1;
    return next;
}

static int store_seal(const struct borg *borg, const char *backup_id, const struct borg_backup *found, const json_t *seal, struct err *err)
{
    AUTO_FREE char *file = str_new("quiesced-seal-%s.json", backup_id);
    AUTO_FREE char *archive = str_new("quiesced-%s.seal-%013lld", backup_id, (long long)next_age(found->seals));
    AUTO_FREE char *text = json_dumps(seal, JSON_COMPACT);
    AUTO_FD int fd = memfd_create("seal", MFD_CLOEXEC);
    if (fd < 0 || !text || dprintf(fd, "%s\n", text) < 0 || lseek(fd, 0, SEEK_SET))
        return err_set(err, E_OUTOFMEMORY, NULL, "no room for the seal");
    return borg_store_file(borg, archive, file, fd, err);
}

int borg_seal(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host, struct err *err)
{
    const struct borg borg = {.repository = repository, .host = host};
    struct borg_backup found;
    struct err untidy = {0};
    int result = borg_find(&borg, backup_id, &found, err);
    if (!result && !found.record)
        result = err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "repository %s holds no backup %s", borg_name(repository), backup_id);
    if (!result)
        result = store_seal(&borg, backup_id, &found, seal, err);
    const struct borg_backup older = {.seals = found.seals};
    if (!result) /* they count no more; where others hold the repository, the next seal takes them along */
        borg_forget(&borg, &older, &untidy);
    borg_backup_clear(&found);
    return result;
}

/* --- the list --- */

static const char *newest(const json_t *seals)
{
    const char *found = NULL;
    size_t i;
    const json_t *seal;
    json_array_foreach(seals, i, seal) if (!found || age_of(json_string_value(seal)) > age_of(found)) found = json_string_value(seal);
    return found;
}

/* One that is damaged is as if there were none; whether it is nobody knows while the repository is locked or away. */
static int read_seal(const struct borg *borg, const char *backup_id, const char *seal, json_t *item, struct err *err)
{
    struct borg_run run;
    struct err cause = {0};
    json_t *doc = NULL;
    AUTO_FREE char *archive = str_new("::%s", seal);
    AUTO_FREE char *file = str_new("pp:quiesced-seal-%s.json", backup_id);
    if (borg_start(&run, borg, (const char *const[]){"extract", "--stdout", archive, file, NULL}, &borg_no_io, &cause) == 0 &&
        borg_json_end(&run, &doc, &cause) == 0)
        json_put(item, "seal", doc);
    if (!program_tells_nothing(&cause))
        return 0;
    *err = cause;
    return -1;
}

static int list_one(const struct borg *borg, const json_t *archives, const json_t *record, json_t *items, struct err *err)
{
    const struct borg_archive archive = borg_parse(json_str(record, "name", ""));
    AUTO_JSON json_t *header = NULL;
    struct err cause = {0};
    struct borg_backup backup;
    if (borg_load(borg, archive.backup_id, &header, NULL, &cause) && program_tells_nothing(&cause)) {
        *err = cause;
        return -1;
    }
    borg_pick(archives, archive.backup_id, &backup);
    json_t *item = json_pack("{s:s, s:s, s:O?, s:s?, s:I, s:I}", "backup_id", archive.backup_id, "data_id", backup.data_id ? backup.data_id : "",
                             "document", json_object_get(header, "document"), "created_at", json_str(header, "created_at", json_str(record, "time", NULL)),
                             "bytes", (json_int_t)json_int(header, "bytes", 0), "files", (json_int_t)json_int(header, "files", 0));
    json_add(items, item);
    if (!header)
        json_put(item, "damaged", json_string(cause.text));
    else if (!backup.data)
        json_put(item, "damaged", json_string("its data is gone"));
    const char *seal = newest(backup.seals);
    int result = seal ? read_seal(borg, archive.backup_id, seal, item, err) : 0;
    borg_backup_clear(&backup);
    return result;
}

int borg_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err)
{
    const struct borg borg = {.repository = repository, .host = host};
    AUTO_JSON json_t *archives = NULL;
    AUTO_JSON json_t *items = json_array();
    if (borg_check_settings(repository, err) || borg_archives(&borg, &archives, err))
        return -1;
    size_t i;
    const json_t *item;
    json_array_foreach(archives, i, item) if (borg_parse(json_str(item, "name", "")).part == BORG_RECORD &&
                                              list_one(&borg, archives, item, items, err)) return -1;
    *ret_items = TAKE_PTR(items);
    return 0;
}
