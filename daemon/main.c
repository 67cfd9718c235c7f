/* quiesced: the first argument says what it is (docs/architecture.md). What holds and carries is quiesced-agent (agent_main.c). */
#include <stdio.h>

#include "api/core.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/role_table.h"
#include "base/str.h"
#include "conf/conf.h"
#include "crypto/chain.h"
#include "crypto/pki.h"
#include "front/front.h"
#include "guardian/thaw_all.h"
#include "serve/logger.h"
#include "serve/serve.h"
#include "writercheck/writercheck.h"

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

static int serve(int argc, char **argv)
{
    serve_agent_program = "quiesced-agent";
    return serve_main(argc, argv);
}

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help; /* NULL: for quiesced itself */
} commands[] = {
    {"serve", serve, "serve [--config FILE] [--state-dir DIR] [--listen ADDR:PORT]... [--ready-file FILE]"},
    {"thaw-all", thaw_all_main, "thaw-all [--abandoned] [--state-dir DIR] [--records DIR]"},
    {"check-config", conf_check_main, "check-config [FILE]"},
    {"writer-check", writer_check_main,
     "writer-check [--json] [--probe COMMAND] [--configuration FILE] [--staging DIR] [--limit-ms N] WRITER [ARGUMENT]..."},
    {"audit-verify", audit_verify_main, "audit-verify [--key FILE] [--ca FILE] [--seal FILE] [--after SEQ:HASH] [--head SEQ:HASH] FILE"},
    {"--version", print_version, "--version"},
    {"--help", print_help, "--help"},
#ifdef QUIESCED_FAULTS
    {"--list-faults", fault_list_main, "--list-faults"},
#endif
    {"--role=logger", logger_main, NULL},
    {"--role=signer", signer_main, NULL},
};

static const struct process_role roles[] = {{"front", front_main, true, NULL}, {"core", core_main, true, NULL}};

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
    int code;

    for (size_t i = 0; argc > 1 && i < ELEMENTS(commands); i++)
        if (str_eq(commands[i].name, argv[1]))
            return commands[i].run(argc, argv);
    if (role_table_run(roles, ELEMENTS(roles), argc, argv, &code))
        return code;
    if (argc > 1)
        fprintf(stderr, "quiesced: unknown command: %s\n", argv[1]);
    usage(stderr);
    return 2;
}
