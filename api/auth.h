#pragma once
/* Who is calling: bearer token or client certificate to principal and role. */
#include <jansson.h>

#include "base/err.h"
#include "base/preface.h"
#include "crypto/hash.h"
#include "engine/engine.h"

enum auth_kind { AUTH_NONE, AUTH_CERTIFICATE, AUTH_TOKEN, AUTH_PEER };

struct auth;
/* principals: docs/architecture.md, message to core. */
struct auth *auth_new(const json_t *principals, struct err *err);
void auth_free(struct auth *auth); /* NULL is fine */
/* What a request presents. An Authorization header that is there decides alone: a wrong token is not excused by a
 * certificate. */
struct credential {
    const struct preface *preface; /* NULL without a certificate or local peer, or when it does not count */
    const char *from;              /* the caller's address as text, NULL: this is no use of it; filled in by the caller */
    bool presented, is_token; /* presented: could have been guessed or forged; a local user has no choice */
    uint8_t digest[HASH_SIZE]; /* of the token */
};
/* preface: as of http_preface; authorization: the header, or NULL. */
void credential_read(struct credential *ret, const struct preface *preface, const char *authorization);
/* Does the configuration know certificates of our own CA by that name? */
bool auth_knows_own(const struct auth *auth, const char *name);
/* ret: its scopes and paths are good as long as nobody else runs: keep a reference. On AUTH_NONE it may still name whose an expired
 * token was; else it is left alone. */
enum auth_kind auth_check(const struct auth *auth, struct engine *engine, const struct credential *credential,
                          struct principal *ret);
