/* What the repository says of itself: the list of its backups, and the seal that tells whether BackupComplete was
 * reached. A seal is replaced by a newer one before the older goes, so that one of them can always be read. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/payload/roots.h"
#include "movers/restic/restic_private.h"

static int start_store(struct program *ret, const struct restic *restic, const struct restic_file *file, int in, struct err *err)
{
    AUTO_FREE char *tag = str_new("quiesced-backup=%s", file->backup_id);
    const char *const argv[] = {"backup", "--quiet", "--stdin", "--stdin-filename", file->name, "--host", file->host, "--tag",
                                "quiesced", "--tag", file->kind, "--tag", tag, NULL};
    return restic_start(ret, restic, argv, &(const struct restic_io){in, -1}, err);
}

static int wait_for_store(struct program *process, struct err *err)
{
    return program_drain(process, err) || program_finish(process, err) ? -1 : 0;
}

int restic_store_file(const struct restic *restic, const struct restic_file *file, int fd, struct err *err)
{
    struct program process;
    return start_store(&process, restic, file, fd, err) ? -1 : wait_for_store(&process, err);
}

int restic_store_begin(struct restic_store *ret, const struct restic *restic, const struct restic_file *file, struct err *err)
{
    int ends[2];
    ret->in = -1;
    if (pipe2(ends, O_CLOEXEC))
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    AUTO_FD int theirs = ends[0];
    AUTO_FD int ours = ends[1];
    fcntl(ours, F_SETFL, O_NONBLOCK);
    if (start_store(&ret->process, restic, file, theirs, err))
        return -1;
    ret->in = TAKE_FD(ours);
    return 0;
}

void restic_store_stop(struct restic_store *store)
{
    if (store->in < 0)
        return;
    program_stop(&store->process); /* first: the end of its input would make it store what it has */
    close(TAKE_FD(store->in));
}

/* An end of its own shows as EPIPE; program_finish says why. */
int restic_store_end(struct restic_store *store, int fd, struct err *err)
{
    const struct mover_host *host = store->process.host;
    for (ssize_t n = 1; n != 0 && !(n < 0 && errno == EPIPE);) {
        n = sendfile(store->in, fd, NULL, 1 << 20);
        if (n >= 0 || errno == EPIPE || errno == EINTR)
            continue;
        struct pollfd room = {.fd = store->in, .events = POLLOUT};
        bool failed = errno != EAGAIN;
        if (failed)
            err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot write to restic");
        else if (poll(&room, 1, 200) <= 0 && host && host->cancelled(host->arg))
            failed = err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled") < 0;
        if (failed) {
            restic_store_stop(store);
            return -1;
        }
    }
    close(TAKE_FD(store->in));
    return wait_for_store(&store->process, err);
}

int restic_seal(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host,
                struct err *err)
{
    const struct restic restic = {.repository = repository, .host = host};
    struct restic_backup found;
    struct err untidy = {0};
    char name[256];
    AUTO_FREE char *file = str_new("quiesced-seal-%s.json", backup_id);
    AUTO_FREE char *text = json_dumps(seal, JSON_COMPACT);
    AUTO_FD int fd = memfd_create("seal", MFD_CLOEXEC);
    roots_node(json_object_get(seal, "document"), name, sizeof(name));
    if (fd < 0 || !text || dprintf(fd, "%s\n", text) < 0 || lseek(fd, 0, SEEK_SET))
        return err_set(err, E_OUTOFMEMORY, NULL, "no room for the seal");
    int result = restic_find(&restic, backup_id, &found, err);
    if (!result && !found.record_id)
        result = err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "repository %s holds no backup %s",
                         restic_name(repository), backup_id);
    if (!result)
        result = restic_store_file(&restic, &(const struct restic_file){backup_id, "quiesced-seal", name, file}, fd, err);
    const struct restic_backup older = {.seals = found.seals};
    if (!result) /* they count no more; where others hold the repository, the next seal takes them along */
        restic_forget(&restic, &older, false, &untidy);
    restic_backup_clear(&found);
    return result;
}

/* --- the list --- */

/* {backup id: its newest seal's snapshot} */
static json_t *newest_seals(const json_t *snapshots)
{
    json_t *newest = json_object(), *snapshot;
    size_t i;
    json_array_foreach(snapshots, i, snapshot)
    {
        const char *id = restic_has_tag(snapshot, "quiesced-seal") ? restic_tagged_id(snapshot) : NULL;
        const json_t *have = id ? json_object_get(newest, id) : NULL;
        if (id && (!have || strcmp(json_str(have, "time", ""), json_str(snapshot, "time", "")) < 0))
            json_put(newest, id, json_incref(snapshot));
    }
    return newest;
}

static int read_seal(const struct restic *restic, const char *backup_id, const json_t *snapshot, json_t *item,
                     struct err *err)
{
    AUTO_FREE char *path = str_new("/quiesced-seal-%s.json", backup_id);
    const char *const argv[] = {"dump", json_str(snapshot, "id", ""), path, NULL};
    struct err cause = {0};
    json_t *seal = NULL;
    if (restic_json(restic, argv, &seal, &cause) == 0) {
        json_put(item, "seal", seal);
        return 0;
    }
    if (!program_tells_nothing(&cause))
        return 0; /* damaged: as if there were none */
    *err = cause;
    return -1;
}

static int list_one(const struct restic *restic, const json_t *record, const json_t *seals, json_t *items,
                    struct err *err)
{
    const char *backup_id = restic_tagged_id(record), *record_id = json_str(record, "id", NULL);
    AUTO_JSON json_t *header = NULL;
    struct err cause = {0};
    if (!backup_id || !record_id)
        return 0; /* not ours after all */
    if (restic_load(restic, backup_id, record_id, &header, NULL, &cause) && program_tells_nothing(&cause)) {
        *err = cause;
        return -1;
    }
    json_t *item =
        json_pack("{s:s, s:s, s:O?, s:s?, s:I, s:I}", "backup_id", backup_id, "data_id",
                  json_str(header, "data_id", ""), "document", json_object_get(header, "document"), "created_at",
                  json_str(header, "created_at", json_str(record, "time", NULL)), "bytes",
                  (json_int_t)json_int(header, "bytes", 0), "files", (json_int_t)json_int(header, "files", 0));
    json_add(items, item);
    if (!header)
        json_put(item, "damaged", json_string(cause.text));
    const json_t *seal = json_object_get(seals, backup_id);
    return seal ? read_seal(restic, backup_id, seal, item, err) : 0;
}

int restic_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err)
{
    const struct restic restic = {.repository = repository, .host = host};
    AUTO_JSON json_t *snapshots = NULL;
    AUTO_JSON json_t *items = json_array();
    if (restic_json(&restic, (const char *const[]){"snapshots", "--json", "--tag", "quiesced", NULL}, &snapshots, err))
        return -1;
    AUTO_JSON json_t *seals = newest_seals(snapshots);
    size_t i;
    const json_t *snapshot;
    json_array_foreach(snapshots, i, snapshot) if (restic_has_tag(snapshot, "quiesced-record") &&
                                                   list_one(&restic, snapshot, seals, items, err)) return -1;
    *ret_items = TAKE_PTR(items);
    return 0;
}
