#pragma once
/* What front tells core about a connection, sent on an AF_UNIX SOCK_SEQPACKET socket as one fixed-size packet
 * with the plain socket attached (SCM_RIGHTS). Fixed size, no pointers: nothing to parse. */
#include <netinet/in.h>
#include <stdint.h>

/* The largest head that front passes, in the measure of front/gate.h. libmicrohttpd keeps request, headers and the head of
 * its reply in one piece of memory per connection (api/http.h: HTTP_CONNECTION_MEMORY, 8 KiB); a head that nearly fills it
 * leaves no room for the reply's (measured from 7,860 bytes of one header on). */
enum { HEAD_BYTES_MAX = 6 * 1024 + 512 };

enum { PREFACE_VERSION = 2, PREFACE_NAMES = 4, PREFACE_NAME_SIZE = 128, PREFACE_GROUPS = 64 };

struct preface {
    uint32_t version;
    uint32_t has_certificate;             /* 1: a client certificate was presented and verified */
    struct sockaddr_storage peer;         /* the client's address */
    uint8_t fingerprint[32];              /* SHA-256 of the certificate, DER */
    uint32_t issued_by_us;                /* 1: issued by our private CA, 0: by tls.client_ca */
    char common_name[PREFACE_NAME_SIZE];  /* NUL-terminated, "" when absent */
    char names[PREFACE_NAMES][PREFACE_NAME_SIZE]; /* SAN: "URI:…", "DNS:…", "EMAIL:…"; "" = unused */
    uint32_t has_credentials;             /* 1: a process of this machine on the local socket; by the kernel's word: */
    uint32_t uid, gid;                    /* SO_PEERCRED */
    uint32_t n_groups;
    uint32_t groups[PREFACE_GROUPS];      /* SO_PEERGROUPS; none of them when there are more */
};
