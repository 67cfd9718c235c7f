#include "providers/open_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { NAMED_MAX = 5 };

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static DIR *open_dir(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? NULL : fdopendir(fd);
}

/* A link of /proc leads to what is open itself, wherever its path lies by now. */
static bool lies_on(int at, const char *link, dev_t on)
{
    struct stat stat;
    return fstatat(at, link, &stat, AT_NO_AUTOMOUNT) == 0 && stat.st_dev == on;
}

static bool has_open(int process, dev_t on)
{
    CLEANUP(closedir_cleanup) DIR *dir = open_dir(process, "fd");
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && lies_on(dirfd(dir), entry->d_name, on))
            return true;
    return false;
}

/* What is mapped may have been closed. The text of maps names the device of the file system, not of the subvolume: the links of
 * map_files lead to the file itself. */
static bool has_mapped(int process, dev_t on)
{
    CLEANUP(closedir_cleanup) DIR *dir = open_dir(process, "map_files");
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && lies_on(dirfd(dir), entry->d_name, on))
            return true;
    return false;
}

static bool uses(int process, dev_t on)
{
    static const char *const links[] = {"cwd", "root", "exe"};
    for (size_t i = 0; i < ELEMENTS(links); i++)
        if (lies_on(process, links[i], on))
            return true;
    return has_open(process, on) || has_mapped(process, on);
}

static void name_one(int process, const char *pid, char *ret, size_t size)
{
    char command[32] = "?";
    size_t used = strlen(ret);
    AUTO_FD int fd = openat(process, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, command, sizeof(command) - 1);
    if (n > 0)
        command[command[n - 1] == '\n' ? n - 1 : n] = '\0';
    str_format(ret + used, size - used, "%s%s (%s)", used ? ", " : "", pid, command);
}

size_t open_files_find(dev_t on, char *ret, size_t size)
{
    size_t found = 0;
    CLEANUP(closedir_cleanup) DIR *proc = open_dir(AT_FDCWD, "/proc");
    struct dirent *entry;
    *ret = '\0';
    while (proc && (entry = readdir(proc))) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (pid <= 0 || *end || pid == getpid())
            continue;
        AUTO_FD int process = openat(dirfd(proc), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (process < 0 || !uses(process, on))
            continue;
        if (found++ < NAMED_MAX)
            name_one(process, entry->d_name, ret, size);
    }
    return found;
}
