#include "base/fault.h"

#ifdef QUIESCED_FAULTS
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault_points.h"
#include "base/log.h"
#include "base/str.h"

enum { PAUSE_STEP_MS = 5, EXIT_STATUS = 70 };

#define POINT_ROW(name, what) {name, what},
static const struct point_row {
    const char *name, *what;
} points[] = {FAULT_POINTS(POINT_ROW)};

static _Thread_local bool allocation_fails;

/* A point that no test can know of is none. */
static void check_listed(const char *name)
{
    for (size_t i = 0; i < ELEMENTS(points); i++)
        if (str_eq(points[i].name, name))
            return;
    fprintf(stderr, "fault point %s is not in base/fault_points.h\n", name);
    abort();
}

static bool path_of(const char *name, const char *suffix, char ret[PATH_MAX])
{
    const char *directory = getenv("QUIESCED_FAULT_DIR");
    return directory && str_format(ret, PATH_MAX, "%s/%s%s", directory, name, suffix);
}

static void sleep_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

/* The test learns that the point was reached, and by whom. */
static void record_hit(const char *name)
{
    char path[PATH_MAX], line[64];
    if (!path_of(name, ".hit", path))
        return;
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    str_format(line, sizeof(line), "%s %d\n", log_role_name(), (int)getpid());
    if (fd >= 0 && write(fd, line, strlen(line)) < 0)
        log_line(LOG_LEVEL_WARNING, NULL, "fault point %s: its hit cannot be recorded", name);
}

bool fault_armed(const char *name)
{
    char path[PATH_MAX];
    return path_of(name, "", path) && access(path, F_OK) == 0;
}

long long fault_clock_ms(void)
{
    char path[PATH_MAX], text[32] = "";
    int saved = errno; /* reading a clock changes no errno */
    AUTO_FD int fd = path_of("clock.jump", "", path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    long long jump = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 ? strtoll(text, NULL, 10) : 0;
    errno = saved;
    return jump;
}

/* --- kinds --- */

static enum fault_kind kind_fail(const char *name, long number)
{
    (void)name;
    (void)number;
    return FAULT_FAIL;
}

static enum fault_kind kind_delay(const char *name, long number)
{
    (void)name;
    sleep_ms(number);
    return FAULT_NONE;
}

static enum fault_kind kind_exit(const char *name, long number)
{
    (void)name;
    (void)number;
    _exit(EXIT_STATUS);
}

static enum fault_kind kind_crash(const char *name, long number)
{
    (void)name;
    (void)number;
    raise(SIGKILL);
    return FAULT_NONE;
}

static enum fault_kind kind_stop(const char *name, long number)
{
    (void)name;
    (void)number;
    raise(SIGSTOP);
    return FAULT_NONE;
}

static enum fault_kind kind_nomem(const char *name, long number)
{
    (void)name;
    (void)number;
    allocation_fails = true;
    return FAULT_NONE;
}

static enum fault_kind kind_pause(const char *name, long number)
{
    (void)number;
    while (fault_armed(name))
        sleep_ms(PAUSE_STEP_MS);
    return FAULT_NONE;
}

static enum fault_kind kind_hold(const char *name, long number)
{
    (void)name;
    (void)number;
    return FAULT_HOLD;
}

static const struct kind_row {
    const char *name;
    enum fault_kind (*act)(const char *name, long number);
} kinds[] = {
    {"", kind_fail},     {"fail", kind_fail}, {"delay", kind_delay}, {"exit", kind_exit}, {"crash", kind_crash},
    {"stop", kind_stop}, {"nomem", kind_nomem}, {"pause", kind_pause}, {"hold", kind_hold},
};

static enum fault_kind act(const char *name, const char *word, long number)
{
    for (size_t i = 0; i < ELEMENTS(kinds); i++)
        if (str_eq(kinds[i].name, word))
            return kinds[i].act(name, number);
    fprintf(stderr, "fault point %s: no kind \"%s\"\n", name, word);
    abort();
}

enum fault_kind fault_take(const char *name)
{
    char path[PATH_MAX], content[64] = "";
    check_listed(name);
    if (!path_of(name, "", path))
        return FAULT_NONE;
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAULT_NONE;
    ssize_t length = read(fd, content, sizeof(content) - 1);
    content[length > 0 ? length : 0] = '\0';
    char *rest = NULL;
    char *word = strtok_r(content, " \n", &rest);
    if (str_eq(word, "once")) {
        if (unlink(path) != 0)
            return FAULT_NONE; /* of two that hit at the same moment only one removes it */
        word = strtok_r(NULL, " \n", &rest);
    }
    const char *number = word ? strtok_r(NULL, " \n", &rest) : NULL;
    record_hit(name);
    return act(name, word ? word : "", number ? strtol(number, NULL, 10) : 0);
}

bool fault(const char *name)
{
    int errnum = errno; /* of the call before: asking changes nothing */
    enum fault_kind kind = fault_take(name);
    if (kind == FAULT_HOLD)
        kind_pause(name, 0);
    errno = errnum;
    return kind == FAULT_FAIL;
}

bool fault_role(const char *point)
{
    static const char *const roles[] = {"core", "front", "agent", "worker", "serve", "mover", "guardian"};
    char name[64];
    if (!getenv("QUIESCED_FAULT_DIR"))
        return false;
    str_format(name, sizeof(name), "%s.%s", log_role_name(), point);
    for (size_t i = 0; i < ELEMENTS(roles); i++)
        if (str_eq(roles[i], log_role_name()))
            return fault(name);
    return false; /* a test program, a signer */
}

bool fault_allocation(void)
{
    bool fails = allocation_fails;
    allocation_fails = false;
    return fails;
}

const char *fault_environment(void)
{
    static char text[PATH_MAX + 32];
    const char *directory = getenv("QUIESCED_FAULT_DIR");
    return directory && str_format(text, sizeof(text), "QUIESCED_FAULT_DIR=%s", directory) ? text : NULL;
}

int fault_list_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < ELEMENTS(points); i++)
        printf("%s\t%s\n", points[i].name, points[i].what);
    return fflush(stdout) != 0;
}
#else
/* A translation unit may not be empty. */
typedef int fault_points_are_compiled_out;
#endif
