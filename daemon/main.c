/* One binary: the first argument says what it is (docs/architecture.md). */
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "api/core.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"
#include "crypto/pki.h"
#include "front/front.h"
#include "movers/mover_child.h"
#include "serve/serve.h"
#include "worker/worker.h"

#ifndef QUIESCED_VERSION
#define QUIESCED_VERSION "0.1.0"
#endif

static int print_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return puts("quiesced " QUIESCED_VERSION) < 0;
}

static int print_help(int argc, char **argv);

/* Roles take no arguments: what they need comes over their channel. */
static const struct command {
    const char *name;
    int (*with_arguments)(int argc, char **argv);
    int (*alone)(void);
    const char *help; /* NULL: for quiesced itself */
} commands[] = {
    {"serve", serve_main, NULL, "serve [--config FILE] [--state-dir DIR] [--listen ADDR:PORT]... [--ready-file FILE]"},
    {"check-config", conf_check_main, NULL, "check-config FILE"},
    {"--version", print_version, NULL, "--version"},
    {"--help", print_help, NULL, "--help"},
    {"--role=front", NULL, front_main, NULL},
    {"--role=core", NULL, core_main, NULL},
    {"--role=agent", NULL, agent_main, NULL},
    {"--role=worker", NULL, worker_main, NULL},
    {"--role=mover", NULL, mover_main, NULL},
    {"--role=signer", signer_main, NULL, NULL},
};

static int usage(FILE *to)
{
    const char *lead = "usage:";

    for (size_t i = 0; i < ELEMENTS(commands); i++) {
        if (!commands[i].help)
            continue;
        fprintf(to, "%s quiesced %s\n", lead, commands[i].help);
        lead = "      ";
    }
    return fflush(to);
}

static int print_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("The volume shadow copy service for Linux: consistent snapshots and backups over HTTPS.");
    return usage(stdout) != 0;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < ELEMENTS(commands); i++)
        if (str_eq(commands[i].name, argv[1]))
            return commands[i].alone ? commands[i].alone() : commands[i].with_arguments(argc, argv);
    if (argc > 1)
        fprintf(stderr, "quiesced: unknown command: %s\n", argv[1]);
    usage(stderr);
    return 2;
}
