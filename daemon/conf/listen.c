#include "conf/listen.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

#include "base/str.h"

static bool parse_v6(char *host, struct sockaddr_in6 *address)
{
    char *zone = strchr(host, '%');

    if (zone) {
        *zone++ = '\0';
        address->sin6_scope_id = if_nametoindex(zone);
        if (address->sin6_scope_id == 0)
            return false;
    }
    address->sin6_family = AF_INET6;
    return inet_pton(AF_INET6, host, &address->sin6_addr) == 1;
}

int listen_parse(const char *text, struct listen_address *ret, struct err *err)
{
    static const char hint[] = "Write ADDRESS:PORT with a numeric address, for example 0.0.0.0:8877 or [::1]:8877.";
    const char *colon = strrchr(text, ':');
    char host[96];
    int64_t port;
    bool good;

    memset(ret, 0, sizeof(*ret));
    if (!colon || !str_to_int(colon + 1, 0, 65535, &port) || (size_t)(colon - text) >= sizeof(host))
        return err_set(err, E_INVALIDARG, hint, "%.96s: not a listening address", text);
    str_format(host, sizeof(host), "%.*s", (int)(colon - text), text);
    size_t length = strlen(host);
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        struct sockaddr_in6 *address = (struct sockaddr_in6 *)&ret->address;
        host[length - 1] = '\0';
        good = parse_v6(host + 1, address);
        address->sin6_port = htons((uint16_t)port);
        ret->size = sizeof(*address);
    } else {
        struct sockaddr_in *address = (struct sockaddr_in *)&ret->address;
        address->sin_family = AF_INET;
        good = inet_pton(AF_INET, host, &address->sin_addr) == 1;
        address->sin_port = htons((uint16_t)port);
        ret->size = sizeof(*address);
    }
    return good ? 0 : err_set(err, E_INVALIDARG, hint, "%.96s: not a listening address", text);
}

void listen_format(const struct sockaddr_storage *address, bool reachable, char ret[64])
{
    char host[INET6_ADDRSTRLEN] = "";

    if (address->ss_family == AF_INET6) {
        struct sockaddr_in6 v6 = *(const struct sockaddr_in6 *)address;
        if (reachable && IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr))
            v6.sin6_addr = in6addr_loopback;
        inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
        str_format(ret, 64, "[%s]:%d", host, ntohs(v6.sin6_port));
    } else {
        struct sockaddr_in v4 = *(const struct sockaddr_in *)address;
        if (reachable && v4.sin_addr.s_addr == htonl(INADDR_ANY))
            v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
        str_format(ret, 64, "%s:%d", host, ntohs(v4.sin_port));
    }
}
