/* From needs and volumes to the set. */
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/planner_private.h"

const struct planner_volume *planner_chosen(const struct planner_input *input, const struct planner_plan *plan,
                                            size_t i)
{
    return &input->volumes[plan->volumes[i].volume];
}

bool planner_listed(const char *path, const char *const *roots, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (path_beneath(path, roots[i]))
            return true;
    return false;
}

static bool same_ground(const struct planner_volume *a, const struct planner_volume *b)
{
    return a->provider && b->provider && str_eq(a->provider, b->provider) && str_eq(a->superblock, b->superblock);
}

/* A frozen superblock is captured as a whole, by whatever mount it is named. */
static bool same_frozen(const struct planner_volume *a, const struct planner_volume *b)
{
    return same_ground(a, b) && a->freeze == PLANNER_FREEZE_WANTED && b->freeze == PLANNER_FREEZE_WANTED;
}

/* Is all of inner in outer's snapshot: beneath it, and no nested mount or subvolume between them? */
static bool covers(const struct planner_volume *outer, const struct planner_volume *inner)
{
    return same_ground(outer, inner) && path_beneath(inner->path, outer->path) &&
           !planner_listed(inner->path, outer->nested, outer->n_nested);
}

static size_t find_cover(const struct planner_input *input, size_t volume)
{
    size_t best = volume;
    for (size_t i = 0; i < input->n_needs; i++) {
        size_t other = input->needs[i].volume;
        if (same_frozen(&input->volumes[other], &input->volumes[best])) {
            best = other < best ? other : best;
            continue;
        }
        /* Equal paths cover each other: the first one stands for all. */
        if (covers(&input->volumes[other], &input->volumes[best]) &&
            (!str_eq(input->volumes[other].path, input->volumes[best].path) || other < best))
            best = other;
    }
    return best;
}

/* Each once: a component needs its volume for each of its file sets. */
static void name_need(char *reason, size_t size, const struct planner_need *need)
{
    static const char lead[] = "needed by ";
    size_t at = strlen(reason);
    AUTO_FREE char *name = need->component ? str_new("%s/%s", need->writer ? need->writer : "", need->component) : str_dup(need->path);
    size_t length = strlen(name);
    for (const char *told = at ? reason + strlen(lead) : NULL; told; told = strstr(told, ", ") ? strstr(told, ", ") + 2 : NULL)
        if (strncmp(told, name, length) == 0 && (told[length] == '\0' || str_starts(told + length, ", ")))
            return;
    str_format(reason + at, size - at, "%s%s", at ? ", " : lead, name);
}

static size_t choice_of(struct planner_plan *plan, size_t volume)
{
    for (size_t i = 0; i < plan->n_volumes; i++)
        if (plan->volumes[i].volume == volume)
            return i;
    plan->volumes[plan->n_volumes] = (struct planner_choice){.volume = volume};
    return plan->n_volumes++;
}

static void choose(const struct planner_input *input, struct planner_plan *plan)
{
    for (size_t i = 0; i < input->n_needs; i++) {
        const struct planner_need *need = &input->needs[i];
        plan->need_choice[i] = SIZE_MAX;
        if (!input->volumes[need->volume].provider)
            continue;
        size_t choice = choice_of(plan, find_cover(input, need->volume));
        plan->need_choice[i] = choice;
        name_need(plan->volumes[choice].reason, sizeof(plan->volumes[choice].reason), need);
    }
}

void planner_run(const struct planner_input *input, struct planner_plan *ret)
{
    *ret = (struct planner_plan){
        .volumes = mem_new((input->n_needs + 1) * sizeof(*ret->volumes)),
        .need_choice = mem_new((input->n_needs + 1) * sizeof(*ret->need_choice)),
        .freeze = mem_new((input->n_needs + 1) * sizeof(*ret->freeze)),
    };
    choose(input, ret);
    for (size_t i = 0; i < ret->n_volumes; i++)
        ret->budget_ms += planner_chosen(input, ret, i)->window_ms;
    planner_freeze_set(input, ret);
    planner_judge(input, ret);
}

void planner_plan_clear(struct planner_plan *plan)
{
    free(plan->volumes);
    free(plan->need_choice);
    free(plan->freeze);
    json_decref(plan->refusals);
    json_decref(plan->warnings);
    *plan = (struct planner_plan){0};
}

static json_t *frozen_to_json(const struct planner_frozen *frozen)
{
    json_t *ret = json_pack("{s:s, s:s, s:s, s:I, s:I}", "superblock", frozen->superblock, "mount_point",
                            frozen->mount_point, "fs_type", frozen->fs_type, "dirty_bytes",
                            (json_int_t)frozen->dirty_bytes, "freeze_ms", (json_int_t)frozen->freeze_ms);
    json_put(ret, "sync_ms", frozen->sync_ms < 0 ? json_null() : json_integer(frozen->sync_ms));
    return ret;
}

json_t *planner_plan_to_json(const struct planner_input *input, const struct planner_plan *plan)
{
    json_t *volumes = json_array(), *freeze = json_array();
    for (size_t i = 0; i < plan->n_volumes; i++) {
        const struct planner_volume *volume = &input->volumes[plan->volumes[i].volume];
        json_add(volumes, json_pack("{s:s, s:s, s:b, s:s}", "path", volume->path, "provider", volume->provider,
                                    "atomic", volume->atomic, "reason", plan->volumes[i].reason));
    }
    for (size_t i = 0; i < plan->n_freeze; i++)
        json_add(freeze, frozen_to_json(&plan->freeze[i]));
    return json_pack("{s:o, s:o, s:b, s:O, s:O, s:I, s:I}", "volumes", volumes, "freeze", freeze, "parked",
                     plan->parked, "refusals", plan->refusals, "warnings", plan->warnings, "budget_ms",
                     (json_int_t)plan->budget_ms, "limit_ms", (json_int_t)input->freeze_limit_ms);
}
