#include "crypto/chain.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

#define HASH_MEMBER ",\"hash\":\""
enum { TAIL = sizeof(HASH_MEMBER) - 1 + HASH_HEX_SIZE - 1 + 2 }; /* ,"hash":"…"} */

char *chain_record(uint64_t seq, const char *prev, const char *content, char ret_hash[HASH_HEX_SIZE])
{
    AUTO_FREE char *bare = str_new("{\"seq\":%" PRIu64 ",\"prev\":\"%s\",%s", seq, prev, content + 1);
    size_t length = strlen(bare);

    hash_sha256_hex(bare, length, ret_hash);
    return str_new("%.*s" HASH_MEMBER "%s\"}", (int)length - 1, bare, ret_hash);
}

bool chain_holds(const char *record, char ret_hash[HASH_HEX_SIZE])
{
    size_t length = strlen(record);
    char real[HASH_HEX_SIZE];

    ret_hash[0] = '\0';
    if (length < TAIL + 2)
        return false;
    const char *tail = record + length - TAIL, *hash = tail + sizeof(HASH_MEMBER) - 1;
    if (!str_starts(tail, HASH_MEMBER) || strspn(hash, "0123456789abcdef") != HASH_HEX_SIZE - 1 || !str_eq(hash + HASH_HEX_SIZE - 1, "\"}"))
        return false;
    str_format(ret_hash, HASH_HEX_SIZE, "%.*s", HASH_HEX_SIZE - 1, hash);
    AUTO_FREE char *bare = str_new("%.*s}", (int)(length - TAIL), record);
    return str_eq(hash_sha256_hex(bare, strlen(bare), real), ret_hash);
}
