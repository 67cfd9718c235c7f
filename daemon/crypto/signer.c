#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/audit_seal.h"
#include "crypto/hash.h"
#include "crypto/pki.h"

enum { CSR_MAX = 16 * 1024, REQUEST_MAX = 512 };

/* A CSR on standard input, until its end; the certificate, or why there is none, on standard output. */
static int sign_one(const char *state_dir, const char *principal, int days)
{
    char csr[CSR_MAX + 1];
    size_t used = fread(csr, 1, CSR_MAX, stdin);
    struct err err = {0};

    csr[used] = '\0';
    AUTO_JSON json_t *said = pki_issue(state_dir, principal, days, csr, &err);
    if (!said)
        said = json_pack("{s:o}", "error", err_to_json(&err));
    if (err.hr == (uint32_t)VSS_E_UNEXPECTED)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "client certificate");
    return json_dumpf(said, stdout, JSON_COMPACT) == 0 && fflush(stdout) == 0 ? 0 : 1;
}

/* {"seq","hash"} on standard input, until its end; {"seal"}, or why there is none, on standard output. */
static int seal_one(const char *state_dir)
{
    char asked[REQUEST_MAX + 1], hash[HASH_HEX_SIZE];
    size_t used = fread(asked, 1, REQUEST_MAX, stdin);
    uint8_t digest[HASH_SIZE];
    struct err err = {0};
    AUTO_JSON json_t *request = json_loadb(asked, used, JSON_REJECT_DUPLICATES, NULL);
    int64_t seq = json_int(request, "seq", 0);
    json_t *seal = NULL;

    if (seq < 1 || !hash_from_hex(json_str(request, "hash", ""), digest))
        err_set(&err, E_INVALIDARG, NULL, "the request for a seal names no record");
    else
        seal = audit_seal_make(state_dir, seq, hash_hex(digest, hash), &err);
    AUTO_JSON json_t *said = seal ? json_pack("{s:o}", "seal", seal) : json_pack("{s:o}", "error", err_to_json(&err));
    return json_dumpf(said, stdout, JSON_COMPACT) == 0 && fflush(stdout) == 0 ? 0 : 1;
}

int signer_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"role", required_argument, NULL, 'r'},
        {"state-dir", required_argument, NULL, 's'},
        {"hostname", required_argument, NULL, 'h'},
        {"address", required_argument, NULL, 'a'},
        {"principal", required_argument, NULL, 'p'},
        {"days", required_argument, NULL, 'd'},
        {"seal", no_argument, NULL, 'S'},
        {NULL, 0, NULL, 0},
    };
    AUTO_FREE const char **hostnames = mem_new(sizeof(*hostnames) * (size_t)(argc + 1));
    AUTO_FREE const char **addresses = mem_new(sizeof(*addresses) * (size_t)(argc + 1));
    struct pki_request request = {.hostnames = hostnames, .addresses = addresses};
    struct err err = {0};
    const char *principal = NULL;
    int option, days = 0;
    bool seals = false;

    log_init("signer", LOG_LEVEL_INFO);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            request.state_dir = optarg;
        else if (option == 'h')
            hostnames[request.n_hostnames++] = optarg;
        else if (option == 'a')
            addresses[request.n_addresses++] = optarg;
        else if (option == 'p')
            principal = optarg;
        else if (option == 'd')
            days = atoi(optarg);
        else if (option == 'S')
            seals = true;
        else if (option != 'r')
            return 2;
    }
    if (!request.state_dir || optind != argc) {
        fputs("usage: quiesced --role=signer --state-dir DIR [--hostname NAME]... [--address ADDRESS]...\n", stderr);
        return 2;
    }
    /* It holds the CA's key: no core file. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    umask(077);
    if (seals)
        return seal_one(request.state_dir);
    if (principal)
        return sign_one(request.state_dir, principal, days);
    if (pki_ensure(&request, &err) != 0) {
        log_err(LOG_LEVEL_ERROR, NULL, &err, "certificates");
        return 1;
    }
    return 0;
}
