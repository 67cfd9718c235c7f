#pragma once
/* Thaws what the intent records list, whoever wrote them and however it ended: `quiesced thaw-all`, and the first thing
 * that `quiesced serve` does. Never touches a freeze that no record marks as ours. */
#include <stdbool.h>

struct thaw_all {
    const char *records;      /* directory; a missing one holds nothing */
    const char *installation; /* NULL: of every state directory */
    bool orphans;             /* only where the agent that answers for it is gone (also when its number is another process's now): the
                               * others are in good hands. --abandoned */
    /* A line per file system: "/srv (7:0, ext4): thawed". failed: it is still frozen, or that cannot be known. */
    void (*tell)(void *arg, bool failed, const char *line);
    void *arg;
};

/* Returns how many file systems and records could not be settled. Idempotent. */
unsigned thaw_all(const struct thaw_all *options);
/* The same for one record, path. May wait for ever, where the disk does. */
unsigned thaw_one(const struct thaw_all *options, const char *path);
int thaw_all_main(int argc, char **argv);
