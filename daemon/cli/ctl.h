#pragma once
/* quiescectl: what its commands share. A command speaks the public API and nothing else. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Scripts rely on them; told by help.c. */
enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,      /* the operation was done, and failed */
    CTL_USAGE = 2,       /* nothing was asked of the daemon */
    CTL_UNREACHED = 3,   /* no answer, or none that can be trusted */
    CTL_REFUSED = 4,     /* 401, 403 */
    CTL_NOT_THERE = 5,   /* 404, 410 */
    CTL_BAD_STATE = 6,   /* 409, 412, 422, 428 */
    CTL_CANCELLED = 7,   /* the operation ended cancelled */
    CTL_DAEMON = 8,      /* 429, 5xx: try later, or look at the daemon */
    CTL_BAD_ARGUMENT = 9 /* 400: the daemon says which */
};

struct client;

struct ctl {
    struct client *client;
    json_t *target; /* where the daemon is and who calls: cli/target.h */
    bool json;      /* documents instead of text on standard output */
    bool quiet;     /* no progress */
    bool wait;      /* for the end of a job */
    int limit;      /* most rows of a list */
    bool limited;   /* somebody has said so */
};

struct command {
    const char *group, *name; /* name: NULL when the group alone is the command */
    const char *arguments, *summary;
    int (*run)(struct ctl *ctl, int argc, char **argv); /* what follows the names; returns an exit code */
};
struct command_table {
    const struct command *rows;
    size_t n;
};
extern const struct command_table commands_jobs, commands_backups, commands_sessions, commands_lists, commands_access, commands_target, commands_status, commands_doctor, commands_events,
    commands_completion, commands_hold, commands_repositories;
extern const struct command_table *const command_tables[]; /* all of them; NULL ends */

/* The command that the first words name, *ret_names of them. NULL: none. */
const struct command *command_find(int argc, char **argv, int *ret_names);

/* Says on standard error what is wrong with the arguments. Returns CTL_USAGE. */
int ctl_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Says on standard error why nothing could be asked. Returns CTL_UNREACHED. */
int ctl_unreached(const struct err *err);
/* --- arguments --- */

/* "key=value" into object: true, false, null, numbers, objects and arrays are JSON, anything else is text. false: it is none. */
bool argument_put(json_t *object, const char *argument);
/* A path without the slashes that a shell's completion puts behind a folder, which mean nothing to the API; "/" stays. New reference. */
json_t *argument_path(const char *path);
/* The same, in place; returns path. */
const char *argument_trim(char *path);
/* Of argv from `from` on, all of which must be such pairs. NULL after ctl_usage. */
json_t *arguments_object(int argc, char **argv, int from);
