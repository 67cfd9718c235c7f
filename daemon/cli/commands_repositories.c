/* quiescectl repository …: where backups are kept. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/client.h"
#include "cli/watch.h"

static int create(struct ctl *ctl, int argc, char **argv)
{
    AUTO_JSON json_t *body = argc > 0 ? arguments_object(argc, argv, 0) : NULL;
    if (argc == 0)
        return ctl_usage("repository create takes name=… mover=… path=…|url=…|url_file=… [password_file=…] [limits={…}]");
    return body ? answer_call(ctl, "POST", "/repositories", body, NULL) : CTL_USAGE;
}

static int show(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 1)
        return ctl_usage("repository show takes one name");
    AUTO_FREE char *escaped = client_escape(argv[0]), *path = str_new("/repositories/%s", escaped);
    return answer_call(ctl, "GET", path, NULL, NULL);
}

static int scan(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 1)
        return ctl_usage("repository scan takes one name");
    AUTO_FREE char *escaped = client_escape(argv[0]), *path = str_new("/repositories/%s/scan", escaped);
    return watch_call(ctl, "POST", path, NULL);
}

static const struct command rows[] = {
    {"repository", "create", "name=… mover=… path=… …", "make or take one, and remember it", create},
    {"repository", "show", "REPOSITORY", "one repository", show},
    {"repository", "scan", "REPOSITORY", "take what it holds into the catalog", scan},
};
const struct command_table commands_repositories = {rows, ELEMENTS(rows)};
