#include "api/handlers/handlers.h"

#include "base/cleanup.h"

static const struct handler rows[] = {
    {"writerList", .call = engine_writer_list},
    {"providerList", .call = engine_provider_list},
    {"moverList", .call = engine_mover_list},
    {"volumeList", .call = engine_volume_list},
    {"volumeResolve", .call = engine_volume_resolve},
    {"errorList", .call = engine_error_list},
};
const struct handler_table handlers_inventory = {rows, ELEMENTS(rows)};
