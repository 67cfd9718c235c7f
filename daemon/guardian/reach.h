#pragma once
/* Reaching a frozen file system again: by any mount of it that this process sees, or, when all are gone, by mounting
 * its device once more. A frozen superblock outlives its last umount. */
#include <jansson.h>

#include "base/err.h"

enum reach {
    REACH_OPEN,
    REACH_GONE /* nothing is mounted from that device any more: nothing is frozen */,
    REACH_FAILED
};

struct reached {
    int fd;
    char directory[4096]; /* of our own mount, or "" */
};

/* file_system: an entry of a record. scratch: directory in which a mount point may be made. */
enum reach reach_open(const json_t *file_system, const char *scratch, struct reached *ret, struct err *err);
/* Closes, and takes our own mount away. */
void reach_close(struct reached *reached);
