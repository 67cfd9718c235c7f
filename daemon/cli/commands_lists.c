/* quiescectl writers, snapshots, …: what there is. */
#include <stdio.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/answer.h"

enum { COLUMNS = 9 };

static const struct list {
    const char *name, *path; /* "=": the list has no pages */
    const char *columns[COLUMNS];
} lists[] = {
    {"writers", "=/writers", {"name", "type", "available", "reason"}},
    {"providers", "=/providers", {"name", "available", "reason"}},
    {"movers", "=/movers", {"name", "available", "reason"}},
    {"volumes", "=/volumes", {"path", "fs_type", "provider", "reason"}},
    {"repositories", "=/repositories", {"name", "mover", "path", "url"}},
    {"snapshots", "/snapshots", {"id", "volume", "provider", "state", "@created_at", "exposed_path", "session_id"}},
    {"errors", "/errors", {"@time", "hresult", "writer", "session", "job", "text"}},
};

/* argv[-1] is the list's name: each of these commands is one word. */
static int show(struct ctl *ctl, int argc, char **argv)
{
    AUTO_JSON json_t *filters = arguments_object(argc, argv, 0);
    for (size_t i = 0; i < ELEMENTS(lists); i++)
        if (str_eq(lists[i].name, argv[-1]))
            return filters ? answer_list(ctl, lists[i].path, filters, lists[i].columns) : CTL_USAGE;
    return CTL_USAGE;
}

static const struct command rows[] = {
    {"writers", NULL, "", "configured writers, and why one is not available", show},
    {"providers", NULL, "", "snapshot providers, and why one is not available", show},
    {"movers", NULL, "", "movers, and why one is not available", show},
    {"volumes", NULL, "", "what is mounted, and which provider would take it", show},
    {"repositories", NULL, "", "where backups are kept", show},
    {"snapshots", NULL, "[volume=… session=… sort=…]", "snapshots, newest first", show},
    {"errors", NULL, "[session=… job=… sort=…]", "logged errors, newest first", show},
};
const struct command_table commands_lists = {rows, ELEMENTS(rows)};
