#include "api/assets.h"

#include <string.h>
#include <strings.h>

#include "api/reply.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "engine/etag.h"

/* Nothing from elsewhere, and no inline code. */
#define OWN_ALONE "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " \
                  "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

/* Design, section 9: the dashboard's own code writes no markup, either. */
static const struct root {
    const char *path, *policy;
} roots[] = {
    {"/ui/", OWN_ALONE "; require-trusted-types-for 'script'; trusted-types 'none'"},
    {"/docs/manual/", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}, /* no scripts at all */
    {"/docs/", OWN_ALONE}, /* swagger-ui writes markup, of descriptions that it has purified */
};

/* --- what is asked for --- */

/* The weight that one element of the list gives to name; -1: it is about something else. */
static int weight(const char *element, size_t length, const char *name)
{
    size_t named = strcspn(element, "; \t,");
    const char *q = memmem(element, length, "q=", 2);

    if (named > length)
        named = length;
    if (strlen(name) != named || strncasecmp(element, name, named) != 0)
        return -1;
    return q && strspn(q + 2, "0.") == (size_t)(element + length - q - 2) ? 0 : 1;
}

bool assets_accepts(const char *accept_encoding, const char *encoding)
{
    const char *name = *encoding ? encoding : "identity";
    int own = -1, any = -1;

    for (const char *at = accept_encoding ? accept_encoding : ""; *at;) {
        at += strspn(at, " \t,");
        size_t length = strcspn(at, ",");
        while (length > 0 && strchr(" \t", at[length - 1]))
            length--;
        int about = weight(at, length, name), all = weight(at, length, "*");
        own = about >= 0 ? about : own;
        any = all >= 0 ? all : any;
        at += strcspn(at, ",");
    }
    if (own >= 0)
        return own > 0;
    return *encoding ? any > 0 : any != 0;
}

static const struct asset_variant *choose(const struct asset *asset, const char *accept_encoding)
{
    for (size_t i = 0; i < asset->n_variants; i++)
        if (assets_accepts(accept_encoding, asset->variants[i].encoding))
            return &asset->variants[i];
    return &asset->variants[asset->n_variants - 1];
}

/* --- replies --- */

static const struct root *root_of(const char *path)
{
    for (size_t i = 0; i < ELEMENTS(roots); i++)
        if (str_starts(path, roots[i].path))
            return &roots[i];
    return NULL;
}

static void headers(struct exchange *exchange, const struct asset *asset, const struct asset_variant *variant)
{
    reply_header(exchange, "ETag", "%s", variant->etag);
    reply_header(exchange, "Vary", "Accept-Encoding");
    reply_header(exchange, "Cache-Control", "%s", asset->immutable ? "public, max-age=31536000, immutable" : "no-cache");
    if (*variant->encoding)
        reply_header(exchange, "Content-Encoding", "%s", variant->encoding);
    reply_header(exchange, "Content-Security-Policy", "%s", root_of(asset->path)->policy);
    reply_header(exchange, "Cross-Origin-Opener-Policy", "same-origin");
    reply_header(exchange, "Cross-Origin-Resource-Policy", "same-origin");
    reply_header(exchange, "Referrer-Policy", "no-referrer");
    reply_header(exchange, "Permissions-Policy", "camera=(), geolocation=(), microphone=()");
}

static void serve(struct exchange *exchange, const struct asset *asset)
{
    const struct asset_variant *variant = choose(asset, http_header(exchange->http, "Accept-Encoding"));

    headers(exchange, asset, variant);
    const char *known = http_header(exchange->http, "If-None-Match");
    if (known && etag_list_valid(known) && etag_listed(known, variant->etag, false))
        reply_empty(exchange, 304);
    else
        reply_static(exchange, asset->content_type, variant->bytes, variant->size);
}

static const struct asset *find(const char *path, size_t length)
{
    for (size_t i = 0; i < assets_count; i++)
        if (strlen(assets_all[i].path) == length && strncmp(assets_all[i].path, path, length) == 0)
            return &assets_all[i];
    return NULL;
}

static bool is_get(const struct exchange *exchange)
{
    return str_eq(http_method(exchange->http), "GET") || str_eq(http_method(exchange->http), "HEAD");
}

/* A browser that is sent to the bare address. */
static bool wants_page(const struct exchange *exchange)
{
    const char *accept = http_header(exchange->http, "Accept");

    return is_get(exchange) && accept && strstr(accept, "text/html");
}

/* What lies beneath a root, or the root without its slash. */
static const struct root *asked_root(const char *target, size_t length, bool *ret_bare)
{
    for (size_t i = 0; i < ELEMENTS(roots); i++) {
        size_t root = strlen(roots[i].path);
        *ret_bare = length == root - 1 && strncmp(target, roots[i].path, length) == 0;
        if (*ret_bare || str_starts(target, roots[i].path))
            return &roots[i];
    }
    return NULL;
}

static const struct asset *index_of(const struct root *root)
{
    char path[64];

    str_format(path, sizeof(path), "%sindex.html", root->path);
    return find(path, strlen(path));
}

bool assets_answer(struct exchange *exchange)
{
    const char *target = http_target(exchange->http);
    size_t length = strcspn(target, "?#");
    bool at_root = length == 1 && *target == '/' && wants_page(exchange), bare = false;
    const struct root *root = at_root ? &roots[0] : asked_root(target, length, &bare);

    if (!root || !index_of(root)) /* one that was not built in */
        return false;
    const struct asset *asset = length == strlen(root->path) ? index_of(root) : find(target, length);
    str_copy(exchange->match.allow, sizeof(exchange->match.allow), "GET, HEAD, OPTIONS");
    if (str_eq(http_method(exchange->http), "OPTIONS")) {
        reply_options(exchange);
    } else if (!is_get(exchange)) {
        reply_no_method(exchange);
    } else if (bare || at_root) {
        reply_header(exchange, "Location", "%s", root->path);
        reply_empty(exchange, 308);
    } else if (asset) {
        serve(exchange, asset);
    } else {
        reply_no_path(exchange);
    }
    return true;
}
