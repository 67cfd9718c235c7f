#pragma once
/* What front tells core about a connection, sent on an AF_UNIX SOCK_SEQPACKET socket as one fixed-size packet
 * with the plain socket attached (SCM_RIGHTS). Fixed size, no pointers: nothing to parse. */
#include <netinet/in.h>
#include <stdint.h>

enum { PREFACE_VERSION = 1, PREFACE_NAMES = 4, PREFACE_NAME_SIZE = 128 };

struct preface {
    uint32_t version;
    uint32_t has_certificate;             /* 1: a client certificate was presented and verified */
    struct sockaddr_storage peer;         /* the client's address */
    uint8_t fingerprint[32];              /* SHA-256 of the certificate, DER */
    uint32_t issued_by_us;                /* 1: issued by our private CA, 0: by tls.client_ca */
    char common_name[PREFACE_NAME_SIZE];  /* NUL-terminated, "" when absent */
    char names[PREFACE_NAMES][PREFACE_NAME_SIZE]; /* SAN: "URI:…", "DNS:…", "EMAIL:…"; "" = unused */
};
