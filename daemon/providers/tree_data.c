#include "providers/tree_data.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

/* Between two looks at `cancelled`: a kernel that throttles whoever dirties pages takes seconds for a few MiB. */
enum { CHUNK = 1024 * 1024, BUFFER = 256 * 1024 };

int tree_data_clone(int from, int to)
{
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    int errnum = errno, flags = 0, own = 0;
    /* btrfs shares extents only between files that agree on copy-on-write; databases often sit in files without it. */
    if (errnum != EINVAL || ioctl(from, FS_IOC_GETFLAGS, &flags) < 0 || ioctl(to, FS_IOC_GETFLAGS, &own) < 0 ||
        (flags & FS_NOCOW_FL) == (own & FS_NOCOW_FL))
        return errnum;
    own = (own & ~FS_NOCOW_FL) | (flags & FS_NOCOW_FL);
    if (ioctl(to, FS_IOC_SETFLAGS, &own) < 0)
        return errno;
    return ioctl(to, FICLONE, from) < 0 ? errno : 0;
}

static int write_all(int to, const char *buffer, size_t length, off_t at)
{
    while (length) {
        ssize_t n = pwrite(to, buffer, length, at);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0) {
            buffer += n;
            length -= (size_t)n;
            at += n;
        }
    }
    return 0;
}

/* One piece by read and write: file systems that cannot copy in the kernel. ret_n 0: end of file. */
static int copy_piece_plain(int from, int to, off_t at, size_t length, size_t *ret_n)
{
    AUTO_FREE char *buffer = mem_new(BUFFER);
    ssize_t n;
    do
        n = pread(from, buffer, length < BUFFER ? length : BUFFER, at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno;
    *ret_n = (size_t)n;
    return write_all(to, buffer, (size_t)n, at);
}

static int copy_piece(int from, int to, off_t at, size_t length, size_t *ret_n)
{
    off_t in = at, out = at;
    ssize_t n = copy_file_range(from, &in, to, &out, length, 0);
    if (n > 0) {
        *ret_n = (size_t)n;
        return 0;
    }
    if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO))
        return errno;
    return copy_piece_plain(from, to, at, length, ret_n); /* also asks whether a 0 really is the end */
}

/* Copies [at, end). ret_at: how far the data reached (short when the file was truncated meanwhile). */
static int copy_extent(int from, int to, off_t end, off_t *at, bool (*cancelled)(void *arg), void *arg)
{
    while (*at < end) {
        if (cancelled && cancelled(arg))
            return ECANCELED;
        size_t n = 0, length = end - *at < CHUNK ? (size_t)(end - *at) : CHUNK;
        int r = copy_piece(from, to, *at, length, &n);
        if (r)
            return r;
        if (n == 0)
            return 0;
        *at += (off_t)n;
    }
    return 0;
}

int tree_data_copy(int from, int to, int64_t size, bool (*cancelled)(void *arg), void *arg)
{
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* nothing but a hole from here on */
            break;
        if (data < 0)
            data = at; /* the file system knows no holes: everything is data */
        off_t hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || hole > size)
            hole = size;
        at = data;
        int r = copy_extent(from, to, hole, &at, cancelled, arg);
        if (r)
            return r;
        if (at < hole) /* truncated while it was read */
            return ftruncate(to, at) < 0 ? errno : 0;
    }
    return ftruncate(to, size) < 0 ? errno : 0;
}
