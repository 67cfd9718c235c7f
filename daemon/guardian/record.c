#include "guardian/record.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"

enum { RECORD_MAX = 1024 * 1024 };

static int read_text(int fd, char *ret, size_t size)
{
    size_t used = 0;
    while (used < size - 1) {
        ssize_t n = pread(fd, ret + used, size - 1 - used, (off_t)used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    ret[used] = '\0';
    return (int)used;
}

static int read_file(const char *path, char *ret, size_t size)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : read_text(fd, ret, size);
}

void record_boot_id(char ret[64])
{
    if (read_file("/proc/sys/kernel/random/boot_id", ret, 64) < 0)
        ret[0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
}

/* /run is tmpfs wherever systemd runs; where it is not, /dev/shm usually is. */
void record_directory(char ret[PATH_MAX])
{
    static const char *const tops[] = {"/run", "/dev/shm"};
    const char *runtime = getenv("RUNTIME_DIRECTORY");
    struct statfs status;
    if (runtime && path_is_canonical(runtime) && str_format(ret, PATH_MAX, "%s/freezes", runtime))
        return;
    for (size_t i = 0; i < ELEMENTS(tops); i++) {
        str_format(ret, PATH_MAX, "%s/quiesced/freezes", tops[i]);
        if (statfs(tops[i], &status) == 0 && status.f_type == TMPFS_MAGIC)
            return;
    }
    str_format(ret, PATH_MAX, "%s/quiesced/freezes", tops[0]);
}

/* Field 22 of /proc/PID/stat; the name in field 2 may hold anything, its closing bracket is the last one. */
static int64_t start_time(pid_t pid)
{
    char path[64], text[1024];
    unsigned long long start = 0;
    str_format(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (read_file(path, text, sizeof(text)) < 0)
        return -1;
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                        &start) != 1)
        return -1;
    return (int64_t)start;
}

static int64_t fsid(const struct statfs *status)
{
    int64_t id = 0;
    memcpy(&id, &status->f_fsid, sizeof(id));
    return id;
}

void record_identify(int fd, json_t *file_system)
{
    struct stat status;
    struct statfs fs;
    if (fstat(fd, &status) != 0 || fstatfs(fd, &fs) != 0)
        return;
    json_put(file_system, "dev", json_integer((json_int_t)status.st_dev));
    json_put(file_system, "fsid", json_integer((json_int_t)fsid(&fs)));
    json_put(file_system, "magic", json_integer((json_int_t)fs.f_type));
}

bool record_identifies(const json_t *file_system, int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && json_int(file_system, "fsid", 0) == fsid(&fs) &&
           json_int(file_system, "magic", 0) == (int64_t)fs.f_type;
}

json_t *record_process(pid_t pid)
{
    return json_pack("{s:I, s:I}", "pid", (json_int_t)pid, "start", (json_int_t)start_time(pid));
}

/* A zombie has ended, whatever its parent does. */
static bool is_zombie(pid_t pid)
{
    char path[64], text[1024];
    str_format(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (read_file(path, text, sizeof(text)) < 0)
        return false;
    const char *rest = strrchr(text, ')');
    return rest && str_starts(rest, ") Z");
}

bool record_process_lives(const json_t *process)
{
    pid_t pid = (pid_t)json_int(process, "pid", 0);
    int64_t start = json_int(process, "start", -1);
    return pid > 0 && start >= 0 && start_time(pid) == start && !is_zombie(pid);
}

bool record_process_acts(const json_t *process)
{
    return record_process_lives(process) && !proc_kill_pending((pid_t)json_int(process, "pid", 0));
}

static int make_directory(const char *path, struct err *err)
{
    struct stat status;
    char parent[PATH_MAX];
    str_copy(parent, sizeof(parent), path);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent) {
        *slash = '\0';
        mkdir(parent, 0755); /* its own failure shows in the next one */
    }
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "freeze records: cannot create %s", path);
    if (lstat(path, &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 022))
        return err_set(err, VSS_E_UNEXPECTED, "Remove it, or set RUNTIME_DIRECTORY.",
                       "freeze records: %s is not a directory of our own", path);
    return 0;
}

static int write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno != EINTR)
            return -1;
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* The record must never wait for the freeze that it is about. */
static int check_place(int fd, const json_t *doc, const char *directory, struct err *err)
{
    struct stat status;
    size_t i;
    const json_t *item;
    if (fstat(fd, &status) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "freeze records: %s", directory);
    json_array_foreach(
        json_object_get(doc, "file_systems"), i,
        item) if (json_int(item, "dev", -1) ==
                  (int64_t)status.st_dev) return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED,
                                                         "Set RUNTIME_DIRECTORY to a directory on tmpfs.",
                                                         "freeze records: %s lies on %s, which would be frozen",
                                                         directory, json_str(item, "mount_point", "?"));
    return 0;
}

bool record_path(const char *directory, const json_t *doc, char ret[PATH_MAX])
{
    return str_format(ret, PATH_MAX, "%s/%s.%s.freeze", directory, json_str(doc, "installation", "none"),
                      json_str(doc, "set", "none"));
}

int record_create(const char *directory, const json_t *doc, struct freeze_record *ret, struct err *err)
{
    char hidden[PATH_MAX];
    size_t n = json_array_size(json_object_get(doc, "file_systems"));
    *ret = (struct freeze_record){.fd = -1, .n = n};
    AUTO_FREE char *text = json_dumps(doc, JSON_COMPACT);
    AUTO_FREE char *marks = mem_new(n + 1);
    memset(marks, FREEZE_MARK_NONE, n);
    if (!text || !record_path(directory, doc, ret->path) ||
        !str_format(hidden, sizeof(hidden), "%s.new", ret->path))
        return err_set(err, E_INVALIDARG, NULL, "freeze records: %s is too long a path", directory);
    if (make_directory(directory, err) != 0)
        return -1;
    AUTO_FREE char *whole = str_new("%s\n%s\n", marks, text);
    AUTO_FD int fd = open(hidden, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "freeze records: cannot create %s", hidden);
    if (check_place(fd, doc, directory, err) != 0) {
        unlink(hidden);
        return -1;
    }
    if (write_all(fd, whole) != 0 || rename(hidden, ret->path) != 0) {
        err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "freeze records: cannot write %s", ret->path);
        unlink(hidden);
        return -1;
    }
    ret->doc = json_incref((json_t *)(uintptr_t)doc);
    ret->fd = TAKE_FD(fd);
    return 0;
}

int record_open(const char *path, struct freeze_record *ret, struct err *err)
{
    *ret = (struct freeze_record){.fd = -1};
    AUTO_FD int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    AUTO_FREE char *text = mem_new(RECORD_MAX);
    int length = fd < 0 ? -1 : read_text(fd, text, RECORD_MAX);
    if (length < 0)
        return err_errno(err, errno == ENOENT ? VSS_E_OBJECT_NOT_FOUND : VSS_E_UNEXPECTED, errno, NULL, "%s", path);
    char *body = strchr(text, '\n');
    AUTO_JSON json_t *doc =
        body ? json_parse_strict(body + 1, (size_t)length - (size_t)(body + 1 - text), 8, NULL) : NULL;
    size_t n = json_array_size(json_object_get(doc, "file_systems"));
    if (!doc || n == 0 || n > FREEZE_SET_MAX || (size_t)(body - text) != n)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "%s is no record of a freeze", path);
    str_copy(ret->path, sizeof(ret->path), path);
    ret->n = n;
    ret->doc = TAKE_PTR(doc);
    ret->fd = TAKE_FD(fd);
    return 0;
}

void record_adopt(int fd, const char *path, size_t n, struct freeze_record *ret)
{
    *ret = (struct freeze_record){.fd = fd, .n = n};
    str_copy(ret->path, sizeof(ret->path), path);
}

enum freeze_mark record_mark(const struct freeze_record *record, size_t i)
{
    char mark = FREEZE_MARK_NONE;
    if (i >= record->n || pread(record->fd, &mark, 1, (off_t)i) != 1)
        return FREEZE_MARK_NONE;
    return (enum freeze_mark)mark;
}

int record_set(const struct freeze_record *record, size_t i, enum freeze_mark mark)
{
    char byte = (char)mark;
    ssize_t n;
    if (mark == FREEZE_MARK_OURS && fault("guardian.mark"))
        return EIO;
    do
        n = pwrite(record->fd, &byte, 1, (off_t)i);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : n < 0 ? errno : EIO;
}

bool record_any_frozen(const struct freeze_record *record)
{
    for (size_t i = 0; i < record->n; i++)
        if (record_mark(record, i) == FREEZE_MARK_OURS)
            return true;
    return false;
}

void record_remove(struct freeze_record *record)
{
    if (record->path[0])
        unlink(record->path);
}

void record_close(struct freeze_record *record)
{
    if (record->fd > 0)
        close(record->fd);
    json_decref(record->doc);
    *record = (struct freeze_record){.fd = -1};
}
