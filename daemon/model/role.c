#include "model/role.h"

#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

#define BIT ROLE_BIT

/* Restorer and operator do not include each other. */
static const struct {
    const char *name;
    unsigned includes;
} roles[] = {
    [ROLE_NONE] = {"none", BIT(ROLE_NONE)},
    [ROLE_VIEWER] = {"viewer", BIT(ROLE_NONE) | BIT(ROLE_VIEWER)},
    [ROLE_AUDITOR] = {"auditor", BIT(ROLE_NONE) | BIT(ROLE_VIEWER) | BIT(ROLE_AUDITOR)},
    [ROLE_RESTORER] = {"restorer", BIT(ROLE_NONE) | BIT(ROLE_VIEWER) | BIT(ROLE_RESTORER)},
    [ROLE_OPERATOR] = {"operator", BIT(ROLE_NONE) | BIT(ROLE_VIEWER) | BIT(ROLE_OPERATOR)},
    [ROLE_ADMIN] = {"admin", ~0u},
};

bool role_allows(enum role have, enum role need)
{
    return roles[have].includes & BIT(need);
}

bool role_allows_any(enum role have, unsigned needed)
{
    return (roles[have].includes & needed) != 0;
}

const char *role_name(enum role role)
{
    return roles[role].name;
}

enum role role_by_name(const char *name)
{
    for (size_t i = ROLE_VIEWER; i < ELEMENTS(roles); i++)
        if (str_eq(roles[i].name, name))
            return (enum role)i;
    return ROLE_NONE;
}
