#pragma once
/* Files within the program (scripts/embed-assets.py): the dashboard, and the contract's pages. Served to everybody: they hold no secret, and what they ask for is
 * asked with a credential. */
#include <stdbool.h>
#include <stddef.h>

#include "api/exchange.h"

enum { ASSET_ENCODINGS = 3 };

struct asset_variant {
    const char *encoding; /* "br", "gzip", "" = as it is; smallest first, the plain one last */
    const char *bytes;
    size_t size;
    const char *etag;
};
struct asset {
    const char *path, *content_type;
    bool immutable; /* the name holds a hash of the content */
    struct asset_variant variants[ASSET_ENCODINGS];
    size_t n_variants;
};
extern const struct asset assets_all[];
extern const size_t assets_count;

/* Does the path belong to them? Then the exchange has its reply: the file, 304, a redirect, or a refusal. */
bool assets_answer(struct exchange *exchange);
/* Of RFC 9110, section 12.5.3: may the reply to that Accept-Encoding (NULL = absent) have that encoding ("" = none)? */
bool assets_accepts(const char *accept_encoding, const char *encoding);
