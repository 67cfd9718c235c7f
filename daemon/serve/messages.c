/* serve -> front, core, agent: docs/architecture.md. Each role gets what its duty needs and no more. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/hash.h"
#include "guardian/record.h"
#include "serve/local_users.h"
#include "serve/serve_private.h"

/* The named members of one object, deep: a message must not share structure with the configuration. */
static json_t *selected(const json_t *object, const char *const *names, size_t n)
{
    json_t *copy = json_object();

    for (size_t i = 0; i < n; i++)
        if (json_object_get(object, names[i]))
            json_put(copy, names[i], json_deep_copy(json_object_get(object, names[i])));
    return copy;
}

static json_t *message(const char *type)
{
    json_t *doc = json_object();

    json_put(doc, "type", json_string(type));
    return doc;
}

/* --- front --- */

int messages_open_files(const struct serve *serve, int ret_fds[FRONT_FILES], struct err *err)
{
    const json_t *tls = json_object_get(serve->config, "tls");
    const struct pki_paths *pki = &serve->places.pki;
    const char *const paths[FRONT_FILES] = {json_str(tls, "certificate", pki->server_certificate),
                                            json_str(tls, "key", pki->server_key), pki->ca_certificate,
                                            json_str(tls, "client_ca", NULL), json_str(tls, "client_crl", NULL)};

    for (size_t i = 0; i < FRONT_FILES; i++)
        ret_fds[i] = -1;
    for (size_t i = 0; i < FRONT_FILES && paths[i]; i++) {
        ret_fds[i] = open(paths[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (ret_fds[i] < 0) {
            int saved = errno;
            for (size_t j = 0; j < i; j++)
                close(ret_fds[j]);
            return err_errno(err, E_INVALIDARG, saved, "Check the section tls of the configuration.", "cannot open %s",
                             paths[i]);
        }
    }
    return 0;
}

json_t *messages_front(const struct serve *serve, const char *type)
{
    static const char *const limits[] = {
        "connections",   "connections_per_address", "handshakes", "handshake_seconds", "head_seconds",
        "stall_seconds", "least_bytes_per_second",  "head_bytes", "headers",           "body_bytes"};
    json_t *doc = message(type);

    json_put(doc, "limits", selected(json_object_get(serve->config, "limits"), limits, ELEMENTS(limits)));
    json_put(doc, "listeners", json_integer((json_int_t)serve->listeners.n + (serve->local.fd >= 0)));
    json_put(doc, "has_client_ca", json_boolean(json_object_get(json_object_get(serve->config, "tls"), "client_ca")));
    json_put(doc, "has_client_crl", json_boolean(json_object_get(json_object_get(serve->config, "tls"), "client_crl")));
    return doc;
}

/* --- core --- */

static json_t *principal(const char *kind, const char *key, const char *value, const char *name, const char *role)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "kind", kind, key, value, "principal", name, "role", role);
}

/* Users and groups of this machine, by number; a name that it does not know is nobody. NULL: left out, and told. */
static json_t *local_principal(const struct serve *serve, const json_t *entry)
{
    const char *user = json_str(entry, "user", NULL), *group = json_str(entry, "group", NULL);
    const char *name = json_str(entry, "name", ""), *role = json_str(entry, "role", "");
    int64_t number = local_users_number(serve->local_users, entry);

    if (number < 0) {
        const char *why = number == LOCAL_USERS_NOBODY ? "this machine has no" : "there is no answer yet about";
        log_line(LOG_LEVEL_WARNING, NULL, "principal %s: %s %s %s", name, why, user ? "user" : "group", user ? user : group);
        return NULL;
    }
    return json_pack("{s:s, s:I, s:s, s:s}", "kind", user ? "user" : "group", "id",
                     (json_int_t)number, "principal", name, "role", role);
}

/* Root, and whoever runs the daemon: both could read the admin token. */
static void add_owners(json_t *list)
{
    json_add(list, json_pack("{s:s, s:I, s:s, s:s}", "kind", "user", "id", (json_int_t)0, "principal", "root", "role",
                             "admin"));
    if (geteuid() != 0)
        json_add(list, json_pack("{s:s, s:I, s:s, s:s}", "kind", "user", "id", (json_int_t)geteuid(), "principal",
                                 "admin", "role", "admin"));
}

static json_t *principals(const struct serve *serve, struct err *err)
{
    char token[PKI_TOKEN_SIZE], hash[HASH_HEX_SIZE];
    json_t *list = json_array();
    size_t i;
    json_t *entry;

    if (pki_admin_token(serve->places.state_dir, token, err) != 0) {
        json_decref(list);
        return NULL;
    }
    json_add(list, principal("token", "sha256", hash_sha256_hex(token, strlen(token), hash), "admin", "admin"));
    json_add(list, principal("certificate", "name", "admin", "admin", "admin"));
    explicit_bzero(token, sizeof(token));
    add_owners(list);
    if (local_users_look_up(serve->local_users, json_object_get(serve->config, "principals"), local_users_find, LOCAL_USERS_MS) > 0)
        log_line(LOG_LEVEL_WARNING, NULL, "users and groups could not all be looked up in time: what was known of them before counts");
    json_array_foreach(json_object_get(serve->config, "principals"), i, entry)
    {
        size_t before = json_array_size(list);
        const char *sha256 = json_str(entry, "token_sha256", NULL);
        const char *name = json_str(entry, "name", ""), *role = json_str(entry, "role", "");
        uint8_t digest[HASH_SIZE];
        json_t *local = json_object_get(entry, "user") || json_object_get(entry, "group") ? local_principal(serve, entry) : NULL;
        if (local)
            json_add(list, local);
        else if (sha256 && hash_from_hex(sha256, digest)) /* lower case, whatever the file has */
            json_add(list, principal("token", "sha256", hash_hex(digest, hash), name, role));
        else if (json_object_get(entry, "certificate"))
            json_add(list, principal("certificate", "name", json_str(entry, "certificate", ""), name, role));
        if (json_object_get(entry, "paths") && json_array_size(list) > before)
            json_put(json_array_get(list, before), "paths", json_incref(json_object_get(entry, "paths")));
    }
    return list;
}

json_t *messages_core(const struct serve *serve, const char *type, struct err *err)
{
    AUTO_FREE char *ca = NULL;
    AUTO_FREE char *audit = NULL;
    json_t *known = principals(serve, err);

    if (!known)
        return NULL;
    if (atomic_file_read(serve->places.pki.ca_certificate, &ca, NULL, err) != 0 || atomic_file_read(serve->places.pki.audit_certificate, &audit, NULL, err) < 0) {
        json_decref(known);
        return NULL;
    }
    json_t *doc = message(type);
    json_t *config = json_deep_copy(serve->config);
    json_object_del(config, "tls");
    json_object_del(config, "principals"); /* they go as `principals`, with admin */
    json_put(doc, "config", config);
    json_put(doc, "node", json_string(serve->node));
    json_put(doc, "store_dir", json_string(serve->places.store));
    json_put(doc, "previous_end", json_string(serve->previous_end));
    json_put(doc, "ca_pem", json_string(ca));
    json_put(doc, "audit_pem", json_string(audit));
    json_put(doc, "principals", known);
    const char *fault_dir = getenv("QUIESCED_FAULT_DIR");
    if (fault_dir)
        json_put(doc, "fault_dir", json_string(fault_dir));
    return doc;
}

/* --- agent --- */

json_t *messages_agent(const struct serve *serve, const char *type)
{
    static const char *const sections[] = {"writers", "providers", "repositories", "restore", "expose", "limits", "state_dir"};
    json_t *doc = message(type);

    json_put(doc, "config", selected(serve->config, sections, ELEMENTS(sections)));
    json_put(doc, "node", json_string(serve->node));
    json_put(doc, "installation", json_string(serve->places.installation));
    json_put(doc, "staging", json_string(serve->places.staging));
    json_put(doc, "restoring", json_boolean(generation_restores(serve)));
    char records[PATH_MAX];
    record_directory(records);
    json_put(doc, "records", json_string(records));
    json_put(doc, "run_as", json_deep_copy(json_object_get(serve->config, "run_as")));
    return doc;
}
