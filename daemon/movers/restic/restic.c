/* restic: encrypted, deduplicating repositories on disks, servers and object stores. */
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/restic/restic_private.h"

enum { CONFIG_MAX = 4096 }; /* it has a few hundred bytes */

/* `unlock` proves the place and the password, and removes locks of dead processes of this host (and no others): what
 * a killed predecessor left would fail every later check. */
int restic_open(const json_t *repository, bool create, struct err *err)
{
    const struct restic restic = {.repository = repository};
    struct err cause = {0};
    if (restic_check_settings(repository, err))
        return -1;
    int result = restic_run(&restic, (const char *const[]){"unlock", "--quiet", NULL}, &cause);
    if (result && create && cause.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND)
        return restic_run(&restic, (const char *const[]){"init", "--quiet", NULL}, err);
    if (result && err)
        *err = cause;
    return result;
}

int restic_check_settings(const json_t *repository, struct err *err)
{
    static const char *const places[] = {"url", "url_file", "path"};
    size_t given = 0;
    for (size_t i = 0; i < ELEMENTS(places); i++)
        given += json_str(repository, places[i], NULL) != NULL;
    if (!json_str(repository, "password_file", NULL) || given != 1)
        return err_invalid(err, "", "repository %s: password_file and one of url, url_file and path are needed", restic_name(repository));
    return 0;
}

/* --- which one it is --- */

/* It takes no lock: another one's is no reason not to know. */
static const char *const show_config[] = {"cat", "config", "--no-lock", NULL};

/* NULL: elsewhere. */
static const char *place_here(const json_t *repository)
{
    const char *url = json_str(repository, "url", "");
    return json_str(repository, "path", *url == '/' ? url : NULL);
}

static void identity_here(const char *place, char ret_id[HASH_HEX_SIZE])
{
    uint8_t digest[HASH_SIZE], config[CONFIG_MAX];
    ret_id[0] = '\0';
    AUTO_FREE char *path = str_new("%s/config", place);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : read(fd, config, sizeof(config));
    if (n <= 0 || n == sizeof(config))
        return;
    struct hash *hash = hash_new();
    hash_update(hash, config, (size_t)n);
    hash_final(hash, digest);
    hash_free(hash);
    hash_hex(digest, ret_id);
}

int restic_identity_begin(struct restic_identity *ret, const struct restic *restic, struct err *err)
{
    ret->asked = !place_here(restic->repository);
    return ret->asked ? restic_json_begin(&ret->process, restic, show_config, err) : 0;
}

void restic_identity_stop(struct restic_identity *identity)
{
    if (identity->asked)
        program_stop(&identity->process);
    identity->asked = false;
}

static bool take_id(const json_t *config, char ret_id[HASH_HEX_SIZE])
{
    return str_copy(ret_id, HASH_HEX_SIZE, json_str(config, "id", "")) && *ret_id;
}

void restic_identity_end(struct restic_identity *identity, char ret_id[HASH_HEX_SIZE])
{
    AUTO_JSON json_t *config = NULL;
    struct err ignored; /* asked again when it is to be known */
    ret_id[0] = '\0';
    if (identity->asked && restic_json_end(&identity->process, &config, &ignored) == 0 && !take_id(config, ret_id))
        ret_id[0] = '\0';
    identity->asked = false;
}

int restic_identity_of(const struct restic *restic, char ret_id[HASH_HEX_SIZE], struct err *err)
{
    AUTO_JSON json_t *config = NULL;
    const char *place = place_here(restic->repository);
    if (place) {
        identity_here(place, ret_id);
        return 0;
    }
    if (restic_json(restic, show_config, &config, err))
        return -1;
    return take_id(config, ret_id) ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "repository %s: restic does not tell its id", restic_name(restic->repository));
}

static int remove_backup(const json_t *repository, const char *backup_id, const char *data_id,
                         const struct mover_host *host, struct err *err)
{
    (void)data_id;
    const struct restic restic = {.repository = repository, .host = host};
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
    .run_opens = true,
    .open = restic_open,
    .run = restic_backup_run,
    .restore = restic_restore,
    .verify = restic_verify,
    .manifest = restic_manifest,
    .seal = restic_seal,
    .list = restic_list,
    .remove = remove_backup,
};
MOVER_EXPORT(restic);
