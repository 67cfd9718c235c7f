#pragma once
/* Who is calling: bearer token or client certificate to principal and role. */
#include <jansson.h>

#include "base/err.h"
#include "base/preface.h"
#include "engine/engine.h"

enum auth_kind { AUTH_NONE, AUTH_CERTIFICATE, AUTH_TOKEN };

struct auth;
/* principals: docs/architecture.md, message to core. */
struct auth *auth_new(const json_t *principals, struct err *err);
void auth_free(struct auth *auth); /* NULL is fine */
/* preface: NULL without a client certificate; authorization: the header, or NULL. A header that is there decides alone:
 * a wrong token is not excused by a certificate. */
enum auth_kind auth_check(const struct auth *auth, const struct preface *preface, const char *authorization,
                          struct principal *ret);
