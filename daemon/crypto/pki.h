#pragma once
/* The daemon's credentials under state_dir/pki: private CA, server certificate, admin client certificate, admin token.
 */
#include <limits.h>
#include <stddef.h>

#include "base/err.h"

enum {
    PKI_CA_DAYS = 3650,
    PKI_CA_RENEW_DAYS =
        800,               /* the CA's certificate is issued anew, with the same key, when less than this is left: a
                              leaf then never outlives its CA, and clients that hold the old file go on until it ends */
    PKI_SERVER_DAYS = 397, /* CA/Browser Forum Baseline Requirements 6.3.2: at most 398 days */
    PKI_ADMIN_DAYS = 3650, /* scripts hold copies of it; bounded by the CA's own end */
};

struct pki_paths {
    char directory[PATH_MAX];
    char ca_public[PATH_MAX]; /* state_dir/ca.pem, 0644 */
    char ca_certificate[PATH_MAX], ca_key[PATH_MAX];
    char server_certificate[PATH_MAX], server_key[PATH_MAX];
    char admin_certificate[PATH_MAX], admin_key[PATH_MAX];
    char admin_token[PATH_MAX];
};
/* -1 when state_dir is too long. */
int pki_paths(const char *state_dir, struct pki_paths *ret, struct err *err);

struct pki_request {
    const char *state_dir;
    const char *const *hostnames; /* DNS names; numeric addresses are taken as such */
    size_t n_hostnames;
    const char *const *addresses; /* numeric IPv4 and IPv6 */
    size_t n_addresses;
};
/* Makes what is missing, renews what is due; what is in order is left alone. A CA that clients may trust is never
 * replaced: a CA certificate without its key is an error as soon as something must be signed. localhost, 127.0.0.1 and
 * ::1 are always covered. Logs one line for each thing made. */
int pki_ensure(const struct pki_request *request, struct err *err);

enum { PKI_TOKEN_SIZE = 5 + 43 + 1 };
/* The admin token without its line end. */
int pki_admin_token(const char *state_dir, char ret[PKI_TOKEN_SIZE], struct err *err);

/* The short-lived role: --state-dir DIR --hostname NAME... --address ADDRESS... Exit status 0, or 1 with a logged
 * reason. */
int signer_main(int argc, char **argv);
