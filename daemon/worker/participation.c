#include "worker/participation.h"

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/selection.h"
#include "model/session_model.h"
#include "worker/context.h"

static json_t *request_component(const json_t *chosen, const json_t *known)
{
    json_t *component = json_pack("{s:s, s:s, s:s}", "logical_path", json_str(known, "logical_path", ""), "name",
                                  json_str(known, "name", ""), "type", json_str(known, "type", "filegroup"));
    static const char *const members[] = {"backup_options", "previous_stamp", "backup_stamp", "backup_metadata"};
    for (size_t i = 0; chosen && i < ELEMENTS(members); i++) {
        json_t *value = json_object_get(chosen, members[i]);
        if (value && !json_is_null(value))
            json_put(component, members[i], json_incref(value));
    }
    return component;
}

static int take_chosen(struct worker *worker, const json_t *chosen, struct err *err)
{
    const char *instance_id = json_str(chosen, "instance_id", "");
    struct writer_entry *entry = writers_by_instance(&worker->writers, instance_id);
    if (!entry)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Gather the metadata again.", "no writer with instance_id %s",
                       instance_id);
    const json_t *known =
        selection_component(entry->metadata, json_str(chosen, "logical_path", ""), json_str(chosen, "name", ""));
    if (!known)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "writer %s has no component %s", entry->name,
                       json_str(chosen, "name", ""));
    if (!entry->components)
        entry->components = json_array();
    json_add(entry->components, request_component(chosen, known));
    return 0;
}

static void take_all(struct worker *worker)
{
    size_t k;
    const json_t *known;
    for (size_t i = 0; i < worker->writers.n; i++) {
        struct writer_entry *entry = &worker->writers.entries[i];
        if (!entry->metadata)
            continue;
        entry->components = json_array();
        json_array_foreach (json_object_get(entry->metadata, "components"), k, known)
            json_add(entry->components, request_component(NULL, known));
    }
}

int participation_take(struct worker *worker, const json_t *args, struct err *err)
{
    size_t i;
    const json_t *chosen;
    json_t *components = json_object_get(args, "components"), *state = json_object_get(args, "backup_state");
    json_decref(worker->components);
    json_decref(worker->backup_state);
    worker->components = json_is_array(components) ? json_deep_copy(components) : json_array();
    worker->backup_state = json_is_object(state) ? json_deep_copy(state) : json_object();
    worker->strict = !str_eq(json_str(args, "writer_failure", "fail"), "report");
    for (i = 0; i < worker->writers.n; i++) {
        json_decref(worker->writers.entries[i].components);
        worker->writers.entries[i].components = NULL;
    }
    const struct session_context *context = session_context_by_name(json_str(args, "context", "backup"));
    if (context && !context->writers)
        return 0; /* no writer hears anything in such a context (vss-model 5.1) */
    if (!json_bool(worker->backup_state, "component_mode", true)) {
        take_all(worker);
        return 0;
    }
    json_array_foreach (worker->components, i, chosen)
        if (take_chosen(worker, chosen, err) < 0)
            return -1;
    return 0;
}

static json_t *restored_component(const json_t *chosen)
{
    static const char *const members[] = {
        "type", "file_sets", "backup_stamp", "backup_metadata", "backup_options", "partial_files", "subcomponents", "new_targets", "restore_options",
        "additional_restores", "authoritative_restore", "roll_forward", "restore_name", "restore_metadata", "restore_target",
        "directed_targets", "alternate_location_mappings", "file_restore_status", "chain"};
    json_t *component = json_pack("{s:s, s:s}", "logical_path", json_str(chosen, "logical_path", ""), "name",
                                  json_str(chosen, "name", ""));
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        json_t *value = json_object_get(chosen, members[i]);
        if (value && !json_is_null(value))
            json_put(component, members[i], json_incref(value));
    }
    return component;
}

int participation_take_restore(struct worker *worker, const json_t *args, struct err *err)
{
    size_t i;
    const json_t *chosen;
    json_decref(worker->components);
    json_decref(worker->backup_state);
    worker->components = json_deep_copy(json_object_get(args, "components"));
    worker->backup_state = json_deep_copy(json_object_get(args, "backup_state"));
    json_put(worker->backup_state, "restore_type", json_string(json_str(args, "restore_type", "by_copy")));
    worker->strict = !str_eq(json_str(args, "writer_failure", "fail"), "report");
    for (i = 0; i < worker->writers.n; i++) {
        json_decref(worker->writers.entries[i].components);
        worker->writers.entries[i].components = NULL;
    }
    json_array_foreach (worker->components, i, chosen) {
        const char *instance_id = json_str(chosen, "instance_id", "");
        struct writer_entry *entry = writers_by_instance(&worker->writers, instance_id);
        if (!entry)
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Gather the metadata again, in a new session.",
                           "no writer with instance_id %s", instance_id);
        if (!entry->components)
            entry->components = json_array();
        json_add(entry->components, restored_component(chosen));
    }
    return 0;
}

const json_t *participation_answer(const struct worker *worker, const json_t *chosen)
{
    AUTO_FREE char *key = str_new("%s\n%s\n%s", json_str(chosen, "instance_id", ""),
                                  json_str(chosen, "logical_path", ""), json_str(chosen, "name", ""));
    return json_object_get(worker->writers.answers, key);
}

json_t *participation_answers(const struct worker *worker)
{
    json_t *answers = json_array();
    size_t i;
    const json_t *chosen;
    json_array_foreach (worker->components, i, chosen) {
        const json_t *kept = participation_answer(worker, chosen);
        json_t *answer = json_pack("{s:s}", "id", json_str(chosen, "id", ""));
        if (kept)
            json_object_update(answer, (json_t *)kept);
        json_add(answers, answer);
    }
    return answers;
}

struct visit {
    int (*fn)(void *arg, const struct participation_file_set *found, struct err *err);
    void *arg;
    const char *type;
};

static int visit_component(const struct visit *visit, const struct writer_entry *entry, const json_t *component,
                           struct err *err)
{
    size_t i;
    const json_t *set;
    json_array_foreach (json_object_get(component, "file_sets"), i, set) {
        struct participation_file_set found = {entry, component, set};
        if (selection_takes(entry->metadata, set, visit->type) && visit->fn(visit->arg, &found, err) < 0)
            return -1;
    }
    return 0;
}

const char *participation_type(const struct worker *worker)
{
    return json_str(worker->backup_state, "type", "full");
}

int participation_file_sets(const struct worker *worker, const json_t *components,
                            int (*fn)(void *arg, const struct participation_file_set *found, struct err *err),
                            void *arg, struct err *err)
{
    const struct visit visit = {fn, arg, participation_type(worker)};
    if (!components)
        components = worker->components;
    for (size_t i = 0; i < worker->writers.n; i++) {
        const struct writer_entry *entry = &worker->writers.entries[i];
        size_t k;
        const json_t *component;
        json_array_foreach (json_object_get(entry->metadata, "components"), k, component)
            if (selection_included(entry->metadata, components, component) && visit_component(&visit, entry, component, err) < 0)
                return -1;
    }
    return 0;
}
