#pragma once
/* Seals of the audit trail: what the chain of its records (chain.h) was at one record, signed (ECDSA P-256, SHA-256) with a key that only the
 * signer can read. A seal is one line
 *   {"seal":N,"hash":HASH OF RECORD N,"previous":{"seal","hash"}|null,"time","installation","certificate":DER in base64,"signature":base64}
 * whose signature is over the text that audit_seal_text gives. `previous` is what the signer itself remembers of the seal before: who holds the store can
 * drop seals and write the records anew, but the next seal then says what they were. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "crypto/hash.h"

/* In the signer. Seals record seq, whose hash is given as lower-case hex, and remembers it (pki/audit.seal, durable before anybody hears of it; a copy for
 * everybody is state_dir/audit.seal). New reference. NULL with err: VSS_E_BAD_STATE, reason AUDIT_SEAL_BEHIND, when seq is not beyond the last one; the same
 * record once more gets the same seal, since it may have been lost on its way. One at a time: a lock on the key. */
#define AUDIT_SEAL_BEHIND "seal_behind"
/* VSS_E_BAD_STATE, too, when seq is further beyond the last one than this: a number is used up once it is sealed, so whoever may ask for seals must not
 * get one that the trail never reaches. 16,777,216 records are half a year at one a second. */
enum { AUDIT_SEAL_STEP_MAX = 1 << 24 };
json_t *audit_seal_make(const char *state_dir, int64_t seq, const char *hash, struct err *err);

/* Signed text; malloc'ed. NULL when a member is missing. */
char *audit_seal_text(const json_t *seal);

/* Whose seals are believed: those of given keys, and those whose certificate a CA has issued for just that. */
struct audit_trust;
/* key_file, ca_file: PEM; either may be NULL. key_file has one or more public keys, or certificates of which the key counts. NULL with err. */
struct audit_trust *audit_trust_load(const char *key_file, const char *ca_file, struct err *err);
void audit_trust_free(struct audit_trust *trust); /* NULL is fine */
/* NULL, or what is wrong with the signature or its key: a static text. */
const char *audit_seal_fault(const struct audit_trust *trust, const json_t *seal);
