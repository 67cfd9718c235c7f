#include "movers/seen.h"

#include "base/jsonspec.h"
#include "base/str.h"

static const char *place_of(const json_t *repository)
{
    return json_str(repository, "path", json_str(repository, "url", json_str(repository, "url_file", "")));
}

bool seen_before(const json_t *repository)
{
    return json_str(repository, "seen", NULL) != NULL;
}

int seen_missing(const json_t *repository, struct err *err)
{
    return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Is its disk mounted? A repository that was there once is not made again.",
                   "repository %s: there is none at %s any more", json_str(repository, "name", ""), place_of(repository));
}

int seen_check(const json_t *repository, const char *id, struct err *err)
{
    const char *seen = json_str(repository, "seen", "");
    if (!*seen || !*id || str_eq(seen, id))
        return 0;
    return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Is the right disk mounted? If this is the repository to use from now on, scan it first.",
                   "repository %s: at %s is another repository than before", json_str(repository, "name", ""), place_of(repository));
}
