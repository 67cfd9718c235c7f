#include "model/webhook_rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/addresses.h"

enum { HOST_MAX = 254 };

static bool plain(const char *text)
{
    for (const char *p = text; *p; p++)
        if (*p <= ' ' || *p > '~' || strchr("\"<>\\^`{|}#", *p))
            return false;
    return true;
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT" */
static bool split_authority(const char *text, size_t length, char ret_host[HOST_MAX])
{
    const char *end = text + length, *host = text, *host_end;
    int64_t port;
    if (length > 0 && *text == '[') {
        host = text + 1;
        host_end = memchr(host, ']', length - 1);
        if (!host_end)
            return false;
        text = host_end + 1;
    } else {
        host_end = memchr(text, ':', length);
        host_end = host_end ? host_end : end;
        text = host_end;
    }
    size_t host_length = (size_t)(host_end - host);
    if (host_length == 0 || host_length >= HOST_MAX)
        return false;
    memcpy(ret_host, host, host_length);
    ret_host[host_length] = '\0';
    if (text == end)
        return true;
    char number[8];
    size_t digits = (size_t)(end - text) - 1;
    if (*text != ':' || digits == 0 || digits >= sizeof number)
        return false;
    memcpy(number, text + 1, digits);
    number[digits] = '\0';
    return str_to_int(number, 1, 65535, &port);
}

/* Numeric: *ret is filled. Otherwise a name. */
static bool numeric(const char *host, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ret;
    *ret = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        return true;
    }
    return false;
}

static bool host_name(const char *host)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    return host[strspn(host, letters)] == '\0' && *host != '.' && *host != '-';
}

static int refuse(struct err *err, const char *hint, const char *why)
{
    err_set(err, E_INVALIDARG, hint, "%s", why);
    if (err)
        str_copy(err->pointer, sizeof err->pointer, "/url");
    return -1;
}

int webhook_url_check(const char *url, const struct webhook_bounds *bounds, struct err *err)
{
    char host[HOST_MAX];
    struct sockaddr_storage address;
    bool https = str_starts(url, "https://"), http = str_starts(url, "http://");
    if (!https && !(http && bounds->allow_http))
        return refuse(err, "Plain http needs webhooks.allow_http in the configuration.", "must begin with https://");
    if (!plain(url))
        return refuse(err, "Percent-encode what is not printable ASCII.", "must be printable ASCII without a fragment");
    const char *authority = url + (https ? 8 : 7);
    size_t length = strcspn(authority, "/?");
    if (memchr(authority, '@', length))
        return refuse(err, "Deliveries are signed: that is how the receiver knows them.", "must not carry a user or a password");
    if (!split_authority(authority, length, host))
        return refuse(err, NULL, "has no host and port that can be understood");
    bool bracketed = *authority == '[';
    if (!numeric(host, &address) || bracketed != (address.ss_family == AF_INET6)) {
        if (bracketed || !host_name(host))
            return refuse(err, NULL, "has a host that is neither a name nor an address");
        return 0;
    }
    if (!webhook_address_allowed((const struct sockaddr *)&address, bounds->allow_private))
        return refuse(err, "Receivers in a private network need webhooks.allow_private in the configuration.",
                      "is an address that is not on the public internet");
    return 0;
}

bool webhook_address_allowed(const struct sockaddr *address, const json_t *allow_private)
{
    size_t i;
    const json_t *block;
    if (address_public(address))
        return true;
    json_array_foreach(allow_private, i, block)
        if (address_within(address, json_string_value(block)))
            return true;
    return false;
}

bool webhook_wants(const json_t *events, const char *type)
{
    return json_array_size(events) == 0 || json_has_string(events, type);
}

int64_t webhook_pause_ms(const json_t *schedule, int64_t attempts, uint32_t random)
{
    if (attempts < 1 || (size_t)attempts > json_array_size(schedule))
        return -1;
    int64_t pause_ms = 1000 * json_integer_value(json_array_get(schedule, (size_t)attempts - 1));
    return pause_ms * 9 / 10 + (int64_t)random % (pause_ms / 5 + 1);
}
