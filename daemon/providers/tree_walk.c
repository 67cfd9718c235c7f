#include "providers/tree_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/utf8.h"

struct tree_level {
    char *name; /* in its parent; NULL for the root */
    char **dirs;
    size_t n_dirs, room_dirs, next;
};

enum { OPEN_DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK };

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

uint32_t provider_hresult(int errnum)
{
    static const struct {
        int errnum;
        uint32_t hr;
    } rows[] = {
        {ENOSPC, VSS_E_INSUFFICIENT_STORAGE},
        {EDQUOT, VSS_E_INSUFFICIENT_STORAGE},
        {EFBIG, VSS_E_INSUFFICIENT_STORAGE},
        {ENOMEM, E_OUTOFMEMORY},
        {EMFILE, E_OUTOFMEMORY},
        {ENFILE, E_OUTOFMEMORY},
        {EACCES, VSS_E_PROVIDER_VETO},
        {EPERM, VSS_E_PROVIDER_VETO},
        {EROFS, VSS_E_PROVIDER_VETO},
        {ENOTSUP, VSS_E_PROVIDER_VETO},
        {ECANCELED, VSS_S_ASYNC_CANCELLED},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (rows[i].errnum == errnum)
            return rows[i].hr;
    return VSS_E_UNEXPECTED_PROVIDER_ERROR;
}

static int identify(int fd, struct statx *ret)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, TREE_STATX, ret) < 0 ? errno : 0;
}

int dirchain_push(struct dirchain *chain, int fd)
{
    struct statx stat;
    int r = identify(fd, &stat);
    if (r) {
        close(fd);
        return r;
    }
    if (chain->n == chain->room) {
        chain->room = chain->room ? chain->room * 2 : 32;
        chain->levels = mem_resize(chain->levels, chain->room * sizeof(*chain->levels));
    }
    chain->levels[chain->n++] = (struct dirchain_level){
        .fd = fd, .ino = stat.stx_ino, .dev_major = stat.stx_dev_major, .dev_minor = stat.stx_dev_minor};
    if (chain->n > DIRCHAIN_OPEN) {
        struct dirchain_level *far = &chain->levels[chain->n - 1 - DIRCHAIN_OPEN];
        if (far->fd >= 0)
            close(TAKE_FD(far->fd));
    }
    return 0;
}

int dirchain_top(const struct dirchain *chain)
{
    return chain->n ? chain->levels[chain->n - 1].fd : -1;
}

int dirchain_pop(struct dirchain *chain)
{
    struct dirchain_level *child = &chain->levels[chain->n - 1];
    int r = 0;
    if (chain->n > 1 && chain->levels[chain->n - 2].fd < 0) {
        struct dirchain_level *parent = &chain->levels[chain->n - 2];
        struct statx stat;
        parent->fd = openat(child->fd, "..", OPEN_DIRECTORY);
        r = parent->fd < 0 ? errno : identify(parent->fd, &stat);
        if (!r && (stat.stx_ino != parent->ino || stat.stx_dev_major != parent->dev_major ||
                   stat.stx_dev_minor != parent->dev_minor))
            r = ESTALE;
    }
    close(child->fd);
    chain->n--;
    return r;
}

void dirchain_clear(struct dirchain *chain)
{
    for (size_t i = 0; i < chain->n; i++)
        if (chain->levels[i].fd >= 0)
            close(chain->levels[i].fd);
    free(chain->levels);
    *chain = (struct dirchain){0};
}

char *tree_walk_where(const struct tree_walk *walk, const char *name, char *ret, size_t size)
{
    ret[0] = '\0';
    utf8_escape(ret, size, walk->root ? walk->root : "");
    for (size_t i = 1; i < walk->n_levels; i++) {
        utf8_escape(ret, size, "/");
        utf8_escape(ret, size, walk->levels[i].name);
    }
    if (name) {
        utf8_escape(ret, size, "/");
        utf8_escape(ret, size, name);
    }
    return ret;
}

static int walk_errno(const struct tree_walk *walk, const char *name, int errnum, const char *verb, struct err *err)
{
    char where[512];
    return err_errno(err, provider_hresult(errnum), errnum, NULL, "cannot %s %s", verb,
                     tree_walk_where(walk, name, where, sizeof(where)));
}

int tree_walk_poll(struct tree_walk *walk, struct err *err)
{
    if (walk->cancelled && walk->cancelled(walk->cancelled_arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "%s: cancelled", walk->root);
    return 0;
}

static void push_level(struct tree_walk *walk, char *name)
{
    if (walk->n_levels == walk->room_levels) {
        walk->room_levels = walk->room_levels ? walk->room_levels * 2 : 32;
        walk->levels = mem_resize(walk->levels, walk->room_levels * sizeof(*walk->levels));
    }
    walk->levels[walk->n_levels++] = (struct tree_level){.name = name};
}

static void pop_level(struct tree_walk *walk)
{
    struct tree_level *level = &walk->levels[--walk->n_levels];
    for (size_t i = 0; i < level->n_dirs; i++)
        free(level->dirs[i]);
    free(level->dirs);
    free(level->name);
}

static bool is_boundary(const struct tree_walk *walk, const struct statx *stat)
{
    /* A subvolume keeps the mount but changes the device. Only directories are judged by device: overlay file
     * systems report another device for files of a lower layer. */
    return stat->stx_mnt_id != walk->mnt_id || (S_ISDIR(stat->stx_mode) && (stat->stx_dev_major != walk->dev_major ||
                                                                            stat->stx_dev_minor != walk->dev_minor));
}

static bool is_skipped(const struct tree_walk *walk, const struct statx *stat)
{
    for (size_t i = 0; i < walk->n_skip; i++)
        if (walk->skip[i].ino == stat->stx_ino && walk->skip[i].dev_major == stat->stx_dev_major &&
            walk->skip[i].dev_minor == stat->stx_dev_minor)
            return true;
    return false;
}

static int one_entry(struct tree_walk *walk, int dirfd, const char *name, struct err *err)
{
    struct statx stat;
    if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, TREE_STATX, &stat) < 0)
        return errno == ENOENT ? 0 : walk_errno(walk, name, errno, "stat", err);
    if (is_boundary(walk, &stat))
        return walk->visitor->boundary ? walk->visitor->boundary(walk, dirfd, name, &stat, err) : 0;
    if (!S_ISDIR(stat.stx_mode))
        return walk->visitor->entry(walk, dirfd, name, &stat, err);
    if (is_skipped(walk, &stat))
        return 0;
    struct tree_level *level = &walk->levels[walk->n_levels - 1];
    if (level->n_dirs == level->room_dirs) {
        level->room_dirs = level->room_dirs ? level->room_dirs * 2 : 16;
        level->dirs = mem_resize(level->dirs, level->room_dirs * sizeof(*level->dirs));
    }
    level->dirs[level->n_dirs++] = str_dup(name);
    return 0;
}

static int list_only(struct tree_walk *walk, struct err *err)
{
    size_t i;
    const json_t *name;
    json_array_foreach(walk->only, i, name)
        if (one_entry(walk, dirchain_top(&walk->chain), json_string_value(name), err) < 0)
            return -1;
    return 0;
}

/* Visits what is no directory and remembers the names of the directories: nothing of the stream stays open below. */
static int list_level(struct tree_walk *walk, struct err *err)
{
    if (walk->only && walk->n_levels == 1)
        return list_only(walk, err);
    int fd = openat(dirchain_top(&walk->chain), ".", OPEN_DIRECTORY);
    CLEANUP(closedir_cleanup) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int errnum = errno;
        if (fd >= 0)
            close(fd);
        return walk_errno(walk, NULL, errnum, "read the directory", err);
    }
    for (;;) {
        if (walk->ticks++ % 64 == 0 && tree_walk_poll(walk, err) < 0)
            return -1;
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry)
            return errno ? walk_errno(walk, NULL, errno, "read the directory", err) : 0;
        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
            continue;
        if (one_entry(walk, dirfd(dir), entry->d_name, err) < 0)
            return -1;
    }
}

/* Opens the next directory of the deepest level and makes it the deepest one. */
static int descend(struct tree_walk *walk, const char *name, struct err *err)
{
    struct statx stat;
    int parent = dirchain_top(&walk->chain);
    if (walk->unlock && faccessat(parent, name, R_OK | W_OK | X_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW) < 0)
        (void)!fchmodat(parent, name, 0700,
                        0); /* our own copy, in a directory that only we can write; openat tells if it did not help */
    AUTO_FD int fd = openat(parent, name, OPEN_DIRECTORY);
    if (fd < 0) /* replaced by a file or gone since it was listed: it is not part of the tree any more */
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : walk_errno(walk, name, errno, "open", err);
    int r = identify(fd, &stat);
    if (r)
        return walk_errno(walk, name, r, "stat", err);
    if (is_boundary(walk, &stat)) /* mounted upon since it was listed */
        return walk->visitor->boundary ? walk->visitor->boundary(walk, parent, name, &stat, err) : 0;
    if (walk->visitor->enter && walk->visitor->enter(walk, fd, name, &stat, err) < 0)
        return -1;
    r = dirchain_push(&walk->chain, TAKE_FD(fd));
    if (r)
        return walk_errno(walk, name, r, "open", err);
    push_level(walk, str_dup(name));
    return list_level(walk, err);
}

static int ascend(struct tree_walk *walk, struct err *err)
{
    AUTO_FREE char *name = str_dup(walk->levels[walk->n_levels - 1].name);
    AUTO_FD int fd = fcntl(dirchain_top(&walk->chain), F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return walk_errno(walk, NULL, errno, "hold", err);
    int r = dirchain_pop(&walk->chain);
    if (r)
        return walk_errno(walk, NULL, r, "go back up from (was it moved?)", err);
    pop_level(walk);
    return walk->visitor->leave ? walk->visitor->leave(walk, fd, dirchain_top(&walk->chain), name, err) : 0;
}

static int run(struct tree_walk *walk, int root_fd, struct err *err)
{
    struct statx stat;
    int fd = openat(root_fd, ".", OPEN_DIRECTORY);
    if (fd < 0 || identify(fd, &stat)) {
        int errnum = errno;
        if (fd >= 0)
            close(fd);
        return walk_errno(walk, NULL, errnum, "open", err);
    }
    walk->mnt_id = stat.stx_mnt_id;
    walk->dev_major = stat.stx_dev_major;
    walk->dev_minor = stat.stx_dev_minor;
    int r = dirchain_push(&walk->chain, fd);
    if (r)
        return walk_errno(walk, NULL, r, "open", err);
    push_level(walk, NULL);
    if (walk->visitor->enter && walk->visitor->enter(walk, dirchain_top(&walk->chain), NULL, &stat, err) < 0)
        return -1;
    if (list_level(walk, err) < 0)
        return -1;
    while (walk->n_levels) {
        struct tree_level *level = &walk->levels[walk->n_levels - 1];
        if (level->next < level->n_dirs ? descend(walk, level->dirs[level->next++], err) : ascend(walk, err))
            return -1;
    }
    return tree_walk_poll(walk, err);
}

int tree_walk_run(struct tree_walk *walk, int root_fd, const char *root, struct err *err)
{
    walk->root = root;
    int r = run(walk, root_fd, err);
    while (walk->n_levels)
        pop_level(walk);
    free(TAKE_PTR(walk->levels));
    walk->room_levels = 0;
    dirchain_clear(&walk->chain);
    return r;
}
