#pragma once
/* A tree with everything that a faithful copy must keep, and the comparison of two trees by this test's own means. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

static inline int sample_file(int dir, const char *name, const char *text, mode_t mode)
{
    AUTO_FD int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 || write(fd, text, strlen(text)) < 0 || fchmod(fd, mode) < 0 ? -1 : 0;
}

/* user::rw-, user:65534:rw-, group::r--, mask::rw-, other::--- as the kernel stores it. */
static const unsigned char sample_acl[] = {2, 0,   0,   0,   1,   0,   6,  0, 255, 255, 255, 255, 2,   0,  6,
                                           0, 254, 255, 0,   0,   4,   0,  4, 0,   255, 255, 255, 255, 16, 0,
                                           6, 0,   255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};

static inline int sample_sparse(int dir)
{
    AUTO_FD int fd = openat(dir, "sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    return fd < 0 || pwrite(fd, "begin", 5, 0) < 0 || pwrite(fd, "middle", 6, 4 << 20) < 0 ||
                   ftruncate(fd, 16 << 20) < 0
               ? -1
               : 0;
}

static inline int sample_big(int dir)
{
    static char block[65536];
    AUTO_FD int fd = openat(dir, "big", O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    for (size_t i = 0; fd >= 0 && i < 80; i++) {
        memset(block, (int)(i * 7 + 1), sizeof(block));
        if (write(fd, block, sizeof(block)) < 0)
            return -1;
    }
    return fd < 0 ? -1 : 0;
}

/* Makes the sample in an existing directory. attributes: the file system keeps user.* attributes and ACLs. */
static inline int sample_make(const char *path, bool attributes)
{
    bool root = geteuid() == 0;
    struct timespec old[2] = {{.tv_sec = 1000000000, .tv_nsec = 123456789},
                              {.tv_sec = 1100000000, .tv_nsec = 987654321}};
    AUTO_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = dir < 0;
    r |= sample_file(dir, "plain", "hello", 0640) | sample_file(dir, "empty", "", 0444);
    r |= sample_file(dir, "setuid", "x", 04755) | sample_file(dir, "line\nbreak", "n", 0600);
    r |= sample_file(dir, "bytes-\xff\xfe-\x80", "latin", 0600) | sample_file(dir, "-rf *", "y", 0600);
    r |= sample_sparse(dir) | sample_big(dir);
    r |= symlinkat("plain", dir, "link") | symlinkat("/nowhere/\xff", dir, "dangling") | mkfifoat(dir, "fifo", 0620);
    r |= mkdirat(dir, "sub", 0700) | mkdirat(dir, "sub/locked", 0500 | S_ISVTX) | mkdirat(dir, "sub/setgid", 02775);
    r |= fchmodat(dir, "sub/setgid", 02775, 0) | linkat(dir, "plain", dir, "sub/same", 0) |
         linkat(dir, "big", dir, "sub/big", 0);
    r |= linkat(dir, "fifo", dir, "sub/fifo", 0) | sample_file(dir, "sub/setgid/inner", "inner", 0600);
    if (attributes) {
        char attribute[PATH_MAX];
        str_format(attribute, sizeof(attribute), "%s/plain", path);
        r |= setxattr(attribute, "user.note", "a\0b", 3, 0) |
             setxattr(attribute, "system.posix_acl_access", sample_acl, sizeof(sample_acl), 0);
        str_format(attribute, sizeof(attribute), "%s/sub", path);
        r |= setxattr(attribute, "user.dir", "d", 1, 0) |
             setxattr(attribute, "system.posix_acl_default", sample_acl, sizeof(sample_acl), 0);
        if (root)
            r |= setxattr(attribute, "trusted.t", "t", 1, 0);
    }
    if (root) {
        r |= fchownat(dir, "empty", 1234, 5678, 0) | fchownat(dir, "link", 4321, 8765, AT_SYMLINK_NOFOLLOW);
        r |= fchownat(dir, "sub/setgid", 1, 2, 0) | fchmodat(dir, "sub/setgid", 02775, 0);
        r |= mknodat(dir, "device", S_IFCHR | 0600, makedev(1, 3));
    }
    r |= utimensat(dir, "plain", old, 0) | utimensat(dir, "link", old, AT_SYMLINK_NOFOLLOW) |
         utimensat(dir, "fifo", old, 0);
    r |= utimensat(dir, "sub/locked", old, 0) | utimensat(dir, "sub", old, 0);
    return r ? -1 : 0;
}

struct difference {
    char text[512];
};

static inline bool differ(struct difference *ret, const char *what, const char *a)
{
    str_format(ret->text, sizeof(ret->text), "%s differs: %.400s", what, a);
    return true;
}

static inline bool contents_differ(const char *a, const char *b)
{
    static char one[65536], two[65536];
    AUTO_FD int f = open(a, O_RDONLY | O_CLOEXEC), g = open(b, O_RDONLY | O_CLOEXEC);
    for (;;) {
        ssize_t n = f < 0 ? -1 : read(f, one, sizeof(one)), m = g < 0 ? -1 : read(g, two, sizeof(two));
        if (n != m || n < 0 || memcmp(one, two, (size_t)n) != 0)
            return true;
        if (n == 0)
            return false;
    }
}

static inline bool attributes_differ(const char *a, const char *b)
{
    char names[4096], others[4096], one[4096], two[4096];
    ssize_t n = llistxattr(a, names, sizeof(names)), m = llistxattr(b, others, sizeof(others));
    if (n != m)
        return true;
    for (const char *name = names; name < names + (n > 0 ? n : 0); name += strlen(name) + 1) {
        ssize_t k = lgetxattr(a, name, one, sizeof(one)), l = lgetxattr(b, name, two, sizeof(two));
        if (k < 0 || k != l || memcmp(one, two, (size_t)k) != 0)
            return true;
    }
    return false;
}

static inline bool links_differ(const char *a, const char *b)
{
    char one[PATH_MAX] = "", two[PATH_MAX] = "";
    return readlink(a, one, sizeof(one) - 1) < 0 || readlink(b, two, sizeof(two) - 1) < 0 || strcmp(one, two) != 0;
}

/* True, with the reason, when b is no faithful copy of a; `except` (a name, or NULL) is left out on the left. */
static inline bool trees_differ(const char *a, const char *b, const char *except, struct difference *ret)
{
    struct stat s, t;
    if (lstat(a, &s) < 0 || lstat(b, &t) < 0)
        return differ(ret, "existence", a);
    if (s.st_mode != t.st_mode || s.st_uid != t.st_uid || s.st_gid != t.st_gid)
        return differ(ret, "mode or owner", a);
    if (s.st_mtim.tv_sec != t.st_mtim.tv_sec || s.st_mtim.tv_nsec != t.st_mtim.tv_nsec)
        return differ(ret, "modification time", a);
    if (attributes_differ(a, b))
        return differ(ret, "extended attributes", a);
    if (S_ISLNK(s.st_mode))
        return links_differ(a, b) && differ(ret, "target", a);
    if (!S_ISDIR(s.st_mode) && (s.st_nlink != t.st_nlink || s.st_rdev != t.st_rdev || s.st_size != t.st_size))
        return differ(ret, "link count, device or size", a);
    if (S_ISREG(s.st_mode))
        return (contents_differ(a, b) && differ(ret, "content", a)) ||
               (s.st_blocks < t.st_size / 1024 && t.st_blocks > t.st_size / 1024 && differ(ret, "sparseness", a));
    if (!S_ISDIR(s.st_mode))
        return false;
    DIR *dir = opendir(a);
    size_t entries = 0, others = 0;
    bool bad = !dir;
    for (struct dirent *e; dir && !bad && (e = readdir(dir));) {
        if (str_eq(e->d_name, ".") || str_eq(e->d_name, "..") || str_eq(e->d_name, except))
            continue;
        char left[PATH_MAX], right[PATH_MAX];
        entries++;
        bad = !str_format(left, sizeof(left), "%s/%s", a, e->d_name) ||
              !str_format(right, sizeof(right), "%s/%s", b, e->d_name) || trees_differ(left, right, NULL, ret);
    }
    if (dir)
        closedir(dir);
    dir = bad ? NULL : opendir(b);
    for (struct dirent *e; dir && (e = readdir(dir));)
        others += !str_eq(e->d_name, ".") && !str_eq(e->d_name, "..");
    if (dir)
        closedir(dir);
    return bad || (entries != others && differ(ret, "number of entries", a));
}
