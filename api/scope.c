#include "api/scope.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

/* "/backups" is the beginning of "/backups" and "/backups/{backup_id}", not of "/backups-of-others". */
static bool beneath(const char *path, const char *prefix)
{
    size_t length = strlen(prefix);

    while (length > 1 && prefix[length - 1] == '/')
        length--;
    return strncmp(path, prefix, length) == 0 && (length == 1 || path[length] == '\0' || path[length] == '/');
}

static bool covers(const char *scope, const struct api_route *route)
{
    static const char read[] = "read";
    bool reading = str_eq(route->method, "GET");

    if (str_eq(scope, read))
        return reading;
    if (strncmp(scope, "read:/", sizeof("read:/") - 1) == 0)
        return reading && beneath(route->path, scope + sizeof(read));
    if (*scope == '/')
        return beneath(route->path, scope);
    return str_eq(scope, route->operation_id);
}

bool scope_covers(const json_t *scopes, const struct api_route *route)
{
    size_t i;
    const json_t *scope;

    static const char *const always[] = {"whoami", "loginGet", "loginDelete"}; /* about the caller himself */

    for (i = 0; i < ELEMENTS(always); i++)
        if (str_eq(route->operation_id, always[i]))
            return true;
    if (json_array_size(scopes) == 0)
        return true;
    json_array_foreach(scopes, i, scope)
        if (covers(json_string_value(scope), route))
            return true;
    return false;
}

/* Nothing here reads a file's content, names a provider's volume that is not checked against the paths, or tells of others. */
bool scope_is_snapshot(const struct api_route *route)
{
    static const char *const operations[] = {
        "whoami",         "volumeResolve",   "sessionCreate", "sessionGet",       "sessionDelete",    "sessionBackupState",
        "jobMetadata",    "snapshotSetStart", "snapshotSetAdd", "snapshotSetComponents", "jobPrepare", "jobSnapshot",    "jobComplete",
        "jobGet",         "jobCancel",       "snapshotList",  "snapshotGet",      "snapshotExpose",   "snapshotUnexpose",   "snapshotDelete"};

    for (size_t i = 0; i < ELEMENTS(operations); i++)
        if (str_eq(route->operation_id, operations[i]))
            return true;
    return false;
}

bool scope_known(const char *scope)
{
    for (size_t i = 0; i < api_n_routes; i++)
        if (covers(scope, &api_routes[i]))
            return true;
    return false;
}
