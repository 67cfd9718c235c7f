#pragma once
/* From paths to volumes and providers: what AddToSnapshotSet, GET /volumes and the planner need to know of this host.
 */
#include <jansson.h>
#include <stddef.h>

#include "base/err.h"
#include "model/planner.h"
#include "providers/provider.h"

/* Find the volume of path and its provider (provider NULL = the best match of all that are available).
 * The answer's volume.path is what the provider snapshots: the subvolume (btrfs), the directory (reflink, copy; of a
 * file its parent directory, of which volumes_name_in tells the name that is wanted). Errors are those of AddToSnapshotSet: E_INVALIDARG (not canonical, or through a symbolic
 * link), VSS_E_OBJECT_NOT_FOUND (no such path), VSS_E_PROVIDER_NOT_REGISTERED, VSS_E_VOLUME_NOT_SUPPORTED (with every
 * provider's reason), VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER. When only no provider fits, ret_volume is filled all the
 * same. */
int volumes_resolve(const struct provider_environment *env, const char *path, const char *provider,
                    struct volume *ret_volume, const struct provider **ret_provider, struct err *err);

/* Of a path beneath a volume: the name at the volume's top in which it lies. "" for the volume itself. malloc'ed. */
char *volumes_name_in(const char *volume, const char *path);

/* Mount points and btrfs subvolumes beneath path (not path itself), canonical, sorted: a new JSON array of strings.
 * Our own snapshots (`.quiesced`) do not count, nor do views of the kernel (proc, sysfs). Bytes that are no UTF-8 are
 * written as \xNN. */
int volumes_nested(const char *path, json_t **ret, struct err *err);

/* GET /volumes: mounted real file systems: array of
 * {"path","mount_point","fs_type","source","superblock","provider"|null,"reason"}. */
int volumes_list(const struct provider_environment *env, json_t **ret, struct err *err);

/* "bytes", "free_percent" and, of a btrfs, "metadata_free_percent" of the volume's file system into item: null for one that another machine or a process serves, which may never
 * answer and is not asked. */
void volumes_put_space(json_t *item, const struct volume *volume);

/* The same mounts as an array (free it): what provider->list wants when orphans are searched. */
int volumes_mounted(struct volume **ret, size_t *ret_n, struct err *err);

/* Everything the planner must know of one resolved volume; owns its strings. Zero-initialise before use. */
struct volumes_fact {
    struct volume volume;
    const struct provider *provider; /* NULL when none fits */
    json_t *only; /* volume.only: files were asked for, not their directory */
    json_t *nested;
    const char **nested_paths; /* views into nested */
    char reason[768];
    char writes[64]; /* planner_volume.writes, or "" */
    struct planner_volume planner; /* views into this struct: it must not move */
};
/* Resolve path and fill the fact. A path without provider is no failure here (planner.provider is NULL: the planner
 * refuses it with the reason); a path that does not exist or is not canonical is. */
int volumes_fact_init(const struct provider_environment *env, const char *path, const char *provider,
                      struct volumes_fact *ret, struct err *err);
/* Of a provider that is by_file: only these names at the volume's top are wanted, none of which is a directory. Takes only. */
int volumes_fact_narrow(const struct provider_environment *env, json_t *only, struct volumes_fact *fact, struct err *err);
void volumes_fact_clear(struct volumes_fact *fact);

/* Where our own snapshots of this volume's file system are kept ("/srv/.quiesced"): movers must leave it out. */
void volumes_private_dir(const struct volume *volume, char ret[PATH_MAX]);
