#include "movers/mount_view.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { FD_PATH_SIZE = 32 + NAME_MAX + 1 };

/* A folder that we rebuilt on a tmpfs, so that files can be added to it. */
struct grown {
    char *path;
    struct stat st;
};
struct view {
    bool user_namespace;
    struct grown *grown;
    size_t n;
};

static int failed(const char *what, const char *path, struct err *err)
{
    return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot %s %s for the mover", what, path);
}

/* --- the namespace --- */

static int write_file(const char *path, const char *text)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int enter_user_namespace(void)
{
    AUTO_FREE char *uids = str_new("%u %u 1\n", geteuid(), geteuid());
    AUTO_FREE char *gids = str_new("%u %u 1\n", getegid(), getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return -1;
    return write_file("/proc/self/setgroups", "deny") || write_file("/proc/self/uid_map", uids) ||
           write_file("/proc/self/gid_map", gids);
}

static int enter_namespace(struct view *view, struct err *err)
{
    if (unshare(CLONE_NEWNS)) {
        view->user_namespace = true;
        if (errno != EPERM || enter_user_namespace())
            return err_errno(err, VSS_E_NOT_SUPPORTED, errno,
                             "Run as root, allow user namespaces, or use the archive mover.",
                             "cannot make a private mount namespace");
    }
    /* Nothing of this may be seen outside; what is mounted outside later does not matter here. */
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? failed("make private", "/", err) : 0;
}

static int set_read_only(const char *target, bool recursive)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    return mount_setattr(AT_FDCWD, target, recursive ? AT_RECURSIVE : 0, &attr, sizeof(attr));
}

static int bind_to(const struct view *view, const char *source, const char *target)
{
    /* In a user namespace mounts below the source are locked to it: they come along, or it is refused. */
    unsigned long flags = view->user_namespace ? MS_BIND | MS_REC : MS_BIND;
    return mount(source, target, NULL, flags, NULL) || set_read_only(target, view->user_namespace) ? -1 : 0;
}

static int bind_all(const struct view *view, const json_t *binds, struct err *err)
{
    size_t i;
    const json_t *bind;
    json_array_foreach(binds, i, bind)
    {
        const char *source = json_str(bind, "source", ""), *target = json_str(bind, "target", "");
        if (bind_to(view, source, target))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot present the snapshot %s at %s", source,
                             target);
    }
    return 0;
}

int mount_view_bind(const json_t *binds, struct err *err)
{
    struct view view = {0};
    if (json_array_size(binds) == 0)
        return 0;
    return enter_namespace(&view, err) || bind_all(&view, binds, err) ? -1 : 0;
}

/* --- adding what the snapshot does not hold --- */

static void copy_attributes(int from, int to)
{
    char names[65536], value[65536];
    ssize_t length = flistxattr(from, names, sizeof(names));
    for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from, name, value, sizeof(value));
        if (size >= 0)
            fsetxattr(to, name, value, (size_t)size, 0);
    }
}

static int mirror_link(int from, int to, const char *name, const struct stat *st)
{
    char link[PATH_MAX + 1];
    ssize_t n = readlinkat(from, name, link, PATH_MAX);
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (n < 0)
        return -1;
    link[n] = '\0';
    if (symlinkat(link, to, name) ||
        (geteuid() == 0 && fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW)))
        return -1;
    return utimensat(to, name, times, AT_SYMLINK_NOFOLLOW);
}

static int mirror(const struct view *view, int from, int to, const char *name)
{
    char source[FD_PATH_SIZE], target[FD_PATH_SIZE];
    struct stat st;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW))
        return -1;
    if (S_ISLNK(st.st_mode))
        return mirror_link(from, to, name, &st);
    if (S_ISDIR(st.st_mode) ? mkdirat(to, name, 0700) : mknodat(to, name, S_IFREG | 0600, 0))
        return -1;
    str_format(source, sizeof(source), "/proc/self/fd/%d/%s", from, name);
    str_format(target, sizeof(target), "/proc/self/fd/%d/%s", to, name);
    return bind_to(view, source, target);
}

static int mirror_all(const struct view *view, int from, int to)
{
    int again = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    int result = list ? 0 : -1;
    for (struct dirent *entry; !result && (entry = readdir(list));)
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
            result = mirror(view, from, to, entry->d_name);
    if (list)
        closedir(list);
    return result;
}

static int grow(struct view *view, const char *path, struct err *err)
{
    for (size_t i = 0; i < view->n; i++)
        if (str_eq(view->grown[i].path, path))
            return 0;
    struct stat st;
    AUTO_FD int from = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0 || fstat(from, &st) || mount("quiesced", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700"))
        return failed("add files to", path, err);
    AUTO_FD int to = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (to < 0 || mirror_all(view, from, to))
        return failed("show the files of", path, err);
    copy_attributes(from, to);
    if ((geteuid() == 0 && fchown(to, st.st_uid, st.st_gid)) || fchmod(to, st.st_mode & 07777))
        return failed("set the owner and mode of", path, err);
    view->grown = mem_resize(view->grown, (view->n + 1) * sizeof(*view->grown));
    view->grown[view->n++] = (struct grown){str_dup(path), st};
    return 0;
}

/* The nearest folder above path that exists grows; folders between are made as it is. */
static int make_place(struct view *view, const char *path, bool directory, struct err *err)
{
    AUTO_FREE char *at = str_dup(path);
    struct stat st;
    do {
        *strrchr(at, '/') = '\0';
        if (!*at)
            return err_set(err, VSS_E_NOT_SUPPORTED, NULL, "no folder above %s exists to show it in", path);
    } while (lstat(at, &st));
    if (grow(view, at, err))
        return -1;
    for (size_t n = strlen(at); path[n]; n = strlen(at)) {
        memcpy(at, path, n + 1 + strcspn(path + n + 1, "/"));
        bool last = strlen(at) == strlen(path);
        int result = !last || directory ? mkdir(at, st.st_mode & 07777) : mknod(at, S_IFREG | 0600, 0);
        if (result || (geteuid() == 0 && lchown(at, st.st_uid, st.st_gid)))
            return failed("make room at", at, err);
    }
    return 0;
}

static int present(struct view *view, const struct mover_item *item, struct err *err)
{
    struct stat source, there;
    if (lstat(item->source, &source))
        return err_errno(err, VSS_E_OBJECT_NOT_FOUND, errno, NULL, "cannot find %s", item->source);
    bool exists = lstat(item->path, &there) == 0;
    if (exists && source.st_dev == there.st_dev && source.st_ino == there.st_ino)
        return 0;
    if (S_ISLNK(source.st_mode) || (exists && S_ISDIR(source.st_mode) != S_ISDIR(there.st_mode)) ||
        (exists && S_ISLNK(there.st_mode)))
        return err_set(err, VSS_E_NOT_SUPPORTED, "Use the archive mover for it.",
                       "cannot show %s at %s: their types differ", item->source, item->path);
    if (!exists && make_place(view, item->path, S_ISDIR(source.st_mode), err))
        return -1;
    return bind_to(view, item->source, item->path) ? failed("show the file at", item->path, err) : 0;
}

static int finish(struct view *view, struct err *err)
{
    for (size_t i = view->n; i-- > 0;) {
        const struct timespec times[2] = {view->grown[i].st.st_atim, view->grown[i].st.st_mtim};
        if (utimensat(AT_FDCWD, view->grown[i].path, times, 0) || set_read_only(view->grown[i].path, false))
            return failed("finish", view->grown[i].path, err);
    }
    return 0;
}

int mount_view_make(const json_t *binds, const struct mover_item *items, size_t n_items, struct err *err)
{
    struct view view = {0};
    bool moved = json_array_size(binds) > 0;
    for (size_t i = 0; i < n_items; i++)
        moved = moved || !str_eq(items[i].path, items[i].source);
    if (!moved)
        return 0;
    int result = enter_namespace(&view, err) || bind_all(&view, binds, err) ? -1 : 0;
    for (size_t i = 0; !result && i < n_items; i++)
        result = present(&view, &items[i], err);
    if (!result)
        result = finish(&view, err);
    for (size_t i = 0; i < view.n; i++)
        free(view.grown[i].path);
    free(view.grown);
    return result;
}
