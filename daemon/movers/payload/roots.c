#include "movers/payload/roots.h"

#include <string.h>
#include <unistd.h>

#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/hash.h"

void roots_name(const struct mover_request *request, const char *node, char ret[ROOTS_SIZE])
{
    char hex[HASH_HEX_SIZE];
    uint8_t digest[HASH_SIZE];
    struct hash *hash = hash_new();
    hash_update(hash, node, strlen(node) + 1);
    for (size_t i = 0; i < request->n_items; i++)
        if (request->items[i].recursive)
            hash_update(hash, request->items[i].path, strlen(request->items[i].path) + 1);
    hash_final(hash, digest);
    hash_free(hash);
    str_format(ret, ROOTS_SIZE, "%.16s", hash_hex(digest, hex));
}

void roots_node(const json_t *document, char *ret, size_t size)
{
    const char *node = json_str(document, "node", NULL);
    memset(ret, 0, size);
    if (!node || !*node || !str_copy(ret, size, node))
        gethostname(ret, size - 1);
}
