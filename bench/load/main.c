/* usage: bench-load requests|handshakes|hold|wake PORT CA [--cert PEM KEY] [--target PATH] [--connections N] [--count N] [--resume] [--trigger FIFO] */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <openssl/err.h>

#include "load.h"

struct options options = {.connections = 16, .count = 10000};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench-load: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void take_options(char **argv)
{
    for (; *argv; argv++) {
        bool more = argv[1] != NULL;
        if (!strcmp(*argv, "--resume"))
            options.resume = true;
        else if (!strcmp(*argv, "--cert") && more && argv[2]) {
            options.certificate = *++argv;
            options.key = *++argv;
        } else if (!strcmp(*argv, "--target") && more)
            options.target = *++argv;
        else if (!strcmp(*argv, "--trigger") && more)
            options.trigger = *++argv;
        else if (!strcmp(*argv, "--connections") && more)
            options.connections = strtoul(*++argv, NULL, 10);
        else if (!strcmp(*argv, "--count") && more)
            options.count = strtoul(*++argv, NULL, 10);
        else
            fail(*argv);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } rows[] = {{"requests", load_requests}, {"handshakes", load_handshakes}, {"hold", load_hold}, {"wake", load_wake}};
    struct rlimit files;

    if (argc < 4)
        fail("see the head of main.c for its usage");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    options.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10)),
                                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    options.ca = argv[3];
    take_options(argv + 4);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!strcmp(argv[1], rows[i].name)) {
            rows[i].run();
            return 0;
        }
    fail(argv[1]);
}
