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
#include "base/log.h"
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
    struct mount_view *kept; /* by the caller, until the mover has ended */
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

/* --- what our mounts hide --- */

void mount_view_clear(struct mount_view *view)
{
    for (size_t i = 0; i < view->n; i++)
        free(view->sources[i]);
    for (size_t i = 0; i < view->n_folders; i++)
        close(view->folders[i]);
    free(view->sources);
    free(view->folders);
    free(view->folder);
    *view = (struct mount_view){0};
}

/* The folder that the path lies in, held open. Of paths in a row that share theirs it is opened once. */
static int hold_folder(struct mount_view *kept, const char *path)
{
    AUTO_FREE char *folder = str_dup(path);
    char *slash = strrchr(folder, '/');
    slash[slash == folder ? 1 : 0] = '\0';
    if (kept->folder && str_eq(kept->folder, folder))
        return kept->folders[kept->n_folders - 1];
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    kept->folders = mem_resize(kept->folders, (kept->n_folders + 1) * sizeof(*kept->folders));
    kept->folders[kept->n_folders++] = fd;
    free(kept->folder);
    kept->folder = TAKE_PTR(folder);
    return fd;
}

/* A snapshot may lie in the very tree that it is shown over (btrfs: at the top of the mount, in .quiesced), and so may
 * what a writer added: once the mounts are made, such a path leads into the snapshot and finds nothing. Through the
 * folder that was opened before it leads to the same as ever. NULL when there is nothing at the path. */
static const char *reach(struct mount_view *kept, const char *path, struct err *err)
{
    struct stat st;
    char *reached = NULL;
    if (path_is_canonical(path) && !str_eq(path, "/")) {
        int folder = hold_folder(kept, path);
        const char *name = strrchr(path, '/') + 1;
        if (folder < 0 || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW)) {
            err_errno(err, VSS_E_OBJECT_NOT_FOUND, errno, NULL, "cannot find %s", path);
            return NULL;
        }
        reached = str_new("/proc/self/fd/%d/%s", folder, name);
    }
    kept->sources = mem_resize(kept->sources, (kept->n + 1) * sizeof(*kept->sources));
    kept->sources[kept->n] = reached ? reached : str_dup(path);
    return kept->sources[kept->n++];
}

static int reach_items(struct mount_view *kept, struct mover_item *items, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        items[i].source = reach(kept, items[i].source, err);
        if (!items[i].source)
            return -1;
    }
    return 0;
}

/* --- the snapshots --- */

struct bind {
    const char *named, *source, *target;
};

static int compare_binds(const void *a, const void *b)
{
    const struct bind *x = a, *y = b;
    size_t m = strlen(x->target), n = strlen(y->target);
    return m == n ? strcmp(x->target, y->target) : m < n ? -1 : 1;
}

static int reach_binds(struct mount_view *kept, const json_t *binds, struct bind *ret, struct err *err)
{
    size_t i;
    const json_t *bind;
    json_array_foreach(binds, i, bind)
    {
        const char *named = json_str(bind, "source", "");
        ret[i] = (struct bind){named, reach(kept, named, err), json_str(bind, "target", "")};
        if (!ret[i].source)
            return -1;
    }
    return 0;
}

/* From the outside in: a volume's snapshot shown over it covers what was shown below it before. */
static int show_binds(const struct view *view, struct bind *binds, size_t n, struct err *err)
{
    qsort(binds, n, sizeof(*binds), compare_binds);
    for (size_t i = 0; i < n; i++)
        if (bind_to(view, binds[i].source, binds[i].target))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot present the snapshot %s at %s", binds[i].named,
                             binds[i].target);
    return 0;
}

/* --- adding what the snapshot does not hold --- */

/* A tmpfs holds ACLs, and before Linux 6.6 no user.* attribute: a folder's, not its files'. */
static void copy_attributes(const char *path, int from, int to)
{
    char names[65536], value[65536];
    ssize_t length = flistxattr(from, names, sizeof(names));
    for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from, name, value, sizeof(value));
        if (size < 0 || fsetxattr(to, name, value, (size_t)size, 0))
            log_line(LOG_LEVEL_WARNING, NULL, "%s: its attribute %s is not in the backup: %s", path, name, strerror(errno));
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
    copy_attributes(path, from, to);
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
        return err_errno(err, VSS_E_OBJECT_NOT_FOUND, errno, NULL, "cannot find what belongs at %s", item->path);
    bool exists = lstat(item->path, &there) == 0;
    if (exists && source.st_dev == there.st_dev && source.st_ino == there.st_ino)
        return 0;
    if (S_ISLNK(source.st_mode) || (exists && S_ISDIR(source.st_mode) != S_ISDIR(there.st_mode)) ||
        (exists && S_ISLNK(there.st_mode)))
        return err_set(err, VSS_E_NOT_SUPPORTED, "Use the archive mover for it.",
                       "cannot show at %s what the backup has for it: their types differ", item->path);
    if (!exists && make_place(view, item->path, S_ISDIR(source.st_mode), err))
        return -1;
    if (bind_to(view, item->source, item->path))
        return failed("show the file at", item->path, err);
    /* A mount over "/" is not seen from the root that the process has already: the program would read live files. */
    if (lstat(item->path, &there) || source.st_dev != there.st_dev || source.st_ino != there.st_ino)
        return err_set(err, VSS_E_NOT_SUPPORTED, "Use the archive mover for it, or name the folders in it.",
                       "the snapshot cannot be shown at %s", item->path);
    return 0;
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

/* --- in which order --- */

/* A mount covers what was mounted below it before: the place at which each item's mount will be made, as its depth. */
struct turn {
    size_t place;
    const struct mover_item *item;
};

static size_t place_of(const char *path)
{
    AUTO_FREE char *at = str_dup(path);
    struct stat st;
    while (lstat(at, &st) && strchr(at, '/') != strrchr(at, '/'))
        *strrchr(at, '/') = '\0';
    return strlen(at);
}

static int compare_turns(const void *a, const void *b)
{
    const struct turn *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

/* From the outside in: a file shown in a folder would vanish when a folder above it grows afterwards. */
static int present_all(struct view *view, const struct mover_item *items, size_t n, struct err *err)
{
    AUTO_FREE struct turn *turns = mem_new((n + 1) * sizeof(*turns));
    int result = 0;
    for (size_t i = 0; i < n; i++)
        turns[i] = (struct turn){place_of(items[i].path), &items[i]};
    qsort(turns, n, sizeof(*turns), compare_turns);
    for (size_t i = 0; !result && i < n; i++)
        result = present(view, turns[i].item, err);
    return result;
}

/* All of it is found before the first mount hides a part of it. */
static int show(struct view *view, const json_t *binds, struct mover_item *items, size_t n_items, struct err *err)
{
    size_t n = json_array_size(binds);
    AUTO_FREE struct bind *list = mem_new((n + 1) * sizeof(*list));
    return enter_namespace(view, err) || reach_binds(view->kept, binds, list, err) ||
                   reach_items(view->kept, items, n_items, err) || show_binds(view, list, n, err) ||
                   present_all(view, items, n_items, err) || finish(view, err)
               ? -1
               : 0;
}

int mount_view_make(struct mount_view *ret, const json_t *binds, struct mover_item *items, size_t n_items, struct err *err)
{
    struct view view = {.kept = ret};
    bool moved = json_array_size(binds) > 0;
    *ret = (struct mount_view){0};
    for (size_t i = 0; i < n_items; i++)
        moved = moved || !str_eq(items[i].path, items[i].source);
    if (!moved)
        return 0;
    int result = show(&view, binds, items, n_items, err);
    for (size_t i = 0; i < view.n; i++)
        free(view.grown[i].path);
    free(view.grown);
    return result;
}
