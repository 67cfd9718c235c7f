#include "api/role_figures.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"

/* A member of a role's figures is a family: a number, or with a label one number for each member of an object. */
static const struct row {
    const char *role, *member, *label;
    enum openmetrics_type type;
    double scale;
    const char *name, *help;
} rows[] = {
    {"front", "connections", NULL, OPENMETRICS_GAUGE, 1, "quiesced_connections", "Connections of clients."},
    {"front", "connections_most", NULL, OPENMETRICS_GAUGE, 1, "quiesced_connections_limit", "How many there may be: limits.connections, or what the limit of open files allows."},
    {"front", "accepted", NULL, OPENMETRICS_COUNTER, 1, "quiesced_connections_accepted", "Connections that were taken."},
    {"front", "handshakes", NULL, OPENMETRICS_GAUGE, 1, "quiesced_handshakes_in_hand", "TLS handshakes that are going on."},
    {"front", "handshake_ends", "outcome", OPENMETRICS_COUNTER, 1, "quiesced_handshakes", "TLS handshakes that ended: full, resumed, failed (also: given up, too slow)."},
    {"front", "refused", "what", OPENMETRICS_COUNTER, 1, "quiesced_refusals", "Refused by front: connections beyond limits, client certificates, requests by the framing gate."},
    {"front", "certificates", "certificate", OPENMETRICS_GAUGE, 0.001, "quiesced_certificate_expiry_timestamp_seconds", "When the certificates in use expire."},
    {"agent", "armed", NULL, OPENMETRICS_GAUGE, 1, "quiesced_guardian_sets", "Freeze sets with a guardian that is ready to thaw them."},
    {"agent", "frozen", NULL, OPENMETRICS_GAUGE, 1, "quiesced_guardian_frozen_sets", "Of these, the ones whose file systems are frozen or about to be."},
    {"agent", "second_holder_thaws", NULL, OPENMETRICS_COUNTER, 1, "quiesced_second_holder_thaws", "Freeze sets that the agent had to thaw, because the guardian did not."},
};

static void write_row(const struct row *row, const json_t *value, struct openmetrics *text)
{
    const char *key;
    const json_t *one;

    openmetrics_family(text, row->type, row->name, row->help);
    if (!row->label && json_is_number(value))
        openmetrics_plain(text, row->scale * json_number_value(value));
    if (row->label)
        json_object_foreach((json_t *)(uintptr_t)value, key, one)
            openmetrics_one(text, row->label, key, row->scale * json_number_value(one));
}

static void write_frozen(const json_t *agent, struct openmetrics *text)
{
    int64_t since = json_int(agent, "frozen_since_us", 0); /* of CLOCK_MONOTONIC, which all processes share */

    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_file_systems_frozen_seconds",
                       "For how long the oldest freeze of file systems that is going on has lasted; 0 when none is.");
    openmetrics_plain(text, since > 0 ? (double)(clock_mono_us() - since) / 1e6 : 0);
}

void role_figures_write(const json_t *figures, struct openmetrics *text)
{
    const json_t *roles = json_object_get(figures, "roles"), *count;
    const char *role;

    for (size_t i = 0; i < ELEMENTS(rows); i++)
        write_row(&rows[i], json_object_get(json_object_get(roles, rows[i].role), rows[i].member), text);
    write_frozen(json_object_get(roles, "agent"), text);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_role_failures", "Deaths of a role, after each of which all roles were started again; counted by serve.");
    json_object_foreach((json_t *)(uintptr_t)json_object_get(figures, "restarts"), role, count)
        openmetrics_one(text, "role", role, (double)json_integer_value(count));
}
