#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "serve/serve_private.h"

DEFINE_CLEANUP(DIR *, closedir)

int places_parents(const char *path, struct err *err)
{
    char part[PATH_MAX];

    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        str_format(part, sizeof(part), "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot create %s", part);
    }
    return 0;
}

/* Creates it, or sets owner and mode of what is there. Works on the opened directory: a symbolic link is refused. */
static int make_directory(const char *path, mode_t mode, const struct proc_identity *owner, struct err *err)
{
    struct stat status;

    if (places_parents(path, err) != 0)
        return -1;
    if (mkdir(path, mode) != 0 && errno != EEXIST)
        return err_errno(err, VSS_E_UNEXPECTED, errno, "Give another --state-dir DIR.", "cannot create %s", path);
    AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot open %s", path);
    uid_t uid = owner ? owner->uid : geteuid();
    gid_t gid = owner ? owner->gid : getegid();
    if (geteuid() == 0 && (status.st_uid != uid || status.st_gid != gid) && fchown(fd, uid, gid) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot give %s to its user", path);
    if ((status.st_mode & 07777) != mode && fchmod(fd, mode) != 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, "The directory must belong to the user that runs quiesced.",
                         "cannot set the mode of %s", path);
    return 0;
}

int places_lock(const char *state_dir, struct err *err)
{
    char path[PATH_MAX], text[32];

    if (!str_format(path, sizeof(path), "%s/lock", state_dir))
        return err_set(err, E_INVALIDARG, "Use a shorter path.", "state directory %s: path too long", state_dir);
    if (make_directory(state_dir, 0711, NULL, err) != 0)
        return -1;
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
        text[length > 0 ? length : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        return err_set(err, VSS_E_UNEXPECTED, "Stop it first, or give another --state-dir DIR.",
                       "another quiesced daemon (process %s) uses %s", *text ? text : "unknown", state_dir);
    }
    str_format(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, strlen(text), 0) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot write %s", path);
    return TAKE_FD(fd);
}

/* After a change of run_as.core the files inside still belong to the former user. */
static int give_files(const char *directory, const struct proc_identity *owner, struct err *err)
{
    CLEANUP(closedir_p) DIR *dir = opendir(directory);
    struct dirent *entry;

    if (!dir)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read %s", directory);
    while ((entry = readdir(dir))) {
        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
            continue;
        if (fchownat(dirfd(dir), entry->d_name, owner->uid, owner->gid, AT_SYMLINK_NOFOLLOW) != 0 && errno != ENOENT)
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot give %s/%s to %s", directory, entry->d_name,
                             owner->name);
    }
    return 0;
}

/* Names this state directory among others of the same host: snapshots carry it, so that nobody removes a neighbour's. */
static int take_installation(struct places *places, struct err *err)
{
    char path[PATH_MAX];
    AUTO_FREE char *text = NULL;

    if (!str_format(path, sizeof(path), "%s/installation", places->state_dir))
        return err_set(err, E_INVALIDARG, "Use a shorter path.", "state directory %s: path too long", places->state_dir);
    int found = atomic_file_read(path, &text, NULL, err);
    if (found < 0)
        return -1;
    if (found == 0) {
        text[strcspn(text, "\n")] = '\0';
        if (uuid_valid(text)) {
            str_copy(places->installation, sizeof(places->installation), text);
            return 0;
        }
        log_line(LOG_LEVEL_WARNING, NULL, "%s is damaged: made anew; snapshots of before are left alone", path);
    }
    uuid_v7(places->installation);
    return atomic_file_write(path, 0644, places->installation, strlen(places->installation), err);
}

/* Core must pass every directory above its store: said here, by who can mend it, not by a role that cannot start.
 * Asked of the kernel as that user, since access control lists count too. */
static int check_reachable(const char *path, const struct proc_identity *user, struct err *err)
{
    char passed[PATH_MAX] = "/", part[PATH_MAX];
    struct stat status;
    int failed = 0;

    setfsgid(user->gid);
    setfsuid(user->uid);
    for (size_t end = 1; !failed; end++) {
        end += strcspn(path + end, "/");
        str_format(part, sizeof(part), "%.*s", (int)end, path);
        failed = stat(part, &status) == 0 ? 0 : errno;
        if (!failed)
            str_copy(passed, sizeof(passed), part);
        if (!path[end])
            break;
    }
    setfsuid(geteuid());
    setfsgid(getegid());
    if (!failed)
        return 0;
    return err_errno(err, VSS_E_UNEXPECTED, failed, "Open it (chmod o+x), or give another --state-dir DIR.",
                     "state directory: user %s cannot pass %s", user->name, passed);
}

int places_make(struct places *places, const json_t *config, const struct proc_identity *core, struct err *err)
{
    const json_t *copy = json_object_get(json_object_get(config, "providers"), "copy");

    if (!str_format(places->store, sizeof(places->store), "%s/store", places->state_dir) ||
        !str_copy(places->staging, sizeof(places->staging), json_str(copy, "staging", "")))
        return err_set(err, E_INVALIDARG, "Use a shorter path.", "state directory %s: path too long",
                       places->state_dir);
    if (pki_paths(places->state_dir, &places->pki, err) != 0)
        return -1;
    if (take_installation(places, err) != 0 || make_directory(places->pki.directory, 0700, NULL, err) != 0 ||
        make_directory(places->store, 0700, core, err) != 0)
        return -1;
    if (geteuid() == 0 && (check_reachable(places->store, core, err) != 0 || give_files(places->store, core, err) != 0))
        return -1;
    return make_directory(places->staging, 0711, NULL, err);
}

static int create_user(const char *name, struct err *err)
{
    static const char hint[] = "Create it (useradd --system), or name existing users in run_as.";
    const char *const argv[] = {"/usr/sbin/useradd", "--system",     "--no-create-home",
                                "--home-dir",        "/nonexistent", "--shell",
                                "/usr/sbin/nologin", name,           NULL};
    const struct proc_fd fds[] = {{STDERR_FILENO, STDERR_FILENO}};
    const struct proc_spec spec = {.argv = argv, .fds = fds, .n_fds = ELEMENTS(fds), .die_with_parent = true};
    int status = 0, pidfd = -1;
    char text[64];
    pid_t pid;

    if (proc_spawn(&spec, &pid, &pidfd, err) != 0)
        return err_prefix(err, "user %s", name);
    bool gone = proc_reap(pid, pidfd, 30000, &status);
    if (!gone) {
        proc_kill_group(pid);
        proc_reap(pid, pidfd, -1, &status);
    }
    close(pidfd);
    if (status == 0)
        return 0;
    return err_set(err, VSS_E_UNEXPECTED, hint, "user %s: useradd: %s", name,
                   proc_status_text(status, text, sizeof(text)));
}

/* One daemon at a time: useradd looks for a user before it takes the lock of /etc/passwd, so that of two at once the second
 * gives the first one's user another uid. The lock ends with the descriptor. -1 without it: then useradd's own has to do. */
static int lock_users(void)
{
    enum { ATTEMPTS = 150, PAUSE_MS = 200 };
    AUTO_FD int fd = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (int i = 0; fd >= 0 && i < ATTEMPTS; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return TAKE_FD(fd);
        nanosleep(&(struct timespec){0, PAUSE_MS * 1000000L}, NULL);
    }
    return -1;
}

int places_user(const char *name, struct proc_identity *ret, struct err *err)
{
    enum { ATTEMPTS = 10, PAUSE_MS = 200 };

    if (geteuid() != 0)
        return proc_identity_lookup(NULL, ret, err);
    AUTO_FD int lock = lock_users();
    (void)lock;
    if (getpwnam(name))
        return proc_identity_lookup(name, ret, err);
    /* Somebody else may hold the lock of /etc/passwd. */
    for (int i = 0; i < ATTEMPTS && create_user(name, err) != 0 && !getpwnam(name); i++)
        nanosleep(&(struct timespec){0, PAUSE_MS * 1000000L}, NULL);
    if (!getpwnam(name))
        return -1;
    log_line(LOG_LEVEL_INFO, NULL, "user %s: made as a system user", name);
    return proc_identity_lookup(name, ret, err);
}

int places_log(const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

    return fd >= 0 ? fd : err_errno(err, E_INVALIDARG, errno, "Change log.file.", "log file %s", path);
}
