#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/pki.h"

int signer_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"role", required_argument, NULL, 'r'},
        {"state-dir", required_argument, NULL, 's'},
        {"hostname", required_argument, NULL, 'h'},
        {"address", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    AUTO_FREE const char **hostnames = mem_new(sizeof(*hostnames) * (size_t)(argc + 1));
    AUTO_FREE const char **addresses = mem_new(sizeof(*addresses) * (size_t)(argc + 1));
    struct pki_request request = {.hostnames = hostnames, .addresses = addresses};
    struct err err = {0};
    int option;

    log_init("signer", LOG_LEVEL_INFO);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            request.state_dir = optarg;
        else if (option == 'h')
            hostnames[request.n_hostnames++] = optarg;
        else if (option == 'a')
            addresses[request.n_addresses++] = optarg;
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
    if (pki_ensure(&request, &err) != 0) {
        log_err(LOG_LEVEL_ERROR, NULL, &err, "certificates");
        return 1;
    }
    return 0;
}
