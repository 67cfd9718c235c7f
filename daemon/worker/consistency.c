#include "worker/consistency.h"

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/consistency.h"
#include "model/selection.h"
#include "worker/context.h"
#include "worker/participation.h"

struct grading {
    const struct worker *worker;
    struct consistency_volume *volumes;
    struct consistency_part *parts;
    const struct writer_entry **entries; /* per part; NULL: a plain path */
    char **names;
    size_t **lists; /* per part: its volumes */
    size_t n;
};

static void hold_volume(size_t *list, struct consistency_part *part, size_t volume)
{
    for (size_t i = 0; i < part->n_volumes; i++)
        if (list[i] == volume)
            return;
    list[part->n_volumes++] = volume;
}

/* The covering volume, and with `recursive` every volume of the set that lies within. */
static void add_place(struct grading *grading, size_t at, const char *path, bool recursive)
{
    const struct snapshot_set *set = &grading->worker->set;
    struct consistency_part *part = &grading->parts[at];
    char source[PATH_MAX];
    const struct provider_snapshot *cover = snapshots_cover(set, path, source);
    if (!cover)
        part->uncovered = path;
    else
        hold_volume(grading->lists[at], part, (size_t)(cover - set->items));
    for (size_t i = 0; recursive && i < set->n; i++)
        if (path_beneath(set->items[i].volume.path, path))
            hold_volume(grading->lists[at], part, i);
}

static size_t add_part(struct grading *grading, bool component, char *name /* taken */)
{
    size_t at = grading->n++;
    grading->names[at] = name;
    grading->lists[at] = mem_new((grading->worker->set.n + 1) * sizeof(**grading->lists));
    grading->parts[at] = (struct consistency_part){
        .name = name, .component = component, .point = CONSISTENCY_UNATTENDED, .volumes = grading->lists[at]};
    return at;
}

static int add_file_set(void *arg, const struct participation_file_set *found, struct err *err)
{
    (void)err;
    struct grading *grading = arg;
    add_place(grading, grading->n - 1, json_str(found->set, "alternate_path", json_str(found->set, "path", "")),
              json_bool(found->set, "recursive", true));
    return 0;
}

/* What the component's writer said of its point, or what its `hold` means when it said nothing. */
static enum consistency_point point_of(const struct worker *worker, const struct writer_entry *entry,
                                       const json_t *chosen)
{
    static const struct {
        const char *hold;
        enum consistency_point point;
    } rows[] = {{"writes", CONSISTENCY_HELD}, {"log", CONSISTENCY_LATER}, {"none", CONSISTENCY_AT_SNAPSHOT}};
    const char *path = json_str(chosen, "logical_path", ""), *name = json_str(chosen, "name", "");
    const json_t *answer = participation_answer(worker, chosen);
    const char *failure = json_str(answer, "failure", "S_OK");
    enum consistency_point point = CONSISTENCY_UNATTENDED;
    bool failed = entry && entry->failure.hr && entry->failure.hr != (uint32_t)VSS_E_WRITERERROR_PARTIAL_FAILURE;
    if (!entry || entry->out || failed || !entry->frozen_once || !str_eq(failure, "S_OK"))
        return CONSISTENCY_UNATTENDED;
    if (consistency_point_by_name(json_str(answer, "consistent_at", NULL), &point))
        return point;
    const char *hold = json_str(selection_component(entry->raw, path, name), "hold", "writes");
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (str_eq(rows[i].hold, hold))
            point = rows[i].point;
    return point;
}

static void add_component(struct grading *grading, json_t *chosen)
{
    const struct worker *worker = grading->worker;
    const struct writer_entry *entry = NULL;
    for (size_t i = 0; i < worker->writers.n && !entry; i++)
        if (worker->writers.entries[i].metadata &&
            str_eq(worker->writers.entries[i].instance_id, json_str(chosen, "instance_id", "")))
            entry = &worker->writers.entries[i];
    size_t at = add_part(grading, true, str_new("%s/%s", entry ? entry->name : "?", json_str(chosen, "name", "")));
    AUTO_JSON json_t *only = json_array();
    json_add(only, json_incref(chosen));
    struct err ignored = {0};
    participation_file_sets(worker, only, add_file_set, grading, &ignored);
    grading->entries[at] = entry;
    grading->parts[at].point = point_of(worker, entry, chosen);
}

/* All frozen file systems are frozen before the first snapshot and thawed after the last: they share an instant, and a
 * freeze writes out what is in memory. */
static struct consistency_volume volume_of(const struct snapshot_set *set, size_t i)
{
    const struct provider_snapshot *item = &set->items[i];
    bool frozen = item->freeze == FREEZE_WANTED;
    return (struct consistency_volume){.path = item->volume.path,
                                       .instant = !item->atomic ? CONSISTENCY_FILE_BY_FILE : (int)(frozen ? set->n : i),
                                       .flushed = item->flushed || frozen};
}

static void collect(struct grading *grading, const json_t *paths)
{
    const struct snapshot_set *set = &grading->worker->set;
    size_t i;
    json_t *item;
    for (i = 0; i < set->n; i++)
        grading->volumes[i] = volume_of(set, i);
    json_array_foreach(grading->worker->components, i, item)
    {
        add_component(grading, item);
    }
    json_array_foreach(paths, i, item)
    {
        const char *path = json_string_value(item);
        add_place(grading, add_part(grading, false, str_dup(path)), path, true);
    }
}

static json_t *verdict_json(const struct grading *grading, const struct consistency_verdict *verdict, size_t part,
                            const json_t *chosen)
{
    json_t *told = json_object();
    if (chosen) {
        json_put(told, "id", json_string(json_str(chosen, "id", "")));
        json_put(told, "freeze", grading->entries[part] ? writers_window(grading->entries[part]) : json_null());
    } else {
        json_put(told, "path", json_text(grading->names[part]));
    }
    json_put(told, "grade", json_string(consistency_grade_name(verdict->grade)));
    json_put(told, "reason", json_text(verdict->reason));
    return told;
}

static json_t *judge(const struct grading *grading)
{
    const json_t *components = grading->worker->components;
    AUTO_FREE struct consistency_verdict *verdicts = mem_new((grading->n + 1) * sizeof(*verdicts));
    struct consistency_whole whole;
    json_t *of_components = json_array(), *of_paths = json_array();
    consistency_judge(grading->volumes, grading->parts, grading->n, verdicts, &whole);
    for (size_t i = 0; i < grading->n; i++)
        json_add(grading->parts[i].component ? of_components : of_paths,
                 verdict_json(grading, &verdicts[i], i, json_array_get(components, i)));
    return json_pack("{s:s, s:b, s:o, s:o}", "grade", consistency_grade_name(whole.grade), "one_instant",
                     whole.one_instant, "components", of_components, "paths", of_paths);
}

json_t *consistency_result(const struct worker *worker, const json_t *paths)
{
    size_t room = json_array_size(worker->components) + json_array_size(paths) + 1;
    struct grading grading = {
        .worker = worker,
        .volumes = mem_new((worker->set.n + 1) * sizeof(*grading.volumes)),
        .parts = mem_new(room * sizeof(*grading.parts)),
        .entries = mem_new(room * sizeof(*grading.entries)),
        .names = mem_new(room * sizeof(*grading.names)),
        .lists = mem_new(room * sizeof(*grading.lists)),
    };
    collect(&grading, paths);
    json_t *result = judge(&grading);
    for (size_t i = 0; i < grading.n; i++) {
        free(grading.names[i]);
        free(grading.lists[i]);
    }
    free(grading.volumes);
    free(grading.parts);
    free(grading.entries);
    free(grading.names);
    free(grading.lists);
    return result;
}
