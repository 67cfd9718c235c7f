#pragma once
/* The TLS policy: versions, suites, tickets, client certificates. */
#include <stdbool.h>

#include <openssl/ssl.h>

#include "base/err.h"
#include "base/preface.h"

/* PEM files, open for reading; read from their beginning. They stay the caller's. */
struct tls_files {
    int chain; /* the server's certificate and its intermediates */
    int key;
    int private_ca; /* who issues our own client certificates */
    int client_ca;  /* -1 = none; one or more certificates */
    int client_crl; /* -1 = none; of each client CA one revocation list: what has none is refused then */
};

/* A server context, or NULL with err. Reads the files; keeps none of the fds. Free with SSL_CTX_free. */
SSL_CTX *tls_context_new(const struct tls_files *files, struct err *err);

/* Fills the certificate members of preface from a finished handshake. Without a client certificate they stay zero.
 * Returns -1 with err when the certificate is no longer good (expired since its session was made). */
int tls_identity(SSL *ssl, struct preface *preface, struct err *err);
/* Tells tls_identity what survives in a session ticket: set on every context by tls_context_new. */
int tls_ticket_write(SSL *ssl, void *arg);
/* ticket_keys.c: what a context trusts, in the order of loading; der is what decides: certificates and lists. */
void tls_trust_add(SSL_CTX *context, const unsigned char *der, int length);
/* Tickets that old gave out are good with fresh, too, when both trust the same authorities and lists, for a day. */
void tls_keep_ticket_keys(SSL_CTX *fresh, SSL_CTX *old);
/* Does the context's list revoke the certificate of a connection that was made with another context? */
bool tls_revoked(SSL_CTX *context, SSL *ssl);
/* When its certificates expire, in milliseconds since 1970: the server's, the private CA's, and the first of the client CAs' (0: there
 * are none). */
struct tls_expiries {
    int64_t server, private_ca, client_ca;
};
void tls_expiries(const SSL_CTX *context, struct tls_expiries *ret);
X509 *tls_context_private_ca(const SSL_CTX *context); /* borrowed */
/* Keeps the private CA with the context (takes the reference), for tls_identity. Returns 0 or -1. */
int tls_context_set_private_ca(SSL_CTX *context, X509 *ca);
