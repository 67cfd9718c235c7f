#pragma once
/* Hash chains of JSON lines: the audit trail (docs/audit.md). A record is one line
 *   {"seq":N,"prev":"HASH OF RECORD N-1",CONTENT,"hash":"HASH"}
 * whose hash is the SHA-256 of the line without its last member; of record 1, prev is 64 zeros. The bytes count, not their
 * meaning: nothing has to be brought into a canonical form to be checked. */
#include <stdbool.h>
#include <stdint.h>

#include "crypto/hash.h"

#define CHAIN_BEGIN "0000000000000000000000000000000000000000000000000000000000000000"

/* content: a compact JSON object that is not empty. The record, malloc'ed; its hash, which is the next one's prev. */
char *chain_record(uint64_t seq, const char *prev, const char *content, char ret_hash[HASH_HEX_SIZE]);
/* Does the record have the hash that it says? ret_hash is what it says, "" when it says none. */
bool chain_holds(const char *record, char ret_hash[HASH_HEX_SIZE]);

/* quiesced audit-verify [--key FILE] [--ca FILE] [--seal FILE] [--after SEQ:HASH] [--head SEQ:HASH] FILE. Returns the exit status. */
int audit_verify_main(int argc, char **argv);
