#include "worker/writer_spawn.h"

#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/offspring.h"
#include "base/str.h"

enum { ARGUMENTS_MAX = 64, ENVIRONMENT_MAX = 128 };

/* The user that owns the first database file: SQLite must never make WAL files as root. */
static int sqlite_user(const json_t *entry, char *ret, size_t size, struct err *err)
{
    const json_t *first = json_array_get(json_object_get(entry, "databases"), 0);
    const char *path = json_is_object(first) ? json_str(first, "path", NULL) : json_string_value(first);
    struct stat status;
    if (!path || stat(path, &status) < 0)
        return err_set(err, VSS_E_WRITER_NOT_RESPONDING, "Name an existing database in the writer's databases.",
                       "database %s does not exist", path ? path : "(none)");
    const struct passwd *owner = getpwuid(status.st_uid);
    if (!owner)
        return err_set(err, VSS_E_WRITER_NOT_RESPONDING, "Set the writer's user.",
                       "the owner of %s (uid %u) is no known user", path, (unsigned)status.st_uid);
    str_copy(ret, size, owner->pw_name);
    return 0;
}

/* type: whose first database's owner counts, or the user that the server's package makes */
static const struct default_user {
    const char *type;
    int (*find)(const json_t *entry, char *ret, size_t size, struct err *err);
    const char *user;
} default_users[] = {{"sqlite", sqlite_user, NULL}, {"postgresql", NULL, "postgres"}, {"mariadb", NULL, "mysql"}, {"redis", NULL, "redis"}};

static int default_user(const json_t *entry, const struct default_user *row, char *ret, size_t size, struct err *err)
{
    if (row->find)
        return row->find(entry, ret, size, err);
    str_copy(ret, size, row->user);
    return 0;
}

/* A plain user's writers run as that user; one that is configured to be somebody else is not run as the wrong one. */
static int own_identity(const char *named, struct proc_identity *ret, struct err *err)
{
    struct proc_identity wanted;
    if (proc_identity_lookup(NULL, ret, err) < 0 || (named && proc_identity_lookup(named, &wanted, err) < 0))
        return -1;
    if (named && wanted.uid != ret->uid)
        return err_set(err, VSS_E_WRITER_NOT_RESPONDING, "Run quiesced as root, or leave the writer's user out.",
                       "it runs as user %s, and only root can change users (quiesced runs as %s)", named, ret->name);
    return 0;
}

static int find_identity(const json_t *entry, bool root, struct proc_identity *ret, struct err *err)
{
    char user[64] = "";
    const char *named = json_str(entry, "user", NULL);
    const char *type = json_str(entry, "type", "exec");
    if (!root)
        return own_identity(named, ret, err);
    if (named)
        str_copy(user, sizeof(user), named);
    if (!named)
        for (size_t i = 0; i < ELEMENTS(default_users); i++)
            if (str_eq(default_users[i].type, type) &&
                default_user(entry, &default_users[i], user, sizeof(user), err) < 0)
                return -1;
    return proc_identity_lookup(user, ret, err);
}

/* quiesced-writer-TYPE beside our own binary, or where packages put it. */
static int find_builtin(const char *type, char ret[PATH_MAX], struct err *err)
{
    char name[128];
    for (const char *p = type; *p; p++)
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789_", *p) == NULL)
            return err_set(err, VSS_E_WRITER_NOT_RESPONDING, NULL, "writer type \"%s\" is not a name", type);
    if (str_format(name, sizeof(name), "quiesced-writer-%s", type) && proc_find_program(name, ret))
        return 0;
    return err_set(err, VSS_E_WRITER_NOT_RESPONDING, "Install the writer, or use type exec with a command.",
                   "no executable quiesced-writer-%s", type);
}

static int fill_arguments(const json_t *entry, char builtin[PATH_MAX], const char **ret_argv, struct err *err)
{
    const char *type = json_str(entry, "type", "exec");
    const json_t *command = json_object_get(entry, "command");
    if (!str_eq(type, "exec")) {
        if (find_builtin(type, builtin, err) < 0)
            return -1;
        ret_argv[0] = builtin;
        return 0;
    }
    size_t n = json_array_size(command);
    if (n == 0 || n >= ARGUMENTS_MAX)
        return err_set(err, VSS_E_WRITER_NOT_RESPONDING, "Give the writer's command as a list, path first.",
                       "the writer has no usable command");
    for (size_t i = 0; i < n; i++)
        if (!(ret_argv[i] = json_string_value(json_array_get(command, i))))
            return err_set(err, VSS_E_WRITER_NOT_RESPONDING, NULL, "argument %zu of the writer's command is no string",
                           i);
    return 0;
}

static void fill_environment(const json_t *entry, const char *installation, const struct proc_identity *identity,
                             char **ret)
{
    size_t n = 0;
    ret[n++] = str_dup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    ret[n++] = str_dup("LANG=C.UTF-8");
    ret[n++] = str_new("USER=%s", identity->name);
    ret[n++] = str_new("LOGNAME=%s", identity->name);
    ret[n++] = str_new("HOME=%s", identity->home);
    ret[n++] = str_new(OFFSPRING_MARK "%s:%d:", installation, (int)getpid());
    const char *key;
    json_t *value;
    json_object_foreach (json_object_get(entry, "environment"), key, value)
        if (json_is_string(value) && n < ENVIRONMENT_MAX - 1)
            ret[n++] = str_new("%s=%s", key, json_string_value(value));
}

int writer_spawn(const json_t *entry, const char *session, const char *installation, bool root, struct writer_client *client,
                 struct proc_identity *ret_identity, struct err *err)
{
    const char *argv[ARGUMENTS_MAX] = {0};
    char *environment[ENVIRONMENT_MAX] = {0};
    char builtin[PATH_MAX];
    if (find_identity(entry, root, ret_identity, err) < 0 || fill_arguments(entry, builtin, argv, err) < 0)
        return -1;
    fill_environment(entry, installation, ret_identity, environment);
    struct proc_spec spec = {
        .argv = argv,
        .environment = (const char *const *)environment,
        .identity = root ? ret_identity : NULL,
        .no_new_privileges = !str_eq(json_str(entry, "type", "exec"), "exec"), /* a command may need sudo */
    };
    int result = writer_client_start(client, json_str(entry, "name", "?"), session, &spec, err);
    for (size_t i = 0; environment[i]; i++)
        free(environment[i]);
    return result;
}
