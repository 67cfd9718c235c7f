/* quiesced-agent: what holds and carries. An executable of its own, so that no process with rights over applications and data has network code
 * in it, and that those which are started again and again (worker, guardian, mover) load a third fewer libraries. */
#include <stdio.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/role_table.h"
#include "guardian/guardian.h"
#include "movers/mover_child.h"
#include "worker/worker.h"

static const struct process_role roles[] = {
    {"agent", agent_main, true, agent_before_joining},
    {"guardian", guardian_main, false, NULL},
    {"worker", worker_main, false, NULL},
    {"mover", mover_main, false, NULL},
};

int main(int argc, char **argv)
{
    int code;

    if (role_table_run(roles, ELEMENTS(roles), argc, argv, &code))
        return code;
    fputs("quiesced-agent: no such role; quiesced serve starts it\n", stderr);
    return 2;
}
