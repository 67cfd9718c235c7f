#include "movers/payload/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/payload/choice.h"
#include "movers/payload/scan.h"

static const char PREFIX[] = ".quiesced-restore-";

int stage_open_beneath(int dir, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, dir, *path ? path : ".", &how, sizeof(how));
}

/* --- before --- */

static int escapes(const char *path, struct err *err)
{
    AUTO_FREE char *readable = manifest_readable(path);
    return err_set(err, E_ACCESSDENIED, "Restore into an empty directory.",
                   "%s: a symbolic link or a file in the target is in its way", readable);
}

static int check_place(const struct stage *stage, const struct manifest_entry *entry, dev_t device, struct err *err)
{
    const char *place = choice_place(stage->restore, entry);
    if (!place)
        return 0;
    AUTO_FD int fd = stage_open_beneath(stage->restore->target_dir_fd, place, O_PATH | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 && (errno == ELOOP || errno == EXDEV || errno == ENOTDIR))
        return escapes(entry->path, err);
    if (fd < 0 || fstat(fd, &st))
        return payload_failed(errno, "look into the target for", entry->path, err);
    AUTO_FREE char *readable = manifest_readable(place);
    if (st.st_dev != device)
        return err_set(err, E_INVALIDARG, "Restore beneath that mount point instead.", "%s/%s is on another file system",
                       stage->restore->target, readable);
    if (S_ISDIR(entry->mode) && S_ISDIR(st.st_mode))
        return 0;
    if (S_ISDIR(entry->mode) && S_ISLNK(st.st_mode))
        return escapes(entry->path, err);
    if (!stage->restore->overwrite || S_ISDIR(entry->mode) || S_ISDIR(st.st_mode))
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, "Restore elsewhere, or with \"overwrite\": true.",
                       "%s/%s exists already", stage->restore->target, readable);
    return 0;
}

static int check_target(struct stage *stage, struct err *err)
{
    struct stat st;
    if (fstat(stage->restore->target_dir_fd, &st))
        return payload_failed(errno, "look at", stage->restore->target, err);
    stage->progress = (struct mover_progress){0};
    for (size_t i = 0; i < stage->manifest->n; i++) {
        const struct manifest_entry *entry = &stage->manifest->entries[i];
        if (!entry->wanted)
            continue;
        if (S_ISREG(entry->mode)) {
            stage->progress.files_total++;
            stage->progress.bytes_total += entry->size;
        }
        if (check_place(stage, entry, st.st_dev, err))
            return -1;
    }
    return 0;
}

/* --- the directory --- */

static int remove_tree(int dir, const char *name)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES && fchmodat(dir, name, 0700, 0) == 0)
        fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list) {
        fd_cleanup(&fd);
        return -1;
    }
    fchmod(fd, 0700); /* a restored directory may forbid its own emptying */
    for (struct dirent *entry; (entry = readdir(list));)
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
            remove_tree(dirfd(list), entry->d_name);
    closedir(list);
    return unlinkat(dir, name, AT_REMOVEDIR);
}

void stage_sweep(int target)
{
    int fd = openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list) {
        fd_cleanup(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(list));) {
        struct stat st;
        if (!str_starts(entry->d_name, PREFIX) || !uuid_valid(entry->d_name + strlen(PREFIX)))
            continue;
        AUTO_FD int stale = openat(target, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (stale >= 0 && fstat(stale, &st) == 0 && st.st_uid == geteuid() && flock(stale, LOCK_EX | LOCK_NB) == 0)
            remove_tree(target, entry->d_name);
    }
    closedir(list);
}

int stage_open(struct stage *ret, const struct mover_restore *restore, const struct mover_host *host,
               struct manifest *manifest, struct err *err)
{
    char id[UUID_SIZE];
    *ret = (struct stage){.restore = restore, .host = host, .manifest = manifest, .fd = -1};
    if (choice_mark(manifest, restore, err) || check_target(ret, err))
        return -1;
    stage_sweep(restore->target_dir_fd);
    str_format(ret->name, sizeof(ret->name), "%s%s", PREFIX, uuid_v7(id));
    if (mkdirat(restore->target_dir_fd, ret->name, 0700)) {
        int errnum = errno;
        ret->name[0] = '\0';
        return payload_failed(errnum, "write in", restore->target, err);
    }
    ret->fd = openat(restore->target_dir_fd, ret->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (ret->fd < 0 || flock(ret->fd, LOCK_EX | LOCK_NB))
        return payload_failed(errno, "write in", restore->target, err);
    return 0;
}

void stage_warn(struct stage *stage, const char *path, const char *why)
{
    if (json_array_size(stage->warnings) >= STAGE_WARNINGS_MAX)
        return;
    if (!stage->warnings)
        stage->warnings = json_array();
    AUTO_FREE char *readable = manifest_readable(path);
    AUTO_FREE char *line = str_new("%s: %s", readable, why);
    AUTO_FREE char *safe = manifest_readable(line);
    json_add(stage->warnings, json_string(safe));
}

json_t *stage_result(const struct stage *stage)
{
    json_t *result = json_pack("{s:I, s:I, s:b}", "files", (json_int_t)stage->progress.files_done, "bytes",
                               (json_int_t)stage->progress.bytes_total, "verified", 1);
    if (stage->warnings)
        json_put(result, "warnings", json_incref(stage->warnings));
    return result;
}

void stage_close(struct stage *stage)
{
    if (!stage->restore)
        return;
    json_decref(stage->warnings);
    if (stage->name[0])
        remove_tree(stage->restore->target_dir_fd, stage->name);
    fd_cleanup(&stage->fd);
    *stage = (struct stage){.fd = -1};
}

/* --- moving --- */

/* Opens the directory that holds path (without a leading slash) beneath root; *ret_name is the last part. */
static int open_above(int root, const char *path, const char **ret_name)
{
    AUTO_FREE char *above = str_dup(path);
    char *slash = strrchr(above, '/');
    *ret_name = slash ? path + (slash - above) + 1 : path;
    if (slash)
        *slash = '\0';
    return stage_open_beneath(root, slash ? above : "", O_RDONLY | O_DIRECTORY);
}

static int move(const struct stage *stage, const struct manifest_entry *entry, struct err *err)
{
    const char *old, *name;
    AUTO_FD int from = open_above(stage->fd, entry->path + 1, &old);
    AUTO_FD int to = open_above(stage->restore->target_dir_fd, choice_place(stage->restore, entry), &name);
    if (from < 0 || to < 0)
        return payload_failed(errno, "put in its place", entry->path, err);
    bool replace = stage->restore->overwrite && !S_ISDIR(entry->mode);
    int result = (int)syscall(SYS_renameat2, from, old, to, name, replace ? 0 : RENAME_NOREPLACE);
    if (result && errno == EINVAL &&
        faccessat(to, name, F_OK, AT_SYMLINK_NOFOLLOW)) /* a file system without NOREPLACE */
        result = renameat(from, old, to, name);
    if (result && errno == EEXIST)
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, "Restore elsewhere, or with \"overwrite\": true.",
                       "%s appeared in the target meanwhile", entry->path);
    return result ? payload_failed(errno, "put in its place", entry->path, err) : 0;
}

/* Like the attributes of new files: what the target cannot hold is told, and no reason to fail. */
static void copy_attributes(struct stage *stage, const char *path, int from, int to)
{
    char names[65536], value[65536];
    ssize_t length = flistxattr(from, names, sizeof(names));
    if (length < 0 && errno != ENOTSUP)
        stage_warn(stage, path, strerror(errno));
    for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from, name, value, sizeof(value));
        if (size >= 0 && fsetxattr(to, name, value, (size_t)size, 0) == 0)
            continue;
        AUTO_FREE char *why = str_new("cannot set %s: %s", name, strerror(errno));
        stage_warn(stage, path, why);
    }
}

/* A directory that was there before takes over the restored one's metadata, after everything lies in it. */
static int merge_directory(struct stage *stage, const struct manifest_entry *entry, struct err *err)
{
    AUTO_FD int from = stage_open_beneath(stage->fd, entry->path + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    AUTO_FD int to = stage_open_beneath(stage->restore->target_dir_fd, choice_place(stage->restore, entry),
                                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    struct stat st;
    if (from < 0 || to < 0 || fstat(from, &st))
        return payload_failed(errno, "finish", entry->path, err);
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry->mtime};
    if (geteuid() == 0 && fchown(to, st.st_uid, st.st_gid))
        return payload_failed(errno, "set the owner of", entry->path, err);
    copy_attributes(stage, entry->path, from, to);
    if (fchmod(to, entry->mode & 07777) || futimens(to, times))
        return payload_failed(errno, "set the mode and time of", entry->path, err);
    return 0;
}

static bool parent_moved(const struct manifest *manifest, const char *path)
{
    AUTO_FREE char *above = str_dup(path);
    char *slash = strrchr(above, '/');
    *slash = '\0';
    const struct manifest_entry *parent = slash == above ? NULL : manifest_find(manifest, above);
    return parent && parent->moved;
}

static bool exists(const struct stage *stage, const char *place)
{
    AUTO_FD int fd = stage_open_beneath(stage->restore->target_dir_fd, place, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    return fd >= 0;
}

/* Helpers go; the directories that lost them get their times back. */
static void drop_helpers(const struct stage *stage)
{
    bool dropped = false;
    for (size_t i = stage->manifest->n; i-- > 0;) {
        const char *name;
        const struct manifest_entry *entry = &stage->manifest->entries[i];
        AUTO_FD int above = entry->helper ? open_above(stage->fd, entry->path + 1, &name) : -1;
        if (above >= 0)
            unlinkat(above, name, S_ISDIR(entry->mode) ? AT_REMOVEDIR : 0);
        dropped = dropped || entry->helper;
        if (!dropped || !entry->wanted || !S_ISDIR(entry->mode))
            continue;
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry->mtime};
        AUTO_FD int fd = stage_open_beneath(stage->fd, entry->path + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd >= 0)
            futimens(fd, times);
    }
}

int stage_publish(struct stage *stage, struct err *err)
{
    const struct manifest *manifest = stage->manifest;
    drop_helpers(stage);
    stage->host->publishing(stage->host->arg);
    for (size_t i = 0; i < manifest->n; i++) {
        struct manifest_entry *entry = &manifest->entries[i];
        const char *place = choice_place(stage->restore, entry);
        if (!entry->wanted || !place || !*place)
            continue;
        entry->moved = parent_moved(manifest, entry->path);
        if (entry->moved || (S_ISDIR(entry->mode) && exists(stage, place)))
            continue;
        if (move(stage, entry, err))
            return -1;
        entry->moved = true;
        if (fault("mover.publish"))
            return payload_failed(EIO, "put in its place", entry->path, err);
    }
    for (size_t i = manifest->n; i-- > 0;) {
        const struct manifest_entry *entry = &manifest->entries[i];
        if (entry->wanted && !entry->parent && !entry->moved && S_ISDIR(entry->mode) &&
            choice_place(stage->restore, entry) && merge_directory(stage, entry, err))
            return -1;
    }
    return syncfs(stage->restore->target_dir_fd) ? payload_failed(errno, "make durable", stage->restore->target, err)
                                                 : 0;
}
