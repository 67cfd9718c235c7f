#pragma once
/* What the executables with roles share: `--role=NAME` finds its entry point, joined to serve where a unit has started it. */
#include <stdbool.h>
#include <stddef.h>

/* Roles take no arguments: what they need comes over their channel, fd 3. Some may be units of their own: --join SOCKET (base/join.h). */
struct process_role {
    const char *name;
    int (*run)(void);
    bool joins;
    void (*before_joining)(void); /* or NULL */
};

/* false: argv names no role of these. */
bool role_table_run(const struct process_role *roles, size_t n, int argc, char **argv, int *ret_code);
