/* From components, paths and volumes to the planner's input: the `plan` operation, and the same rules for sessions that
 * are driven verb by verb. */
#include "worker/plan.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/planner.h"
#include "model/selection.h"
#include "worker/context.h"
#include "worker/participation.h"
#include "worker/superblocks.h"
#include "worker/volumes.h"

/* While a plan is only shown, a disk that is slower than this has said enough. */
enum { SYNC_LIMIT_MS = 10000 };

struct planning {
    struct worker *worker;
    const json_t *args;
    const json_t *set; /* volumes of the session's set: whose providers count; NULL: the best provider of each path */
    struct planner_need *needs;
    struct volumes_fact *facts; /* must not move: the planner's volumes are views into them */
    size_t n_needs, n_facts, room;
};

static const struct hold_row {
    const char *name;
    enum planner_hold hold;
} holds[] = {{"writes", PLANNER_HOLD_WRITES}, {"log", PLANNER_HOLD_LOG}, {"none", PLANNER_HOLD_NONE}};

static enum planner_hold hold_of(const struct writer_entry *entry, const json_t *component)
{
    const json_t *raw =
        selection_component(entry->raw, json_str(component, "logical_path", ""), json_str(component, "name", ""));
    const char *name = json_str(raw, "hold", "writes");
    for (size_t i = 0; i < ELEMENTS(holds); i++)
        if (str_eq(holds[i].name, name))
            return holds[i].hold;
    return PLANNER_HOLD_WRITES;
}

/* The volume of the session's set in which path lies, the innermost one; NULL when there is none. */
static const json_t *set_volume(const json_t *set, const char *path)
{
    const json_t *best = NULL, *volume;
    size_t i;
    json_array_foreach(set, i, volume)
    {
        const char *at = json_str(volume, "volume", "");
        if (path_beneath(path, at) && (!best || strlen(at) > strlen(json_str(best, "volume", ""))))
            best = volume;
    }
    return best;
}

/* What is frozen is frozen at each of its mounts: one in the set whose file system holds the path under another name, or NULL. */
static const json_t *frozen_volume(const struct planning *planning, const char *path)
{
    const struct provider_environment env = worker_environment(planning->worker);
    const json_t *volume;
    size_t i;
    json_array_foreach(planning->set, i, volume)
    {
        const struct provider *provider = provider_by_name(json_str(volume, "provider", NULL)), *same = NULL;
        struct volume own, its;
        struct err ignored;
        if (provider && provider->outside && volumes_resolve(&env, json_str(volume, "volume", ""), provider->name, &own, &same, &ignored) == 0 &&
            volumes_resolve(&env, path, provider->name, &its, &same, &ignored) == 0 && str_eq(own.superblock, its.superblock))
            return volume;
    }
    return NULL;
}

static const json_t *volume_of_set(const struct planning *planning, const char *path)
{
    const json_t *volume = set_volume(planning->set, path);
    return volume ? volume : frozen_volume(planning, path);
}

static int need_volume(struct planning *planning, const char *path, size_t *ret, struct err *err)
{
    struct provider_environment env = worker_environment(planning->worker);
    struct volumes_fact *fact = &planning->facts[planning->n_facts];
    const char *provider = json_str(volume_of_set(planning, path), "provider", NULL);
    if (volumes_fact_init(&env, path, provider, fact, err) < 0)
        return -1;
    for (size_t i = 0; i < planning->n_facts; i++) {
        if (planning->facts[i].provider != fact->provider ||
            !str_eq(planning->facts[i].planner.path, fact->planner.path))
            continue;
        volumes_fact_clear(fact);
        memset(fact, 0, sizeof(*fact));
        *ret = i;
        return 0;
    }
    *ret = planning->n_facts++;
    return 0;
}

/* The requester adds the volumes of what it chose. One that it forgot can still be added: nobody has been told anything. */
static int volume_missing(const struct planner_need *need, struct err *err)
{
    if (need->component)
        err_set(err, VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT, "Add the volume with POST /sessions/{id}/snapshot-set/volumes, and prepare again.",
                "writer %s, component %s: %s lies on no volume of the snapshot set", need->writer, need->component, need->path);
    else
        err_set(err, VSS_E_OBJECT_NOT_FOUND, "Add the volume to the snapshot set.", "%s lies on no volume of the snapshot set", need->path);
    if (err)
        str_copy(err->reason, sizeof(err->reason), "volume-missing");
    return -1;
}

static int add_need(struct planning *planning, const struct planner_need *need, struct err *err)
{
    if (planning->set && !volume_of_set(planning, need->path))
        return volume_missing(need, err);
    if (planning->n_needs == planning->room)
        return err_set(err, E_OUTOFMEMORY, NULL, "the backup has more than %zu file sets", planning->room);
    struct planner_need *added = &planning->needs[planning->n_needs];
    *added = *need;
    if (need_volume(planning, need->path, &added->volume, err) < 0)
        return -1;
    planning->n_needs++;
    return 0;
}

static int count_file_set(void *arg, const struct participation_file_set *found, struct err *err)
{
    (void)found;
    (void)err;
    (*(size_t *)arg)++;
    return 0;
}

static int need_file_set(void *arg, const struct participation_file_set *found, struct err *err)
{
    struct planning *planning = arg;
    if (!selection_needs_snapshot(found->entry->metadata, found->set, participation_type(planning->worker)))
        return 0; /* copied as it lies there (vss-model 4.6) */
    const struct planner_need need = {
        .path = json_str(found->set, "alternate_path", json_str(found->set, "path", "")),
        .writer = found->entry->name,
        .component = json_str(found->component, "name", ""),
        .level = json_str(found->entry->metadata, "level", "front_end"),
        .hold = hold_of(found->entry, found->component),
    };
    return add_need(planning, &need, err);
}

/* The strings of args[key]; the array is the caller's. */
static const char **strings_of(const json_t *args, const char *key, size_t *ret_n)
{
    const json_t *items = json_object_get(args, key), *item;
    const char **ret = mem_new((json_array_size(items) + 1) * sizeof(*ret));
    size_t i;
    *ret_n = 0;
    json_array_foreach(items, i, item) if (json_is_string(item)) ret[(*ret_n)++] = json_string_value(item);
    return ret;
}

static const char **own_paths(const struct planning *planning, size_t *ret_n)
{
    const char **own = strings_of(planning->args, "own", ret_n);
    own = mem_resize(own, (*ret_n + 1) * sizeof(*own));
    if (planning->worker->staging[0])
        own[(*ret_n)++] = planning->worker->staging;
    return own;
}

/* Only what would be frozen is measured. */
static void measure(const struct planning *planning, struct superblocks *superblocks)
{
    for (size_t i = 0; i < planning->n_facts && !wait_look(&planning->worker->wait); i++)
        if (planning->facts[i].planner.freeze == PLANNER_FREEZE_WANTED)
            superblocks_measure(superblocks, planning->facts[i].planner.superblock, SYNC_LIMIT_MS);
}

/* The files at the volume's top that are all that is needed of it; NULL: more than that is. New reference. */
static json_t *files_needed(const struct planning *planning, size_t volume)
{
    const char *at = planning->facts[volume].planner.path;
    json_t *names = json_array();
    for (size_t i = 0; i < planning->n_needs; i++) {
        const struct planner_need *need = &planning->needs[i];
        if (!path_beneath(need->path, at))
            continue;
        AUTO_FREE char *name = volumes_name_in(at, need->path);
        if (need->volume != volume || need->component || !*name) {
            json_decref(names);
            return NULL;
        }
        json_add(names, json_text(name));
    }
    return names;
}

/* A backup asks for paths; what goes file by file need not take the whole directory of a file (snapshots.c does the same). */
static int narrow(struct planning *planning, struct err *err)
{
    struct provider_environment env = worker_environment(planning->worker);
    for (size_t i = 0; i < planning->n_facts; i++) {
        struct volumes_fact *fact = &planning->facts[i];
        json_t *names = fact->provider && fact->provider->by_file ? files_needed(planning, i) : NULL;
        if (names && volumes_fact_narrow(&env, names, fact, err) < 0)
            return -1;
    }
    return 0;
}

/* What is taken outside is not copied by us (copy.c), so that it cannot come to lie in itself. */
static bool carries(const struct planning *planning)
{
    bool outside = planning->n_facts > 0;
    for (size_t i = 0; i < planning->n_facts; i++)
        outside = outside && planning->facts[i].provider && planning->facts[i].provider->outside;
    return !outside;
}

/* Calls done with the input and the plan made of it, while both live. */
static int judge(struct planning *planning, bool measured,
                 int (*done)(void *arg, const struct planner_input *input, const struct planner_plan *plan,
                             struct err *err),
                 void *arg, struct err *err)
{
    struct worker *worker = planning->worker;
    struct superblocks superblocks;
    if (superblocks_read(&superblocks, err) < 0)
        return -1;
    if (measured)
        measure(planning, &superblocks);
    AUTO_FREE struct planner_volume *volumes = mem_new((planning->n_facts + 1) * sizeof(*volumes));
    for (size_t i = 0; i < planning->n_facts; i++)
        volumes[i] = planning->facts[i].planner;
    struct planner_input input = {
        .needs = planning->needs,
        .n_needs = planning->n_needs,
        .volumes = volumes,
        .n_volumes = planning->n_facts,
        .superblocks = superblocks.items,
        .n_superblocks = superblocks.n,
        .freeze_limit_ms = worker_limit_ms(worker, "freeze_seconds", 60),
    };
    AUTO_FREE const char **repositories = strings_of(planning->args, "repositories", &input.n_repositories);
    AUTO_FREE const char **excludes = strings_of(planning->args, "excludes", &input.n_excludes);
    AUTO_FREE const char **stores = strings_of(planning->args, "stores", &input.n_stores);
    AUTO_FREE const char **own = own_paths(planning, &input.n_own);
    input.repositories = repositories;
    if (!carries(planning))
        input.n_repositories = 0;
    input.excludes = excludes;
    input.stores = stores;
    input.own = own;
    struct planner_plan plan = {0};
    planner_run(&input, &plan);
    int result = done(arg, &input, &plan, err);
    planner_plan_clear(&plan);
    superblocks_clear(&superblocks);
    return result;
}

static int collect(struct planning *planning, const json_t *args, struct err *err)
{
    const json_t *components = json_object_get(args, "components");
    size_t i;
    const json_t *path;
    if (participation_file_sets(planning->worker, components ? components : planning->worker->components, need_file_set,
                                planning, err) < 0)
        return -1;
    json_array_foreach(json_object_get(args, "paths"), i, path)
    {
        const struct planner_need need = {.path = json_string_value(path) ? json_string_value(path) : "",
                                          .hold = PLANNER_HOLD_WRITES};
        if (add_need(planning, &need, err) < 0)
            return -1;
    }
    return 0;
}

static void planning_clear(struct planning *planning)
{
    for (size_t i = 0; i < planning->n_facts; i++)
        volumes_fact_clear(&planning->facts[i]);
    free(planning->needs);
    free(planning->facts);
}

/* extra: needs beyond the components' and paths of args. */
static void planning_init(struct planning *planning, struct worker *worker, const json_t *args, size_t extra)
{
    *planning = (struct planning){
        .worker = worker, .args = args, .room = json_array_size(json_object_get(args, "paths")) + extra};
    const json_t *components = json_object_get(args, "components");
    participation_file_sets(worker, components ? components : worker->components, count_file_set, &planning->room,
                            NULL);
    planning->needs = mem_new((planning->room + 1) * sizeof(*planning->needs));
    planning->facts = mem_new((planning->room + 1) * sizeof(*planning->facts));
}

static int show(void *arg, const struct planner_input *input, const struct planner_plan *plan, struct err *err)
{
    AUTO_JSON json_t *answer = planner_plan_to_json(input, plan);
    (void)err;
    return json_object_update(arg, answer);
}

int operation_plan(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct planning planning;
    const char *type = json_str(args, "type", NULL);
    if (type) { /* before PrepareForBackup, which says it again */
        json_decref(worker->backup_state);
        worker->backup_state = json_pack("{s:s}", "type", type);
    }
    planning_init(&planning, worker, args, 0);
    int failed = collect(&planning, args, err) < 0 || narrow(&planning, err) < 0 || judge(&planning, true, show, result, err) < 0;
    planning_clear(&planning);
    return failed ? -1 : 0;
}

/* --- sessions verb by verb --- */

static int refuse(const json_t *refusal, struct err *err)
{
    uint32_t code = (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED;
    hresult_by_name(json_str(refusal, "hresult", ""), &code);
    err_set(err, code, json_str(refusal, "hint", NULL), "%s: %s", json_str(refusal, "rule", "?"),
            json_str(refusal, "detail", ""));
    str_copy(err->reason, sizeof(err->reason), json_str(refusal, "rule", ""));
    return -1;
}

static int refuse_first(void *arg, const struct planner_input *input, const struct planner_plan *plan, struct err *err)
{
    (void)arg;
    (void)input;
    return json_array_size(plan->refusals) ? refuse(json_array_get(plan->refusals, 0), err) : 0;
}

int plan_check_set(struct worker *worker, const json_t *args, struct err *err)
{
    struct planning planning;
    AUTO_JSON json_t *none = json_array();
    const json_t *volumes = json_object_get(args, "volumes");
    planning_init(&planning, worker, args, 0);
    planning.set = volumes ? volumes : none;
    int failed = collect(&planning, args, err) < 0 || (json_bool(args, "only_paths", false) && narrow(&planning, err) < 0) ||
                 (json_array_size(volumes) > 0 && judge(&planning, false, refuse_first, NULL, err) < 0);
    planning_clear(&planning);
    return failed ? -1 : 0;
}

/* The set with the new volume, which is its last need. Nested volumes may still be added: they are judged in prepare.
 */
static int judge_addition(void *arg, const struct planner_input *input, const struct planner_plan *plan,
                          struct err *err)
{
    (void)arg;
    size_t i;
    const json_t *refusal;
    json_array_foreach(plan->refusals, i, refusal) if (!str_eq(json_str(refusal, "rule", ""),
                                                               "nested-volume-missing")) return refuse(refusal, err);
    size_t last = input->n_needs - 1;
    for (size_t k = 0; k < last; k++)
        if (plan->need_choice[k] == plan->need_choice[last])
            return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, "One snapshot holds both: add the outer path alone.",
                           "%s: what it lies on is in the set already, for %s", input->needs[last].path,
                           input->needs[k].path);
    return 0;
}

static int need_of_set(struct planning *planning, const char *path, const char *provider, struct err *err)
{
    struct provider_environment env = worker_environment(planning->worker);
    struct volumes_fact *fact = &planning->facts[planning->n_facts];
    if (volumes_fact_init(&env, path, provider, fact, err) < 0)
        return -1;
    planning->needs[planning->n_needs++] =
        (struct planner_need){.path = fact->volume.requested, .volume = planning->n_facts++};
    return 0;
}

int plan_check_addition(struct worker *worker, const json_t *args, const char *provider, struct err *err)
{
    struct planning planning;
    const json_t *set = json_object_get(args, "volumes"), *volume;
    size_t i;
    int failed = 0;
    planning_init(&planning, worker, args, json_array_size(set) + 1);
    json_array_foreach(set, i, volume) if (!failed) failed =
        need_of_set(&planning, json_str(volume, "requested", ""), json_str(volume, "provider", NULL), err);
    failed = failed || need_of_set(&planning, json_str(args, "path", ""), provider, err) < 0 ||
             judge(&planning, false, judge_addition, NULL, err) < 0;
    planning_clear(&planning);
    return failed ? -1 : 0;
}
