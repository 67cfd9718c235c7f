/* What front tells of itself: in each pong, for GET /metrics. */
#include <time.h>

#include <openssl/x509.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "front/front_private.h"
#include "front/tls.h"

static int64_t expiry(const X509 *certificate)
{
    struct tm end;

    return certificate && ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) == 1 ? 1000 * (int64_t)timegm(&end) : 0;
}

void tls_expiries(const SSL_CTX *context, struct tls_expiries *ret)
{
    X509 *own = tls_context_private_ca(context);
    const STACK_OF(X509_OBJECT) *trusted = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context));

    *ret = (struct tls_expiries){.server = expiry(SSL_CTX_get0_certificate(context)), .private_ca = expiry(own)};
    for (int i = 0; i < sk_X509_OBJECT_num(trusted); i++) {
        X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(trusted, i));
        if (ca && own && X509_cmp(ca, own) != 0 && (!ret->client_ca || expiry(ca) < ret->client_ca))
            ret->client_ca = expiry(ca);
    }
}

static json_t *certificates(const struct front *front)
{
    struct tls_expiries expiries = {0};

    if (front->tls)
        tls_expiries(front->tls, &expiries);
    json_t *told = json_pack("{s:I, s:I}", "server", (json_int_t)expiries.server, "private_ca", (json_int_t)expiries.private_ca);
    if (expiries.client_ca)
        json_put(told, "client_ca", json_integer(expiries.client_ca));
    return told;
}

json_t *front_figures(const struct front *front)
{
    const struct front_counts *counts = &front->counts;

    return json_pack("{s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:o}", "connections", (json_int_t)front->n_connections,
                     "connections_most", (json_int_t)front->limit, "handshakes", (json_int_t)front->n_handshakes, "accepted", (json_int_t)counts->accepted,
                     "handshake_ends", "full", (json_int_t)(counts->handshakes_completed - counts->handshakes_resumed), "resumed",
                     (json_int_t)counts->handshakes_resumed, "failed", (json_int_t)counts->handshakes_failed, "refused", "connection",
                     (json_int_t)counts->refused[REFUSED_CONNECTION], "client_certificate", (json_int_t)counts->refused[REFUSED_CERTIFICATE],
                     "request", (json_int_t)counts->refused[REFUSED_REQUEST], "certificates", certificates(front));
}
