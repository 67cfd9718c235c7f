#include "providers/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/tree_data.h"
#include "providers/tree_meta.h"

struct copy {
    struct tree_stats *stats;
    struct dirchain into; /* the copy's directories, in step with the walk's */
    int place_fd;
    const char *name; /* of the copy in place_fd */
    char links_name[NAME_MAX + 1];
    int links_fd; /* directory of one further name per hard-linked inode; -1 until the first */
    bool clone;
};

static int copy_errno(struct tree_walk *walk, const char *name, int errnum, const char *verb, struct err *err)
{
    char where[512];
    tree_walk_where(walk, name, where, sizeof(where));
    if (errnum == ECANCELED)
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "%s: cancelled", where);
    const char *hint = errnum == ENOTSUP
                           ? "The file system of the copy cannot hold this; choose a staging directory on "
                             "another file system, or another provider."
                           : NULL;
    return err_errno(err, provider_hresult(errnum), errnum, hint, "cannot %s %s", verb, where);
}

static void note_nested(struct tree_walk *walk, struct tree_stats *stats, const char *name)
{
    char where[PATH_MAX];
    if (!stats->nested)
        stats->nested = json_array();
    json_add(stats->nested, json_string(tree_walk_where(walk, name, where, sizeof(where))));
}

static void links_entry(const struct statx *stat, char ret[80])
{
    /* The birth time tells a new file from an old one whose inode number it took over during the walk. */
    str_format(ret, 80, "%llu-%lld.%u", (unsigned long long)stat->stx_ino, (long long)stat->stx_btime.tv_sec,
               stat->stx_btime.tv_nsec);
}

/* Gives name in the copy the inode that was copied before under another name. Returns 1 when done, 0 when it is the
 * first, or -errno. */
static int link_again(struct copy *copy, const char *name, const struct statx *stat)
{
    char entry[80];
    if (copy->links_fd < 0) {
        if (mkdirat(copy->place_fd, copy->links_name, 0700) < 0)
            return -errno;
        copy->links_fd = openat(copy->place_fd, copy->links_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (copy->links_fd < 0)
            return -errno;
    }
    links_entry(stat, entry);
    if (linkat(copy->links_fd, entry, dirchain_top(&copy->into), name, 0) == 0)
        return 1;
    return errno == ENOENT ? 0 : -errno;
}

static int link_first(struct copy *copy, const char *name, const struct statx *stat)
{
    char entry[80];
    links_entry(stat, entry);
    return linkat(dirchain_top(&copy->into), name, copy->links_fd, entry, 0) < 0 ? errno : 0;
}

static int open_source(int dirfd, const char *name)
{
    enum { FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY };
    int fd = openat(dirfd, name, FLAGS | O_NOATIME); /* only for the owner and root: reading leaves no trace then */
    return fd < 0 && errno == EPERM ? openat(dirfd, name, FLAGS) : fd;
}

/* *listed becomes what was opened: the name may have changed hands since it was listed. */
static int copy_regular(struct tree_walk *walk, int dirfd, const char *name, struct statx *listed, struct err *err)
{
    struct copy *copy = walk->arg;
    struct statx stat;
    AUTO_FD int from = open_source(dirfd, name);
    if (from < 0)
        return errno == ENOENT || errno == ELOOP ? 0 : copy_errno(walk, name, errno, "open", err);
    if (statx(from, "", AT_EMPTY_PATH, TREE_STATX, &stat) < 0)
        return copy_errno(walk, name, errno, "stat", err);
    if (!S_ISREG(stat.stx_mode) || stat.stx_mnt_id != listed->stx_mnt_id)
        return 0; /* replaced since it was listed */
    *listed = stat;
    AUTO_FD int to =
        openat(dirchain_top(&copy->into), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return copy_errno(walk, name, errno, "create the copy of", err);
    int r = copy->clone ? tree_data_clone(from, to)
                        : tree_data_copy(from, to, (int64_t)stat.stx_size, walk->cancelled, walk->cancelled_arg);
    if (r)
        return copy_errno(walk, name, r, copy->clone ? "clone" : "copy", err);
    r = tree_meta_fd(from, to, &stat);
    if (r)
        return copy_errno(walk, name, r, "keep the attributes of", err);
    copy->stats->bytes += (int64_t)stat.stx_size;
    return 0;
}

static int copy_special(struct tree_walk *walk, int dirfd, const char *name, struct statx *stat, struct err *err)
{
    struct copy *copy = walk->arg;
    int into = dirchain_top(&copy->into);
    int r = 0;
    if (S_ISLNK(stat->stx_mode)) {
        char target[PATH_MAX];
        ssize_t length = readlinkat(dirfd, name, target, sizeof(target) - 1);
        if (length < 0)
            return errno == ENOENT || errno == EINVAL ? 0 : copy_errno(walk, name, errno, "read the link", err);
        target[length] = '\0';
        r = symlinkat(target, into, name) < 0 ? errno : 0;
    } else {
        r = mknodat(into, name, (stat->stx_mode & S_IFMT) | 0600, makedev(stat->stx_rdev_major, stat->stx_rdev_minor)) <
                    0
                ? errno
                : 0;
    }
    if (r)
        return copy_errno(walk, name, r, "create the copy of", err);
    r = tree_meta_at(dirfd, into, name, stat);
    if (r == ENOENT) { /* gone since it was listed: it is not part of the tree any more */
        unlinkat(into, name, 0);
        return 0;
    }
    return r ? copy_errno(walk, name, r, "keep the attributes of", err) : 0;
}

static int copy_entry(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat, struct err *err)
{
    struct copy *copy = walk->arg;
    copy->stats->files++;
    bool linked = stat->stx_nlink > 1;
    int r = linked ? link_again(copy, name, stat) : 0;
    if (r)
        return r < 0 ? copy_errno(walk, name, -r, "link", err) : 0;
    struct statx found = *stat;
    if ((S_ISREG(stat->stx_mode) ? copy_regular : copy_special)(walk, dirfd, name, &found, err) < 0)
        return -1;
    r = linked ? link_first(copy, name, &found) : 0;
    return r && r != ENOENT ? copy_errno(walk, name, r, "link", err) : 0;
}

static int copy_enter(struct tree_walk *walk, int fd, const char *name, const struct statx *stat, struct err *err)
{
    struct copy *copy = walk->arg;
    (void)fd;
    (void)stat;
    copy->stats->directories++;
    int parent = name ? dirchain_top(&copy->into) : copy->place_fd;
    const char *made = name ? name : copy->name;
    if (mkdirat(parent, made, 0700) < 0)
        return copy_errno(walk, name, errno, "create the copy of", err);
    int into = openat(parent, made, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int r = into < 0 ? errno : dirchain_push(&copy->into, into);
    return r ? copy_errno(walk, name, r, "open the copy of", err) : 0;
}

static int copy_leave(struct tree_walk *walk, int fd, int parent_fd, const char *name, struct err *err)
{
    struct copy *copy = walk->arg;
    struct statx stat;
    (void)parent_fd;
    if (statx(fd, "", AT_EMPTY_PATH, TREE_STATX, &stat) < 0)
        return copy_errno(walk, name, errno, "stat", err);
    /* Go up first: a directory that its owner may not search cannot be left through "..". */
    AUTO_FD int into = fcntl(dirchain_top(&copy->into), F_DUPFD_CLOEXEC, 3);
    int r = into < 0 ? errno : dirchain_pop(&copy->into);
    if (r)
        return copy_errno(walk, name, r, "go back up in the copy of", err);
    r = tree_meta_fd(fd, into, &stat);
    return r ? copy_errno(walk, name, r, "keep the attributes of", err) : 0;
}

static int copy_boundary(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat, struct err *err)
{
    struct copy *copy = walk->arg;
    (void)dirfd;
    note_nested(walk, copy->stats, name);
    if (!S_ISDIR(stat->stx_mode))
        return 0;
    int into = dirchain_top(&copy->into);
    if (mkdirat(into, name, 0700) < 0)
        return copy_errno(walk, name, errno, "create the copy of", err);
    int r = tree_meta_at(-1, into, name, stat);
    return r ? copy_errno(walk, name, r, "keep the attributes of", err) : 0;
}

int tree_copy(const struct tree_job *job, int source_fd, const char *source, int place_fd, const char *name, bool clone,
              struct tree_stats *ret, struct err *err)
{
    static const struct tree_visitor visitor = {
        .entry = copy_entry, .enter = copy_enter, .leave = copy_leave, .boundary = copy_boundary};
    struct copy copy = {.stats = ret, .place_fd = place_fd, .name = name, .links_fd = -1, .clone = clone};
    struct tree_walk walk = {.visitor = &visitor,
                             .arg = &copy,
                             .cancelled = job->cancelled,
                             .cancelled_arg = job->cancelled_arg,
                             .skip = job->skip,
                             .n_skip = job->n_skip,
                             .only = job->only};
    *ret = (struct tree_stats){0};
    str_format(copy.links_name, sizeof(copy.links_name), "%s.links", name);
    int r = tree_walk_run(&walk, source_fd, source, err);
    dirchain_clear(&copy.into);
    if (copy.links_fd >= 0)
        close(copy.links_fd);
    if (r == 0 && copy.links_fd >= 0)
        r = tree_remove(place_fd, copy.links_name, err);
    return r;
}

static int remove_entry(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat, struct err *err)
{
    (void)stat;
    return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? copy_errno(walk, name, errno, "remove", err) : 0;
}

static int remove_leave(struct tree_walk *walk, int fd, int parent_fd, const char *name, struct err *err)
{
    (void)fd;
    if (parent_fd < 0)
        return 0;
    return unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? copy_errno(walk, name, errno, "remove", err)
                                                                          : 0;
}

static int remove_boundary(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat,
                           struct err *err)
{
    (void)dirfd;
    (void)stat;
    return copy_errno(walk, name, EBUSY, "remove (something is mounted there)", err);
}

static int remove_one(int place_fd, const char *name, struct err *err)
{
    static const struct tree_visitor visitor = {
        .entry = remove_entry, .leave = remove_leave, .boundary = remove_boundary};
    struct tree_walk walk = {.visitor = &visitor, .unlock = true};
    if (geteuid() != 0)
        (void)!fchmodat(place_fd, name, 0700, 0); /* our own; openat tells when it did not help */
    AUTO_FD int fd = openat(place_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", name);
    if (tree_walk_run(&walk, fd, name, err) < 0)
        return -1;
    if (unlinkat(place_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot remove %s", name);
    return 0;
}

int tree_remove(int place_fd, const char *name, struct err *err)
{
    char links[NAME_MAX + 1];
    if (str_format(links, sizeof(links), "%s.links", name) && remove_one(place_fd, links, err) < 0)
        return -1;
    return remove_one(place_fd, name, err);
}

static int measure_entry(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat, struct err *err)
{
    struct tree_stats *stats = walk->arg;
    (void)dirfd;
    (void)name;
    (void)err;
    stats->files++;
    if (S_ISREG(stat->stx_mode))
        stats->bytes += (int64_t)stat->stx_size;
    return 0;
}

static int measure_enter(struct tree_walk *walk, int fd, const char *name, const struct statx *stat, struct err *err)
{
    (void)fd;
    (void)name;
    (void)stat;
    (void)err;
    ((struct tree_stats *)walk->arg)->directories++;
    return 0;
}

static int measure_boundary(struct tree_walk *walk, int dirfd, const char *name, const struct statx *stat,
                            struct err *err)
{
    (void)dirfd;
    (void)stat;
    (void)err;
    note_nested(walk, walk->arg, name);
    return 0;
}

int tree_measure(const struct tree_job *job, int source_fd, const char *source, struct tree_stats *ret, struct err *err)
{
    static const struct tree_visitor visitor = {
        .entry = measure_entry, .enter = measure_enter, .boundary = measure_boundary};
    struct tree_walk walk = {.visitor = &visitor,
                             .arg = ret,
                             .cancelled = job->cancelled,
                             .cancelled_arg = job->cancelled_arg,
                             .skip = job->skip,
                             .n_skip = job->n_skip,
                             .only = job->only};
    *ret = (struct tree_stats){0};
    return tree_walk_run(&walk, source_fd, source, err);
}
