/* Out of data.tar.zst: every stored byte is hashed against complete.json, every entry held against the manifest. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"
#include "movers/payload/scan.h"
#include "movers/payload/tar_check.h"

struct stored {
    char place[PATH_MAX];
    json_t *complete;
    struct manifest manifest;
    bool manifest_damaged;
    int fd;
    struct hash *hash;
};

static void stored_close(struct stored *stored)
{
    manifest_clear(&stored->manifest);
    json_decref(stored->complete);
    fd_cleanup(&stored->fd);
    hash_free(stored->hash);
}

static bool hash_matches(struct hash *hash, const json_t *complete, const char *name)
{
    uint8_t digest[HASH_SIZE], expected[HASH_SIZE];
    hash_final(hash, digest);
    return hash_from_hex(json_str(complete, name, ""), expected) && memcmp(digest, expected, HASH_SIZE) == 0;
}

static int damaged(const struct stored *stored, const char *what, struct err *err)
{
    return err_set(err, ERROR_FILE_CORRUPT, "The stored data is damaged: restore from another backup.",
                   "%s/%s is damaged", stored->place, what);
}

static int load_manifest(struct stored *stored, struct err *err)
{
    char path[PATH_MAX + 64], block[65536];
    str_format(path, sizeof(path), "%s/manifest.jsonl", stored->place);
    FILE *file = fopen(path, "re");
    if (!file)
        return errno == ENOENT ? damaged(stored, "manifest.jsonl", err) : payload_failed(errno, "read", path, err);
    for (size_t n; (n = fread(block, 1, sizeof(block), file)) > 0;)
        hash_update(stored->hash, block, n);
    rewind(file);
    int result = hash_matches(stored->hash, stored->complete, "manifest_sha256")
                     ? manifest_read(&stored->manifest, file, path, err)
                     : damaged(stored, "manifest.jsonl", err);
    fclose(file);
    return result;
}

static int stored_open(struct stored *ret, const json_t *repository, const char *backup_id, struct err *err)
{
    char path[PATH_MAX + 64];
    *ret = (struct stored){.fd = -1, .hash = hash_new()};
    if (arc_place(repository, backup_id, "", ret->place, err))
        return -1;
    if (access(ret->place, F_OK) && errno != ENOENT)
        return payload_failed(errno, "look at", ret->place, err);
    if (access(ret->place, F_OK))
        return payload_no_backup(json_str(repository, "name", ""), backup_id, err);
    ret->complete = arc_read_json(ret->place, "complete.json");
    if (!json_is_object(ret->complete))
        return damaged(ret, "complete.json", err);
    if (load_manifest(ret, err))
        return -1;
    str_format(path, sizeof(path), "%s/data.tar.zst", ret->place);
    ret->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (ret->fd < 0)
        return errno == ENOENT ? damaged(ret, "data.tar.zst", err) : payload_failed(errno, "read", path, err);
    return 0;
}

static int on_read(void *arg, void *buffer, size_t size, size_t *ret_n, struct err *err)
{
    struct stored *stored = arg;
    ssize_t n = read(stored->fd, buffer, size);
    if (n < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read %s/data.tar.zst", stored->place);
    hash_update(stored->hash, buffer, (size_t)n);
    *ret_n = (size_t)n;
    return 0;
}

static int check_stored(struct stored *stored, struct tar_check *check, struct err *err)
{
    const struct tar_input input = {.read = on_read, .arg = stored, .zstd = true, .ours = true};
    check->manifest = &stored->manifest;
    if (tar_check_run(check, &input, err))
        return -1;
    if (!hash_matches(stored->hash, stored->complete, "data_sha256"))
        tar_check_damage(check, "/", "data.tar.zst: its SHA-256 differs from complete.json");
    return 0;
}

static int restore_all(struct stored *stored, struct stage *stage, struct tar_check *check, struct err *err)
{
    check->stage = stage;
    check->progress = stage->progress;
    if (check_stored(stored, check, err) || tar_check_refuse(check, err))
        return -1;
    stage->progress.bytes_done = check->progress.bytes_done;
    return stage_verify(stage, err) || stage_publish(stage, err) ? -1 : 0;
}

int arc_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result,
                struct err *err)
{
    struct stored stored;
    struct stage stage = {.fd = -1};
    struct tar_check check = {.host = host};
    int result = stored_open(&stored, request->repository, request->backup_id, err);
    if (!result)
        result = stage_open(&stage, request, host, &stored.manifest, err);
    if (!result)
        result = restore_all(&stored, &stage, &check, err);
    if (!result)
        *ret_result = stage_result(&stage);
    stage_close(&stage);
    json_decref(check.damaged);
    stored_close(&stored);
    return result;
}

int arc_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
               json_t **ret_result, struct err *err)
{
    (void)data_id;
    struct stored stored;
    struct err cause = {0};
    struct tar_check check = {.host = host, .damaged = json_array()};
    int result = stored_open(&stored, repository, backup_id, &cause);
    if (!result) {
        for (size_t i = 0; i < stored.manifest.n; i++) {
            const struct manifest_entry *entry = &stored.manifest.entries[i];
            check.progress.bytes_total += entry->hard_link ? 0 : entry->size;
            check.progress.files_total += S_ISREG(entry->mode);
        }
        result = check_stored(&stored, &check, &cause);
    }
    if (result && cause.hr == (uint32_t)ERROR_FILE_CORRUPT) { /* an answer of verify, not a failure to verify */
        tar_check_damage(&check, "/", cause.text);
        result = 0;
    }
    AUTO_JSON json_t *document = result ? NULL : arc_read_json(stored.place, "document.json");
    if (!result && !document)
        tar_check_damage(&check, "/", "document.json is damaged");
    if (!result)
        *ret_result = json_pack("{s:I, s:I, s:O}", "files", (json_int_t)check.progress.files_done, "bytes",
                                (json_int_t)check.progress.bytes_done, "damaged", check.damaged);
    else if (err)
        *err = cause;
    json_decref(check.damaged);
    stored_close(&stored);
    return result;
}

int arc_manifest(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err)
{
    (void)host;
    struct stored stored;
    int result = stored_open(&stored, repository, backup_id, err);
    *ret = stored.manifest;
    stored.manifest = (struct manifest){0};
    stored_close(&stored);
    return result;
}
