/* A writer for quiesced, in C: an application keeps files in DIRECTORY, and takes a shared lock on DIRECTORY/.lock
 * (flock(2)) around every change. The writer takes the exclusive one: then nothing changes.
 *
 * usage: directory-writer DIRECTORY        (docs/writing-a-writer.md)
 * build: cc -o directory-writer directory_writer.c $(pkg-config --cflags --libs jansson) */
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/time.h>
#include <time.h>

enum { LINE_MAX_BYTES = 1024 * 1024, RETRY_US = 10 * 1000 };

static char directory[PATH_MAX];
static char stamp[32];
static int lock_fd;
static volatile sig_atomic_t held; /* or about to be */

/* ---- the hold: a lease that ends with its time, and with this process, whatever happens ---- */

static void let_go(int signal_number)
{
    (void)signal_number;
    flock(lock_fd, LOCK_UN);
    held = 0;
}

/* After ms: let_go. 0: never. flags: 0 interrupts flock(), SA_RESTART does not disturb the reading of requests. */
static void set_alarm(long ms, int flags)
{
    struct sigaction action = {.sa_handler = let_go, .sa_flags = flags};
    struct itimerval timer = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000},
                              .it_interval = {.tv_usec = flags ? 0 : RETRY_US}}; /* it may come just before flock() */
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *take(const json_t *request, long *ret_left_ms)
{
    long allowed = (long)json_integer_value(json_object_get(request, "deadline_ms")), end = now_ms() + allowed;
    held = 1;
    set_alarm(allowed * 9 / 10 + 1, 0); /* leave time to answer */
    if (flock(lock_fd, LOCK_EX) < 0)
        held = 0;
    set_alarm(0, 0);
    *ret_left_ms = end > now_ms() ? end - now_ms() : 1;
    if (held)
        return NULL;
    let_go(0);
    return "VSS_E_WRITERERROR_RETRYABLE";
}

/* ---- the events: each returns NULL or a failure, and may add to the answer ---- */

static const char *identify(const json_t *request, json_t *answer)
{
    (void)request;
    json_t *metadata =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:[], s:[{s:s, s:s, s:s, s:b, s:s, s:[{s:s, s:s, s:b}]}], "
                  "s:[{s:s, s:s, s:b}]}",
                  "name", "directory", "class_id", "6d0c4b52-3a5e-4c8e-9d3c-1f0a7f4b2e11", "instance_name", directory,
                  "usage", "user_data", "level", "front_end", "freeze_timeout_ms", 30000, "restore_method", "custom",
                  "backup_schema", "components", "type", "filegroup", "logical_path", "", "name", "files", "selectable",
                  1, "hold", "writes", "file_sets", "path", directory, "spec", "*", "recursive", 1, "exclude", "path",
                  directory, "spec", ".lock", "recursive", 0);
    json_object_set_new(answer, "metadata", metadata);
    return metadata ? NULL : "VSS_E_WRITERERROR_OUTOFRESOURCES";
}

static const char *freeze(const json_t *request, json_t *answer)
{
    (void)answer;
    long left_ms;
    const char *failure = take(request, &left_ms);
    if (failure)
        return failure;
    set_alarm(left_ms, SA_RESTART);
    time_t now = time(NULL);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    return NULL;
}

static const char *release(const json_t *request, json_t *answer)
{
    (void)request, (void)answer;
    set_alarm(0, 0);
    let_go(0);
    return NULL;
}

static const char *thaw(const json_t *request, json_t *answer)
{
    set_alarm(0, 0);
    bool lasted = held;
    release(request, answer);
    return lasted ? NULL : "VSS_E_WRITERERROR_TIMEOUT";
}

static const char *post_snapshot(const json_t *request, json_t *answer)
{
    json_t *components = json_array();
    size_t i;
    json_t *asked;
    json_array_foreach(json_object_get(request, "components"), i, asked) json_array_append_new(
        components, json_pack("{s:O, s:O, s:s}", "logical_path", json_object_get(asked, "logical_path"), "name",
                              json_object_get(asked, "name"), "stamp", stamp));
    json_object_set_new(answer, "components", components);
    return NULL;
}

static const char *pre_restore(const json_t *request, json_t *answer)
{
    (void)answer;
    long left_ms; /* a restore may take hours: post_restore, or our end, lets go */
    return take(request, &left_ms);
}

static const struct {
    const char *event;
    const char *(*handle)(const json_t *request, json_t *answer);
} events[] = {{"identify", identify},           {"freeze", freeze},       {"thaw", thaw},
              {"post_snapshot", post_snapshot}, {"abort", release},       {"backup_shutdown", release},
              {"pre_restore", pre_restore},     {"post_restore", release}};

static json_t *answer_to(const char *line)
{
    json_t *request = json_loads(line, 0, NULL);
    const char *event = json_string_value(json_object_get(request, "event"));
    json_t *id = json_object_get(request, "id");
    json_t *answer = json_pack("{s:O}", "id", json_is_integer(id) ? id : json_null());
    const char *failure = event && json_is_integer(id) ? NULL : "VSS_E_WRITERERROR_NONRETRYABLE";
    for (size_t i = 0; !failure && i < sizeof(events) / sizeof(events[0]); i++) /* an unknown event: ok */
        if (strcmp(events[i].event, event) == 0)
            failure = events[i].handle(request, answer);
    json_object_set_new(answer, "ok", json_boolean(!failure));
    if (failure)
        json_object_set_new(answer, "failure", json_string(failure));
    json_decref(request);
    return answer;
}

int main(int argc, char **argv)
{
    static char line[LINE_MAX_BYTES + 2], lock[PATH_MAX + 8];
    if (argc != 2 || !realpath(argv[1], directory))
        return EXIT_FAILURE;
    snprintf(lock, sizeof(lock), "%s/.lock", directory);
    if ((lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        return EXIT_FAILURE;
    while (fgets(line, sizeof(line), stdin) && strchr(line, '\n')) { /* end of file, or a line too long: we end */
        json_t *answer = answer_to(line);
        json_dumpf(answer, stdout, JSON_COMPACT);
        json_decref(answer);
        if (putchar('\n') == EOF || fflush(stdout) == EOF)
            return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
