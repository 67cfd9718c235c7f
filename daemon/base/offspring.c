#include "base/offspring.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"

enum {
    ENVIRON_MAX = 128 * 1024, /* execve(2): MAX_ARG_STRLEN is the most for one entry */
    ROUNDS_MAX = 50,          /* whoever forks faster than we look is caught by a later round */
    ROUND_PAUSE_NS = 2000000,
    HANGS_MS = 500, /* without a step: who reads waits for what may never come */
};

struct relation {
    pid_t pid, parent;
    bool doomed;
};

static char *read_proc(pid_t pid, const char *name, size_t max, size_t *ret_length)
{
    char path[64];
    str_format(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *text = mem_new(max + 1);
    size_t length = 0;
    for (ssize_t n; length < max && (n = read(fd, text + length, max - length)) > 0; length += (size_t)n)
        ;
    *ret_length = length;
    return text;
}

/* The name in parentheses may hold anything: the fields follow its last ')'. A dead process has no offspring any more. */
pid_t offspring_parent(pid_t pid)
{
    size_t length = 0;
    AUTO_FREE char *text = read_proc(pid, "stat", 1024, &length);
    const char *end = text ? strrchr(text, ')') : NULL;
    char state = '?';
    int parent = -1;
    if (!end || sscanf(end + 1, " %c %d", &state, &parent) != 2)
        return -1;
    return parent;
}

static void close_proc(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* Every process of the host; *ret is freed by the caller. */
static size_t list_all(struct relation **ret)
{
    size_t n = 0, room = 0;
    *ret = NULL;
    CLEANUP(close_proc) DIR *dir = opendir("/proc");
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        if (n == room) {
            room = room ? 2 * room : 256;
            *ret = mem_resize(*ret, room * sizeof(**ret));
        }
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        (*ret)[n++] = (struct relation){.pid = pid, .parent = offspring_parent(pid)};
    }
    return n;
}

static bool doom_children(struct relation *all, size_t n, pid_t parent)
{
    bool more = false;
    for (size_t i = 0; i < n; i++)
        if (all[i].parent == parent && !all[i].doomed)
            more = all[i].doomed = true;
    return more;
}

void offspring_kill(pid_t pid)
{
    AUTO_FREE struct relation *all = NULL;
    size_t n = list_all(&all);
    bool more = doom_children(all, n, pid);
    while (more) {
        more = false;
        for (size_t i = 0; i < n; i++)
            if (all[i].doomed)
                more |= doom_children(all, n, all[i].pid);
    }
    /* The eldest first: what it would still start is never started, and its children are known. */
    proc_kill_group(pid);
    for (size_t i = 0; i < n; i++)
        if (all[i].doomed)
            kill(all[i].pid, SIGKILL);
}

static const char *marked_entry(const char *environ_text, size_t length, const char *mark)
{
    for (const char *at = environ_text; at < environ_text + length; at += strlen(at) + 1)
        if (str_starts(at, mark))
            return at;
    return NULL;
}

struct looking {
    const struct relation *all;
    size_t n;
    const char *mark;
    offspring_fn fn;
    void *arg;
    struct progress {
        _Atomic(size_t) at, found;
    } *progress; /* shared with the child */
};

static void look_on(const struct looking *looking)
{
    for (; looking->progress->at < looking->n; looking->progress->at++) {
        pid_t pid = looking->all[looking->progress->at].pid;
        size_t length = 0;
        AUTO_FREE char *text = pid == getpid() ? NULL : read_proc(pid, "environ", ENVIRON_MAX, &length);
        const char *entry = text ? marked_entry(text, length, looking->mark) : NULL;
        if (!entry)
            continue;
        if (looking->fn)
            looking->fn(looking->arg, pid, entry);
        looking->progress->found++;
    }
}

static pid_t start_looking(const struct looking *looking)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        look_on(looking);
    _exit(0);
}

/* Has it come to its end? One that has not waits for the process that it is at, and is ended. */
static bool end_of(pid_t child, const struct looking *looking)
{
    for (size_t before = looking->n; !proc_reap(child, -1, HANGS_MS, NULL); before = looking->progress->at)
        if (looking->progress->at == before) {
            kill(child, SIGKILL);
            proc_reap(child, -1, HANGS_MS, NULL);
            break;
        }
    return looking->progress->at >= looking->n;
}

/* Whose environment is read makes the reader wait as long as its memory map is being changed, and that may be for as long as a disk does not
 * answer: it is passed over, by a child that begins behind it. */
size_t offspring_each_marked(const char *mark, offspring_fn fn, void *arg, size_t *ret_unseen)
{
    AUTO_FREE struct relation *all = NULL;
    struct looking looking = {.n = list_all(&all), .mark = mark, .fn = fn, .arg = arg};
    struct progress own = {0, 0};
    void *shared = mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    looking.all = all;
    looking.progress = shared == MAP_FAILED ? &own : shared;
    *ret_unseen = 0;
    while (looking.progress->at < looking.n) {
        pid_t child = shared == MAP_FAILED ? -1 : start_looking(&looking);
        if (child < 0)
            look_on(&looking);
        else if (!end_of(child, &looking)) {
            looking.progress->at++;
            ++*ret_unseen;
        }
    }
    size_t found = looking.progress->found;
    if (shared != MAP_FAILED)
        munmap(shared, sizeof(own));
    return found;
}

static void kill_one(void *arg, pid_t pid, const char *entry)
{
    (void)arg;
    (void)entry;
    kill(pid, SIGKILL);
}

/* A process that was just killed may still be listed: look again until nobody is. */
size_t offspring_kill_marked(const char *mark, size_t *ret_unseen)
{
    size_t first = offspring_each_marked(mark, kill_one, NULL, ret_unseen);
    for (int round = 0; first > 0 && *ret_unseen == 0 && round < ROUNDS_MAX; round++) {
        if (offspring_each_marked(mark, kill_one, NULL, ret_unseen) == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = ROUND_PAUSE_NS}, NULL);
    }
    return first;
}

static bool is_kept(const pid_t *keep, size_t n, pid_t pid)
{
    for (size_t i = 0; i < n; i++)
        if (keep[i] == pid)
            return true;
    return false;
}

static bool belongs_to(pid_t pid, uid_t uid)
{
    char path[64];
    struct stat status;
    str_format(path, sizeof(path), "/proc/%d", (int)pid);
    return uid == (uid_t)OFFSPRING_ANY_USER || (stat(path, &status) == 0 && status.st_uid == uid);
}

size_t offspring_kill_adopted(const pid_t *keep, size_t n_keep, uid_t uid)
{
    size_t killed = 0;
    for (int round = 0; round < ROUNDS_MAX; round++) {
        AUTO_FREE struct relation *all = NULL;
        size_t n = list_all(&all), found = 0;
        for (size_t i = 0; i < n; i++) {
            if (all[i].parent != getpid() || is_kept(keep, n_keep, all[i].pid) || !belongs_to(all[i].pid, uid))
                continue;
            offspring_kill(all[i].pid);
            waitpid(all[i].pid, NULL, WNOHANG);
            found++;
        }
        killed += round == 0 ? found : 0;
        if (!found)
            break;
        nanosleep(&(struct timespec){.tv_nsec = ROUND_PAUSE_NS}, NULL);
    }
    return killed;
}
