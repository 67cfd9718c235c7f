#pragma once
/* What a webhook may be, and when its next attempt is due. Pure. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

/* Where deliveries may go: `webhooks` of the configuration. */
struct webhook_bounds {
    bool allow_http;
    const json_t *allow_private; /* blocks, or NULL */
};

/* A URL "https://HOST[:PORT]/..." of printable ASCII, without user, password and fragment; a numeric HOST must be allowed.
 * E_INVALIDARG at /url. A host's name is judged by the address that it has when the courier connects. */
int webhook_url_check(const char *url, const struct webhook_bounds *bounds, struct err *err);
/* May the courier connect to it? */
bool webhook_address_allowed(const struct sockaddr *address, const json_t *allow_private);
/* Is the event among those that the webhook wants (none named: all)? */
bool webhook_wants(const json_t *events, const char *type);
/* How long after attempt number `attempts` (from 1) the next one is due, in milliseconds; -1: there is none. schedule: pauses in
 * seconds. random spreads it by a tenth to either side, so that receivers that were down are not all called at one moment. */
int64_t webhook_pause_ms(const json_t *schedule, int64_t attempts, uint32_t random);
