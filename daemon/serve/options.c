#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/serve_private.h"

static const char usage[] =
    "usage: quiesced serve [--config FILE] [--state-dir DIR] [--listen ADDR:PORT]... [--ready-file FILE]\n"
    "  --config FILE       YAML; without it the defaults hold\n"
    "  --state-dir DIR     default /var/lib/quiesced, for other users than root $XDG_STATE_HOME/quiesced\n"
    "  --listen ADDR:PORT  in place of the configuration's listen; port 0 takes any free one\n"
    "  --ready-file FILE   written once requests are served: "
    "{\"url\",\"ca\",\"cert\",\"key\",\"token_file\",\"socket\",\"pid\"}\n";

int options_parse(int argc, char **argv, struct serve_options *ret)
{
    static const struct option table[] = {
        {"config", required_argument, NULL, 'c'}, {"state-dir", required_argument, NULL, 's'},
        {"listen", required_argument, NULL, 'l'}, {"ready-file", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    int option;

    memset(ret, 0, sizeof(*ret));
    optind = 2; /* after "serve" */
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (option == 'c') {
            ret->config = optarg;
        } else if (option == 's') {
            ret->state_dir = optarg;
        } else if (option == 'r') {
            ret->ready_file = optarg;
        } else if (option == 'l' && ret->n_listen < SERVE_LISTENERS_MAX) {
            ret->listen[ret->n_listen++] = optarg;
        } else if (option == 'h') {
            exit(fputs(usage, stdout) < 0 || fflush(stdout) != 0);
        } else {
            fputs(usage, stderr);
            return -1;
        }
    }
    if (optind != argc) {
        fprintf(stderr, "quiesced: unexpected argument: %s\n%s", argv[optind], usage);
        return -1;
    }
    return 0;
}

/* "." and ".." and symbolic links of the part that exists are resolved; the rest is made later. */
static int absolute(const char *path, char ret[PATH_MAX], struct err *err)
{
    char existing[PATH_MAX], resolved[PATH_MAX];
    AUTO_FREE char *working = getcwd(NULL, 0);
    bool fits = path[0] == '/' ? str_copy(existing, sizeof(existing), path)
                               : working && str_format(existing, sizeof(existing), "%s/%s", working, path);
    size_t length = strlen(existing);
    const char *rest = "";

    while (length > 1 && existing[length - 1] == '/')
        existing[--length] = '\0';
    AUTO_FREE char *whole = str_dup(existing);
    while (fits && !realpath(existing, resolved)) {
        char *slash = strrchr(existing, '/');
        if (errno != ENOENT || slash == existing)
            break;
        *slash = '\0';
        rest = whole + (slash - existing);
    }
    if (!fits || !realpath(existing, resolved) ||
        !str_format(ret, PATH_MAX, "%s%s", strcmp(resolved, "/") == 0 && *rest ? "" : resolved, rest) ||
        !path_is_canonical(ret))
        return err_set(err, E_INVALIDARG, "Give an absolute path to a directory.", "state directory %s: not usable",
                       path);
    return 0;
}

int options_state_dir(const struct serve_options *options, const json_t *config, char ret[PATH_MAX], struct err *err)
{
    const char *path = options->state_dir ? options->state_dir : json_str(config, "state_dir", NULL);
    const char *state_home = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char own[PATH_MAX];

    if (!path && geteuid() == 0)
        path = "/var/lib/quiesced";
    if (!path && state_home && state_home[0] == '/') /* the XDG specification: relative ones are to be ignored */
        path = str_format(own, sizeof(own), "%s/quiesced", state_home) ? own : NULL;
    if (!path && home && home[0] == '/')
        path = str_format(own, sizeof(own), "%s/.local/state/quiesced", home) ? own : NULL;
    if (!path)
        return err_set(err, E_INVALIDARG, "Give --state-dir DIR.", "no place for the state directory: HOME is not set");
    return absolute(path, ret, err);
}
