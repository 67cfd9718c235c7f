#include "worker/staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"

static const char adopted_name[] = "adopted";

static int make_dir(const char *path, mode_t mode, struct err *err)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return 0;
    return err_errno(err, VSS_E_UNEXPECTED, errno, "Check the staging directory.", "cannot create %s", path);
}

static int make_session_dir(struct worker *worker, struct err *err)
{
    char path[PATH_MAX];
    if (worker->session_staging[0])
        return 0;
    if (!worker->staging[0] || !str_format(path, sizeof(path), "%s/%s", worker->staging, worker->session))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "there is no staging directory");
    /* 0711: the writers' users pass through to their own folders and see nothing else. */
    if (make_dir(path, 0711, err) < 0)
        return -1;
    if (chmod(path, 0711) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot set the mode of %s", path);
    /* Whoever holds the lock lives: a sweep takes only what nobody holds. */
    fd_cleanup(&worker->staging_fd);
    worker->staging_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (worker->staging_fd < 0 || flock(worker->staging_fd, LOCK_EX | LOCK_NB) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot lock %s", path);
    str_copy(worker->session_staging, sizeof(worker->session_staging), path);
    undo_push(&worker->undo, HOLD_STAGING);
    return 0;
}

int staging_prepare(struct worker *worker, struct writer_entry *entry, struct err *err)
{
    char path[PATH_MAX];
    if (make_session_dir(worker, err) < 0)
        return -1;
    if (!str_format(path, sizeof(path), "%s/%s", worker->session_staging, entry->instance_id))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the staging directory's path is too long");
    if (make_dir(path, 0700, err) < 0)
        return -1;
    if (worker->root && lchown(path, entry->uid, entry->gid) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot give %s to the writer's user", path);
    str_copy(entry->staging, sizeof(entry->staging), path);
    return 0;
}

/* May this component say that path belongs to it? Only beneath its own file sets. */
static bool owns_path(const struct writer_entry *entry, const json_t *component, const char *path)
{
    size_t i, j;
    const json_t *known, *set;
    json_array_foreach (json_object_get(entry->metadata, "components"), i, known) {
        if (!str_eq(json_str(known, "name", ""), json_str(component, "name", "")) ||
            !str_eq(json_str(known, "logical_path", ""), json_str(component, "logical_path", "")))
            continue;
        json_array_foreach (json_object_get(known, "file_sets"), j, set)
            if (path_beneath(path, json_str(set, "path", "/")))
                return true;
    }
    return false;
}

static int refuse(struct err *err, const char *path, const char *why)
{
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "its added file %s %s", path, why);
}

/* Moves entry's staged file to staging/SESSION/adopted/N. Opens nothing by following a name of the writer's. */
static int move_in(struct worker *worker, struct writer_entry *entry, const char *source, char ret[PATH_MAX],
                   struct err *err)
{
    if (!entry->staging[0] || !path_beneath(source, entry->staging) || str_eq(source, entry->staging))
        return refuse(err, source, "is not in its staging directory");
    char parent[PATH_MAX];
    str_copy(parent, sizeof(parent), source + strlen(entry->staging));
    char *slash = strrchr(parent, '/');
    char *name = slash + 1;
    *slash = '\0';
    AUTO_FD int staging = open(entry->staging, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    AUTO_FD int dir = (int)syscall(SYS_openat2, staging, parent[0] ? parent + 1 : ".", &how, sizeof(how));
    char adopted[PATH_MAX];
    if (!str_format(adopted, sizeof(adopted), "%s/%s", worker->session_staging, adopted_name) ||
        make_dir(adopted, 0700, err) < 0)
        return -1;
    if (!str_format(ret, PATH_MAX, "%s/%zu", adopted, json_array_size(worker->extra_files)))
        return refuse(err, source, "has too long a path");
    struct stat status;
    if (dir < 0 || renameat(dir, name, AT_FDCWD, ret) < 0 || lstat(ret, &status) < 0)
        return refuse(err, source, "cannot be taken over");
    if (!S_ISREG(status.st_mode) || (worker->root && status.st_uid != entry->uid)) {
        unlink(ret);
        return refuse(err, source, "is no regular file of its own user");
    }
    return 0;
}

int staging_adopt(struct worker *worker, struct writer_entry *entry, const json_t *component, struct err *err)
{
    size_t i;
    const json_t *file;
    json_array_foreach (json_object_get(component, "extra_files"), i, file) {
        const char *path = json_str(file, "path", "");
        char moved[PATH_MAX];
        if (!owns_path(entry, component, path))
            return refuse(err, path, "is outside of the component's file sets");
        if (move_in(worker, entry, json_str(file, "source", ""), moved, err) < 0)
            return -1;
        json_add(worker->extra_files, json_pack("{s:s, s:s}", "path", path, "source", moved));
    }
    return 0;
}

/* Removes a tree in which others may plant links: every step is relative to an open directory, links are not followed.
 */
static int remove_tree(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        fd_cleanup(&fd);
        return -1;
    }
    int result = 0;
    const struct dirent *item;
    while ((item = readdir(dir)))
        if (!str_eq(item->d_name, ".") && !str_eq(item->d_name, ".."))
            result |= remove_tree(dirfd(dir), item->d_name);
    closedir(dir);
    return unlinkat(parent, name, AT_REMOVEDIR) < 0 ? -1 : result;
}

void staging_remove(struct worker *worker, json_t *cleanup)
{
    if (worker->session_staging[0] && remove_tree(AT_FDCWD, worker->session_staging) < 0)
        json_add(json_object_get(cleanup, "failed"),
                 json_pack("{s:s, s:s}", "object", worker->session_staging, "reason", strerror(errno)));
    fd_cleanup(&worker->staging_fd);
    worker->staging_fd = -1;
    worker->session_staging[0] = '\0';
    for (size_t i = 0; i < worker->writers.n; i++)
        worker->writers.entries[i].staging[0] = '\0';
}

/* "job-PID" or a session's id: nothing else there is ours to remove. */
static bool is_session(const char *name)
{
    return uuid_valid(name) || (str_starts(name, "job-") && name[4] && strspn(name + 4, "0123456789") == strlen(name + 4));
}

void staging_sweep(struct worker *worker, json_t *removed, json_t *failed)
{
    DIR *dir = worker->staging[0] ? opendir(worker->staging) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!is_session(entry->d_name))
            continue;
        AUTO_FREE char *path = str_new("%s/%s", worker->staging, entry->d_name);
        AUTO_FD int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            continue;
        if (remove_tree(dirfd(dir), entry->d_name) == 0)
            json_add(removed, json_string(path));
        else
            json_add(failed, json_pack("{s:s, s:s}", "object", path, "reason", strerror(errno)));
    }
    if (dir)
        closedir(dir);
}
