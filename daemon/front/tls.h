#pragma once
/* The TLS policy: versions, suites, tickets, client certificates. */
#include <openssl/ssl.h>

#include "base/err.h"
#include "base/preface.h"

/* PEM files, open for reading; read from their beginning. They stay the caller's. */
struct tls_files {
    int chain; /* the server's certificate and its intermediates */
    int key;
    int private_ca; /* who issues our own client certificates */
    int client_ca;  /* -1 = none; one or more certificates */
};

/* A server context, or NULL with err. Reads the files; keeps none of the fds. Free with SSL_CTX_free. */
SSL_CTX *tls_context_new(const struct tls_files *files, struct err *err);

/* Fills the certificate members of preface from a finished handshake. Without a client certificate they stay zero.
 * Returns -1 with err when the certificate is no longer good (expired since its session was made). */
int tls_identity(SSL *ssl, struct preface *preface, struct err *err);
/* Tells tls_identity what survives in a session ticket: set on every context by tls_context_new. */
int tls_ticket_write(SSL *ssl, void *arg);
/* Keeps the private CA with the context (takes the reference), for tls_identity. Returns 0 or -1. */
int tls_context_set_private_ca(SSL_CTX *context, X509 *ca);
