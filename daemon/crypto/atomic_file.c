#include "crypto/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { FILE_SIZE_MAX = 1024 * 1024 };

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int sync_directory_of(const char *path)
{
    char directory[PATH_MAX];
    char *slash;

    str_copy(directory, sizeof(directory), path);
    slash = strrchr(directory, '/');
    if (slash == directory)
        slash[1] = '\0';
    else if (slash)
        *slash = '\0';
    else
        str_copy(directory, sizeof(directory), ".");
    AUTO_FD int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int atomic_file_write(const char *path, mode_t mode, const void *data, size_t size, struct err *err)
{
    char temporary[PATH_MAX];

    if (!str_format(temporary, sizeof(temporary), "%s.%ld.new", path, (long)getpid()))
        return err_set(err, E_INVALIDARG, "Use a shorter path.", "%s: path too long", path);
    unlink(temporary);
    AUTO_FD int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot create %s", temporary);
    if (fchmod(fd, mode) != 0 || write_all(fd, data, size) != 0 || fsync(fd) != 0 || rename(temporary, path) != 0 ||
        sync_directory_of(path) != 0) {
        int saved = errno;
        unlink(temporary);
        return err_errno(err, VSS_E_UNEXPECTED, saved, NULL, "cannot write %s", path);
    }
    return 0;
}

int atomic_file_read(const char *path, char **ret_text, size_t *ret_size, struct err *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t size = 0;

    if (fd < 0 && errno == ENOENT)
        return 1;
    if (fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot open %s", path);
    AUTO_FREE char *text = mem_new(FILE_SIZE_MAX + 2);
    while (size <= FILE_SIZE_MAX) {
        ssize_t n = read(fd, text + size, FILE_SIZE_MAX + 1 - size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read %s", path);
        if (n == 0)
            break;
        size += (size_t)n;
    }
    if (size > FILE_SIZE_MAX)
        return err_set(err, E_INVALIDARG, NULL, "%s: larger than 1 MiB", path);
    text[size] = '\0';
    *ret_text = TAKE_PTR(text);
    if (ret_size)
        *ret_size = size;
    return 0;
}
