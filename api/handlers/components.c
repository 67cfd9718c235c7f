#include "api/handlers/handlers.h"

#include "base/cleanup.h"

static const struct handler rows[] = {
    {"componentList", .call = engine_component_list},
    {"componentAdd", .call = engine_component_add},
    {"componentGet", .call = engine_component_get},
    {"componentPatch", .call = engine_component_patch},
    {"subcomponentAdd", .call = engine_component_subcomponent},
    {"newTargetAdd", .call = engine_component_new_target},
    {"alternateLocationAdd", .call = engine_component_mapping},
};
const struct handler_table handlers_components = {rows, ELEMENTS(rows)};
