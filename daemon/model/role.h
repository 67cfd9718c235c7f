#pragma once
/* Who may do what: roles, and what each includes (design, section 8). */
#include <stdbool.h>

enum role { ROLE_NONE, ROLE_VIEWER, ROLE_AUDITOR, ROLE_RESTORER, ROLE_OPERATOR, ROLE_ADMIN };

#define ROLE_BIT(role) (1u << (role))

/* Does somebody of role `have` have what `need` allows? */
bool role_allows(enum role have, enum role need);
/* ... what one of them allows; roles: or of ROLE_BIT. */
bool role_allows_any(enum role have, unsigned roles);
const char *role_name(enum role role);
enum role role_by_name(const char *name); /* ROLE_NONE when unknown */
