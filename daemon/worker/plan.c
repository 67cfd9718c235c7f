/* The `plan` operation: from components and paths to the planner's input, and its answer. */
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/planner.h"
#include "model/selection.h"
#include "worker/context.h"
#include "worker/participation.h"
#include "worker/volumes.h"

struct planning {
    struct worker *worker;
    struct planner_need *needs;
    struct volumes_fact *facts; /* must not move: the planner's volumes are views into them */
    size_t n_needs, n_facts, room;
    bool failed;
};

static const struct hold_row {
    const char *name;
    enum planner_hold hold;
} holds[] = {{"writes", PLANNER_HOLD_WRITES}, {"log", PLANNER_HOLD_LOG}, {"none", PLANNER_HOLD_NONE}};

/* PostgreSQL goes on writing while it is "frozen"; its log repairs the skew. The others hold still. */
static enum planner_hold hold_of(const struct writer_entry *entry, const json_t *component)
{
    const json_t *raw =
        selection_component(entry->raw, json_str(component, "logical_path", ""), json_str(component, "name", ""));
    const char *fallback = str_eq(json_str(entry->configuration, "type", ""), "postgresql") ? "log" : "writes";
    const char *name = json_str(raw, "hold", fallback);
    for (size_t i = 0; i < ELEMENTS(holds); i++)
        if (str_eq(holds[i].name, name))
            return holds[i].hold;
    return PLANNER_HOLD_WRITES;
}

static int need_volume(struct planning *planning, const char *path, size_t *ret, struct err *err)
{
    struct provider_environment env = worker_environment(planning->worker);
    struct volumes_fact *fact = &planning->facts[planning->n_facts];
    if (volumes_fact_init(&env, path, NULL, fact, err) < 0)
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

static int add_need(struct planning *planning, const struct planner_need *need, struct err *err)
{
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
    const struct planner_need need = {
        .path = json_str(found->set, "alternate_path", json_str(found->set, "path", "")),
        .writer = found->entry->name,
        .component = json_str(found->component, "name", ""),
        .level = json_str(found->entry->metadata, "level", "front_end"),
        .hold = hold_of(found->entry, found->component),
    };
    return add_need(planning, &need, err);
}

static const char **repository_paths(const struct worker *worker, size_t *ret_n)
{
    const json_t *repositories = json_object_get(worker->config, "repositories"), *item;
    const char **paths = mem_new((json_array_size(repositories) + 1) * sizeof(*paths));
    size_t i;
    *ret_n = 0;
    json_array_foreach (repositories, i, item)
        if (json_str(item, "path", NULL))
            paths[(*ret_n)++] = json_str(item, "path", NULL);
    return paths;
}

static void judge(struct planning *planning, json_t *result)
{
    struct worker *worker = planning->worker;
    AUTO_FREE struct planner_volume *volumes = mem_new((planning->n_facts + 1) * sizeof(*volumes));
    for (size_t i = 0; i < planning->n_facts; i++)
        volumes[i] = planning->facts[i].planner;
    const char *own[] = {worker->staging};
    size_t n_repositories;
    AUTO_FREE const char **repositories = repository_paths(worker, &n_repositories);
    const struct planner_input input = {
        .needs = planning->needs,
        .n_needs = planning->n_needs,
        .volumes = volumes,
        .n_volumes = planning->n_facts,
        .repositories = repositories,
        .n_repositories = n_repositories,
        .own = own,
        .n_own = worker->staging[0] ? 1 : 0,
        .freeze_limit_ms = worker_limit_ms(worker, "freeze_seconds", 60),
    };
    struct planner_plan plan = {0};
    planner_run(&input, &plan);
    AUTO_JSON json_t *answer = planner_plan_to_json(&input, &plan);
    json_object_update(result, answer);
    planner_plan_clear(&plan);
}

static int collect(struct planning *planning, const json_t *args, struct err *err)
{
    const json_t *components = json_object_get(args, "components");
    size_t i;
    const json_t *path;
    if (participation_file_sets(planning->worker, components ? components : planning->worker->components, need_file_set,
                                planning, err) < 0)
        return -1;
    json_array_foreach (json_object_get(args, "paths"), i, path) {
        const struct planner_need need = {.path = json_string_value(path) ? json_string_value(path) : "",
                                          .hold = PLANNER_HOLD_WRITES};
        if (add_need(planning, &need, err) < 0)
            return -1;
    }
    return 0;
}

int operation_plan(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct planning planning = {.worker = worker, .room = json_array_size(json_object_get(args, "paths"))};
    participation_file_sets(worker, json_object_get(args, "components"), count_file_set, &planning.room, err);
    planning.needs = mem_new((planning.room + 1) * sizeof(*planning.needs));
    planning.facts = mem_new((planning.room + 1) * sizeof(*planning.facts));
    int collected = collect(&planning, args, err);
    if (collected == 0)
        judge(&planning, result);
    for (size_t i = 0; i < planning.n_facts; i++)
        volumes_fact_clear(&planning.facts[i]);
    free(planning.needs);
    free(planning.facts);
    return collected;
}
