#include "api/auth.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/hash.h"

/* SAN URI of the certificates that our own CA issues; the rest of it is the principal's name. */
#define OWN_NAME "urn:quiesced:principal:"

struct entry {
    enum auth_kind kind;
    bool is_group;                /* peer */
    uint32_t id;                  /* peer: of the user or the group */
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
    entry->principal.paths = json_incref(json_object_get(doc, "paths"));
    if (entry->principal.role == ROLE_NONE || !*principal ||
        !str_copy(entry->principal.name, sizeof(entry->principal.name), principal))
        return err_set(err, E_INVALIDARG, NULL, "principal \"%s\": name or role is not usable", principal);
    if (str_eq(kind, "token")) {
        entry->kind = AUTH_TOKEN;
        if (!hash_from_hex(json_str(doc, "sha256", ""), entry->digest))
            return err_set(err, E_INVALIDARG, NULL, "principal %s: sha256 is not 64 hexadecimal digits", principal);
        return 0;
    }
    if (str_eq(kind, "user") || str_eq(kind, "group")) {
        entry->kind = AUTH_PEER;
        entry->is_group = str_eq(kind, "group");
        entry->id = (uint32_t)json_int(doc, "id", UINT32_MAX);
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
        auth->n++; /* what it has taken is let go of, too */
        auth_free(auth);
        return NULL;
    }
    return auth;
}

void auth_free(struct auth *auth)
{
    for (size_t i = 0; auth && i < auth->n; i++)
        json_decref(auth->entries[i].principal.paths);
    free(auth);
}

/* --- checking --- */

static bool token_digest(const char *authorization, uint8_t ret_digest[HASH_SIZE])
{
    static const char scheme[] = "Bearer ";

    if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
        return false;
    authorization += sizeof(scheme) - 1;
    authorization += strspn(authorization, " ");
    hash_sha256(authorization, strlen(authorization), ret_digest);
    return true;
}

/* Compares with every token, found or not: the time tells nothing of which, or how far, one matched. */
static const struct entry *by_token(const struct auth *auth, const uint8_t digest[HASH_SIZE])
{
    const struct entry *found = NULL;

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

static bool has_group(const struct preface *preface, uint32_t gid)
{
    if (preface->gid == gid)
        return true;
    for (uint32_t i = 0; i < preface->n_groups && i < PREFACE_GROUPS; i++)
        if (preface->groups[i] == gid)
            return true;
    return false;
}

/* Who is named himself comes before his groups; of these the first in the configuration. */
static const struct entry *by_peer(const struct auth *auth, const struct preface *preface)
{
    for (int groups = 0; groups <= 1; groups++)
        for (size_t i = 0; i < auth->n; i++) {
            const struct entry *entry = &auth->entries[i];
            if (entry->kind == AUTH_PEER && entry->is_group == groups &&
                (groups ? has_group(preface, entry->id) : entry->id == preface->uid))
                return entry;
        }
    return NULL;
}

/* Has the configuration a principal of that name with such a role? One that is confined to paths makes no tokens. */
static bool has_role(const struct auth *auth, const struct principal *principal)
{
    for (size_t i = 0; i < auth->n; i++)
        if (str_eq(auth->entries[i].principal.name, principal->name) && !auth->entries[i].principal.paths &&
            role_allows(auth->entries[i].principal.role, principal->role))
            return true;
    return false;
}

/* A token of the store, found by the hash of its secret: 256 random bits leave nothing to be guessed byte by byte. */
static enum auth_kind check_stored(const struct auth *auth, struct engine *engine, const uint8_t digest[HASH_SIZE],
                                   const char *from, struct principal *ret)
{
    enum credential_verdict verdict = engine_token_check(engine, digest, from, ret);

    if (verdict == CREDENTIAL_GOOD || (verdict == CREDENTIAL_PERSONAL && has_role(auth, ret)))
        return AUTH_TOKEN;
    return AUTH_NONE;
}

bool auth_knows_own(const struct auth *auth, const char *name)
{
    for (size_t i = 0; i < auth->n; i++)
        if (auth->entries[i].kind == AUTH_CERTIFICATE && auth->entries[i].own && str_eq(auth->entries[i].name, name))
            return true;
    return false;
}

void credential_read(struct credential *ret, const struct preface *preface, const char *authorization)
{
    *ret = (struct credential){.from = ""};
    if (authorization)
        ret->is_token = token_digest(authorization, ret->digest);
    else
        ret->preface = preface;
    ret->presented = authorization || (ret->preface && ret->preface->has_certificate);
}

/* A certificate of our own CA is good as long as its record is here: revoked, it is refused on open connections, too. */
static enum auth_kind check_enrolled(struct engine *engine, const struct credential *credential, struct principal *ret)
{
    const struct preface *preface = credential->preface;

    if (engine_certificate_check(engine, preface->fingerprint, credential->from, ret) != CREDENTIAL_GOOD ||
        !carries_own(preface, ret->name))
        return AUTH_NONE;
    return AUTH_CERTIFICATE;
}

enum auth_kind auth_check(const struct auth *auth, struct engine *engine, const struct credential *credential,
                          struct principal *ret)
{
    const struct entry *entry = NULL;

    if (credential->is_token) {
        entry = by_token(auth, credential->digest);
        if (!entry)
            return check_stored(auth, engine, credential->digest, credential->from, ret);
    } else if (credential->preface) {
        const struct preface *preface = credential->preface;
        if (preface->issued_by_us == 1 && check_enrolled(engine, credential, ret) == AUTH_CERTIFICATE)
            return AUTH_CERTIFICATE;
        entry = preface->has_credentials ? by_peer(auth, preface) : by_certificate(auth, preface);
    }
    if (!entry)
        return AUTH_NONE;
    *ret = entry->principal;
    return entry->kind;
}
