#pragma once
/* How much one address and one principal may ask for, and how often they may be wrong. Memory is bounded: who has not been
 * seen for longest is forgotten for whoever is new. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/preface.h"

struct throttle;
struct throttle_key {
    uint8_t bytes[16];
};

/* limits of the configuration: wrong_credentials, address_requests_per_second, principal_requests_per_second; 0 = no bound. */
struct throttle *throttle_new(const json_t *limits);
void throttle_reload(struct throttle *throttle, const json_t *limits);
void throttle_free(struct throttle *throttle); /* NULL is fine */

/* IPv6: by its /64, which is what one site has. An address without IP is one of its own. */
void throttle_key_address(struct throttle *throttle, const struct sockaddr *peer, struct throttle_key *ret);
void throttle_key_user(struct throttle *throttle, uint32_t uid, struct throttle_key *ret); /* of the local socket */
void throttle_key_principal(struct throttle *throttle, const char *name, struct throttle_key *ret);

enum throttle_rate { THROTTLE_ADDRESS, THROTTLE_PRINCIPAL };
/* Counts one request; seconds to wait when it is one too many, else 0. */
int throttle_request(struct throttle *throttle, const struct throttle_key *key, enum throttle_rate rate);
/* Seconds until the next wrong credential of it may be looked at; 0 = now. */
int throttle_blocked(struct throttle *throttle, const struct throttle_key *key);
/* A wrong one. From limits.wrong_credentials on each one blocks twice as long as the one before, at most five minutes. */
void throttle_wrong(struct throttle *throttle, const struct throttle_key *key);
/* A credential that was right from there is looked at even while the address is blocked: others' mistakes do not lock its
 * holder out. id: the beginning of its hash. */
bool throttle_is_known(struct throttle *throttle, const struct throttle_key *key, const uint8_t id[8]);
void throttle_set_known(struct throttle *throttle, const struct throttle_key *key, const uint8_t id[8], bool known);
