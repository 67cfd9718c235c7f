/* The Backup Components Document of a restore session: is it one, and which components it has. */
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/restore/restore.h"
#include "model/restore_rules.h"

enum { NAME_CHARS = 255, PATH_CHARS = 4096, BLOB_CHARS = 65536, MANY = 10000 };

static const char *const component_types[] = {"database", "filegroup", NULL};
static const struct json_spec spec_name = {.kinds = JSON_KIND_STRING, .min = 1, .max = NAME_CHARS, .bounded = true};
static const struct json_spec spec_short = {.kinds = JSON_KIND_STRING, .max = NAME_CHARS, .bounded = true};
static const struct json_spec spec_logical = {.kinds = JSON_KIND_STRING, .max = PATH_CHARS, .bounded = true};
static const struct json_spec spec_blob = {.kinds = JSON_KIND_STRING | JSON_KIND_NULL, .max = BLOB_CHARS, .bounded = true};
static const struct json_spec spec_boolean = {.kinds = JSON_KIND_BOOLEAN};
static const struct json_spec spec_path = {.kinds = JSON_KIND_STRING, .format = JSON_FORMAT_PATH};
static const struct json_spec spec_path_or_null = {.kinds = JSON_KIND_STRING | JSON_KIND_NULL, .format = JSON_FORMAT_PATH};
static const struct json_spec spec_paths = {.kinds = JSON_KIND_ARRAY, .items = &spec_path, .max = MANY, .bounded = true};
static const struct json_spec spec_type = {.kinds = JSON_KIND_STRING, .choices = component_types};
static const struct json_spec spec_names = {.kinds = JSON_KIND_ARRAY, .items = &spec_name, .max = 64, .bounded = true};
static const struct json_spec spec_version = {.kinds = JSON_KIND_INTEGER, .min = 1, .max = 1, .bounded = true};

static const struct json_member partial_members[] = {{"path", true, &spec_path}, {"name", false, &spec_name}, {"ranges", false, &spec_blob}};
static const struct json_spec spec_partial = {.kinds = JSON_KIND_OBJECT, .members = partial_members, .n_members = ELEMENTS(partial_members), .open = true};
static const struct json_spec spec_partials = {.kinds = JSON_KIND_ARRAY, .items = &spec_partial, .max = MANY, .bounded = true};

static const struct json_member component_members[] = {
    {"instance_id", true, &spec_name}, {"class_id", false, &spec_short},     {"writer", false, &spec_short},
    {"type", false, &spec_type},       {"logical_path", false, &spec_logical}, {"name", true, &spec_name},
    {"backup_stamp", false, &spec_blob}, {"backup_metadata", false, &spec_blob}, {"backup_options", false, &spec_blob},
    {"partial_files", false, &spec_partials}, {"added_files", false, &spec_paths},
};
static const struct json_spec spec_component = {.kinds = JSON_KIND_OBJECT, .members = component_members, .n_members = ELEMENTS(component_members), .open = true};
static const struct json_spec spec_components = {.kinds = JSON_KIND_ARRAY, .items = &spec_component, .max = MANY, .bounded = true};

static const struct json_member set_members[] = {
    {"path", true, &spec_path}, {"spec", false, &spec_name}, {"recursive", false, &spec_boolean}, {"alternate_path", false, &spec_path_or_null},
    {"backup_types", false, &spec_names},
};
static const struct json_spec spec_set = {.kinds = JSON_KIND_OBJECT, .members = set_members, .n_members = ELEMENTS(set_members), .open = true};
static const struct json_spec spec_sets = {.kinds = JSON_KIND_ARRAY, .items = &spec_set, .max = MANY, .bounded = true};
static const struct json_member mapping_members[] = {
    {"path", true, &spec_path}, {"spec", false, &spec_name}, {"recursive", false, &spec_boolean}, {"alternate_path", true, &spec_path},
};
static const struct json_spec spec_mapping = {.kinds = JSON_KIND_OBJECT, .members = mapping_members, .n_members = ELEMENTS(mapping_members), .open = true};
static const struct json_spec spec_mappings = {.kinds = JSON_KIND_ARRAY, .items = &spec_mapping, .max = MANY, .bounded = true};
static const struct json_member offered_members[] = {
    {"logical_path", false, &spec_logical}, {"name", true, &spec_name}, {"selectable", false, &spec_boolean},
    {"selectable_for_restore", false, &spec_boolean}, {"file_sets", false, &spec_sets},
};
static const struct json_spec spec_offered = {.kinds = JSON_KIND_OBJECT, .members = offered_members, .n_members = ELEMENTS(offered_members), .open = true};
static const struct json_spec spec_offer = {.kinds = JSON_KIND_ARRAY, .items = &spec_offered, .max = MANY, .bounded = true};
static const struct json_member writer_members[] = {
    {"instance_id", true, &spec_name}, {"class_id", false, &spec_short}, {"name", false, &spec_short}, {"restore_method", false, &spec_short},
    {"backup_schema", false, &spec_names}, {"components", false, &spec_offer}, {"alternate_locations", false, &spec_mappings},
};
static const struct json_spec spec_writer = {.kinds = JSON_KIND_OBJECT, .members = writer_members, .n_members = ELEMENTS(writer_members), .open = true};
static const struct json_spec spec_writers = {.kinds = JSON_KIND_ARRAY, .items = &spec_writer, .max = MANY, .bounded = true};
static const struct json_spec spec_state = {.kinds = JSON_KIND_OBJECT | JSON_KIND_NULL, .open = true};
static const struct json_member document_members[] = {
    {"version", false, &spec_version}, {"components", true, &spec_components}, {"writers", false, &spec_writers}, {"backup_state", false, &spec_state},
};
static const struct json_spec spec_document = {.kinds = JSON_KIND_OBJECT, .members = document_members, .n_members = ELEMENTS(document_members), .open = true};

static int invalid(struct err *err, const char *pointer, const char *detail)
{
    err_set(err, VSS_E_INVALID_XML_DOCUMENT, "Use a document that GET /sessions/{id}/document or the catalog gave.", "the document: %s: %s",
            *pointer ? pointer : "/", detail);
    if (err)
        str_format(err->pointer, sizeof err->pointer, "/document%s", pointer);
    return -1;
}

/* Each component is described by its writer's metadata, and there once. */
static int check_component(const json_t *document, size_t index, json_t *seen, struct err *err)
{
    const json_t *component = json_array_get(json_object_get(document, "components"), index);
    char pointer[64];
    str_format(pointer, sizeof pointer, "/components/%zu", index);
    AUTO_FREE char *key = str_new("%s\n%s\n%s", json_str(component, "instance_id", ""), json_str(component, "logical_path", ""),
                                  json_str(component, "name", ""));
    if (json_object_get(seen, key))
        return invalid(err, pointer, "it is there twice");
    json_put(seen, key, json_true());
    if (!restore_described(document, component))
        return invalid(err, pointer, "no writer of the document describes it");
    return 0;
}

int restore_document_check(const json_t *document, struct err *err)
{
    struct json_fault fault;
    AUTO_JSON json_t *seen = json_object();
    if (json_spec_check(&spec_document, document, &fault, 1))
        return invalid(err, fault.pointer, fault.detail);
    for (size_t i = 0; i < json_array_size(json_object_get(document, "components")); i++) {
        if (check_component(document, i, seen, err))
            return -1;
    }
    return 0;
}

/* What the backup said of it stays; what a restore says of it begins anew. */
static json_t *restore_component(const json_t *document, const json_t *stored)
{
    static const char *const kept[] = {"id", "class_id", "writer", "type", "succeeded", "backup_options", "backup_stamp", "previous_stamp", "backup_type", "previous_backup_id",
                                       "backup_metadata", "partial_files", "added_files", "grade", "grade_reason", "freeze"};
    json_t *component = component_record(restore_writer(document, stored), restore_described(document, stored));
    for (size_t i = 0; i < ELEMENTS(kept); i++) {
        json_t *value = json_object_get(stored, kept[i]);
        if (value && !json_is_null(value))
            json_put(component, kept[i], json_incref(value));
    }
    AUTO_JSON json_t *restore = json_pack("{s:n, s:b, s:b, s:n, s:n, s:s, s:[], s:[], s:[], s:[]}", "restore_instance_id", "additional_restores", 0,
                                          "authoritative_restore", 0, "roll_forward", "restore_name", "restore_target", "original",
                                          "directed_targets", "new_targets", "subcomponents", "alternate_location_mappings");
    json_object_update(component, restore);
    return component;
}

json_t *restore_components(const json_t *document)
{
    json_t *components = json_array();
    AUTO_JSON json_t *ids = json_object();
    size_t i;
    json_t *stored;
    json_array_foreach(json_object_get(document, "components"), i, stored)
    {
        json_t *component = restore_component(document, stored);
        const char *id = json_str(component, "id", "");
        char fresh[UUID_SIZE];
        if (!uuid_valid(id) || json_object_get(ids, id))
            json_put(component, "id", json_string(uuid_v7(fresh)));
        json_put(ids, json_str(component, "id", ""), json_true());
        json_add(components, component);
    }
    return components;
}
