#include "model/consistency.h"

#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

static const char *const grade_names[] = {"none", "crash", "filesystem", "application"};

const char *consistency_grade_name(enum consistency_grade grade)
{
    return grade_names[grade];
}

bool consistency_point_by_name(const char *name, enum consistency_point *ret)
{
    static const struct {
        const char *name;
        enum consistency_point point;
    } rows[] = {{"hold", CONSISTENCY_HELD},
                {"snapshot", CONSISTENCY_AT_SNAPSHOT},
                {"thaw", CONSISTENCY_AT_THAW},
                {"later", CONSISTENCY_LATER}};
    for (size_t i = 0; name && i < ELEMENTS(rows); i++)
        if (str_eq(rows[i].name, name)) {
            *ret = rows[i].point;
            return true;
        }
    return false;
}

struct judging {
    const struct consistency_volume *volumes;
    const struct consistency_part *parts;
    size_t n;
    struct consistency_verdict *verdicts;
};

#define SAY(verdict, given, ...)                                                                                       \
    do {                                                                                                               \
        (verdict)->grade = (given);                                                                                    \
        str_format((verdict)->reason, sizeof((verdict)->reason), __VA_ARGS__);                                         \
    } while (0)

/* The first of its volumes, when all of them were captured at one instant; or NULL. */
static const struct consistency_volume *single_instant(const struct judging *judging,
                                                       const struct consistency_part *part)
{
    const struct consistency_volume *first = part->n_volumes ? &judging->volumes[part->volumes[0]] : NULL;
    if (!first || first->instant == CONSISTENCY_FILE_BY_FILE)
        return NULL;
    for (size_t i = 1; i < part->n_volumes; i++)
        if (judging->volumes[part->volumes[i]].instant != first->instant)
            return NULL;
    return first;
}

static bool all_flushed(const struct judging *judging, const struct consistency_part *part)
{
    for (size_t i = 0; i < part->n_volumes; i++)
        if (!judging->volumes[part->volumes[i]].flushed)
            return false;
    return true;
}

/* No writer vouches for it: what the snapshots alone give. */
static void judge_files(const struct judging *judging, const struct consistency_part *part,
                        struct consistency_verdict *ret)
{
    const struct consistency_volume *volume = single_instant(judging, part);
    const char *whose = part->component ? "its writer does not vouch for it; " : "";
    if (volume && all_flushed(judging, part))
        SAY(ret, CONSISTENCY_FILESYSTEM, "%severy file is as of one instant of %s", whose, volume->path);
    else if (volume)
        SAY(ret, CONSISTENCY_CRASH, "%severy file is as of one instant of %s, without what was not flushed", whose,
            volume->path);
    else if (part->n_volumes > 1)
        SAY(ret, CONSISTENCY_NONE, "%sits files lie on %zu volumes, which were captured one after the other", whose,
            part->n_volumes);
    else
        SAY(ret, CONSISTENCY_NONE, "%sits files were captured one after the other", whose);
}

static void judge_alone(const struct judging *judging, const struct consistency_part *part,
                        struct consistency_verdict *ret)
{
    static const char *const vouched[] = {
        [CONSISTENCY_HELD] = "its writer let nothing change from freeze to thaw",
        [CONSISTENCY_AT_THAW] = "its writer added its log up to a moment at which all held writers still held",
        [CONSISTENCY_LATER] = "its writer added its log up to a moment after the thaw",
    };
    const struct consistency_volume *volume = single_instant(judging, part);
    if (part->uncovered)
        SAY(ret, CONSISTENCY_NONE, "%s lies on no volume of the snapshot set", part->uncovered);
    else if (part->point == CONSISTENCY_UNATTENDED || (part->point == CONSISTENCY_AT_SNAPSHOT && !volume))
        judge_files(judging, part, ret);
    else if (part->point == CONSISTENCY_AT_SNAPSHOT)
        SAY(ret, CONSISTENCY_APPLICATION, "it recovers from its files as of one instant of %s", volume->path);
    else
        SAY(ret, CONSISTENCY_APPLICATION, "%s", vouched[part->point]);
}

/* --- together --- */

/* Parts with equal numbers show the same instant. A held one shows every instant of the window. */
enum { EVERY_INSTANT = -1, NO_INSTANT = -2 };

static int64_t instant(const struct judging *judging, size_t i)
{
    const struct consistency_part *part = &judging->parts[i];
    if (judging->verdicts[i].grade == CONSISTENCY_NONE)
        return NO_INSTANT;
    if (part->point == CONSISTENCY_HELD)
        return EVERY_INSTANT;
    if (part->point == CONSISTENCY_AT_THAW || part->point == CONSISTENCY_LATER)
        return INT64_MAX - (int64_t)i; /* its own: no volume has such a number */
    return judging->volumes[part->volumes[0]].instant;
}

static bool together(const struct judging *judging, size_t a, size_t b)
{
    int64_t at_a = instant(judging, a), at_b = instant(judging, b);
    if (at_a == NO_INSTANT || at_b == NO_INSTANT)
        return false;
    if (judging->parts[a].point == CONSISTENCY_LATER || judging->parts[b].point == CONSISTENCY_LATER)
        return a == b; /* the window is over: a hold does not reach so far */
    return at_a == EVERY_INSTANT || at_b == EVERY_INSTANT || at_a == at_b;
}

/* Of components at several instants, those that went on writing are the ones whose instant is their own. */
static void lower(struct judging *judging)
{
    AUTO_FREE size_t *with = mem_new((judging->n + 1) * sizeof(*with));
    for (size_t i = 0; i < judging->n; i++) {
        with[i] = SIZE_MAX;
        for (size_t j = 0; j < judging->n && with[i] == SIZE_MAX; j++)
            if (judging->parts[i].component && judging->parts[j].component &&
                judging->parts[i].point != CONSISTENCY_HELD && judging->verdicts[i].grade == CONSISTENCY_APPLICATION &&
                judging->verdicts[j].grade == CONSISTENCY_APPLICATION && !together(judging, i, j))
                with[i] = j;
    }
    for (size_t i = 0; i < judging->n; i++)
        if (with[i] != SIZE_MAX)
            SAY(&judging->verdicts[i], CONSISTENCY_CRASH, "by itself it is whole, but not at the same instant as %s",
                judging->parts[with[i]].name);
}

static void judge_whole(const struct judging *judging, struct consistency_whole *ret)
{
    *ret = (struct consistency_whole){.grade = judging->n ? CONSISTENCY_APPLICATION : CONSISTENCY_NONE,
                                      .one_instant = judging->n > 0};
    for (size_t i = 0; i < judging->n; i++) {
        if (judging->verdicts[i].grade < ret->grade)
            ret->grade = judging->verdicts[i].grade;
        for (size_t j = 0; j <= i; j++)
            ret->one_instant = ret->one_instant && together(judging, i, j);
    }
}

void consistency_judge(const struct consistency_volume *volumes, const struct consistency_part *parts, size_t n_parts,
                       struct consistency_verdict *ret_parts, struct consistency_whole *ret_whole)
{
    struct judging judging = {volumes, parts, n_parts, ret_parts};
    for (size_t i = 0; i < n_parts; i++)
        judge_alone(&judging, &parts[i], &ret_parts[i]);
    lower(&judging);
    judge_whole(&judging, ret_whole);
}
