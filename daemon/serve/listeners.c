#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "conf/listen.h"
#include "serve/serve_private.h"

static int open_one(const char *text, int *ret_errno, struct err *err)
{
    static const struct {
        int errnum;
        const char *hint;
    } hints[] = {
        {EADDRINUSE,
         "Another program listens there (ss -ltnp shows which): stop it, or choose another address with --listen "
         "ADDR:PORT."},
        {EADDRNOTAVAIL, "No interface of this host has this address."},
        {EACCES, "Ports below 1024 need root: choose a higher one."},
    };
    struct listen_address address;
    const char *hint = NULL;
    int on = 1;

    *ret_errno = 0;
    if (listen_parse(text, &address, err) != 0)
        return -1;
    AUTO_FD int fd = socket(address.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd >= 0 && address.address.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)); /* so that 0.0.0.0 and [::] go together */
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address.address, address.size) == 0 && listen(fd, SOMAXCONN) == 0)
        return TAKE_FD(fd);
    *ret_errno = errno;
    for (size_t i = 0; i < ELEMENTS(hints); i++)
        if (hints[i].errnum == *ret_errno)
            hint = hints[i].hint;
    return err_errno(err, E_INVALIDARG, *ret_errno, hint, "cannot listen on %s", text);
}

int listeners_open(struct listeners *listeners, const json_t *texts, bool forgiving, struct err *err)
{
    size_t i;
    json_t *text;

    listeners->n = 0;
    json_array_foreach((json_t *)(uintptr_t)texts, i, text)
    {
        int errnum = 0;
        int fd = listeners->n < SERVE_LISTENERS_MAX ? open_one(json_string_value(text), &errnum, err) : -1;
        if (fd >= 0) {
            listeners->fds[listeners->n++] = fd;
            continue;
        }
        if (forgiving && listeners->n > 0 && (errnum == EAFNOSUPPORT || errnum == EADDRNOTAVAIL)) {
            log_line(LOG_LEVEL_INFO, NULL, "not listening on %s: this host has no such address",
                     json_string_value(text));
            continue;
        }
        listeners_close(listeners);
        return -1;
    }
    return 0;
}

int listeners_take(struct listeners *listeners, struct inherited *inherited, struct err *err)
{
    for (int fd; (fd = inherited_pull(inherited, LISTENERS_INHERITED)) >= 0;) {
        int domain = 0, on = 1;
        socklen_t size = sizeof(domain);
        if (listeners->n == SERVE_LISTENERS_MAX || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
            (domain != AF_INET && domain != AF_INET6)) {
            close(fd);
            listeners_close(listeners);
            return err_set(err, E_INVALIDARG, "ListenStream= of quiesced.socket takes ADDRESS:PORT, at most 16 of them.",
                           "the service manager has opened a socket that cannot be served over TLS");
        }
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        listeners->fds[listeners->n++] = fd;
        listeners->inherited = true;
    }
    return 0;
}

json_t *listeners_texts(const struct listeners *listeners)
{
    json_t *texts = json_array();

    for (size_t i = 0; i < listeners->n; i++) {
        struct sockaddr_storage address = {0};
        socklen_t size = sizeof(address);
        char text[64];
        getsockname(listeners->fds[i], (struct sockaddr *)&address, &size);
        listen_format(&address, false, text);
        json_add(texts, json_string(text));
    }
    return texts;
}

void listeners_close(struct listeners *listeners)
{
    for (size_t i = 0; i < listeners->n; i++)
        close(listeners->fds[i]);
    listeners->n = 0;
}

void listeners_url(const struct listeners *listeners, size_t i, char ret[96])
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    char text[64];

    getsockname(listeners->fds[i], (struct sockaddr *)&address, &size);
    listen_format(&address, true, text);
    str_format(ret, 96, "https://%s", text);
}
