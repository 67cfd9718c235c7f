#include "base/process_figures.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static bool read_text(const char *path, char *ret, size_t size)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

    ret[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* Field 22 of proc(5)'s stat, in ticks since the machine's boot; the name in field 2 may hold blanks and brackets. */
static double start_time(void)
{
    char text[1024];
    struct timespec since_boot;

    if (!read_text("/proc/self/stat", text, sizeof(text)))
        return 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return 0;
    clock_gettime(CLOCK_BOOTTIME, &since_boot);
    double age = (double)since_boot.tv_sec + (double)since_boot.tv_nsec / 1e9 - strtod(at, NULL) / (double)sysconf(_SC_CLK_TCK);
    return (double)clock_real_ms() / 1000 - age;
}

/* Since Linux 6.2 the directory's size is the number of its entries. */
static size_t open_descriptors(void)
{
    struct stat directory;
    size_t n = 0;

    if (stat("/proc/self/fd", &directory) == 0 && directory.st_size > 0)
        return (size_t)directory.st_size;
    DIR *entries = opendir("/proc/self/fd");
    while (entries && readdir(entries))
        n++;
    if (entries)
        closedir(entries);
    return n > 3 ? n - 3 : 0; /* ".", "..", and the directory's own */
}

static void memory(struct openmetrics *text)
{
    char statm[128];
    char *at = statm;

    if (!read_text("/proc/self/statm", statm, sizeof(statm)))
        return;
    double page = (double)sysconf(_SC_PAGESIZE), size = (double)strtoull(at, &at, 10), resident = (double)strtoull(at, &at, 10);
    openmetrics_family(text, OPENMETRICS_GAUGE, "process_virtual_memory_bytes", "Virtual memory.");
    openmetrics_plain(text, size * page);
    openmetrics_family(text, OPENMETRICS_GAUGE, "process_resident_memory_bytes", "Resident memory.");
    openmetrics_plain(text, resident * page);
}

void process_figures(struct openmetrics *text)
{
    struct rusage usage;
    struct rlimit files;

    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &files);
    openmetrics_family(text, OPENMETRICS_COUNTER, "process_cpu_seconds", "User and system time.");
    openmetrics_plain(text, seconds(usage.ru_utime) + seconds(usage.ru_stime));
    memory(text);
    openmetrics_family(text, OPENMETRICS_GAUGE, "process_open_fds", "Open descriptors.");
    openmetrics_plain(text, (double)open_descriptors());
    openmetrics_family(text, OPENMETRICS_GAUGE, "process_max_fds", "How many there may be.");
    openmetrics_plain(text, (double)files.rlim_cur);
    openmetrics_family(text, OPENMETRICS_GAUGE, "process_start_time_seconds", "When the process started.");
    openmetrics_plain(text, start_time());
}
