/* A configuration file: it is read or refused with words and a line, never followed into anchors or depth; what passes
 * can be told without its secrets. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

static void check_words(const json_t *faults)
{
    size_t i;
    const json_t *fault;
    if (json_array_size(faults) == 0)
        fail("refused without words", "");
    json_array_foreach (faults, i, fault)
        if (json_string_length(fault) == 0)
            fail("a fault without words", "");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_JSON json_t *config = NULL, *faults = NULL;
    AUTO_FD int fd = memfd_create("f", MFD_CLOEXEC);
    AUTO_FREE char *path = str_new("/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        fail("memfd", "");
    if (conf_read(path, &config, &faults) < 0) {
        check_words(faults);
        return 0;
    }
    AUTO_JSON json_t *redacted = conf_redacted(config);
    if (!json_is_object(redacted))
        fail("no object", "");
    conf_place(config, "/var/lib/x");
    return 0;
}
