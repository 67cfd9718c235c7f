/* quiescectl whoami, token …, certificate …. */
#include <stdio.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"

static int whoami(struct ctl *ctl, int argc, char **argv)
{
    return argc == 0 ? answer_call(ctl, "GET", "/whoami", NULL, NULL) : ctl_usage("unexpected argument %s: whoami takes none", argv[0]);
}

static int token_list(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"id", "name", "role", "state", "@created_at", "@expires_at", "@last_used_at", NULL};
    AUTO_JSON json_t *filters = arguments_object(argc, argv, 0);
    return filters ? answer_list(ctl, "/tokens", filters, columns) : CTL_USAGE;
}

/* The secret alone on standard output, so that it can go into a file of mode 0600. */
static void show_secret(const json_t *body)
{
    fprintf(stderr, "token %s of %s (%s), good until %s; its secret is shown this once:\n", json_str(body, "id", ""), json_str(body, "principal", ""),
            json_str(body, "role", ""), json_str(body, "expires_at", ""));
    puts(json_str(body, "token", ""));
}

static int token_create(struct ctl *ctl, int argc, char **argv)
{
    if (argc < 2)
        return ctl_usage("token create takes NAME ROLE [expires_in_seconds=…] [scopes=[\"read\"]]");
    AUTO_JSON json_t *body = arguments_object(argc, argv, 2);
    if (!body)
        return CTL_USAGE;
    json_put(body, "name", json_text(argv[0]));
    json_put(body, "role", json_text(argv[1]));
    return answer_call(ctl, "POST", "/tokens", body, show_secret);
}

static int take_back(struct ctl *ctl, int argc, char **argv, const char *where)
{
    if (argc != 1)
        return ctl_usage("revoke takes one id");
    AUTO_FREE char *escaped = client_escape(argv[0]), *path = str_new("%s/%s", where, escaped);
    return answer_call(ctl, "DELETE", path, NULL, NULL);
}

static int token_revoke(struct ctl *ctl, int argc, char **argv)
{
    return take_back(ctl, argc, argv, "/tokens");
}

static int certificate_list(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"id", "name", "principal", "role", "state", "@expires_at", "@last_used_at", NULL};
    AUTO_JSON json_t *filters = arguments_object(argc, argv, 0);
    return filters ? answer_list(ctl, "/certificates", filters, columns) : CTL_USAGE;
}

static int certificate_revoke(struct ctl *ctl, int argc, char **argv)
{
    return take_back(ctl, argc, argv, "/certificates");
}

static const struct command rows[] = {
    {"whoami", NULL, "", "who calls, as the daemon sees it", whoami},
    {"token", "list", "", "tokens that may be seen", token_list},
    {"token", "create", "NAME ROLE [NAME=VALUE…]", "make one; its secret goes to standard output, once", token_create},
    {"token", "revoke", "TOKEN", "refused from now on", token_revoke},
    {"cert", "list", "", "client certificates that were enrolled", certificate_list},
    {"cert", "revoke", "CERTIFICATE", "refused from now on", certificate_revoke},
};
const struct command_table commands_access = {rows, ELEMENTS(rows)};
