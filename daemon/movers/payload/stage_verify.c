/* "verified" means this: every staged entry was read again and is what the manifest says. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/scan.h"
#include "movers/payload/stage.h"

enum { BLOCK = 256 * 1024, HOLE = 4096 };

static int differs(const struct manifest_entry *entry, const char *what, struct err *err)
{
    AUTO_FREE char *readable = manifest_readable(entry->path);
    return err_set(err, ERROR_FILE_CORRUPT, "The stored data is damaged: restore from another backup.",
                   "the restored %s: its %s is not what the manifest says", readable, what);
}

static bool all_zero(const char *bytes, size_t n)
{
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

/* A file system that has no holes refuses: then the file stays whole, which is no less right. */
static void dig_holes(int fd, const char *block, size_t n, off_t at)
{
    size_t from = 0;
    for (size_t i = 0; i + HOLE <= n; i += HOLE) {
        bool last = i + 2 * HOLE > n, zero = all_zero(block + i, HOLE);
        size_t end = zero ? i + HOLE : i;
        if ((!zero || last) && end > from)
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at + (off_t)from, (off_t)(end - from));
        if (!zero)
            from = i + HOLE;
    }
}

static int hash_content(struct stage *stage, int fd, bool dig, uint8_t ret_digest[HASH_SIZE], struct err *err)
{
    AUTO_FREE char *block = mem_new(BLOCK);
    struct hash *hash = hash_new();
    off_t at = 0;
    int result = 0;
    for (ssize_t n; !result && (n = read(fd, block, BLOCK)) != 0;) {
        if (n < 0) {
            result = payload_failed(errno, "read back", "a restored file", err);
        } else if (stage->host->cancelled(stage->host->arg)) {
            result = err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the restore was cancelled");
        } else {
            hash_update(hash, block, (size_t)n);
            if (dig)
                dig_holes(fd, block, (size_t)n, at);
            at += n;
        }
    }
    hash_final(hash, ret_digest);
    hash_free(hash);
    return result;
}

static int check_content(struct stage *stage, const struct manifest_entry *entry, const struct stat *st,
                         struct err *err)
{
    uint8_t digest[HASH_SIZE];
    bool dig = entry->sparse && st->st_blocks > 0 && (stage->half_sparse || (int64_t)st->st_blocks * 512 >= st->st_size);
    AUTO_FD int fd =
        stage_open_beneath(stage->fd, entry->path + 1, (dig ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && dig) {
        dig = false;
        fd = stage_open_beneath(stage->fd, entry->path + 1, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    }
    AUTO_FD int locked = fd < 0 ? stage_open_beneath(stage->fd, entry->path + 1, O_PATH | O_NOFOLLOW) : -1;
    if (fd < 0 && locked >= 0) { /* our own file, but its restored mode keeps even us (not root) from reading it */
        char self[64];
        str_format(self, sizeof(self), "/proc/self/fd/%d", locked);
        if (chmod(self, 0600) == 0)
            fd = open(self, O_RDONLY | O_CLOEXEC);
        chmod(self, entry->mode & 07777);
    }
    if (fd < 0)
        return payload_failed(errno, "read back", entry->path, err);
    if (hash_content(stage, fd, dig, digest, err))
        return -1;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry->mtime};
    if (dig && futimens(fd, times))
        return payload_failed(errno, "set the time of", entry->path, err);
    return memcmp(digest, entry->sha256, HASH_SIZE) == 0 ? 0 : differs(entry, "content", err);
}

static int check_links(const struct stage *stage, const struct manifest_entry *entry, int fd, const struct stat *st,
                       struct err *err)
{
    char link[PATH_MAX + 1];
    struct stat other;
    if (S_ISLNK(entry->mode)) {
        ssize_t n = readlinkat(fd, "", link, PATH_MAX);
        link[n < 0 ? 0 : n] = '\0';
        if (n < 0 || !str_eq(link, entry->link))
            return differs(entry, "link target", err);
    }
    if (!entry->hard_link)
        return 0;
    AUTO_FD int twin = stage_open_beneath(stage->fd, entry->hard_link + 1, O_PATH | O_NOFOLLOW);
    if (twin < 0 || fstat(twin, &other) || other.st_ino != st->st_ino)
        return differs(entry, "hard link", err);
    return 0;
}

static int check_entry(struct stage *stage, const struct manifest_entry *entry, struct err *err)
{
    AUTO_FD int fd = stage_open_beneath(stage->fd, entry->path + 1, O_PATH | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        return differs(entry, "presence", err);
    if ((st.st_mode & S_IFMT) != (entry->mode & S_IFMT))
        return differs(entry, "type", err);
    if (entry->parent)
        return 0;
    if (!S_ISLNK(entry->mode) && (st.st_mode & 07777) != (entry->mode & 07777))
        return differs(entry, "mode", err);
    if (S_ISREG(entry->mode) && st.st_size != entry->size)
        return differs(entry, "size", err);
    if (st.st_mtim.tv_sec != entry->mtime.tv_sec || st.st_mtim.tv_nsec != entry->mtime.tv_nsec)
        return differs(entry, "time", err);
    if (geteuid() == 0 && (st.st_uid != entry->uid || st.st_gid != entry->gid))
        return differs(entry, "owner", err);
    if (check_links(stage, entry, fd, &st, err))
        return -1;
    return S_ISREG(entry->mode) && !entry->hard_link ? check_content(stage, entry, &st, err) : 0;
}

static size_t count_tree(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    size_t n = 0;
    if (!list) {
        fd_cleanup(&fd);
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(list));) {
        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
            continue;
        AUTO_FD int child = entry->d_type == DT_REG
                                ? -1
                                : openat(dirfd(list), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        n += 1 + (child >= 0 ? count_tree(child) : 0);
    }
    closedir(list);
    return n;
}

int stage_verify(struct stage *stage, struct err *err)
{
    size_t expected = 0;
    for (size_t i = 0; i < stage->manifest->n; i++) {
        const struct manifest_entry *entry = &stage->manifest->entries[i];
        if ((!entry->wanted && !entry->helper) || str_eq(entry->path, "/"))
            continue;
        expected++;
        if (check_entry(stage, entry, err))
            return -1;
        if (stage->host->cancelled(stage->host->arg))
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the restore was cancelled");
        if (S_ISREG(entry->mode) && entry->wanted)
            stage->progress.files_done++;
        stage->host->progress(stage->host->arg, &stage->progress);
    }
    size_t staged = count_tree(stage->fd);
    if (staged > expected && geteuid() == 0) /* less cannot be: each one was looked at */
        return err_set(err, ERROR_FILE_CORRUPT, "The stored data is damaged: restore from another backup.",
                       "%zu entries were restored that the manifest does not name", staged - expected);
    return 0;
}
