/* restic: encrypted, deduplicating repositories on disks, servers and object stores. */
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/restic/restic_private.h"

/* `unlock` proves the place and the password, and removes locks of dead processes of this host (and no others): what
 * a killed predecessor left would fail every later check. */
static int open_repository(const json_t *repository, bool create, struct err *err)
{
    const struct restic restic = {repository, NULL};
    struct err cause = {0};
    if (!json_str(repository, "password_file", NULL) ||
        (!json_str(repository, "url", NULL) && !json_str(repository, "path", NULL)))
        return err_invalid(err, "", "repository %s: url and password_file are needed", restic_name(repository));
    int result = restic_run(&restic, (const char *const[]){"unlock", "--quiet", NULL}, &cause);
    if (result && create && cause.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND)
        return restic_run(&restic, (const char *const[]){"init", "--quiet", NULL}, err);
    if (result && err)
        *err = cause;
    return result;
}

static int remove_backup(const json_t *repository, const char *backup_id, const char *data_id,
                         const struct mover_host *host, struct err *err)
{
    (void)data_id;
    const struct restic restic = {repository, host};
    struct restic_backup found;
    int result = restic_find(&restic, backup_id, &found, err);
    if (!result)
        result = restic_forget(&restic, &found, true, err);
    restic_backup_clear(&found);
    return result;
}

const struct mover mover_restic = {
    .abi = MOVER_ABI,
    .name = "restic",
    .title = "restic: encrypted and deduplicated",
    .needs_original_path = true,
    .probe = restic_probe,
    .open = open_repository,
    .run = restic_backup_run,
    .restore = restic_restore,
    .verify = restic_verify,
    .list = restic_list,
    .remove = remove_backup,
};
MOVER_EXPORT(restic);
