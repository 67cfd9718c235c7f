/* GET /snapshots/{id}/files: one directory of a snapshot, page by page. Nothing of the snapshot is trusted: no symbolic link is followed,
 * no other mount entered, and what is no text is written as \xNN. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/utf8.h"
#include "worker/context.h"
#include "worker/stored.h"

enum { NAME_SIZE = 4 * NAME_MAX + 1, PAGE_MAX = 500 };

/* The page's names so far, in order; the last one tells whether there is another page. */
struct page {
    struct entry {
        char shown[NAME_SIZE]; /* as it is written, and by which it is sorted */
        char name[NAME_MAX + 1];
    } * entries;
    size_t n, limit;
    const char *after;
};

static int open_directory(int tree, const char *path, struct err *err)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, tree, path[1] ? path + 1 : ".", &how, sizeof(how));
    if (fd < 0)
        err_errno(err, errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EXDEV ? VSS_E_OBJECT_NOT_FOUND : VSS_E_UNEXPECTED, errno,
                  "Name a directory of the snapshot; symbolic links are not followed.", "%.300s in the snapshot", path);
    return fd;
}

static void insert(struct page *page, const char *name)
{
    char shown[NAME_SIZE] = "";
    utf8_escape(shown, sizeof(shown), name);
    if (strcmp(shown, page->after) <= 0 || (page->n > page->limit && strcmp(shown, page->entries[page->n - 1].shown) >= 0))
        return;
    size_t at = page->n;
    while (at > 0 && strcmp(shown, page->entries[at - 1].shown) < 0)
        at--;
    if (page->n <= page->limit)
        page->n++;
    memmove(&page->entries[at + 1], &page->entries[at], (page->n - 1 - at) * sizeof(*page->entries));
    str_copy(page->entries[at].shown, NAME_SIZE, shown);
    str_copy(page->entries[at].name, sizeof(page->entries[at].name), name);
}

static const char *type_of(mode_t mode)
{
    static const struct {
        mode_t type;
        const char *name;
    } types[] = {{S_IFREG, "file"}, {S_IFDIR, "directory"}, {S_IFLNK, "symlink"}, {S_IFIFO, "fifo"}, {S_IFSOCK, "socket"}, {S_IFBLK, "block"},
                 {S_IFCHR, "character"}};
    for (size_t i = 0; i < ELEMENTS(types); i++)
        if ((mode & S_IFMT) == types[i].type)
            return types[i].name;
    return "other";
}

static json_t *describe(int dir, const struct entry *entry)
{
    struct stat stat;
    char modified[CLOCK_RFC3339_SIZE], mode[8], link[PATH_MAX + 1], target[PATH_MAX] = "";
    if (fstatat(dir, entry->name, &stat, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
        return NULL;
    bool is_link = S_ISLNK(stat.st_mode);
    ssize_t n = is_link ? readlinkat(dir, entry->name, link, PATH_MAX) : -1;
    if (n >= 0) {
        link[n] = '\0';
        utf8_escape(target, sizeof(target), link);
    }
    str_format(mode, sizeof(mode), "%04o", (unsigned)(stat.st_mode & 07777));
    clock_rfc3339((int64_t)stat.st_mtim.tv_sec * 1000 + stat.st_mtim.tv_nsec / 1000000, modified);
    return json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:s, s:s?}", "name", entry->shown, "type", type_of(stat.st_mode), "bytes",
                     (json_int_t)stat.st_size, "mode", mode, "uid", (json_int_t)stat.st_uid, "gid", (json_int_t)stat.st_gid, "modified_at",
                     modified, "target", n >= 0 ? target : NULL);
}

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static int read_page(struct worker *worker, int fd, struct page *page, json_t *result, struct err *err)
{
    CLEANUP(closedir_cleanup) DIR *dir = fdopendir(fd);
    struct dirent *entry;
    if (!dir) {
        close(fd);
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read a directory of the snapshot");
    }
    for (unsigned i = 0; (entry = readdir(dir)); i++) {
        if (i % 1024 == 0 && wait_look(&worker->wait))
            return worker_stopped(worker, err);
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
            insert(page, entry->d_name);
    }
    json_t *items = json_array();
    json_put(result, "items", items);
    for (size_t i = 0; i < page->n && i < page->limit; i++) {
        json_t *item = describe(dirfd(dir), &page->entries[i]);
        if (item)
            json_add(items, item);
    }
    if (page->n > page->limit)
        json_put(result, "next", json_string(page->entries[page->limit - 1].shown));
    return 0;
}

int operation_list_files(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    int64_t limit = json_int(args, "limit", 50);
    AUTO_FD int tree = stored_open(worker, json_object_get(args, "snapshot"), err);
    if (tree < 0)
        return -1;
    int fd = open_directory(tree, json_str(args, "path", "/"), err);
    if (fd < 0)
        return -1;
    struct page page = {.limit = limit < 1 ? 1 : limit > PAGE_MAX ? PAGE_MAX : (size_t)limit, .after = json_str(args, "after", "")};
    page.entries = mem_new((page.limit + 2) * sizeof(*page.entries));
    int r = read_page(worker, fd, &page, result, err);
    free(page.entries);
    return r;
}
