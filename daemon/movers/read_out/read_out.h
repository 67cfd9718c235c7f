#pragma once
/* Reads a part of a snapshot out as tar, in the order in which the directories list it: nothing but names of files with several links is
 * kept. No symbolic link is followed, no other mount or subvolume entered (its directory is there, empty), sockets are left out, and what
 * is listed and then cannot be read fails the whole: an archive is never silently short. */
#include <jansson.h>

#include "base/err.h"

struct read_out {
    int tree;           /* the snapshot's top */
    const char *path;   /* below it: "/", "/a/b" */
    bool zstd;
    int pipe, cancel;   /* read_out/output.h */
};

/* ret_result: {"files","bytes"}. VSS_S_ASYNC_CANCELLED, also when nobody reads on. */
int read_out_run(const struct read_out *request, json_t **ret_result, struct err *err);
