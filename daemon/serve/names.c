/* Every name and address that a client may call this host by. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/patience.h"
#include "serve/serve_private.h"

DEFINE_CLEANUP(struct ifaddrs *, freeifaddrs)

enum { FQDN_MS = 2000 }; /* a dead name server must not hold the start up; the short name is then served alone */

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

/* getaddrinfo knows no time-out of its own, hence the thread; whoever comes last frees. (glibc's getaddrinfo_a does the
 * same, but with a thread that the sanitizers do not see.) */
struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done, abandoned;
    char node[256], fqdn[256];
};

static void lookup_free(struct lookup *lookup)
{
    pthread_cond_destroy(&lookup->ended);
    pthread_mutex_destroy(&lookup->lock);
    free(lookup);
}

static void *lookup_run(void *arg)
{
    struct lookup *lookup = arg;
    const struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;

    bool ok = getaddrinfo(lookup->node, NULL, &hints, &found) == 0;
    pthread_mutex_lock(&lookup->lock);
    if (ok && found->ai_canonname)
        str_copy(lookup->fqdn, sizeof(lookup->fqdn), found->ai_canonname);
    if (ok)
        freeaddrinfo(found);
    lookup->done = true;
    bool abandoned = lookup->abandoned;
    pthread_cond_signal(&lookup->ended);
    pthread_mutex_unlock(&lookup->lock);
    if (abandoned)
        lookup_free(lookup);
    return NULL;
}

static void add_fqdn(json_t *list, const char *node)
{
    struct lookup *lookup = mem_new(sizeof(*lookup));

    pthread_mutex_init(&lookup->lock, NULL);
    pthread_cond_init(&lookup->ended, NULL);
    str_copy(lookup->node, sizeof(lookup->node), node);
    if (!patience_start(lookup_run, lookup)) {
        lookup_free(lookup);
        return;
    }
    pthread_mutex_lock(&lookup->lock);
    bool done = patience_wait(&lookup->ended, &lookup->lock, &lookup->done, FQDN_MS);
    lookup->abandoned = !done;
    pthread_mutex_unlock(&lookup->lock);
    if (!done)
        return;
    if (is_dns_name(lookup->fqdn))
        add(list, lookup->fqdn);
    lookup_free(lookup);
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
