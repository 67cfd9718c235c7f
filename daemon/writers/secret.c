#include "writers/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

int secret_read(const char *path, char *ret, size_t size, struct err *err)
{
    ret[0] = '\0';
    if (!path)
        return 0;
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size);
    if (n < 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "The writer's user must be able to read it.",
                         "password_file %s", path);
    const char *end = memchr(ret, '\n', (size_t)n);
    size_t length = end ? (size_t)(end - ret) : (size_t)n;
    bool fits = length > 0 && length < size;
    ret[fits ? length : 0] = '\0';
    return fits ? 0
                : err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Write the password on the file's first line.",
                          "password_file %s: its first line is empty or longer than %zu bytes", path, size - 1);
}
