#include "movers/read_out/read_out.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <locale.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/str.h"
#include "movers/payload/scan.h"
#include "movers/payload/tar_entry.h"
#include "movers/read_out/output.h"

enum {
    BLOCK = 128 * 1024,
    SPLICE_FROM = 32 * 1024, /* smaller files are gathered with their heads: fewer, larger writes */
    TAR_BLOCK = 512,
    LOOK_EVERY = 64,
};

struct reader {
    const struct read_out *request;
    struct archive *tar, *disk;
    struct output *output;
    bool muted;   /* libarchive fills up an entry whose data did not go through it: that goes nowhere */
    void *inodes; /* tsearch tree: the first name of every file with several */
    dev_t device;
    char path[PATH_MAX];
    char *block;
    int64_t files, bytes;
    unsigned looks;
};

struct inode {
    ino_t ino;
    char *path;
};

static int compare_inode(const void *a, const void *b)
{
    const struct inode *x = a, *y = b;
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void free_inode(void *arg)
{
    struct inode *inode = arg;
    free(inode->path);
    free(inode);
}

/* --- the output --- */

static la_ssize_t on_write(struct archive *tar, void *arg, const void *bytes, size_t size)
{
    struct reader *reader = arg;
    (void)tar;
    if (!reader->muted)
        output_put(reader->output, bytes, size); /* its failure stays, and is asked for: libarchive leaks when it is told */
    return (la_ssize_t)size;
}

static int failed(struct reader *reader, int errnum, struct err *err)
{
    if (errnum == ECANCELED || errnum == EPIPE)
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "nobody reads the archive any more");
    if (errnum)
        return err_errno(err, VSS_E_UNEXPECTED, errnum, NULL, "cannot write the archive");
    return err_set(err, VSS_E_UNEXPECTED, NULL, "cannot archive %.300s: %s", reader->path, archive_error_string(reader->tar));
}

static int changed(const struct reader *reader, struct err *err)
{
    return err_set(err, VSS_E_UNEXPECTED, NULL, "%.300s changed while it was read", reader->path);
}

/* --- content --- */

static int put_data(struct reader *reader, const void *bytes, size_t size, struct err *err)
{
    int errnum = output_error(reader->output);
    return !errnum && archive_write_data(reader->tar, bytes, size) == (la_ssize_t)size ? 0 : failed(reader, errnum, err);
}

/* The hole before the data at `to`, for libarchive's count of bytes. */
static int put_zeros(struct reader *reader, int64_t n, struct err *err)
{
    memset(reader->block, 0, BLOCK);
    for (int64_t size; n > 0; n -= size) {
        size = n < BLOCK ? n : BLOCK;
        if (put_data(reader, reader->block, (size_t)size, err))
            return -1;
    }
    return 0;
}

/* Through libarchive, which leaves the holes out; they are not read. */
static int copy_content(struct reader *reader, int fd, int64_t size, bool sparse, struct err *err)
{
    int64_t at = 0;
    while (at < size) {
        off_t data = sparse ? lseek(fd, at, SEEK_DATA) : at;
        if (data < 0 && errno != ENXIO)
            return payload_failed(errno, "read", reader->path, err);
        int64_t begin = data < 0 || data > size ? size : data;
        if (begin > at && put_zeros(reader, begin - at, err))
            return -1;
        at = begin;
        ssize_t n = at < size ? pread(fd, reader->block, size - at < BLOCK ? (size_t)(size - at) : BLOCK, at) : 0;
        if (n < 0 && errno != EINTR)
            return payload_failed(errno, "read", reader->path, err);
        if (n == 0 && at < size)
            return changed(reader, err);
        if (n > 0 && put_data(reader, reader->block, (size_t)n, err))
            return -1;
        at += n > 0 ? n : 0;
    }
    return 0;
}

/* Past libarchive, which has written the head and believes that it fills the rest up itself. */
static int splice_content(struct reader *reader, int fd, int64_t size, struct err *err)
{
    static const char zeros[TAR_BLOCK];
    bool is_short = false;
    int errnum = output_file(reader->output, fd, size, &is_short);
    if (!errnum && is_short)
        return changed(reader, err);
    if (!errnum && size % TAR_BLOCK)
        errnum = output_put(reader->output, zeros, (size_t)(TAR_BLOCK - size % TAR_BLOCK));
    reader->muted = true;
    int finished = archive_write_finish_entry(reader->tar);
    reader->muted = false;
    return !errnum && finished >= ARCHIVE_WARN ? 0 : failed(reader, errnum, err);
}

static int put_content(struct reader *reader, int fd, const struct stat *st, bool sparse, struct err *err)
{
    reader->bytes += st->st_size;
    if (!sparse && !reader->request->zstd && st->st_size >= SPLICE_FROM)
        return splice_content(reader, fd, st->st_size, err);
    return copy_content(reader, fd, st->st_size, sparse, err);
}

/* --- one entry --- */

static const char *first_name(struct reader *reader, const struct stat *st)
{
    struct inode key = {.ino = st->st_ino};
    if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
        return NULL;
    struct inode *const *found = tfind(&key, &reader->inodes, compare_inode);
    if (found)
        return (*found)->path;
    struct inode *fresh = mem_new(sizeof(*fresh));
    *fresh = (struct inode){.ino = st->st_ino, .path = str_dup(reader->path)};
    tsearch(fresh, &reader->inodes, compare_inode);
    return NULL;
}

static int put_head(struct reader *reader, const struct tar_source *source, struct err *err)
{
    struct archive_entry *entry = archive_entry_new();
    int result = tar_entry_fill(reader->disk, entry, source, err);
    if (!result && archive_write_header(reader->tar, entry) < ARCHIVE_WARN)
        result = failed(reader, output_error(reader->output), err);
    archive_entry_free(entry);
    return result;
}

static int put_entry(struct reader *reader, int dir, const char *name, int fd, const struct stat *st, struct err *err)
{
    char at[NAME_MAX + 64], link[PATH_MAX + 1] = "";
    const char *first = first_name(reader, st);
    ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(fd, "", link, PATH_MAX) : 0;
    if (n < 0)
        return payload_failed(errno, "read the link", reader->path, err);
    link[n] = '\0';
    str_format(at, sizeof(at), "/proc/self/fd/%d/%s", dir, name);
    const struct tar_source source = {.path = reader->path, .link = S_ISLNK(st->st_mode) ? link : NULL, .hard_link = first,
                                      .sparse = S_ISREG(st->st_mode) && (int64_t)st->st_blocks * 512 < st->st_size, .fd = fd,
                                      .readable_at = at, .stat = st};
    if (put_head(reader, &source, err))
        return -1;
    reader->files += S_ISREG(st->st_mode);
    return S_ISREG(st->st_mode) && !first ? put_content(reader, fd, st, source.sparse, err) : 0;
}

static int walk(struct reader *reader, int fd, size_t length, struct err *err);

static int open_entry(int dir, const char *name, mode_t mode)
{
    int flags = S_ISREG(mode) ? O_RDONLY | O_NONBLOCK | O_NOCTTY : S_ISDIR(mode) ? O_RDONLY | O_DIRECTORY : O_PATH;
    return openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC);
}

/* reader->path is the entry's. */
static int visit(struct reader *reader, int dir, const char *name, struct err *err)
{
    struct stat seen, st;
    if (fstatat(dir, name, &seen, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
        return payload_failed(errno, "look at", reader->path, err);
    if (S_ISSOCK(seen.st_mode)) /* belongs to a running process: nothing to bring back */
        return 0;
    AUTO_FD int fd = open_entry(dir, name, seen.st_mode);
    if (fd < 0 || fstat(fd, &st))
        return payload_failed(errno, "open", reader->path, err);
    if (st.st_ino != seen.st_ino || (st.st_mode & S_IFMT) != (seen.st_mode & S_IFMT))
        return changed(reader, err);
    if (fault("mover.read_out"))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "%.300s: fault injected", reader->path);
    if (reader->looks++ % LOOK_EVERY == 0 && output_cancelled(reader->output))
        return failed(reader, ECANCELED, err);
    if (put_entry(reader, dir, name, fd, &st, err))
        return -1;
    return S_ISDIR(st.st_mode) && st.st_dev == reader->device ? walk(reader, fd, strlen(reader->path), err) : 0;
}

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* Everything in the directory whose path, of this length, is in reader->path. As deep as paths can be: PATH_MAX bounds it. */
static int walk(struct reader *reader, int fd, size_t length, struct err *err)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closedir_cleanup) DIR *dir = own < 0 ? NULL : fdopendir(own);
    if (!dir) {
        payload_failed(errno, "read", reader->path, err);
        fd_cleanup(&own);
        return -1;
    }
    size_t above = length == 1 ? 0 : length; /* "/" */
    for (struct dirent *found; errno = 0, (found = readdir(dir));) {
        if (str_eq(found->d_name, ".") || str_eq(found->d_name, ".."))
            continue;
        if (above + 1 + strlen(found->d_name) >= sizeof(reader->path))
            return payload_failed(ENAMETOOLONG, "read", reader->path, err);
        str_format(reader->path + above, sizeof(reader->path) - above, "/%s", found->d_name);
        if (visit(reader, dirfd(dir), found->d_name, err))
            return -1;
    }
    reader->path[length] = '\0';
    return errno ? payload_failed(errno, "read", reader->path, err) : 0;
}

/* The directory that the path's last part is in, beneath the tree. */
static int open_above(const struct read_out *request, struct err *err)
{
    AUTO_FREE char *above = str_dup(request->path + 1);
    char *slash = strrchr(above, '/');
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    if (slash)
        *slash = '\0';
    int fd = (int)syscall(SYS_openat2, request->tree, slash ? above : ".", &how, sizeof(how));
    if (fd < 0)
        payload_failed(errno, "open", request->path, err);
    return fd;
}

static int begin(struct reader *reader, struct err *err)
{
    const struct read_out *request = reader->request;
    struct stat st;
    if (!path_is_canonical(request->path) && !str_eq(request->path, "/"))
        return err_invalid(err, "?path", "is not canonical");
    str_copy(reader->path, sizeof(reader->path), request->path);
    AUTO_FD int dir = open_above(request, err);
    if (dir < 0)
        return -1;
    if (fstat(dir, &st))
        return payload_failed(errno, "look at", request->path, err);
    reader->device = st.st_dev;
    const char *name = request->path[1] ? strrchr(request->path, '/') + 1 : ".";
    return visit(reader, dir, name, err);
}

static bool set_up(struct reader *reader)
{
    struct archive *tar = reader->tar;
    if (reader->request->zstd && archive_write_add_filter_zstd(tar) < ARCHIVE_WARN)
        return false;
    if (archive_write_set_format_pax(tar) < ARCHIVE_WARN)
        return false;
    if (reader->request->zstd) { /* as the archive mover does */
        archive_write_set_filter_option(tar, "zstd", "threads", "1");
        archive_write_set_filter_option(tar, "zstd", "compression-level", "1");
    } else { /* a head goes out before its data */
        archive_write_set_bytes_per_block(tar, 0);
    }
    /* Each name as UTF-8 when it is that, else, by a header of its own, as bytes; attributes as GNU tar knows them. */
    return setlocale(LC_CTYPE, "C.UTF-8") && archive_write_set_format_option(tar, "pax", "xattrheader", "SCHILY") >= ARCHIVE_WARN &&
           archive_write_set_bytes_in_last_block(tar, 1) == ARCHIVE_OK &&
           archive_write_open(tar, reader, NULL, on_write, NULL) == ARCHIVE_OK;
}

static int run(struct reader *reader, json_t **ret_result, struct err *err)
{
    if (!set_up(reader) || begin(reader, err))
        return err->hr ? -1 : failed(reader, 0, err);
    if (archive_write_close(reader->tar) != ARCHIVE_OK)
        return failed(reader, output_error(reader->output), err);
    int errnum = output_flush(reader->output);
    if (errnum)
        return failed(reader, errnum, err);
    *ret_result = json_pack("{s:I, s:I}", "files", (json_int_t)reader->files, "bytes", (json_int_t)reader->bytes);
    return 0;
}

int read_out_run(const struct read_out *request, json_t **ret_result, struct err *err)
{
    struct reader reader = {.request = request, .tar = archive_write_new(), .disk = tar_disk_new(), .block = mem_new(BLOCK),
                            .output = output_new(request->pipe, request->cancel)};
    struct err cause = {0};
    int result = run(&reader, ret_result, &cause);
    if (result && err)
        *err = cause;
    reader.muted = true; /* what libarchive still has to say of an archive that broke off */
    archive_write_free(reader.tar);
    archive_read_free(reader.disk);
    tdestroy(reader.inodes, free_inode);
    output_free(reader.output);
    free(reader.block);
    return result;
}
