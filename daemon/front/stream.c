#include "front/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "base/preface.h"
#include "front/connection.h"

static enum stream_result tls_result(const struct connection *c, int result)
{
    static const struct {
        int error;
        enum stream_result result;
    } rows[] = {
        {SSL_ERROR_WANT_READ, STREAM_WANT_READ},
        {SSL_ERROR_WANT_WRITE, STREAM_WANT_WRITE},
        {SSL_ERROR_ZERO_RETURN, STREAM_ENDED},
    };
    int error = SSL_get_error(c->ssl, result);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].error == error)
            return rows[i].result;
    return STREAM_BROKEN; /* end-of-file without close_notify, reset, a damaged record */
}

static enum stream_result plain_result(ssize_t n, enum stream_result blocked, size_t *ret_n)
{
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? blocked : STREAM_BROKEN;
    *ret_n = (size_t)n;
    return n > 0 ? STREAM_OK : STREAM_ENDED;
}

enum stream_result stream_read(struct connection *c, uint8_t *bytes, size_t size, size_t *ret_n)
{
    *ret_n = 0;
    if (!c->ssl)
        return plain_result(recv(c->client, bytes, size, MSG_DONTWAIT), STREAM_WANT_READ, ret_n);
    ERR_clear_error();
    int result = SSL_read_ex(c->ssl, bytes, size, ret_n);
    return result == 1 ? STREAM_OK : tls_result(c, result);
}

enum stream_result stream_write(struct connection *c, const uint8_t *bytes, size_t length, size_t *ret_n)
{
    *ret_n = 0;
    if (!c->ssl)
        return plain_result(send(c->client, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL), STREAM_WANT_WRITE, ret_n);
    ERR_clear_error();
    int result = SSL_write_ex(c->ssl, bytes, length, ret_n);
    return result == 1 ? STREAM_OK : tls_result(c, result);
}

bool stream_has_pending(const struct connection *c)
{
    return c->ssl && SSL_has_pending(c->ssl);
}

/* A multicast prefix, from which nothing is ever received, and the user's number. */
void stream_user_address(int socket, struct sockaddr_storage *ret)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr.s6_addr = {0xff, 'u', 'i', 'd'}};
    struct ucred credentials = {.uid = (uid_t)-1};
    socklen_t size = sizeof(credentials);

    (void)getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
    memcpy(address.sin6_addr.s6_addr + 4, &credentials.uid, sizeof(credentials.uid));
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, &address, sizeof(address));
}

int stream_peer(int socket, struct preface *preface)
{
    struct ucred credentials;
    socklen_t size = sizeof(credentials);
    gid_t groups[PREFACE_GROUPS];
    socklen_t groups_size = sizeof(groups);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
        return -1;
    preface->has_credentials = 1;
    preface->uid = credentials.uid;
    preface->gid = credentials.gid;
    /* More than there is room for: none of them counts, rather than some. */
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_size) != 0)
        return 0;
    preface->n_groups = (uint32_t)(groups_size / sizeof(groups[0]));
    for (uint32_t i = 0; i < preface->n_groups; i++)
        preface->groups[i] = groups[i];
    return 0;
}
