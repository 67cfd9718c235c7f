#include "worker/writer_metadata.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum {
    COMPONENTS_MAX = 10000,
    FILE_SETS_MAX = 10000,
    NAME_MAX_CHARS = 255,
    TEXT_MAX_CHARS = 4096,
    BLOB_MAX_CHARS = 65536
};

static const char *const levels[] = {"front_end", "back_end", "system", NULL};
static const char *const component_types[] = {"database", "filegroup", NULL};
static const char *const backup_types[] = {"full", "incremental", "differential", "log", "copy", "other", NULL};
static const char *const usages[] = {"bootable_system_state", "system_service", "user_data", "other", NULL};
static const char *const holds[] = {"writes", "log", "none", NULL};
static const char *const points[] = {"hold", "snapshot", "thaw", "later", NULL};

static const char *const restore_targets[] = {"original", "alternate", "directed", "original_location", NULL};

static const struct json_spec spec_name = {.kinds = JSON_KIND_STRING, .min = 1, .max = NAME_MAX_CHARS, .bounded = true};
static const struct json_spec spec_short = {
    .kinds = JSON_KIND_STRING, .min = 0, .max = NAME_MAX_CHARS, .bounded = true};
static const struct json_spec spec_text = {
    .kinds = JSON_KIND_STRING | JSON_KIND_NULL, .min = 0, .max = TEXT_MAX_CHARS, .bounded = true};
static const struct json_spec spec_blob = {
    .kinds = JSON_KIND_STRING | JSON_KIND_NULL, .min = 0, .max = BLOB_MAX_CHARS, .bounded = true};
static const struct json_spec spec_code = {.kinds = JSON_KIND_INTEGER | JSON_KIND_NULL};
static const struct json_spec spec_boolean = {.kinds = JSON_KIND_BOOLEAN};
static const struct json_spec spec_path = {.kinds = JSON_KIND_STRING, .format = JSON_FORMAT_PATH};
static const struct json_spec spec_path_or_null = {.kinds = JSON_KIND_STRING | JSON_KIND_NULL,
                                                   .format = JSON_FORMAT_PATH};
static const struct json_spec spec_uuid = {.kinds = JSON_KIND_STRING, .format = JSON_FORMAT_UUID};
static const struct json_spec spec_level = {.kinds = JSON_KIND_STRING, .choices = levels};
static const struct json_spec spec_usage = {.kinds = JSON_KIND_STRING, .choices = usages};
static const struct json_spec spec_point = {.kinds = JSON_KIND_STRING, .choices = points};
static const struct json_spec spec_hold = {.kinds = JSON_KIND_STRING, .choices = holds};
static const struct json_spec spec_component_type = {.kinds = JSON_KIND_STRING, .choices = component_types};
static const struct json_spec spec_backup_type = {.kinds = JSON_KIND_STRING, .choices = backup_types};
static const struct json_spec spec_backup_types = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_backup_type, .max = 6, .bounded = true};
static const struct json_spec spec_schemas = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_name, .max = 32, .bounded = true};
/* At most ten minutes: the writer's own wish, still cut by limits.freeze_seconds of the configuration. */
static const struct json_spec spec_freeze_ms = {.kinds = JSON_KIND_INTEGER, .min = 1, .max = 600000, .bounded = true};

static const struct json_member file_set_members[] = {
    {"path", true, &spec_path},
    {"spec", false, &spec_name},
    {"recursive", false, &spec_boolean},
    {"alternate_path", false, &spec_path_or_null},
    {"backup_types", false, &spec_backup_types},
    {"snapshot_types", false, &spec_backup_types},
};
static const struct json_spec spec_file_set = {
    .kinds = JSON_KIND_OBJECT, .members = file_set_members, .n_members = ELEMENTS(file_set_members), .open = true};
static const struct json_member mapping_members[] = {
    {"path", true, &spec_path},
    {"spec", false, &spec_name},
    {"recursive", false, &spec_boolean},
    {"alternate_path", true, &spec_path},
};
static const struct json_spec spec_mapping = {
    .kinds = JSON_KIND_OBJECT, .members = mapping_members, .n_members = ELEMENTS(mapping_members), .open = true};
static const struct json_spec spec_mappings = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_mapping, .max = FILE_SETS_MAX, .bounded = true};
static const struct json_spec spec_file_sets = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_file_set, .max = FILE_SETS_MAX, .bounded = true};

static const struct json_member dependency_members[] = {
    {"class_id", true, &spec_uuid}, {"logical_path", false, &spec_text}, {"name", true, &spec_name}};
static const struct json_spec spec_dependency = {
    .kinds = JSON_KIND_OBJECT, .members = dependency_members, .n_members = ELEMENTS(dependency_members), .open = true};
static const struct json_spec spec_dependencies = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_dependency, .max = COMPONENTS_MAX, .bounded = true};

static const struct json_member component_members[] = {
    {"type", false, &spec_component_type},
    {"logical_path", false, &spec_text},
    {"name", true, &spec_name},
    {"caption", false, &spec_text},
    {"selectable", false, &spec_boolean},
    {"selectable_for_restore", false, &spec_boolean},
    {"file_sets", false, &spec_file_sets},
    {"dependencies", false, &spec_dependencies},
    {"hold", false, &spec_hold},
};
static const struct json_spec spec_component = {
    .kinds = JSON_KIND_OBJECT, .members = component_members, .n_members = ELEMENTS(component_members), .open = true};
static const struct json_spec spec_components = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_component, .max = COMPONENTS_MAX, .bounded = true};

static const struct json_member metadata_members[] = {
    {"name", false, &spec_name},
    {"class_id", false, &spec_uuid},
    {"instance_name", false, &spec_short},
    {"usage", false, &spec_usage},
    {"level", false, &spec_level},
    {"freeze_timeout_ms", false, &spec_freeze_ms},
    {"restore_method", false, &spec_short},
    {"backup_schema", false, &spec_schemas},
    {"components", false, &spec_components},
    {"exclude", false, &spec_file_sets},
    {"alternate_locations", false, &spec_mappings},
};
static const struct json_spec spec_metadata = {
    .kinds = JSON_KIND_OBJECT, .members = metadata_members, .n_members = ELEMENTS(metadata_members), .open = true};

static const struct json_member extra_file_members[] = {{"path", true, &spec_path}, {"source", true, &spec_path}};
static const struct json_spec spec_extra_file = {
    .kinds = JSON_KIND_OBJECT, .members = extra_file_members, .n_members = ELEMENTS(extra_file_members), .open = true};
static const struct json_spec spec_extra_files = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_extra_file, .max = FILE_SETS_MAX, .bounded = true};

/* Whole files: where the one that was backed up as `path` goes. */
static const struct json_member directed_target_members[] = {{"path", true, &spec_path}, {"new_path", true, &spec_path}};
static const struct json_spec spec_directed_target = {.kinds = JSON_KIND_OBJECT,
                                                      .members = directed_target_members,
                                                      .n_members = ELEMENTS(directed_target_members),
                                                      .open = true};
static const struct json_spec spec_directed_targets = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_directed_target, .max = FILE_SETS_MAX, .bounded = true};
static const struct json_spec spec_restore_target = {.kinds = JSON_KIND_STRING, .choices = restore_targets};

static const struct json_member answer_component_members[] = {
    {"logical_path", false, &spec_text},
    {"name", true, &spec_name},
    {"stamp", false, &spec_text},
    {"metadata", false, &spec_blob},
    {"failure", false, &spec_text},
    {"application_code", false, &spec_code},
    {"application_message", false, &spec_text},
    {"extra_files", false, &spec_extra_files},
    {"consistent_at", false, &spec_point},
    {"restore_target", false, &spec_restore_target},
    {"directed_targets", false, &spec_directed_targets},
    {"chain_target", false, &spec_path},
    {"restore_metadata", false, &spec_blob},
};
static const struct json_spec spec_answer_component = {.kinds = JSON_KIND_OBJECT,
                                                       .members = answer_component_members,
                                                       .n_members = ELEMENTS(answer_component_members),
                                                       .open = true};
static const struct json_spec spec_answer_components = {
    .kinds = JSON_KIND_ARRAY, .items = &spec_answer_component, .max = COMPONENTS_MAX, .bounded = true};
static const struct json_spec spec_id = {.kinds = JSON_KIND_INTEGER};
static const struct json_spec spec_object = {.kinds = JSON_KIND_OBJECT, .open = true};

static const struct json_member answer_members[] = {
    {"id", true, &spec_id},
    {"ok", true, &spec_boolean},
    {"failure", false, &spec_text},
    {"message", false, &spec_text},
    {"application_code", false, &spec_code},
    {"application_message", false, &spec_text},
    {"components", false, &spec_answer_components},
    {"metadata", false, &spec_object},
};
static const struct json_spec spec_answer = {
    .kinds = JSON_KIND_OBJECT, .members = answer_members, .n_members = ELEMENTS(answer_members), .open = true};

static int check(const struct json_spec *spec, const json_t *value, struct err *err)
{
    struct json_fault fault;
    if (json_spec_check(spec, value, &fault, 1) == 0)
        return 0;
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "%s: %s", fault.pointer, fault.detail);
}

int writer_answer_check(const json_t *answer, struct err *err)
{
    return check(&spec_answer, answer, err);
}

/* A set of (logical_path, name); true when the pair was there already. Neither may hold a line feed. */
static bool seen_before(json_t *seen, const json_t *component)
{
    AUTO_FREE char *key = str_new("%s\n%s", json_str(component, "logical_path", ""), json_str(component, "name", ""));
    if (json_object_get(seen, key))
        return true;
    json_put(seen, key, json_true());
    return false;
}

static int check_component(const json_t *component, json_t *seen, struct err *err)
{
    const char *name = json_str(component, "name", "");
    const char *path = json_str(component, "logical_path", "");
    if (strpbrk(name, "/\\\n") || strchr(path, '\n'))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "component name \"%s\" holds a separator", name);
    if (seen_before(seen, component))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "component \"%s\" in \"%s\" is there twice", name,
                       path);
    size_t i;
    const json_t *set;
    json_array_foreach (json_object_get(component, "file_sets"), i, set)
        if (strchr(json_str(set, "spec", "*"), '/'))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL,
                           "component \"%s\": a file specification has no folder", name);
    return 0;
}

/* VSS_BS (vss-model 4.6): what goes only with something else. */
static int check_schema(const json_t *schema, struct err *err)
{
    bool incremental = json_has_string(schema, "incremental"), differential = json_has_string(schema, "differential");
    const struct {
        const char *word;
        bool fits;
        const char *needs;
    } rows[] = {
        {"exclusive_incremental_differential", incremental && differential, "both incremental and differential"},
        {"timestamped", incremental || differential, "incremental or differential"},
        {"last_modify", incremental || differential, "incremental or differential"},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (json_has_string(schema, rows[i].word) && !rows[i].fits)
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "/backup_schema: %s goes only with %s", rows[i].word,
                           rows[i].needs);
    return 0;
}

int writer_metadata_check(const json_t *metadata, struct err *err)
{
    if (check(&spec_metadata, metadata, err) < 0 || check_schema(json_object_get(metadata, "backup_schema"), err) < 0)
        return -1;
    AUTO_JSON json_t *seen = json_object();
    size_t i;
    const json_t *component;
    json_array_foreach (json_object_get(metadata, "components"), i, component)
        if (check_component(component, seen, err) < 0)
            return -1;
    return 0;
}

int writer_components_check(const json_t *answered, const json_t *asked, struct err *err)
{
    AUTO_JSON json_t *open = json_object();
    AUTO_JSON json_t *seen = json_object();
    size_t i;
    const json_t *component;
    json_array_foreach (asked, i, component)
        seen_before(open, component);
    json_array_foreach (answered, i, component) {
        if (!seen_before(open, component))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL,
                           "it answers for component \"%s\", which it was not asked about",
                           json_str(component, "name", ""));
        if (seen_before(seen, component))
            return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "it answers twice for component \"%s\"",
                           json_str(component, "name", ""));
    }
    return 0;
}

static json_t *array_or_empty(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return value ? json_deep_copy(value) : json_array();
}

static json_t *file_set_to_api(const json_t *set)
{
    json_t *api = json_pack("{s:s, s:s, s:b}", "path", json_str(set, "path", ""), "spec", json_str(set, "spec", "*"),
                            "recursive", json_bool(set, "recursive", true));
    static const char *const optional[] = {"alternate_path", "backup_types", "snapshot_types"};
    for (size_t i = 0; i < ELEMENTS(optional); i++) {
        json_t *value = json_object_get(set, optional[i]);
        if (value && !json_is_null(value))
            json_put(api, optional[i], json_deep_copy(value));
    }
    return api;
}

static json_t *file_sets_to_api(const json_t *sets)
{
    json_t *api = json_array();
    size_t i;
    const json_t *set;
    json_array_foreach (sets, i, set)
        json_add(api, file_set_to_api(set));
    return api;
}

static json_t *dependencies_to_api(const json_t *dependencies)
{
    json_t *api = json_array();
    size_t i;
    const json_t *item;
    json_array_foreach (dependencies, i, item)
        json_add(api, json_pack("{s:s, s:s, s:s}", "class_id", json_str(item, "class_id", ""), "logical_path",
                                json_str(item, "logical_path", ""), "name", json_str(item, "name", "")));
    return api;
}

static json_t *component_to_api(const json_t *component)
{
    json_t *api =
        json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "type", json_str(component, "type", "filegroup"), "logical_path",
                  json_str(component, "logical_path", ""), "name", json_str(component, "name", ""), "caption",
                  json_str(component, "caption", ""), "selectable", json_bool(component, "selectable", true),
                  "selectable_for_restore", json_bool(component, "selectable_for_restore", false));
    json_put(api, "file_sets", file_sets_to_api(json_object_get(component, "file_sets")));
    json_put(api, "dependencies", dependencies_to_api(json_object_get(component, "dependencies")));
    return api;
}

json_t *writer_metadata_to_api(const json_t *metadata, const char *name, const char *instance_id, const char *class_id)
{
    json_t *api =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "instance_id", instance_id, "class_id", class_id, "name", name,
                  "instance_name", json_str(metadata, "instance_name", json_str(metadata, "name", name)), "level",
                  json_str(metadata, "level", "front_end"), "usage", json_str(metadata, "usage", "user_data"),
                  "restore_method", json_str(metadata, "restore_method", "custom"));
    json_put(api, "backup_schema", array_or_empty(metadata, "backup_schema"));
    json_t *components = json_array();
    size_t i;
    const json_t *component;
    json_array_foreach (json_object_get(metadata, "components"), i, component)
        json_add(components, component_to_api(component));
    json_put(api, "components", components);
    json_put(api, "exclude", file_sets_to_api(json_object_get(metadata, "exclude")));
    json_put(api, "alternate_locations", file_sets_to_api(json_object_get(metadata, "alternate_locations")));
    return api;
}
