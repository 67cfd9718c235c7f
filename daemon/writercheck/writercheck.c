#include "writercheck/writercheck.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writercheck/scenes.h"
#include "writercheck/talk.h"

enum { EXIT_MISUSED = 2, PROBE_WORDS_MAX = 64, LIMIT_DEFAULT_MS = 10 * 1000, LIMIT_MAX_MS = 3600 * 1000 };

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "quiesced writer-check: %s: %s\n", what, why);
    return EXIT_MISUSED;
}

/* The daemon starts a writer in "/", so a path is made absolute here; as there, nothing is searched in PATH. */
static int make_absolute(const char **path)
{
    char *absolute = realpath(*path, NULL);
    if (!absolute)
        return misused(*path, strerror(errno));
    *path = absolute; /* for the life of the program */
    return 0;
}

/* Split at blanks; no shell, no quotes. */
static const char *const *split(char *text)
{
    static const char *words[PROBE_WORDS_MAX + 1];
    size_t n = 0;
    char *rest = NULL;
    for (char *word = strtok_r(text, " \t", &rest); word && n < PROBE_WORDS_MAX; word = strtok_r(NULL, " \t", &rest))
        words[n++] = word;
    if (n == 0 || make_absolute(&words[0]) != 0)
        return NULL;
    return words;
}

static json_t *read_configuration(const char *path)
{
    json_error_t fault;
    json_t *configuration = json_load_file(path, JSON_REJECT_DUPLICATES, &fault);
    if (configuration && json_is_object(configuration))
        return configuration;
    misused(path, configuration ? "not a JSON object" : fault.text);
    json_decref(configuration);
    return NULL;
}

static int read_options(int argc, char **argv, struct check *check, bool *ret_json)
{
    static const struct option table[] = {
        {"json", no_argument, NULL, 'j'},
        {"probe", required_argument, NULL, 'p'},
        {"configuration", required_argument, NULL, 'c'},
        {"staging", required_argument, NULL, 's'},
        {"limit-ms", required_argument, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    int option;
    optind = 2; /* behind the name of the command */
    while ((option = getopt_long(argc, argv, "+", table, NULL)) != -1) {
        if (option == 'j')
            *ret_json = true;
        else if (option == 'p' && !(check->probe = split(optarg)))
            return EXIT_MISUSED;
        else if (option == 'c') {
            json_decref(check->configuration);
            if (!(check->configuration = read_configuration(optarg)))
                return EXIT_MISUSED;
        } else if (option == 's')
            check->staging = optarg;
        else if (option == 'l' && !str_to_int(optarg, 1, LIMIT_MAX_MS, &check->limit_ms))
            return misused("--limit-ms", "a number of milliseconds, at most an hour");
        else if (option == '?')
            return EXIT_MISUSED;
    }
    if (optind >= argc)
        return misused("COMMAND", "missing: the writer to check");
    check->argv = (const char *const *)argv + optind;
    return make_absolute((const char **)argv + optind);
}

/* What is in the way of a verdict, before the first writer starts. */
static int prepare(const struct check *check)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return misused("prctl", strerror(errno));
    if (waitpid(-1, NULL, WNOHANG) >= 0) /* they would be taken for the writer's, and killed */
        return misused("writer-check", "this process has children already: start it by itself");
    if (check->probe && !application_is_free(check))
        return misused("the probe", "it says that the application is held, and no writer has run yet");
    return 0;
}

int writer_check_main(int argc, char **argv)
{
    struct check check = {.configuration = json_object(), .limit_ms = LIMIT_DEFAULT_MS};
    bool json = false;
    int result = read_options(argc, argv, &check, &json);
    if (result == 0)
        result = prepare(&check);
    if (result == 0) {
        scenes_play(&check);
        check_print(&check, json);
        result = check_passed(&check) ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    json_decref(check.configuration);
    json_decref(check.metadata);
    json_decref(check.components);
    json_decref(check.volumes);
    return result;
}
