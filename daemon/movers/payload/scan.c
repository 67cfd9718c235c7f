#include "movers/payload/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/manifest.h"

void path_list_add(struct path_list *list, const char *path)
{
    if (list->n == list->room) {
        list->room = list->room ? 2 * list->room : 16;
        list->paths = mem_resize(list->paths, list->room * sizeof(*list->paths));
    }
    list->paths[list->n++] = str_dup(path);
}

void path_list_clear(struct path_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->paths[i]);
    free(list->paths);
    *list = (struct path_list){0};
}

int payload_no_backup(const char *repository, const char *backup_id, struct err *err)
{
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "A scan of the repository tells what it has.", "repository %s holds no backup %s", repository, backup_id);
    if (err)
        str_copy(err->reason, sizeof err->reason, "backup_missing");
    return -1;
}

int payload_failed(int errnum, const char *what, const char *path, struct err *err)
{
    AUTO_FREE char *readable = manifest_readable(path);
    bool full = errnum == ENOSPC || errnum == EDQUOT;
    uint32_t hr = full               ? (uint32_t)VSS_E_INSUFFICIENT_STORAGE
                  : errnum == ENOENT ? (uint32_t)VSS_E_OBJECT_NOT_FOUND
                                     : (uint32_t)VSS_E_UNEXPECTED;
    return err_errno(err, hr, errnum, full ? "Make room, or use another repository." : NULL, "cannot %s %s", what,
                     readable);
}

static int open_below(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, dir, *path ? path : ".", &how, sizeof(how));
}

static bool excluded(const struct scan *scan, const char *path)
{
    for (const char *const *exclude = scan->request->excludes; exclude && *exclude; exclude++)
        if (path_beneath(path, *exclude) || fnmatch(*exclude, path, 0) == 0)
            return true;
    return false;
}

static struct scan_entry *add(struct scan *scan, char *path /* taken */, mode_t type, size_t item, bool parent)
{
    if (scan->n == scan->room) {
        scan->room = scan->room ? 2 * scan->room : 1024;
        scan->entries = mem_resize(scan->entries, scan->room * sizeof(*scan->entries));
    }
    scan->entries[scan->n] = (struct scan_entry){path, type & S_IFMT, (uint32_t)item, parent};
    return &scan->entries[scan->n++];
}

/* The part of an entry's path that lies below its item ("" for the item itself). */
static const char *below_item(const struct scan *scan, const struct scan_entry *entry)
{
    const char *root = scan->request->items[entry->item].path;
    const char *rest = entry->path + (str_eq(root, "/") ? 0 : strlen(root));
    return *rest == '/' ? rest + 1 : rest;
}

static int consider(struct scan *scan, size_t index, const char *directory, int dir, const char *name, struct err *err)
{
    const struct mover_item *item = &scan->request->items[index];
    AUTO_FREE char *path = str_new("%s/%s", str_eq(directory, "/") ? "" : directory, name);
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return payload_failed(errno, "look at", path, err);
    if (S_ISSOCK(st.st_mode) || excluded(scan, path)) { /* a socket belongs to a running process: nothing to restore */
        path_list_add(&scan->left_out, path);
        return 0;
    }
    if (S_ISDIR(st.st_mode) ? !item->recursive : fnmatch(item->spec, name, 0) != 0)
        return 0;
    add(scan, TAKE_PTR(path), st.st_mode, index, false);
    return 0;
}

/* Adds what lies in the directory of entry number i. Another mount or subvolume is another volume's business: the
 * planner sees to it; here it is noted, not entered. */
static int list_directory(struct scan *scan, size_t index, size_t i, dev_t device, struct err *err)
{
    AUTO_FREE char *directory = str_dup(scan->entries[i].path);
    struct stat st;
    int fd = open_below(scan->roots[index], below_item(scan, &scan->entries[i]), O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
                        RESOLVE_NO_XDEV);
    if (fd < 0 && errno != EXDEV)
        return payload_failed(errno, "read", directory, err);
    bool looked = fd >= 0 && fstat(fd, &st) == 0, elsewhere = fd < 0 || (looked && st.st_dev != device);
    DIR *dir = looked && !elsewhere ? fdopendir(fd) : NULL;
    if (!dir) {
        int failed = elsewhere ? 0 : payload_failed(errno, "read", directory, err); /* never silently missing */
        fd_cleanup(&fd);
        if (elsewhere)
            path_list_add(&scan->not_entered, directory);
        return failed;
    }
    int result = 0;
    for (struct dirent *found; errno = 0, !result && (found = readdir(dir));)
        if (!str_eq(found->d_name, ".") && !str_eq(found->d_name, ".."))
            result = consider(scan, index, directory, dirfd(dir), found->d_name, err);
    if (!result && errno)
        result = payload_failed(errno, "read", directory, err);
    closedir(dir);
    if (!result && scan->host->cancelled(scan->host->arg))
        result = err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the copy was cancelled");
    return result;
}

/* The item's own entry, then everything below it: the array is its own queue. */
static int walk(struct scan *scan, size_t index, struct err *err)
{
    const struct mover_item *item = &scan->request->items[index];
    struct stat st;
    if (!path_is_canonical(item->path) || !path_is_canonical(item->source))
        return err_set(err, E_INVALIDARG, NULL, "item %zu: its path is not canonical", index);
    if (lstat(item->source, &st))
        return payload_failed(errno, "find", item->source, err);
    if (excluded(scan, item->path))
        return 0;
    size_t i = scan->n;
    add(scan, str_dup(item->path), st.st_mode, index, false);
    if (!S_ISDIR(st.st_mode)) {
        AUTO_FREE char *above = str_dup(item->source);
        *strrchr(above, '/') = '\0';
        scan->roots[index] = open(*above ? above : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        return scan->roots[index] < 0 ? payload_failed(errno, "open", item->source, err) : 0;
    }
    scan->roots[index] = open(item->source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (scan->roots[index] < 0 || fstat(scan->roots[index], &st))
        return payload_failed(errno, "open", item->source, err);
    for (; i < scan->n; i++)
        if (S_ISDIR(scan->entries[i].type) && list_directory(scan, index, i, st.st_dev, err))
            return -1;
    return 0;
}

static void add_parents(struct scan *scan, size_t index)
{
    AUTO_FREE char *at = str_dup(scan->request->items[index].path);
    for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        struct stat st;
        *slash = '\0';
        if (lstat(at, &st) == 0 && S_ISDIR(st.st_mode))
            add(scan, str_dup(at), S_IFDIR, index, true);
        *slash = '/';
    }
}

/* By path; of entries with one path the one to keep comes first: not a parent, of the latest item. */
static int compare(const void *a, const void *b)
{
    const struct scan_entry *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    if (order)
        return order;
    if (x->parent != y->parent)
        return x->parent ? 1 : -1;
    return x->item == y->item ? 0 : x->item < y->item ? 1 : -1;
}

static void keep_one_each(struct scan *scan)
{
    size_t kept = 0;
    if (scan->n)
        qsort(scan->entries, scan->n, sizeof(*scan->entries), compare);
    for (size_t i = 0; i < scan->n; i++) {
        if (kept && str_eq(scan->entries[kept - 1].path, scan->entries[i].path))
            free(scan->entries[i].path);
        else
            scan->entries[kept++] = scan->entries[i];
    }
    scan->n = kept;
}

static int count(struct scan *scan, struct err *err)
{
    struct stat st;
    for (size_t i = 0; i < scan->n; i++) {
        const struct scan_entry *entry = &scan->entries[i];
        if (!S_ISREG(entry->type))
            continue;
        const struct mover_item *item = &scan->request->items[entry->item];
        const char *below = below_item(scan, entry);
        const char *name = *below ? below : strrchr(item->source, '/') + 1;
        if (fstatat(scan->roots[entry->item], name, &st, AT_SYMLINK_NOFOLLOW))
            return payload_failed(errno, "look at", entry->path, err);
        scan->files++;
        scan->bytes += st.st_size;
    }
    return 0;
}

int scan_run(struct scan *ret, const struct mover_request *request, const struct mover_host *host, struct err *err)
{
    *ret = (struct scan){.request = request, .host = host, .roots = mem_new((request->n_items + 1) * sizeof(int))};
    for (size_t i = 0; i < request->n_items; i++)
        ret->roots[i] = -1;
    for (size_t i = 0; i < request->n_items; i++) {
        if (walk(ret, i, err))
            return -1;
        add_parents(ret, i);
    }
    keep_one_each(ret);
    return count(ret, err);
}

void scan_clear(struct scan *scan)
{
    for (size_t i = 0; scan->roots && i < scan->request->n_items; i++)
        fd_cleanup(&scan->roots[i]);
    for (size_t i = 0; i < scan->n; i++)
        free(scan->entries[i].path);
    free(scan->roots);
    free(scan->entries);
    path_list_clear(&scan->left_out);
    path_list_clear(&scan->not_entered);
    *scan = (struct scan){0};
}

static int open_parent(const struct scan_entry *entry, int *ret_fd, char **ret_source, struct err *err)
{
    *ret_source = str_dup(entry->path);
    *ret_fd = open(entry->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*ret_fd < 0 && errno == EACCES) /* may be passed, not listed: enough for its owner and mode */
        *ret_fd = open(entry->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? payload_failed(errno, "open", entry->path, err) : 0;
}

int scan_open(const struct scan *scan, const struct scan_entry *entry, int *ret_fd, char **ret_source, struct err *err)
{
    if (entry->parent)
        return open_parent(entry, ret_fd, ret_source, err);
    const struct mover_item *item = &scan->request->items[entry->item];
    const char *below = below_item(scan, entry);
    bool single = !*below && !S_ISDIR(entry->type);
    uint64_t flags = S_ISREG(entry->type)   ? O_RDONLY | O_NONBLOCK | O_NOCTTY
                     : S_ISDIR(entry->type) ? O_RDONLY | O_DIRECTORY
                                            : O_PATH;
    *ret_source =
        *below ? str_new("%s/%s", str_eq(item->source, "/") ? "" : item->source, below) : str_dup(item->source);
    *ret_fd =
        open_below(scan->roots[entry->item], single ? strrchr(item->source, '/') + 1 : below, flags | O_NOFOLLOW, 0);
    if (*ret_fd >= 0)
        return 0;
    payload_failed(errno, "open", entry->path, err);
    free(TAKE_PTR(*ret_source));
    return -1;
}
