#pragma once
/* What may be believed of each part of a backup, and of the parts together (docs/consistency.md). Pure: no I/O, no
 * clock. Inputs are borrowed for the call. */
#include <stdbool.h>
#include <stddef.h>

/* From weak to strong; each grade holds what the weaker ones promise. */
enum consistency_grade {
    CONSISTENCY_NONE,        /* captured at several instants, and nobody vouches for the whole */
    CONSISTENCY_CRASH,       /* as of one instant, like after a power cut; not at the others' instant */
    CONSISTENCY_FILESYSTEM,  /* as of one instant, with everything written before the freeze, flushed or not */
    CONSISTENCY_APPLICATION, /* its writer vouches for it, at the one instant of all parts of this grade */
};

/* The moment that a part shows after its restore. */
enum consistency_point {
    CONSISTENCY_AT_SNAPSHOT, /* its writer goes on writing, and recovers from its files as of one instant */
    CONSISTENCY_HELD,        /* its writer let nothing change from Freeze to Thaw: every instant of the window is it */
    CONSISTENCY_AT_THAW, /* its writer goes on writing, and adds the log up to its answer to Thaw, which it gives while
                            all who hold still hold */
    CONSISTENCY_LATER,   /* the same, but up to some moment after that */
    CONSISTENCY_UNATTENDED, /* a plain path, or its writer failed: the files as they lay */
};

enum { CONSISTENCY_FILE_BY_FILE = -1 };

struct consistency_volume {
    const char *path;
    int instant;  /* equal numbers: captured at the same instant; or CONSISTENCY_FILE_BY_FILE */
    bool flushed; /* what was written before the window began is in it, fsynced or not */
};

struct consistency_part {
    const char *name; /* for people: "pg-main/main", or the path */
    bool component;   /* false: a plain path */
    enum consistency_point point;
    const size_t *volumes; /* each volume that holds files of it, once */
    size_t n_volumes;
    const char *uncovered; /* a path of it that lies on no volume of the set, or NULL */
};

struct consistency_verdict {
    enum consistency_grade grade;
    char reason[512]; /* why, for people */
};

struct consistency_whole {
    enum consistency_grade grade; /* the lowest of all parts */
    bool one_instant; /* every part shows the same instant: what was written in an order is found in that order */
};

/* ret_parts: n_parts verdicts. No part at all is CONSISTENCY_NONE. */
void consistency_judge(const struct consistency_volume *volumes, const struct consistency_part *parts, size_t n_parts,
                       struct consistency_verdict *ret_parts, struct consistency_whole *ret_whole);
/* "none", "crash", "filesystem", "application". Static. */
const char *consistency_grade_name(enum consistency_grade grade);
/* A writer's word for its point ("hold", "snapshot", "thaw", "later"); false when it is none of them. */
bool consistency_point_by_name(const char *name, enum consistency_point *ret);
