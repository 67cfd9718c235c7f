#include "api/auth.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/route.h"
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/hash.h"

/* SAN URI of the certificates that our own CA issues; the rest of it is the principal's name. */
#define OWN_NAME "urn:quiesced:principal:"

struct entry {
    enum auth_kind kind;
    bool own;                     /* certificate: of our own CA, else of tls.client_ca */
    uint8_t digest[HASH_SIZE];    /* token */
    char name[PREFACE_NAME_SIZE]; /* certificate: without OWN_NAME */
    struct principal principal;
};

struct auth {
    size_t n;
    struct entry entries[];
};

static int entry_load(struct entry *entry, const json_t *doc, struct err *err)
{
    const char *kind = json_str(doc, "kind", ""), *name = json_str(doc, "name", "");
    const char *principal = json_str(doc, "principal", "");

    entry->principal.role = role_by_name(json_str(doc, "role", ""));
    if (entry->principal.role == ROLE_NONE || !*principal ||
        !str_copy(entry->principal.name, sizeof(entry->principal.name), principal))
        return err_set(err, E_INVALIDARG, NULL, "principal \"%s\": name or role is not usable", principal);
    if (str_eq(kind, "token")) {
        entry->kind = AUTH_TOKEN;
        if (!hash_from_hex(json_str(doc, "sha256", ""), entry->digest))
            return err_set(err, E_INVALIDARG, NULL, "principal %s: sha256 is not 64 hexadecimal digits", principal);
        return 0;
    }
    entry->kind = AUTH_CERTIFICATE;
    /* "admin" for admin is the supervisor's own entry: a foreign CA must not be able to issue it. */
    entry->own = str_starts(name, OWN_NAME) || (str_eq(name, "admin") && str_eq(principal, "admin"));
    if (str_starts(name, OWN_NAME))
        name += strlen(OWN_NAME);
    if (!str_eq(kind, "certificate") || !*name || !str_copy(entry->name, sizeof(entry->name), name))
        return err_set(err, E_INVALIDARG, NULL, "principal %s: kind or certificate name is not usable", principal);
    return 0;
}

struct auth *auth_new(const json_t *principals, struct err *err)
{
    size_t n = json_array_size(principals);
    struct auth *auth = mem_new(sizeof(*auth) + n * sizeof(auth->entries[0]));

    for (; auth->n < n; auth->n++) {
        if (entry_load(&auth->entries[auth->n], json_array_get(principals, auth->n), err) == 0)
            continue;
        auth_free(auth);
        return NULL;
    }
    return auth;
}

void auth_free(struct auth *auth)
{
    free(auth);
}

/* --- checking --- */

/* Compares with every token, found or not: the time tells nothing of which, or how far, one matched. */
static const struct entry *by_token(const struct auth *auth, const char *authorization)
{
    static const char scheme[] = "Bearer ";
    const struct entry *found = NULL;
    uint8_t digest[HASH_SIZE];

    if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
        return NULL;
    authorization += sizeof(scheme) - 1;
    authorization += strspn(authorization, " ");
    hash_sha256(authorization, strlen(authorization), digest);
    for (size_t i = 0; i < auth->n; i++)
        if (auth->entries[i].kind == AUTH_TOKEN && hash_equal(auth->entries[i].digest, digest, HASH_SIZE))
            found = &auth->entries[i];
    return found;
}

/* Does a certificate of tls.client_ca carry the name? */
static bool carries(const struct preface *preface, const char *name)
{
    static const char *const kinds[] = {"URI:", "DNS:", "EMAIL:"};

    for (size_t i = 0; i < PREFACE_NAMES; i++)
        for (size_t k = 0; k < ELEMENTS(kinds); k++)
            if (str_starts(preface->names[i], kinds[k]) && str_eq(preface->names[i] + strlen(kinds[k]), name))
                return true;
    return str_eq(preface->common_name, name);
}

static bool carries_own(const struct preface *preface, const char *name)
{
    static const char prefix[] = "URI:" OWN_NAME;

    for (size_t i = 0; i < PREFACE_NAMES; i++)
        if (str_starts(preface->names[i], prefix) && str_eq(preface->names[i] + sizeof(prefix) - 1, name))
            return true;
    return false;
}

static const struct entry *by_certificate(const struct auth *auth, const struct preface *preface)
{
    for (size_t i = 0; i < auth->n; i++) {
        const struct entry *entry = &auth->entries[i];
        if (entry->kind != AUTH_CERTIFICATE || entry->own != (preface->issued_by_us == 1))
            continue;
        if (entry->own ? carries_own(preface, entry->name) : carries(preface, entry->name))
            return entry;
    }
    return NULL;
}

enum auth_kind auth_check(const struct auth *auth, const struct preface *preface, const char *authorization,
                          struct principal *ret)
{
    const struct entry *entry = NULL;

    if (authorization)
        entry = by_token(auth, authorization);
    else if (preface && preface->has_certificate)
        entry = by_certificate(auth, preface);
    if (!entry)
        return AUTH_NONE;
    *ret = entry->principal;
    return entry->kind;
}
