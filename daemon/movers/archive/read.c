/* Back out of data.tar.zst: every entry is held against the manifest; what was restored is read again and compared. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"

enum { BLOCK = 256 * 1024 };

struct reader {
    const struct mover_host *host;
    struct archive *in, *disk;   /* disk NULL: verify only */
    json_t *manifest;
    json_t *damaged;
    struct hash *hash;
    const struct mover_restore *restore;
    struct mover_progress progress;
};

static void damage(struct reader *reader, const char *path, const char *reason)
{
    AUTO_FREE char *key = manifest_key(path);
    json_add(reader->damaged, json_pack("{s:s, s:s}", "path", key, "reason", reason));
}

static int in_failed(struct reader *reader, struct err *err)
{
    return err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, "The stored data is damaged: restore from another backup.", "data.tar.zst: %s",
                   archive_error_string(reader->in) ? archive_error_string(reader->in) : "unreadable");
}

/* Opens what was restored, never through a symbolic link and never out of the target. */
static int open_beneath(int dir, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

static int disk_failed(struct reader *reader, const char *path, struct err *err)
{
    int errnum = archive_errno(reader->disk);
    const char *text = archive_error_string(reader->disk);
    bool full = errnum == ENOSPC || errnum == EDQUOT;
    return err_set(err, full ? (uint32_t)VSS_E_INSUFFICIENT_STORAGE : (uint32_t)VSS_E_UNEXPECTED, NULL, "cannot restore %s: %s", path, text ? text : "?");
}

static int copy_block(struct reader *reader, const void *data, size_t size, int64_t offset, const char *path, struct err *err)
{
    if (reader->disk && archive_write_data_block(reader->disk, data, size, offset) < ARCHIVE_WARN)
        return disk_failed(reader, path, err);
    reader->progress.bytes_done += (int64_t)size;
    reader->host->progress(reader->host->arg, &reader->progress);
    return 0;
}

static void hash_zeros(struct hash *hash, int64_t n)
{
    static const char zeros[65536];
    for (; n > 0; n -= (int64_t)sizeof zeros)
        hash_update(hash, zeros, n < (int64_t)sizeof zeros ? (size_t)n : sizeof zeros);
}

static int read_data(struct reader *reader, const char *path, int64_t size, char ret_hex[HASH_HEX_SIZE], struct err *err)
{
    const void *data;
    size_t n;
    int64_t offset, at = 0;
    uint8_t digest[HASH_SIZE];
    for (int result; (result = archive_read_data_block(reader->in, &data, &n, &offset)) != ARCHIVE_EOF;) {
        if (result < ARCHIVE_WARN)
            return in_failed(reader, err);
        if (reader->host->cancelled(reader->host->arg))
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        hash_zeros(reader->hash, offset - at);
        hash_update(reader->hash, data, n);
        at = offset + (int64_t)n;
        if (n && copy_block(reader, data, n, offset, path, err))
            return -1;
    }
    hash_zeros(reader->hash, size - at);
    hash_final(reader->hash, digest);
    hash_hex(digest, ret_hex);
    return 0;
}

static bool wanted(const struct reader *reader, const char *path)
{
    if (!reader->restore || !reader->restore->paths || !reader->restore->paths[0])
        return true;
    for (const char *const *prefix = reader->restore->paths; *prefix; prefix++) {
        if (path_beneath(path, *prefix) || path_beneath(*prefix, path))
            return true;
    }
    return false;
}

/* A chosen name whose data was stored under a name that was not chosen: the data comes back under the chosen one. */
static void adopt_links(struct reader *reader)
{
    const char *key;
    json_t *entry;
    json_object_foreach(reader->manifest, key, entry)
    {
        const char *path = json_str(entry, "path", NULL), *first = json_str(entry, "hard_link", NULL);
        json_t *data = first ? json_object_get(reader->manifest, first) : NULL;
        if (!path || !data || !wanted(reader, path) || wanted(reader, first))
            continue;
        if (!json_object_get(data, "restore_as")) {
            json_put(data, "restore_as", json_string(path));
            json_put(entry, "sha256", json_incref(json_object_get(data, "sha256")));
            json_put(entry, "data_came", json_true());
        }
        json_put(entry, "link_to", json_incref(json_object_get(data, "restore_as")));
    }
}

static int put_header(struct reader *reader, struct archive_entry *entry, const char *path, struct err *err)
{
    if (!reader->disk)
        return 0;
    bool directory = archive_entry_filetype(entry) == AE_IFDIR;
    AUTO_FD int there = open_beneath(reader->restore->target_dir_fd, path + 1, O_PATH | O_NOFOLLOW);
    if (there < 0 && (errno == ELOOP || errno == EXDEV))
        return err_set(err, E_ACCESSDENIED, "Restore into an empty directory.", "%s: a symbolic link in the target would lead out of it", path);
    struct stat st;
    if (there >= 0 && directory && !fstat(there, &st) && !S_ISDIR(st.st_mode))
        return err_set(err, E_ACCESSDENIED, "Restore into an empty directory.", "%s%s stands where a directory has to be", reader->restore->target, path);
    if (there >= 0 && !directory && !reader->restore->overwrite)
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, "Restore elsewhere, or with \"overwrite\": true.", "%s%s exists already", reader->restore->target, path);
    if (archive_write_header(reader->disk, entry) < ARCHIVE_WARN)
        return disk_failed(reader, path, err);
    return 0;
}

static int read_entry(struct reader *reader, struct archive_entry *entry, struct err *err)
{
    char hex[HASH_HEX_SIZE] = "";
    const char *name = archive_entry_pathname(entry);
    AUTO_FREE char *path = str_new("/%s", name ? name : "");
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) /* tar marks directories so */
        path[n - 1] = '\0';
    AUTO_FREE char *key = manifest_key(path);
    json_t *known = json_object_get(reader->manifest, key);
    bool has_data = archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry);
    const char *as = json_str(known, "restore_as", NULL), *link_to = json_str(known, "link_to", NULL);
    if (!wanted(reader, path) && as) {
        archive_entry_copy_pathname(entry, as + 1);
        free(path);
        path = str_dup(as);
    } else if (json_bool(known, "data_came", false)) {
        json_put(known, "found", json_true());
        return 0;
    } else if (link_to) {
        archive_entry_copy_hardlink(entry, link_to + 1);
    }
    if (!wanted(reader, path))
        return archive_read_data_skip(reader->in) < ARCHIVE_WARN ? in_failed(reader, err) : 0;
    if (!known) {
        damage(reader, path, "not in the manifest");
        return archive_read_data_skip(reader->in) < ARCHIVE_WARN ? in_failed(reader, err) : 0;
    }
    json_put(known, "found", json_true());
    if (put_header(reader, entry, path, err))
        return -1;
    if (has_data) {
        if (read_data(reader, path, archive_entry_size(entry), hex, err))
            return -1;
        if (!str_eq(hex, json_str(known, "sha256", "")))
            damage(reader, path, "its SHA-256 differs from the manifest");
        reader->progress.files_done++;
    }
    if (reader->disk && archive_write_finish_entry(reader->disk) < ARCHIVE_WARN)
        return disk_failed(reader, path, err);
    return 0;
}

static int read_all(struct reader *reader, const char *place, struct err *err)
{
    char path[PATH_MAX + 64];
    struct archive_entry *entry;
    str_format(path, sizeof path, "%s/data.tar.zst", place);
    reader->in = archive_read_new();
    archive_read_support_filter_zstd(reader->in);
    archive_read_support_format_tar(reader->in);
    archive_read_set_options(reader->in, "hdrcharset=BINARY");
    if (archive_read_open_filename(reader->in, path, BLOCK) != ARCHIVE_OK)
        return in_failed(reader, err);
    for (int result; (result = archive_read_next_header(reader->in, &entry)) != ARCHIVE_EOF;) {
        if (result < ARCHIVE_WARN)
            return in_failed(reader, err);
        if (read_entry(reader, entry, err))
            return -1;
    }
    const char *key;
    json_t *known;
    json_object_foreach(reader->manifest, key, known)
    {
        const char *name = json_str(known, "path", NULL);
        if (!json_bool(known, "found", false) && (!name || wanted(reader, name)))
            json_add(reader->damaged, json_pack("{s:s, s:s}", "path", key, "reason", "missing from the archive"));
    }
    return 0;
}

static void reader_free(struct reader *reader)
{
    if (reader->in)
        archive_read_free(reader->in);
    if (reader->disk)
        archive_write_free(reader->disk);
    hash_free(reader->hash);
    json_decref(reader->manifest);
    json_decref(reader->damaged);
}

/* Reads a restored file again: "verified" means that the bytes on disk are the ones that were saved. */
static int check_file(struct reader *reader, const char *path, const json_t *known, char *block, struct err *err)
{
    uint8_t digest[HASH_SIZE];
    char hex[HASH_HEX_SIZE];
    AUTO_FD int fd = open_beneath(reader->restore->target_dir_fd, path + 1, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        return arc_failed(errno, "cannot read back", path, err);
    for (ssize_t n; (n = read(fd, block, BLOCK)) != 0;) {
        if (n < 0)
            return arc_failed(errno, "cannot read back", path, err);
        if (reader->host->cancelled(reader->host->arg))
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        hash_update(reader->hash, block, (size_t)n);
    }
    hash_final(reader->hash, digest);
    if (!str_eq(hash_hex(digest, hex), json_str(known, "sha256", "")))
        damage(reader, path, "the restored file differs from the manifest");
    return 0;
}

static int check_restored(struct reader *reader, struct err *err)
{
    AUTO_FREE char *block = mem_new(BLOCK);
    const char *key;
    json_t *known;
    json_object_foreach(reader->manifest, key, known)
    {
        const char *path = json_str(known, "path", NULL);
        bool moved = json_object_get(known, "restore_as") != NULL; /* checked under the name it came back as */
        if (path && !moved && json_bool(known, "found", false) && json_object_get(known, "sha256") && check_file(reader, path, known, block, err))
            return -1;
    }
    return 0;
}

static int refuse_damaged(const struct reader *reader, struct err *err)
{
    size_t n = json_array_size(reader->damaged);
    const json_t *first = json_array_get(reader->damaged, 0);
    if (n == 0)
        return 0;
    return err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, "The stored data is damaged: restore from another backup.", "%zu entries are damaged; first: %s: %s", n,
                   json_str(first, "path", ""), json_str(first, "reason", ""));
}

static int restore_all(struct reader *reader, const char *place, struct err *err)
{
    reader->manifest = manifest_load(place, err);
    if (!reader->manifest)
        return -1;
    if (fchdir(reader->restore->target_dir_fd))
        return arc_failed(errno, "cannot enter", reader->restore->target, err);
    int flags = ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_ACL | ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_SPARSE |
                ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS | ARCHIVE_EXTRACT_UNLINK;
    if (geteuid() == 0)
        flags |= ARCHIVE_EXTRACT_OWNER;
    adopt_links(reader);
    reader->disk = archive_write_disk_new();
    archive_write_disk_set_options(reader->disk, flags);
    if (geteuid() == 0)
        archive_write_disk_set_standard_lookup(reader->disk);
    if (read_all(reader, place, err))
        return -1;
    if (archive_write_close(reader->disk) < ARCHIVE_WARN) /* directories get their times and modes now */
        return disk_failed(reader, reader->restore->target, err);
    if (check_restored(reader, err))
        return -1;
    return refuse_damaged(reader, err);
}

int arc_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    char place[PATH_MAX];
    struct reader reader = {.host = host, .restore = request, .hash = hash_new(), .damaged = json_array(),
                            .progress = {.bytes_total = -1, .files_total = -1}};
    int result = arc_place(request->repository, request->backup_id, "", place, sizeof place, err) || restore_all(&reader, place, err) ? -1 : 0;
    if (!result)
        *ret_result = json_pack("{s:I, s:I, s:b}", "files", (json_int_t)reader.progress.files_done, "bytes", (json_int_t)reader.progress.bytes_done,
                                "verified", 1);
    reader_free(&reader);
    return result;
}

int arc_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    (void)data_id;
    char place[PATH_MAX];
    struct err cause = {0};
    if (arc_place(repository, backup_id, "", place, sizeof place, err))
        return -1;
    struct reader reader = {.host = host, .hash = hash_new(), .damaged = json_array(), .progress = {.bytes_total = -1, .files_total = -1}};
    reader.manifest = manifest_load(place, err);
    int result = reader.manifest ? read_all(&reader, place, &cause) : -1;
    if (reader.manifest && result && cause.hr == (uint32_t)VSS_E_CORRUPT_XML_DOCUMENT) {
        damage(&reader, "/", cause.text); /* a broken stream is an answer of verify, not a failure to verify */
        result = 0;
    } else if (reader.manifest && result) {
        *err = cause;
    }
    if (!result)
        *ret_result = json_pack("{s:I, s:I, s:O}", "files", (json_int_t)reader.progress.files_done, "bytes", (json_int_t)reader.progress.bytes_done,
                                "damaged", reader.damaged);
    reader_free(&reader);
    return result;
}
