/* borg: encrypted, deduplicating repositories on disks and behind ssh. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/borg/borg_private.h"

#include <string.h>

const char *borg_name(const json_t *repository)
{
    return json_str(repository, "name", "");
}

/* ssh would take a user or a host that begins with a dash for an option. */
static bool url_fits(const char *url)
{
    static const char scheme[] = "ssh://";
    if (!str_starts(url, scheme))
        return false;
    const char *place = url + strlen(scheme);
    size_t length = strcspn(place, "/");
    const char *at = memrchr(place, '@', length);
    return length > 0 && place[length] == '/' && *place != '-' && (!at || (at[1] != '-' && at[1] != '/')) && !strchr(place, ' ');
}

int borg_check_settings(const json_t *repository, struct err *err)
{
    const char *path = json_str(repository, "path", NULL), *url = json_str(repository, "url", NULL);
    if (!json_str(repository, "password_file", NULL) || !path == !url)
        return err_invalid(err, "", "repository %s: password_file and one of path and url are needed", borg_name(repository));
    if (url && !url_fits(url))
        return err_invalid(err, "/url", "repository %s: a borg repository elsewhere is ssh://[user@]host[:port]/path", borg_name(repository));
    if (strpbrk(path ? path : url, "{}")) /* borg would put times and names in their place */
        return err_invalid(err, path ? "/path" : "/url", "repository %s: borg takes braces for placeholders", borg_name(repository));
    if (path && json_int(json_object_get(repository, "limits"), "bandwidth_bytes_per_second", 0))
        return err_invalid(err, "/limits/bandwidth_bytes_per_second", "repository %s: borg limits only what it sends to a url", borg_name(repository));
    return 0;
}

/* The list proves the place and the password, and borg itself removes locks that dead processes of ours left (BORG_HOST_ID). */
int borg_open(const json_t *repository, bool create, struct err *err)
{
    const struct borg borg = {.repository = repository};
    struct err cause = {0};
    if (borg_check_settings(repository, err))
        return -1;
    int result = borg_run(&borg, (const char *const[]){"list", "--short", "--last", "1", NULL}, &cause);
    if (result && create && cause.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND)
        return borg_run(&borg, (const char *const[]){"init", "--encryption", "repokey-blake2", NULL}, err);
    if (result && err)
        *err = cause;
    return result;
}

static int remove_backup(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, struct err *err)
{
    (void)data_id;
    const struct borg borg = {.repository = repository, .host = host};
    struct borg_backup found;
    int result = borg_find(&borg, backup_id, &found, err);
    bool any = !result && (found.record || json_array_size(found.data_all) || json_array_size(found.seals));
    if (any)
        result = borg_forget(&borg, &found, err) || borg_run(&borg, (const char *const[]){"compact", NULL}, err) ? -1 : 0;
    borg_backup_clear(&found);
    return result;
}

const struct mover mover_borg = {
    .abi = MOVER_ABI,
    .name = "borg",
    .title = "borg: encrypted and deduplicated",
    .needs_original_path = true,
    .probe = borg_probe,
    .run_opens = true,
    .verbs_open = true,
    .prepare = borg_prepare,
    .open = borg_open,
    .run = borg_backup_run,
    .restore = borg_restore,
    .verify = borg_verify,
    .manifest = borg_manifest,
    .seal = borg_seal,
    .list = borg_list,
    .remove = remove_backup,
};
MOVER_EXPORT(borg);
