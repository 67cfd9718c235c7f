#pragma once
/* The daemon's credentials under state_dir/pki: private CA, server certificate, admin client certificate, admin token.
 */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
    char audit_key[PATH_MAX], audit_last[PATH_MAX];            /* what seals the audit trail (audit_seal.h), and its last seal */
    char audit_certificate[PATH_MAX], audit_published[PATH_MAX]; /* for everybody, 0644: state_dir/audit.pem, state_dir/audit.seal */
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
 * ::1 are always covered. Logs one line for each thing made. Without the key that seals the audit trail it goes on: what cannot be sealed is told when
 * it is to be. */
int pki_ensure(const struct pki_request *request, struct err *err);

/* Milliseconds until pki_ensure will have something to renew, at most most_ms; 0: it has now. Of the server's certificate and the
 * administrator's; one that cannot be read is due. */
int64_t pki_due_in(const char *state_dir, int64_t most_ms);
/* The SAN URI of the key that seals the audit trail: no client certificate of ours has it, whatever core asks for. */
#define PKI_AUDIT_URI "urn:quiesced:audit"
/* Before a principal's name, in the certificates that our own CA issues (SAN URI). */
#define PKI_PRINCIPAL_URI "urn:quiesced:principal:"
/* A client certificate for the key of csr (PEM), named urn:quiesced:principal:PRINCIPAL, for so many days or until the CA ends. A
 * new reference, as certificate_describe gives it; NULL with err, pointer /csr when that is to blame. */
json_t *pki_issue(const char *state_dir, const char *principal, int days, const char *csr, struct err *err);

enum { PKI_TOKEN_SIZE = 5 + 43 + 1 };
/* The admin token without its line end. */
int pki_admin_token(const char *state_dir, char ret[PKI_TOKEN_SIZE], struct err *err);

/* The short-lived role: --state-dir DIR --hostname NAME... --address ADDRESS..., or --state-dir DIR --principal NAME --days N:
 * then a CSR comes on standard input, and pki_issue or {"error"} goes to standard output; or --state-dir DIR --seal: {"seq","hash"} comes, and
 * {"seal"} of audit_seal_make or {"error"} goes. Exit status 0, or 1 with a logged reason. */
int signer_main(int argc, char **argv);

/* One or more certificates in PEM, and nothing that is none? */
bool pki_certificates_valid(const char *pem);
