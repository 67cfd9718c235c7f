/* Out of the snapshot into data.tar.zst (pax: ACLs, extended attributes, hard links, sparse files, names of any bytes). */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <search.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"

enum { BLOCK = 256 * 1024, DEPTH_MAX = 4096 };

/* The first name of a file with several. */
struct inode {
    dev_t dev;
    ino_t ino;
    char *path;
};

struct writer {
    const struct mover_request *request;
    const struct mover_host *host;
    struct archive *out, *disk;
    FILE *manifest;
    struct hash *hash;
    void *seen;     /* tsearch tree of paths: the later item wins, each path is stored once */
    void *inodes;   /* tsearch tree of struct inode */
    char *block;
    struct mover_progress progress;
};

static int inode_compare(const void *a, const void *b)
{
    const struct inode *x = a, *y = b;
    if (x->dev != y->dev)
        return x->dev < y->dev ? -1 : 1;
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int path_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool first_time(struct writer *writer, const char *path)
{
    if (tfind(path, &writer->seen, path_compare))
        return false;
    tsearch(str_dup(path), &writer->seen, path_compare);
    return true;
}

static bool excluded(const struct writer *writer, const char *path)
{
    for (const char *const *exclude = writer->request->excludes; exclude && *exclude; exclude++) {
        if (path_beneath(path, *exclude) || fnmatch(*exclude, path, 0) == 0)
            return true;
    }
    return false;
}

static int out_failed(struct writer *writer, const char *path, struct err *err)
{
    return arc_failed(archive_errno(writer->out) > 0 ? archive_errno(writer->out) : EIO, "cannot store", path, err);
}

static int write_data(struct writer *writer, int fd, const struct stat *st, const char *path, char ret_hex[HASH_HEX_SIZE], struct err *err)
{
    int64_t done = 0;
    uint8_t digest[HASH_SIZE];
    for (;;) {
        if (writer->host->cancelled(writer->host->arg))
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
        if (fault("mover.archive.write"))
            return arc_failed(ENOSPC, "cannot store", path, err);
        ssize_t n = read(fd, writer->block, BLOCK);
        if (n < 0)
            return arc_failed(errno, "cannot read", path, err);
        if (n == 0)
            break;
        hash_update(writer->hash, writer->block, (size_t)n);
        if (archive_write_data(writer->out, writer->block, (size_t)n) < 0)
            return out_failed(writer, path, err);
        done += n;
        writer->progress.bytes_done += n;
        writer->host->progress(writer->host->arg, &writer->progress);
    }
    hash_final(writer->hash, digest);
    hash_hex(digest, ret_hex);
    if (done != st->st_size) /* a snapshot does not change: never silently short */
        return err_set(err, VSS_E_UNEXPECTED, "Copy from a snapshot, not from live files.", "%s changed its size while it was read", path);
    return 0;
}

/* The path under which this inode was stored before, or NULL. */
static const char *stored_before(struct writer *writer, const struct stat *st, const char *path)
{
    if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
        return NULL;
    struct inode key = {st->st_dev, st->st_ino, NULL};
    struct inode **found = tfind(&key, &writer->inodes, inode_compare);
    if (found)
        return (*found)->path;
    struct inode *fresh = mem_new(sizeof *fresh);
    *fresh = (struct inode){st->st_dev, st->st_ino, str_dup(path)};
    tsearch(fresh, &writer->inodes, inode_compare);
    return NULL;
}

/* fd: open for regular files and directories, else -1. link: a symbolic link's target. */
static int store_entry(struct writer *writer, const char *path, const char *source, int fd, const struct stat *st, const char *link, struct err *err)
{
    struct archive_entry *entry = archive_entry_new();
    const char *twin = stored_before(writer, st, path);
    char hex[HASH_HEX_SIZE] = "";
    archive_entry_copy_sourcepath(entry, source);
    archive_entry_copy_pathname(entry, path + 1);
    archive_entry_copy_stat(entry, st);
    int result = archive_read_disk_entry_from_file(writer->disk, entry, fd, st) < ARCHIVE_WARN ? -1 : 0;
    if (result) {
        err_set(err, VSS_E_UNEXPECTED, NULL, "cannot read the attributes of %s: %s", path, archive_error_string(writer->disk));
    } else {
        archive_entry_copy_pathname(entry, path + 1);
        if (link)
            archive_entry_copy_symlink(entry, link);
        if (twin) {
            archive_entry_copy_hardlink(entry, twin + 1);
            archive_entry_set_size(entry, 0);
        }
        if (archive_write_header(writer->out, entry) < ARCHIVE_WARN)
            result = out_failed(writer, path, err);
    }
    if (!result && !twin && S_ISREG(st->st_mode))
        result = write_data(writer, fd, st, path, hex, err);
    archive_entry_free(entry);
    if (result)
        return -1;
    if (S_ISREG(st->st_mode) && !twin)
        writer->progress.files_done++;
    return manifest_add(writer->manifest, path, st, *hex ? hex : NULL, link, twin, err);
}

static int store_directory(struct writer *writer, const char *path, const char *source, int fd, dev_t dev, const struct mover_item *item, struct err *err);

static int store_one(struct writer *writer, int dir, const char *name, const char *path, const char *source, dev_t dev, const struct mover_item *item,
                     struct err *err)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return arc_failed(errno, "cannot look at", path, err);
    bool file = S_ISREG(st.st_mode), directory = S_ISDIR(st.st_mode);
    if (S_ISSOCK(st.st_mode) || excluded(writer, path) || (directory && !item->recursive))
        return 0;
    if (!directory && fnmatch(item->spec, name, 0))
        return 0;
    if (!first_time(writer, path))
        return 0;
    AUTO_FREE char *link = NULL;
    if (S_ISLNK(st.st_mode)) {
        link = mem_new((size_t)PATH_MAX + 1);
        if (readlinkat(dir, name, link, PATH_MAX) < 0)
            return arc_failed(errno, "cannot read the link", path, err);
    }
    AUTO_FD int fd = file || directory ? openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    if ((file || directory) && (fd < 0 || fstat(fd, &st)))
        return arc_failed(errno, "cannot open", path, err);
    if (store_entry(writer, path, source, fd, &st, link, err))
        return -1;
    if (!directory || st.st_dev != dev) /* another mount or subvolume is another volume's business: the planner sees to it */
        return 0;
    return store_directory(writer, path, source, fd, dev, item, err);
}

static int store_directory(struct writer *writer, const char *path, const char *source, int fd, dev_t dev, const struct mover_item *item, struct err *err)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    int result = 0;
    if (!dir)
        return arc_failed(errno, "cannot read", path, err);
    for (struct dirent *entry; !result && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (str_eq(name, ".") || str_eq(name, "..") || str_eq(name, ".quiesced")) /* .quiesced: where providers keep snapshots */
            continue;
        AUTO_FREE char *child = str_new("%s/%s", str_eq(path, "/") ? "" : path, name);
        AUTO_FREE char *child_source = str_new("%s/%s", source, name);
        if (strlen(child) >= DEPTH_MAX)
            result = err_set(err, VSS_E_UNEXPECTED, NULL, "the path %.200s... is too long", child);
        else
            result = store_one(writer, fd, name, child, child_source, dev, item, err);
    }
    closedir(dir);
    return result;
}

/* The directories above an item, with their own owners and modes, as they are now. */
static int store_parents(struct writer *writer, const char *path, struct err *err)
{
    AUTO_FREE char *at = str_dup(path);
    for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        struct stat st;
        *slash = '\0';
        AUTO_FD int fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && !fstat(fd, &st) && first_time(writer, at) && store_entry(writer, at, at, fd, &st, NULL, err))
            return -1;
        *slash = '/';
    }
    return 0;
}

static int store_item(struct writer *writer, const struct mover_item *item, struct err *err)
{
    struct stat st;
    if (!path_is_canonical(item->path) || lstat(item->source, &st))
        return arc_failed(errno, "cannot find", item->path, err);
    if (store_parents(writer, item->path, err))
        return -1;
    const struct mover_item all = {.path = item->path, .source = item->source, .spec = "*", .recursive = item->recursive};
    if (!S_ISDIR(st.st_mode)) {
        AUTO_FD int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        return store_one(writer, dir, item->source, item->path, item->source, st.st_dev, &all, err);
    }
    AUTO_FD int fd = open(item->source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        return arc_failed(errno, "cannot open", item->source, err);
    if (first_time(writer, item->path) && store_entry(writer, item->path, item->source, fd, &st, NULL, err))
        return -1;
    return store_directory(writer, item->path, item->source, fd, st.st_dev, item, err);
}

static int open_output(struct writer *writer, const char *dir, struct err *err)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof path, "%s/data.tar.zst", dir);
    writer->out = archive_write_new();
    writer->disk = archive_read_disk_new();
    archive_read_disk_set_standard_lookup(writer->disk);
    archive_read_disk_set_symlink_physical(writer->disk);
    if (archive_write_add_filter_zstd(writer->out) < ARCHIVE_WARN || archive_write_set_format_pax(writer->out) < ARCHIVE_WARN ||
        archive_write_set_options(writer->out, "hdrcharset=BINARY,compression-level=1") < ARCHIVE_WARN ||
        archive_write_open_filename(writer->out, path) != ARCHIVE_OK)
        return out_failed(writer, path, err);
    str_format(path, sizeof path, "%s/manifest.jsonl", dir);
    writer->manifest = fopen(path, "we");
    return writer->manifest ? 0 : arc_failed(errno, "cannot create", path, err);
}

static int sync_path(const char *dir, const char *name, struct err *err)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof path, "%s/%s", dir, name);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : arc_failed(errno, "cannot make durable", path, err);
}

static int close_output(struct writer *writer, const char *dir, struct err *err)
{
    if (archive_write_close(writer->out) != ARCHIVE_OK)
        return out_failed(writer, dir, err);
    FILE *manifest = TAKE_PTR(writer->manifest);
    if (fflush(manifest) || ferror(manifest) || fsync(fileno(manifest))) {
        fclose(manifest);
        return arc_failed(errno, "cannot write the manifest in", dir, err);
    }
    fclose(manifest);
    return sync_path(dir, "data.tar.zst", err);
}

/* Everything is durable under the temporary name before the last rename makes it a backup. */
static int publish(const struct writer *writer, const char *partial, const char *place, json_t *result, struct err *err)
{
    const struct mover_request *request = writer->request;
    if (arc_write_json(partial, "document.json", request->document, err) || arc_write_json(partial, "complete.json", result, err) ||
        sync_path(partial, ".", err))
        return -1;
    if (fault("mover.archive.rename") || rename(partial, place))
        return arc_failed(errno ? errno : EIO, "cannot finish", place, err);
    return sync_path(arc_path(request->repository), ".", err);
}

static void free_inode(void *arg)
{
    struct inode *inode = arg;
    free(inode->path);
    free(inode);
}

static void writer_free(struct writer *writer)
{
    if (writer->out)
        archive_write_free(writer->out);
    if (writer->disk)
        archive_read_free(writer->disk);
    if (writer->manifest)
        fclose(writer->manifest);
    hash_free(writer->hash);
    tdestroy(writer->seen, free);
    tdestroy(writer->inodes, free_inode);
    free(writer->block);
}

static int write_all(struct writer *writer, const char *partial, const char *place, json_t **ret_result, struct err *err)
{
    const struct mover_request *request = writer->request;
    struct stat st;
    char path[PATH_MAX + 64], now[CLOCK_RFC3339_SIZE];
    if (open_output(writer, partial, err))
        return -1;
    for (size_t i = request->n_items; i-- > 0;) { /* backwards: of two items for one path the later wins */
        if (store_item(writer, &request->items[i], err))
            return -1;
    }
    if (close_output(writer, partial, err))
        return -1;
    str_format(path, sizeof path, "%s/data.tar.zst", partial);
    if (stat(path, &st))
        return arc_failed(errno, "cannot look at", path, err);
    AUTO_JSON json_t *result = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "data_id", request->backup_id, "backup_id", request->backup_id, "bytes",
                                         (json_int_t)writer->progress.bytes_done, "files", (json_int_t)writer->progress.files_done, "stored_bytes",
                                         (json_int_t)st.st_size, "created_at", clock_rfc3339(clock_real_ms(), now));
    if (publish(writer, partial, place, result, err))
        return -1;
    *ret_result = TAKE_PTR(result);
    return 0;
}

int arc_run(const struct mover_request *request, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    char partial[PATH_MAX], place[PATH_MAX];
    if (arc_place(request->repository, request->backup_id, ".partial", partial, sizeof partial, err) ||
        arc_place(request->repository, request->backup_id, "", place, sizeof place, err))
        return -1;
    if (mkdir(partial, 0700))
        return arc_failed(errno, "cannot create", partial, err);
    struct writer writer = {.request = request, .host = host, .hash = hash_new(), .block = mem_new(BLOCK),
                            .progress = {.bytes_total = -1, .files_total = -1}};
    int result = write_all(&writer, partial, place, ret_result, err);
    writer_free(&writer);
    if (result)
        arc_remove_dir(partial);
    return result;
}
