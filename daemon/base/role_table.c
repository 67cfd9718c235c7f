#include "base/role_table.h"

#include <string.h>

#include "base/join.h"
#include "base/str.h"

enum { ROLE_FD = 3 /* where every role finds its channel */ };

static int run_role(const struct process_role *role, int argc, char **argv)
{
    bool over = false;

    if (argc > 2 && role->before_joining)
        role->before_joining();
    int code = role->joins ? join_by_arguments(role->name, argc, argv, ROLE_FD, &over) : 0;
    return code != 0 || over ? code : role->run();
}

bool role_table_run(const struct process_role *roles, size_t n, int argc, char **argv, int *ret_code)
{
    if (argc < 2 || !str_starts(argv[1], "--role="))
        return false;
    for (size_t i = 0; i < n; i++)
        if (str_eq(roles[i].name, argv[1] + strlen("--role="))) {
            *ret_code = run_role(&roles[i], argc, argv);
            return true;
        }
    return false;
}
