/* Every name and address that a client may call this host by. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/serve_private.h"

DEFINE_CLEANUP(struct ifaddrs *, freeifaddrs)

enum { FQDN_SECONDS = 2 }; /* a dead name server must not hold the start up; the short name is then served alone */

void names_node(char *ret, size_t size)
{
    if (gethostname(ret, size) != 0 || !*ret)
        str_copy(ret, size, "localhost");
    ret[size - 1] = '\0';
}

static void add(json_t *list, const char *text)
{
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item) if (str_eq(json_string_value(item), text)) return;
    json_add(list, json_string(text));
}

/* The kernel takes any bytes as a host name; only what DNS allows can stand in a certificate. */
static bool is_dns_name(const char *text)
{
    size_t length = strlen(text);

    return length > 0 && length <= 253 && text[0] != '-' && text[0] != '.' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == length;
}

/* getaddrinfo knows no time-out of its own. The request outlives a time-out: glibc's thread still writes to it. */
static void add_fqdn(json_t *list, const char *node)
{
    static struct addrinfo hints;
    static struct gaicb request;
    static char name[256];
    static bool under_way;
    struct gaicb *requests[] = {&request};

    if (under_way && gai_error(&request) == EAI_INPROGRESS)
        return;
    if (under_way && gai_error(&request) == 0)
        freeaddrinfo(request.ar_result);
    str_copy(name, sizeof(name), node);
    hints = (struct addrinfo){.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM};
    request = (struct gaicb){.ar_name = name, .ar_request = &hints};
    under_way = getaddrinfo_a(GAI_NOWAIT, requests, 1, NULL) == 0;
    if (!under_way)
        return;
    gai_suspend((const struct gaicb *const *)requests, 1, &(struct timespec){FQDN_SECONDS, 0});
    if (gai_error(&request) != 0) {
        if (gai_cancel(&request) == EAI_CANCELED)
            under_way = false;
        return;
    }
    if (request.ar_result && request.ar_result->ai_canonname && is_dns_name(request.ar_result->ai_canonname))
        add(list, request.ar_result->ai_canonname);
    freeaddrinfo(request.ar_result);
    under_way = false;
}

static void add_addresses(json_t *list)
{
    CLEANUP(freeifaddrs_p) struct ifaddrs *interfaces = NULL;
    char text[INET6_ADDRSTRLEN];

    if (getifaddrs(&interfaces) != 0)
        return;
    for (struct ifaddrs *at = interfaces; at; at = at->ifa_next) {
        if (!at->ifa_addr)
            continue;
        int family = at->ifa_addr->sa_family;
        const void *bytes = family == AF_INET    ? (const void *)&((struct sockaddr_in *)at->ifa_addr)->sin_addr
                            : family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)at->ifa_addr)->sin6_addr
                                                 : NULL;
        if (bytes && inet_ntop(family, bytes, text, sizeof(text)))
            add(list, text);
    }
}

json_t *names_collect(const json_t *config)
{
    json_t *hostnames = json_array(), *addresses = json_array(), *names = json_object();
    char node[256];
    size_t i;
    json_t *name;

    names_node(node, sizeof(node));
    if (is_dns_name(node)) {
        add(hostnames, node);
        add_fqdn(hostnames, node);
    }
    json_array_foreach(json_object_get(json_object_get(config, "tls"), "hostnames"), i, name)
        add(hostnames, json_string_value(name));
    add_addresses(addresses);
    json_put(names, "hostnames", hostnames);
    json_put(names, "addresses", addresses);
    return names;
}
