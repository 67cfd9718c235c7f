#include "base/fault.h"

#ifdef QUIESCED_FAULTS
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

bool fault(const char *name)
{
    const char *directory = getenv("QUIESCED_FAULT_DIR");
    char path[PATH_MAX];
    if (!directory || !str_format(path, sizeof(path), "%s/%s", directory, name))
        return false;
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char content[8] = "";
    ssize_t length = read(fd, content, sizeof(content) - 1);
    if (length >= 4 && strncmp(content, "once", 4) == 0)
        return unlink(path) == 0; /* of two that hit at the same moment only one removes it */
    return true;
}
#else
/* A translation unit may not be empty. */
typedef int fault_points_are_compiled_out;
#endif
