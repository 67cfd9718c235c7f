#include "movers/payload/tar_check.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { BLOCK = 256 * 1024 };

struct walk {
    struct tar_check *check;
    const struct tar_input *input;
    struct archive *in, *disk;
    struct hash *hash;
    char *block;
    struct err *err;
    bool input_failed; /* err is filled by the input */
};

void tar_check_damage(struct tar_check *check, const char *path, const char *reason)
{
    if (json_array_size(check->damaged) >= TAR_DAMAGED_MAX)
        return;
    AUTO_FREE char *readable = manifest_readable(path);
    AUTO_FREE char *text = manifest_readable(reason);
    json_add(check->damaged, json_pack("{s:s, s:s}", "path", readable, "reason", text));
}

int tar_check_refuse(const struct tar_check *check, struct err *err)
{
    size_t n = json_array_size(check->damaged);
    const json_t *first = json_array_get(check->damaged, 0);
    if (n == 0)
        return 0;
    return err_set(err, ERROR_FILE_CORRUPT, "The stored data is damaged: restore from another backup.",
                   "%zu entries are damaged; the first, %s: %s", n, json_string_value(json_object_get(first, "path")),
                   json_string_value(json_object_get(first, "reason")));
}

static la_ssize_t on_read(struct archive *in, void *arg, const void **ret_bytes)
{
    struct walk *walk = arg;
    size_t n = 0;
    *ret_bytes = walk->block;
    if (walk->input->read(walk->input->arg, walk->block, BLOCK, &n, walk->err)) {
        walk->input_failed = true;
        archive_set_error(in, EIO, "its input failed");
        return -1;
    }
    return (la_ssize_t)n;
}

/* Of the stream: a damage. Of the input itself: an error. Returns -1 for the latter, 1 = stop here. */
static int broken(struct walk *walk, const char *path)
{
    const char *text = archive_error_string(walk->in);
    if (walk->input_failed)
        return -1;
    tar_check_damage(walk->check, path, text ? text : "the stream is damaged here");
    return 1;
}

static int disk_failed(struct walk *walk, const char *path)
{
    AUTO_FREE char *readable = manifest_readable(path);
    int errnum = archive_errno(walk->disk);
    const char *text = archive_error_string(walk->disk);
    bool full = errnum == ENOSPC || errnum == EDQUOT;
    return err_set(walk->err, full ? (uint32_t)VSS_E_INSUFFICIENT_STORAGE : (uint32_t)VSS_E_UNEXPECTED,
                   full ? "Make room in the target, or restore elsewhere." : NULL, "cannot restore %s: %s", readable,
                   text ? text : "unknown");
}

/* A warning is an attribute that this file system or user cannot have; times, modes and owners are read back anyway. */
static int disk_done(struct walk *walk, int result, const char *path)
{
    const char *text = archive_error_string(walk->disk);
    if (result < ARCHIVE_WARN)
        return disk_failed(walk, path);
    if (result != ARCHIVE_OK)
        stage_warn(walk->check->stage, path, text ? text : "not everything could be set");
    return 0;
}

static void hash_zeros(struct hash *hash, int64_t n)
{
    static const char zeros[65536];
    for (; n > 0; n -= (int64_t)sizeof(zeros))
        hash_update(hash, zeros, n < (int64_t)sizeof(zeros) ? (size_t)n : sizeof(zeros));
}

static int read_content(struct walk *walk, const struct manifest_entry *known, bool staged)
{
    struct tar_check *check = walk->check;
    const void *bytes;
    size_t n;
    int64_t offset, at = 0;
    uint8_t digest[HASH_SIZE];
    for (int result; (result = archive_read_data_block(walk->in, &bytes, &n, &offset)) != ARCHIVE_EOF;) {
        if (result < ARCHIVE_WARN)
            return broken(walk, known->path);
        if (check->host->cancelled(check->host->arg))
            return err_set(walk->err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        if (offset < at || offset + (int64_t)n > known->size) { /* before it is written or counted */
            tar_check_damage(check, known->path, "it is longer than the manifest says");
            return archive_read_data_skip(walk->in) < ARCHIVE_WARN ? broken(walk, known->path) : 0;
        }
        hash_zeros(walk->hash, offset - at);
        hash_update(walk->hash, bytes, n);
        check->progress.bytes_done += offset + (int64_t)n - at;
        at = offset + (int64_t)n;
        if (staged && n && archive_write_data_block(walk->disk, bytes, n, offset) != ARCHIVE_OK)
            return disk_failed(walk, known->path);
        check->host->progress(check->host->arg, &check->progress);
    }
    hash_zeros(walk->hash, known->size - at);
    check->progress.bytes_done += known->size - at;
    hash_final(walk->hash, digest);
    if (memcmp(digest, known->sha256, HASH_SIZE) != 0)
        tar_check_damage(check, known->path, "its SHA-256 differs from the manifest");
    return 0;
}

static const char *metadata_difference(struct archive_entry *entry, const struct manifest_entry *known)
{
    const char *link = archive_entry_symlink(entry), *hard_link = archive_entry_hardlink(entry);
    if (known->hard_link ? !hard_link || !str_eq(hard_link, known->hard_link + 1) : hard_link != NULL)
        return "its hard link differs from the manifest";
    if (!hard_link && archive_entry_filetype(entry) != (known->mode & S_IFMT))
        return "its type differs from the manifest";
    if (S_ISLNK(known->mode) && !str_eq(link, known->link) && !hard_link)
        return "its link target differs from the manifest";
    if (!hard_link && S_ISREG(known->mode) && archive_entry_size(entry) != known->size)
        return "its size differs from the manifest";
    /* With an access ACL the file's group bits are the ACL's mask, libarchive's are the owning group's. */
    mode_t differing = (archive_entry_perm(entry) ^ known->mode) & 07777;
    if (differing & ~(archive_entry_acl_count(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS) > 0 ? (mode_t)0070 : 0))
        return "its mode differs from the manifest";
    if (archive_entry_uid(entry) != (int64_t)known->uid || archive_entry_gid(entry) != (int64_t)known->gid)
        return "its owner differs from the manifest";
    if (archive_entry_mtime(entry) != known->mtime.tv_sec || archive_entry_mtime_nsec(entry) != known->mtime.tv_nsec)
        return "its time differs from the manifest";
    return NULL;
}

/* Tar marks directories with a slash at the end; some writers lead with one. */
static char *entry_path(struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);
    while (name && (*name == '/' || strncmp(name, "./", 2) == 0))
        name += *name == '/' ? 1 : 2;
    char *path = str_new("/%s", name && !str_eq(name, ".") ? name : "");
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = '\0';
    return path;
}

static int stage_header(struct walk *walk, struct archive_entry *entry, const char *path)
{
    archive_entry_copy_pathname(entry, path + 1); /* from the manifest: canonical, beneath the staging directory */
    return disk_done(walk, archive_write_header(walk->disk, entry), path);
}

static int read_entry(struct walk *walk, struct archive_entry *entry)
{
    struct tar_check *check = walk->check;
    AUTO_FREE char *path = entry_path(entry);
    struct manifest_entry *known = manifest_find(check->manifest, path);
    const char *fault = !known ? "it is not in the manifest" : known->found ? "it is there twice" : NULL;
    const char *link = archive_entry_hardlink(entry);
    if (!fault && walk->input->ours)
        fault = metadata_difference(entry, known);
    if (!fault && walk->input->links && link && (!known->hard_link || !str_eq(link, known->hard_link + 1)))
        fault = "its hard link differs from the manifest";
    if (known)
        known->found = true;
    if (fault) {
        tar_check_damage(check, path, fault);
        return archive_read_data_skip(walk->in) < ARCHIVE_WARN ? broken(walk, path) : 0;
    }
    bool staged = walk->disk && (known->wanted || known->helper) && path[1];
    if (walk->disk && !staged)
        return archive_read_data_skip(walk->in) < ARCHIVE_WARN ? broken(walk, path) : 0;
    if (staged && stage_header(walk, entry, known->path))
        return -1;
    bool content = S_ISREG(known->mode) && !(walk->input->ours && known->hard_link) && !(walk->input->links && link);
    int result = content ? read_content(walk, known, staged) : 0;
    if (result)
        return result;
    if (S_ISREG(known->mode) && !staged) /* a restored file counts when it was read again */
        check->progress.files_done++;
    return staged ? disk_done(walk, archive_write_finish_entry(walk->disk), known->path) : 0;
}

static int read_entries(struct walk *walk)
{
    struct archive_entry *entry;
    for (;;) {
        int result = archive_read_next_header(walk->in, &entry);
        if (result == ARCHIVE_EOF)
            return 0;
        if (result < ARCHIVE_WARN)
            return broken(walk, "/");
        if (walk->check->host->cancelled(walk->check->host->arg))
            return err_set(walk->err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        result = read_entry(walk, entry);
        if (result)
            return result;
    }
}

/* libarchive stops at the end mark of the tar; the input wants to be read to its end. */
static int drain(struct walk *walk)
{
    for (size_t n = 1; n > 0;)
        if (walk->input->read(walk->input->arg, walk->block, BLOCK, &n, walk->err))
            return -1;
    return 0;
}

static void tell_missing(struct tar_check *check, bool specials)
{
    for (size_t i = 0; i < check->manifest->n; i++) {
        const struct manifest_entry *entry = &check->manifest->entries[i];
        bool special = !S_ISREG(entry->mode) && !S_ISDIR(entry->mode) && !S_ISLNK(entry->mode);
        if (!entry->found && !entry->parent && (specials || !special)) /* restic's dump leaves devices and fifos out */
            tar_check_damage(check, entry->path, "it is missing from the stored data");
    }
}

static void open_disk(struct walk *walk)
{
    int flags = ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_ACL | ARCHIVE_EXTRACT_XATTR |
                ARCHIVE_EXTRACT_SPARSE | ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS | ARCHIVE_EXTRACT_NO_OVERWRITE;
    walk->disk = archive_write_disk_new(); /* without lookup of names: owners come back by number */
    archive_write_disk_set_options(walk->disk, geteuid() == 0 ? flags | ARCHIVE_EXTRACT_OWNER : flags);
}

int tar_check_run(struct tar_check *check, const struct tar_input *input, struct err *err)
{
    struct err ignored;
    struct walk walk = {
        .check = check, .input = input, .hash = hash_new(), .block = mem_new(BLOCK), .err = err ? err : &ignored};
    setlocale(LC_CTYPE, "C.UTF-8"); /* libarchive converts UTF-8 names through the locale */
    if (!check->damaged)
        check->damaged = json_array();
    walk.in = archive_read_new();
    if (input->zstd)
        archive_read_support_filter_zstd(walk.in);
    archive_read_support_format_tar(walk.in);
    int result = 0;
    if (check->stage && fchdir(check->stage->fd))
        result = err_errno(walk.err, VSS_E_UNEXPECTED, errno, NULL, "cannot enter the staging directory");
    if (check->stage && !result)
        open_disk(&walk);
    if (!result && archive_read_open(walk.in, &walk, NULL, on_read, NULL) != ARCHIVE_OK)
        result = broken(&walk, "/");
    if (!result)
        result = read_entries(&walk);
    if (result >= 0 && !walk.input_failed && drain(&walk))
        result = -1;
    if (result == 0)
        tell_missing(check, input->ours || input->links);
    if (result >= 0 && walk.disk &&
        disk_done(&walk, archive_write_close(walk.disk), "the folders")) /* their times and modes */
        result = -1;
    archive_read_free(walk.in);
    if (walk.disk)
        archive_write_free(walk.disk);
    hash_free(walk.hash);
    free(walk.block);
    if (check->stage && chdir("/"))
        result = -1;
    return result < 0 ? -1 : 0;
}
