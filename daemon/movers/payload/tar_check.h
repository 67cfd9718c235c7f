#pragma once
/* Reads a tar stream and holds every entry against the manifest, and the manifest against it; what is wanted can be
 * written to a staging directory on the way. */
#include "movers/payload/stage.h"

/* Where the stream comes from. */
struct tar_input {
    /* Up to size bytes; *ret_n 0 = end. */
    int (*read)(void *arg, void *buffer, size_t size, size_t *ret_n, struct err *err);
    void *arg;
    bool zstd;
    bool ours;  /* written by our archive mover: metadata must equal too, and hard links are links */
    bool links; /* hard links are links all the same, and special files are there */
};

struct tar_check {
    const struct mover_host *host;
    struct manifest *manifest;
    struct stage *stage; /* NULL: only check */
    struct mover_progress progress;
    json_t *damaged; /* array of {"path","reason"}, at most TAR_DAMAGED_MAX of them */
};
enum { TAR_DAMAGED_MAX = 1000 };

/* check->manifest is borrowed; the caller drops check->damaged. A stream that cannot be read on is a
 * damage of the path at hand, not an error; errors are the disk's, the input's and the cancel. */
int tar_check_run(struct tar_check *check, const struct tar_input *input, struct err *err);
void tar_check_damage(struct tar_check *check, const char *path, const char *reason);
/* ERROR_FILE_CORRUPT that names the first damage; 0 when there is none. */
int tar_check_refuse(const struct tar_check *check, struct err *err);
