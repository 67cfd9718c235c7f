#include "api/handlers/handlers.h"

#include "base/cleanup.h"

static const struct handler rows[] = {
    {"repositoryList", .call = engine_repository_list},
    {"repositoryCreate", .call = engine_repository_create},
    {"repositoryGet", .call = engine_repository_get},
    {"repositoryPut", .call = engine_repository_put},
    {"repositoryDelete", .call = engine_repository_delete},
    {"repositoryScan", .call = engine_repository_scan},
};
const struct handler_table handlers_repositories = {rows, ELEMENTS(rows)};
