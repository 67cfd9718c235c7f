#include "conf/conf_defaults.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "conf/conf.h"

/* Figures: design, section 5 (writer_seconds, jobs, leases, retention) and section 2 (users). */
static const char defaults_text[] =
    "{\"listen\":[\"127.0.0.1:8877\",\"[::1]:8877\"],"
    "\"tls\":{\"hostnames\":[]},"
    "\"socket\":{\"enabled\":true},"
    "\"log\":{},"
    "\"writers\":[],"
    "\"providers\":{\"copy\":{}},"
    "\"repositories\":[],"
    "\"restore\":{\"roots\":[]},"
    "\"expose\":{\"roots\":[]},"
    "\"run_as\":{\"front\":\"quiesced-front\",\"core\":\"quiesced\",\"courier\":\"quiesced-courier\"},"
    "\"limits\":{\"freeze_seconds\":60,\"lease_seconds\":1800,\"jobs\":1000,\"sessions\":500,\"snapshots_per_volume\":512,"
    "\"writer_seconds\":{\"identify\":10,\"prepare_backup\":300,\"prepare_snapshot\":60,\"post_snapshot\":60,"
    "\"backup_complete\":60,\"abort\":10,\"backup_shutdown\":10,\"pre_restore\":600,\"post_restore\":600},"
    "\"drain_seconds\":10,\"connections\":10000,\"connections_per_address\":5000,\"handshakes\":2000,"
    "\"handshake_seconds\":10,\"head_seconds\":20,\"stall_seconds\":30,\"least_bytes_per_second\":100,"
    "\"head_bytes\":6656,\"headers\":64,\"body_bytes\":4194304,\"watchdog_seconds\":20,"
    "\"login_seconds\":43200,\"login_idle_seconds\":1800,"
    "\"wrong_credentials\":20,\"address_requests_per_second\":50000,\"principal_requests_per_second\":20000,"
    "\"streams\":4096,\"streams_per_principal\":256,\"waits_per_principal\":6000,\"heartbeat_seconds\":15},"
    "\"retention\":{\"jobs\":100000,\"days\":30,\"events\":100000},"
    "\"audit\":{\"seal_seconds\":3600,\"seal_records\":1000},"
    /* Standard Webhooks 1.0, "Retry schedule": ten attempts over three days, of which the first is at once. */
    "\"webhooks\":{\"allow_private\":[],\"allow_http\":false,\"timeout_seconds\":15,"
    "\"retry_seconds\":[5,300,1800,7200,18000,36000,50400,72000,86400],\"disable_after_seconds\":432000,\"log_days\":7},"
    "\"principals\":[]}";

/* Objects are filled member by member; lists are taken as they are. */
static void fill(json_t *object, const json_t *defaults)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)defaults, key, value)
    {
        json_t *own = json_object_get(object, key);
        if (!own)
            json_put(object, key, json_deep_copy(value));
        else if (json_is_object(own) && json_is_object(value))
            fill(own, value);
    }
}

json_t *conf_default(void)
{
    json_t *config = json_loads(defaults_text, 0, NULL);

    if (!config)
        abort();
    return config;
}

void conf_defaults(json_t *config)
{
    AUTO_JSON json_t *defaults = conf_default();

    fill(config, defaults);
}

void conf_place(json_t *config, const char *state_dir)
{
    json_t *copy = json_object_get(json_object_get(config, "providers"), "copy");

    json_put(config, "state_dir", json_string(state_dir));
    if (!json_object_get(copy, "staging")) {
        AUTO_FREE char *staging = str_new("%s/staging", state_dir);
        json_put(copy, "staging", json_string(staging));
    }
}

/* --- redaction --- */

#define REDACTED "(redacted)"

/* "rest:http://user:secret@host/" -> "rest:http://(redacted)@host/" */
static void redact_url(json_t *entry)
{
    const char *url = json_str(entry, "url", "");
    const char *start = strstr(url, "://");
    const char *host_end = start ? start + 3 + strcspn(start + 3, "/") : NULL;
    const char *at = start ? memrchr(start, '@', (size_t)(host_end - start)) : NULL;

    if (!at)
        return;
    AUTO_FREE char *text = str_new("%.*s" REDACTED "%s", (int)(start + 3 - url), url, at);
    json_put(entry, "url", json_string(text));
}

static void redact_environment(json_t *entry)
{
    json_t *environment = json_object_get(entry, "environment"), *value;
    const char *key;
    void *next;

    json_object_foreach_safe(environment, next, key, value) json_put(environment, key, json_string(REDACTED));
}

static void redact_repository(json_t *entry)
{
    redact_url(entry);
    redact_environment(entry);
}

static void redact_writer(json_t *entry)
{
    redact_environment(entry);
    if (strstr(json_str(entry, "connection", ""), "password"))
        json_put(entry, "connection", json_string(REDACTED));
}

static void redact_principal(json_t *entry)
{
    if (json_object_get(entry, "token_sha256"))
        json_put(entry, "token_sha256", json_string(REDACTED));
}

json_t *conf_redacted(const json_t *config)
{
    static const struct {
        const char *list;
        void (*redact)(json_t *entry);
    } rows[] = {{"writers", redact_writer}, {"repositories", redact_repository}, {"principals", redact_principal}};
    json_t *copy = json_deep_copy(config);

    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        size_t index;
        json_t *entry;
        json_array_foreach(json_object_get(copy, rows[i].list), index, entry) rows[i].redact(entry);
    }
    return copy;
}
