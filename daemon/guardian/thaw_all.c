#include "guardian/thaw_all.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "guardian/reach.h"
#include "guardian/take_over.h"

DEFINE_CLEANUP(DIR *, closedir)

static const char ending[] = ".freeze";

static void tell(const struct thaw_all *options, bool failed, const json_t *file_system, const char *what)
{
    AUTO_FREE char *line = str_new("%s (%s, %s): %s", json_str(file_system, "mount_point", "?"),
                                   json_str(file_system, "device", "?"), json_str(file_system, "fs_type", "?"), what);
    options->tell(options->arg, failed, line);
}

static void tell_record(const struct thaw_all *options, bool failed, const char *path, const char *what)
{
    AUTO_FREE char *line = str_new("%s: %s", path, what);
    options->tell(options->arg, failed, line);
}

/* A pidfd of the guardian when it is still that process, else -1. */
static int open_guardian(const json_t *process)
{
    AUTO_FD int fd = (int)syscall(SYS_pidfd_open, (pid_t)json_int(process, "pid", -1), 0);
    return fd >= 0 && record_process_lives(process) ? TAKE_FD(fd)
                                                    : -1; /* in this order: the number cannot change hands */
}

/* Opens what is marked as ours; what is gone with its device is settled here. Returns how many cannot be reached. */
static unsigned reach_all(const struct thaw_all *options, const struct freeze_record *record, struct reached *reached)
{
    unsigned failed = 0;
    for (size_t i = 0; i < record->n; i++) {
        const json_t *file_system = json_array_get(json_object_get(record->doc, "file_systems"), i);
        struct err err = {0};
        reached[i] = (struct reached){.fd = -1};
        enum freeze_mark mark = record_mark(record, i);
        if (mark == FREEZE_MARK_FOREIGN)
            tell(options, false, file_system, "frozen by somebody else, left alone");
        if (mark != FREEZE_MARK_OURS)
            continue;
        enum reach found = reach_open(file_system, options->records, &reached[i], &err);
        if (found == REACH_GONE) {
            record_set(record, i, FREEZE_MARK_THAWED);
            tell(options, false, file_system, "no longer there");
        } else if (found == REACH_FAILED) {
            failed++;
            tell(options, true, file_system, err.text);
        }
    }
    return failed;
}

static unsigned thaw_record(const struct thaw_all *options, struct freeze_record *record)
{
    static const char *const words[] = {
        [THAW_DONE] = "thawed", [THAW_NOT_FROZEN] = "was not frozen", [THAW_FAILED] = "cannot be thawed"};
    struct reached reached[FREEZE_SET_MAX];
    enum thaw_result results[FREEZE_SET_MAX];
    int fds[FREEZE_SET_MAX];
    unsigned failed = reach_all(options, record, reached);
    AUTO_FD int guardian = open_guardian(json_object_get(record->doc, "guardian"));
    for (size_t i = 0; i < record->n; i++)
        fds[i] = reached[i].fd;
    take_over(record, fds, guardian, results);
    for (size_t i = 0; i < record->n; i++) {
        if (fds[i] < 0)
            continue;
        tell(options, results[i] == THAW_FAILED, json_array_get(json_object_get(record->doc, "file_systems"), i),
             words[results[i]]);
        failed += results[i] == THAW_FAILED;
        reach_close(&reached[i]);
    }
    return failed;
}

/* What cannot be read is set aside, and told once: it must not stop the daemon for ever. */
static unsigned set_aside(const struct thaw_all *options, const char *path, const struct err *err)
{
    char aside[PATH_MAX];
    if (err->hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND) /* thawed and removed meanwhile */
        return 0;
    tell_record(options, true, path, err->text);
    if (str_format(aside, sizeof(aside), "%s.damaged", path))
        rename(path, aside);
    return 1;
}

unsigned thaw_one(const struct thaw_all *options, const char *path)
{
    struct freeze_record record;
    struct err err = {0};
    char boot_id[64];
    unsigned failed = 0;
    if (record_open(path, &record, &err) < 0)
        return set_aside(options, path, &err);
    record_boot_id(boot_id);
    if (!str_eq(boot_id, json_str(record.doc, "boot_id", ""))) {
        tell_record(options, false, path, "of an earlier boot: removed");
        record_remove(&record);
    } else if ((!options->installation || str_eq(options->installation, json_str(record.doc, "installation", ""))) &&
               !(options->orphans && record_process_acts(json_object_get(record.doc, "agent")))) {
        failed = thaw_record(options, &record);
    }
    record_close(&record);
    return failed;
}

/* Each record in a child of its own: one that waits for ever, for a FIFREEZE that hangs in a dead disk, keeps no other one's file systems frozen. */
static pid_t settle_apart(const struct thaw_all *options, const char *path)
{
    enum { COUNT_MAX = 255 }; /* an exit status */
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    unsigned failed = thaw_one(options, path);
    fflush(NULL);
    _exit(failed < COUNT_MAX ? (int)failed : COUNT_MAX);
}

static unsigned await(const pid_t *children, size_t n)
{
    unsigned failed = 0;
    for (size_t i = 0; i < n; i++) {
        int status = 0;
        pid_t reaped;
        do
            reaped = waitpid(children[i], &status, 0);
        while (reaped < 0 && errno == EINTR);
        failed += reaped < 0 || !WIFEXITED(status) ? 1 : (unsigned)WEXITSTATUS(status);
    }
    return failed;
}

unsigned thaw_all(const struct thaw_all *options)
{
    CLEANUP(closedir_p) DIR *directory = opendir(options->records);
    AUTO_FREE pid_t *children = NULL;
    const struct dirent *entry;
    size_t n = 0;
    unsigned failed = 0;
    if (!directory && errno != ENOENT) {
        tell_record(options, true, options->records, strerror(errno));
        return 1;
    }
    while (directory && (entry = readdir(directory))) {
        char path[PATH_MAX];
        size_t length = strlen(entry->d_name);
        if (length <= strlen(ending) || !str_eq(entry->d_name + length - strlen(ending), ending) ||
            !str_format(path, sizeof(path), "%s/%s", options->records, entry->d_name))
            continue;
        pid_t child = settle_apart(options, path);
        children = mem_resize(children, (n + 1) * sizeof(*children));
        if (child > 0)
            children[n++] = child;
        else
            failed += thaw_one(options, path);
    }
    return failed + await(children, n);
}

/* --- the command --- */

static void print(void *arg, bool failed, const char *line)
{
    (void)arg;
    fprintf(failed ? stderr : stdout, "%s\n", line);
}

static int read_installation(const char *state_dir, char *ret, size_t size)
{
    char path[PATH_MAX];
    AUTO_FD int fd = str_format(path, sizeof(path), "%s/installation", state_dir)
                         ? open(path, O_RDONLY | O_CLOEXEC | O_NOATIME)
                         : -1;
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
    if (n <= 0) {
        fprintf(stderr, "quiesced: %s is no state directory: %s\n", state_dir, n < 0 ? strerror(errno) : "damaged");
        return -1;
    }
    ret[n] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return 0;
}

int thaw_all_main(int argc, char **argv)
{
    static const struct option table[] = {
        {"records", required_argument, NULL, 'r'},
        {"state-dir", required_argument, NULL, 's'},
        {"abandoned", no_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    char records[PATH_MAX], installation[128];
    struct thaw_all options = {.records = records, .tell = print};
    int option;
    record_directory(records);
    optind = 2; /* after "thaw-all" */
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (option == 'r') {
            options.records = optarg;
        } else if (option == 's') {
            if (read_installation(optarg, installation, sizeof(installation)) < 0)
                return 2;
            options.installation = installation;
        } else if (option == 'a') {
            options.orphans = true;
        } else {
            fputs("usage: quiesced thaw-all [--abandoned] [--state-dir DIR] [--records DIR]\n", stderr);
            return 2;
        }
    }
    return thaw_all(&options) > 0;
}
