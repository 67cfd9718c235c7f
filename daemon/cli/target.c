#include "cli/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/client.h"
#include "cli/ctl.h"

#define LOCAL_SOCKET "/var/lib/quiesced/api.sock" /* of a daemon with the embedded defaults */

static const char *const members[] = {"url", "ca", "cert", "key", "token_file", "socket"};

static void take_missing(json_t *target, const json_t *from)
{
    for (size_t i = 0; i < ELEMENTS(members); i++)
        if (!json_object_get(target, members[i]) && json_is_string(json_object_get(from, members[i])))
            json_put(target, members[i], json_incref(json_object_get(from, members[i])));
}

static json_t *of_environment(void)
{
    json_t *found = json_object();
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        char name[32] = "QUIESCED_";
        for (size_t k = 0, end = strlen(name); members[i][k]; k++)
            name[end + k] = (char)(members[i][k] >= 'a' && members[i][k] <= 'z' ? members[i][k] - 'a' + 'A' : members[i][k]);
        if (getenv(name))
            json_put(found, members[i], json_text(getenv(name)));
    }
    return found;
}

static char *login_file(void)
{
    const char *folder = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (folder && *folder == '/')
        return str_new("%s/quiescectl.json", folder);
    return str_new("%s/.config/quiescectl.json", home && *home ? home : "/root");
}

int target_ready(json_t *given, const char *file, struct err *err)
{
    json_error_t why;
    AUTO_JSON json_t *ready = json_load_file(file, 0, &why);
    if (!json_is_object(ready))
        return err_set(err, E_INVALIDARG, "It is what `quiesced serve --ready-file` writes: is the daemon running?", "%s: %s", file, ready ? "is no object" : why.text);
    json_object_del(ready, "socket"); /* TLS, as from elsewhere */
    json_object_del(ready, "token_file");
    take_missing(given, ready);
    return 0;
}

json_t *target_find(json_t *given, struct err *err)
{
    AUTO_JSON json_t *environment = of_environment();
    AUTO_FREE char *path = login_file();
    bool said = json_object_get(given, "url") || json_object_get(given, "socket");
    if (!said)
        take_missing(given, environment);
    said = json_object_get(given, "url") || json_object_get(given, "socket");
    if (!said && access(path, F_OK) == 0) {
        json_error_t why;
        AUTO_JSON json_t *file = json_load_file(path, 0, &why);
        if (!file) {
            err_set(err, E_INVALIDARG, "Remove it, or log in anew.", "%s: %s", path, why.text);
            json_decref(given);
            return NULL;
        }
        take_missing(given, file);
    } else if (!said) {
        json_put(given, "socket", json_string(LOCAL_SOCKET));
    }
    if (json_object_get(given, "url"))
        json_object_del(given, "socket");
    return given;
}

/* --- login, logout, curl-config --- */

static int write_file(const char *path, const json_t *doc, struct err *err)
{
    AUTO_FREE char *part = str_new("%s.new", path), *folder = str_dup(path);
    *strrchr(folder, '/') = '\0';
    mkdir(folder, 0700);
    unlink(part);
    AUTO_FD int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || json_dumpfd(doc, fd, JSON_INDENT(2)) != 0 || fsync(fd) != 0 || rename(part, path) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot write %s", path);
    return 0;
}

static int absolute(json_t *target, struct err *err)
{
    for (size_t i = 1; i < ELEMENTS(members); i++) {
        const char *value = json_str(target, members[i], NULL);
        if (!value || *value == '/')
            continue;
        AUTO_FREE char *whole = realpath(value, NULL);
        if (!whole)
            return err_errno(err, E_INVALIDARG, errno, NULL, "%s: %s", members[i], value);
        json_put(target, members[i], json_text(whole));
    }
    return 0;
}

static int login(struct ctl *ctl, int argc, char **argv)
{
    struct err err;
    struct reply reply;
    if (argc > 0)
        return ctl_usage("unexpected argument %s: say where the daemon is by options (--url, --ca, --token-file, …)", argv[0]);
    if (absolute(ctl->target, &err) != 0 || client_call(ctl->client, "GET", "/whoami", NULL, NULL, &reply, &err) != 0)
        return ctl_unreached(&err);
    int code = answer_check(&reply);
    AUTO_FREE char *path = login_file();
    if (code == CTL_OK && write_file(path, ctl->target, &err) != 0)
        code = ctl_unreached(&err);
    if (code == CTL_OK && ctl->json)
        answer_print(reply.body);
    else if (code == CTL_OK)
        printf("%s (%s); kept in %s\n", json_str(reply.body, "principal", "?"), json_str(reply.body, "role", "?"), path);
    reply_clear(&reply);
    return code;
}

static int logout(struct ctl *ctl, int argc, char **argv)
{
    AUTO_FREE char *path = login_file();
    if (argc > 0)
        return ctl_usage("unexpected argument %s: logout takes none", argv[0]);
    if (unlink(path) != 0 && errno != ENOENT) {
        fprintf(stderr, "quiescectl: cannot remove %s: %s\n", path, strerror(errno));
        return CTL_FAILED;
    }
    AUTO_JSON json_t *gone = json_pack("{s:s}", "removed", path);
    if (ctl->json)
        answer_print(gone);
    else
        printf("%s is gone; the token or certificate it named is as good as before\n", path);
    return CTL_OK;
}

static int curl_config(struct ctl *ctl, int argc, char **argv)
{
    static const char *const names[][2] = {{"ca", "cacert"}, {"cert", "cert"}, {"key", "key"}, {"socket", "unix-socket"}};
    if (argc > 0)
        return ctl_usage("unexpected argument %s: curl-config takes none", argv[0]);
    if (ctl->json) {
        answer_print(ctl->target);
        return CTL_OK;
    }
    puts("# quiescectl curl-config > FILE; then: curl -K FILE URL/whoami");
    puts("silent\nshow-error\nheader = \"Content-Type: application/json\"");
    for (size_t i = 0; i < ELEMENTS(names); i++)
        if (json_object_get(ctl->target, names[i][0]))
            printf("%s = \"%s\"\n", names[i][1], json_str(ctl->target, names[i][0], ""));
    if (json_object_get(ctl->target, "token_file")) /* curl reads headers, not tokens, from a file: the secret stays where it is */
        printf("# and: -H \"Authorization: Bearer $(cat %s)\"\n", json_str(ctl->target, "token_file", ""));
    printf("# the API: %s\n", json_object_get(ctl->target, "socket") ? "http://localhost" : json_str(ctl->target, "url", ""));
    return CTL_OK;
}

static const struct command rows[] = {
    {"login", NULL, "", "keep in a file of yours where the daemon is and who you are, as the options say", login},
    {"logout", NULL, "", "forget that file", logout},
    {"curl-config", NULL, "", "print what `curl -K` needs to call the API as quiescectl does", curl_config},
};
const struct command_table commands_target = {rows, ELEMENTS(rows)};
