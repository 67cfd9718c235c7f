#include "api/cursor.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "crypto/hash.h"

/* It guards against mistakes, not against forgery: who may see what is judged on each page anew. */
enum { BINDING_SIZE = 6 };

static const char *const apart[] = {"cursor", "limit", "fields"}; /* what may differ from page to page */
static const char default_sort[] = "-id"; /* said or not: the same order */

static void hash_text(struct hash *hash, const char *text)
{
    hash_update(hash, text, strlen(text) + 1);
}

static void binding(const struct exchange *exchange, uint8_t ret[BINDING_SIZE])
{
    uint8_t digest[HASH_SIZE];
    AUTO_JSON json_t *filters = json_copy(exchange->query);
    struct hash *hash = hash_new();

    for (size_t i = 0; i < ELEMENTS(apart); i++)
        json_object_del(filters, apart[i]);
    if (str_eq(json_str(filters, "sort", NULL), default_sort))
        json_object_del(filters, "sort");
    AUTO_FREE char *text = json_dumps(filters, JSON_COMPACT | JSON_SORT_KEYS);
    hash_text(hash, exchange->match.route->path);
    for (size_t i = 0; i < ROUTE_PARAMS_MAX; i++)
        hash_text(hash, exchange->match.params[i] ? exchange->match.params[i] : "");
    hash_text(hash, text);
    hash_final(hash, digest);
    hash_free(hash);
    memcpy(ret, digest, BINDING_SIZE);
}

char *cursor_make(const struct exchange *exchange, const char *place)
{
    size_t size = strlen(place);
    AUTO_FREE uint8_t *bytes = mem_new(BINDING_SIZE + size);

    binding(exchange, bytes);
    memcpy(bytes + BINDING_SIZE, place, size);
    return hash_base64url(bytes, BINDING_SIZE + size);
}

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *found = c ? strchr(digits, c) : NULL;

    return found ? (int)(found - digits) : -1;
}

/* The bytes, and a NUL behind them; NULL: it is no base64url without padding. */
static uint8_t *decode(const char *text, size_t *ret_size)
{
    size_t length = strlen(text), used = 0;
    AUTO_FREE uint8_t *bytes = mem_new(length + 1);
    uint32_t bits = 0;

    for (size_t i = 0; i < length; i++) {
        int value = digit(text[i]);
        if (value < 0)
            return NULL;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 > 0)
            bytes[used++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    if (length % 4 == 1)
        return NULL;
    bytes[used] = '\0';
    *ret_size = used;
    return TAKE_PTR(bytes);
}

char *cursor_read(const struct exchange *exchange, const char *cursor)
{
    uint8_t wanted[BINDING_SIZE];
    size_t size = 0;
    AUTO_FREE uint8_t *bytes = decode(cursor, &size);

    binding(exchange, wanted);
    if (!bytes || size <= BINDING_SIZE || memcmp(bytes, wanted, BINDING_SIZE) != 0 ||
        memchr(bytes + BINDING_SIZE, 0, size - BINDING_SIZE))
        return NULL;
    return str_dup((const char *)bytes + BINDING_SIZE);
}
