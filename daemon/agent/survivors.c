#include "agent/survivors.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/offspring.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/undo_bounds.h"

enum {
    LOOK_MS = 250,
    SOON_MS = 10,            /* until a look that has begun is asked for again: mostly it has ended */
    LAST_MS = 2000,          /* for a look that is waited for, ... */
    ADOPT_MS = 5000,         /* and for the one at the start, which reads every process of the host */
    AGAIN_FIRST_MS = 2000,   /* when that one has not seen them all, or had to leave one for later, ... */
    AGAIN_MAX_MS = 15000,    /* and then ever less often */
    UNSEEN_MS = 5000,        /* until one is looked for again among those that could not be looked at */
    MARK_MAX = 160,          /* offspring.h: an installation's id and a number are far shorter */
    COUNT_MAX = 127,         /* an exit status: so many, ... */
    UNSEEN = 128,            /* and there are others that could not be looked at */
};

struct family {
    LIST_ENTRY(family) all;
    char mark[MARK_MAX];
    int64_t until_ms, not_before_ms;
    bool restoring;
    pid_t looker; /* a child that looks for them, or 0 */
    bool kills;   /* it does not only look */
};

struct survivors {
    struct loop_timer *timer, *again;
    void (*fewer)(void *arg);
    void *arg;
    LIST_HEAD(, family) all;
    /* those of earlier generations */
    char mark[MARK_MAX];
    bool restoring;
    pid_t lister; /* a child that lists them, or 0 */
    int from;     /* what it says, or -1 */
    char *list;
    size_t length;
    int64_t again_ms;
    bool missed; /* not every process could be looked at */
};

/* Whose environment is read makes the reader wait as long as its memory map is being changed; and who changes it may itself wait for a
 * page of a file system that is frozen. The agent must not wait for a thaw that is its to do: a child looks. */
static pid_t start_looker(const char *mark, bool kills)
{
    size_t unseen = 0;
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    syscall(SYS_close_range, 3U, ~0U, 0U); /* our death must show as end-of-file to workers and guardians */
    size_t n = kills ? offspring_kill_marked(mark, &unseen) : offspring_each_marked(mark, NULL, NULL, &unseen);
    _exit((n < COUNT_MAX ? (int)n : COUNT_MAX) | (unseen > 0 ? UNSEEN : 0));
}

static void tell_killed(int n)
{
    if (n > 0)
        log_line(LOG_LEVEL_WARNING, NULL, "%d processes of writers whose worker is gone did not end: killed", n);
}

static void forget(struct family *family)
{
    LIST_REMOVE(family, all);
    free(family);
}

enum seen { SEEN_NOTHING_YET, SEEN_THEM, SEEN_NOBODY };

static enum seen judge(struct family *family, int n, bool unseen)
{
    if (family->kills)
        tell_killed(n);
    if (!unseen)
        return family->kills || n == 0 ? SEEN_NOBODY : SEEN_THEM;
    if (family->kills)
        family->not_before_ms = clock_mono_ms() + UNSEEN_MS;
    return SEEN_THEM; /* for all that is known */
}

/* No child could be started: who is to be ended is ended all the same, whatever that may have to wait for. */
static enum seen ask_ourselves(struct family *family)
{
    size_t unseen = 0;
    if (!family->kills)
        return SEEN_THEM;
    size_t n = offspring_kill_marked(family->mark, &unseen);
    return judge(family, (int)n, unseen > 0);
}

static enum seen ask(struct family *family)
{
    int status = 0;
    int64_t now = clock_mono_ms();
    bool late = now >= family->until_ms;
    if (family->looker <= 0) {
        if (now < family->not_before_ms)
            return SEEN_THEM;
        family->kills = late;
        family->looker = start_looker(family->mark, family->kills);
        return family->looker < 0 ? ask_ourselves(family) : SEEN_NOTHING_YET;
    }
    pid_t reaped = waitpid(family->looker, &status, WNOHANG);
    if (reaped == 0 && late && !family->kills) { /* enough of looking */
        kill(family->looker, SIGKILL);
        proc_reap(family->looker, -1, LAST_MS, NULL);
        family->looker = 0;
        return SEEN_NOTHING_YET;
    }
    if (reaped == 0 || (reaped < 0 && errno == EINTR))
        return SEEN_NOTHING_YET;
    family->looker = 0;
    if (reaped < 0 || !WIFEXITED(status))
        return SEEN_THEM; /* for all that is known */
    return judge(family, WEXITSTATUS(status) & COUNT_MAX, WEXITSTATUS(status) & UNSEEN);
}

static void look(void *arg)
{
    struct survivors *survivors = arg;
    struct family *family, *next;
    bool fewer = false, soon = false;
    for (family = LIST_FIRST(&survivors->all); family; family = next) {
        next = LIST_NEXT(family, all);
        enum seen seen = ask(family);
        soon = soon || seen == SEEN_NOTHING_YET;
        fewer = fewer || seen == SEEN_NOBODY;
        if (seen == SEEN_NOBODY)
            forget(family);
    }
    if (!survivors_none(survivors))
        loop_timer_set(survivors->timer, soon ? SOON_MS : LOOK_MS);
    if (fewer)
        survivors->fewer(survivors->arg);
}

/* Ends them now; waits for it, but not for long. */
static void end(struct family *family)
{
    int status = 0;
    if (family->looker > 0) {
        kill(family->looker, SIGKILL);
        proc_reap(family->looker, -1, LAST_MS, NULL);
    }
    pid_t killer = start_looker(family->mark, true);
    size_t unseen = 0;
    if (killer < 0)
        tell_killed((int)offspring_kill_marked(family->mark, &unseen));
    else if (proc_reap(killer, -1, LAST_MS, &status) && WIFEXITED(status))
        tell_killed(WEXITSTATUS(status) & COUNT_MAX);
    forget(family);
}

/* As proc(5) has it, with its line end; "" when there is no such process. */
static void name_of(pid_t pid, char ret[32])
{
    char path[64];
    str_format(path, sizeof(path), "/proc/%d/comm", (int)pid);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, 31);
    ret[n > 0 ? n : 0] = '\0';
}

enum worker_state { WORKER_GONE, WORKER_HANGS, WORKER_ORPHAN, WORKER_OURS };

/* The entry ends in "PID OF ITS WORKER:". By now the number may be another program's: a worker has our own name. One that was killed and
 * waits for a disk does nothing for its writers any more; one whose agent is gone undoes, and may yet be killed. */
static enum worker_state worker_of(const char *entry)
{
    char own[32], its[32];
    const char *end = strrchr(entry, ':');
    while (end && end > entry && end[-1] != ':')
        end--;
    pid_t pid = end ? (pid_t)strtol(end, NULL, 10) : 0;
    name_of(getpid(), own);
    name_of(pid, its);
    if (pid <= 0 || !str_eq(own, its))
        return WORKER_GONE;
    return proc_kill_pending(pid) ? WORKER_HANGS : offspring_parent(pid) == getpid() ? WORKER_OURS : WORKER_ORPHAN;
}

static void write_entry(void *arg, pid_t pid, const char *entry)
{
    size_t length = strlen(entry);
    (void)pid;
    if (length < MARK_MAX) /* a longer one is none of ours, whoever made it up */
        (void)!write(*(int *)arg, entry, length + 1); /* one that is lost is no worse than one that was not found */
}

/* Every entry that begins with the mark of all, one after the other with its NUL, into a pipe. */
static bool start_lister(struct survivors *survivors)
{
    int ends[2], to = 3;
    size_t unseen = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    survivors->lister = fork();
    if (survivors->lister == 0) {
        dup2(ends[1], to);
        syscall(SYS_close_range, 4U, ~0U, 0U);
        offspring_each_marked(survivors->mark, write_entry, &to, &unseen);
        _exit(unseen > 0);
    }
    close(ends[1]);
    if (survivors->lister < 0)
        close(ends[0]);
    else
        survivors->from = ends[0];
    survivors->length = 0;
    return survivors->lister > 0;
}

/* What it has told, and tells in that time. true: it has come to its end. */
static bool read_list(struct survivors *survivors, int64_t wait_ms)
{
    enum { CHUNK = 4096 };
    int64_t deadline = clock_mono_ms() + wait_ms;
    for (ssize_t n = 1; n > 0; survivors->length += n > 0 ? (size_t)n : 0) {
        struct pollfd fd = {.fd = survivors->from, .events = POLLIN};
        int64_t left = deadline - clock_mono_ms();
        survivors->list = mem_resize(survivors->list, survivors->length + CHUNK);
        if (poll(&fd, 1, left > 0 ? (int)left : 0) != 1)
            return false;
        n = read(survivors->from, survivors->list + survivors->length, CHUNK);
    }
    return true;
}

/* false: one is left for later. In a restore that is also one whose worker hangs: it may hear its end yet, and only then undoes what no kill undoes. */
static bool take_list(struct survivors *survivors)
{
    bool all = true;
    const char *entry = survivors->list;
    for (const char *next; entry && (next = memchr(entry, '\0', survivors->length - (size_t)(entry - survivors->list))); entry = next + 1) {
        enum worker_state worker = worker_of(entry);
        bool later = worker == WORKER_ORPHAN || (worker == WORKER_HANGS && survivors->restoring);
        all = all && !later;
        if (worker != WORKER_OURS && !later)
            survivors_add(survivors, entry, survivors->restoring);
    }
    return all;
}

/* true: nobody is left for later. A lister that goes on is asked again. */
static bool adopt(struct survivors *survivors, int64_t wait_ms)
{
    int status = 1;
    survivors->missed = true;
    if (survivors->lister <= 0 && !start_lister(survivors))
        return false;
    bool ended = read_list(survivors, wait_ms), all = take_list(survivors);
    if (!ended)
        return false;
    if (!proc_reap(survivors->lister, -1, LAST_MS, &status))
        kill(survivors->lister, SIGKILL);
    survivors->lister = 0;
    fd_cleanup(&survivors->from);
    survivors->from = -1;
    survivors->missed = status != 0;
    return !survivors->missed && all;
}

static void adopt_again(void *arg)
{
    struct survivors *survivors = arg;
    if (!adopt(survivors, 0)) {
        loop_timer_set(survivors->again, survivors->again_ms);
        survivors->again_ms = 2 * survivors->again_ms > AGAIN_MAX_MS ? AGAIN_MAX_MS : 2 * survivors->again_ms;
    }
    survivors->fewer(survivors->arg); /* or more: one of them may have stopped its application */
}

struct survivors *survivors_new(struct loop *loop, void (*fewer)(void *arg), void *arg)
{
    struct survivors *survivors = mem_new(sizeof(*survivors));
    *survivors = (struct survivors){.fewer = fewer, .arg = arg, .from = -1, .again_ms = AGAIN_FIRST_MS};
    LIST_INIT(&survivors->all);
    survivors->timer = loop_timer_new(loop, look, survivors);
    survivors->again = loop_timer_new(loop, adopt_again, survivors);
    return survivors;
}

void survivors_free(struct survivors *survivors)
{
    struct family *family;
    if (!survivors)
        return;
    while ((family = LIST_FIRST(&survivors->all)))
        forget(family);
    loop_timer_free(survivors->timer);
    loop_timer_free(survivors->again);
    if (survivors->lister > 0)
        kill(survivors->lister, SIGKILL);
    fd_cleanup(&survivors->from);
    free(survivors->list);
    free(survivors);
}

void survivors_add(struct survivors *survivors, const char *mark, bool restoring)
{
    struct family *family;
    LIST_FOREACH(family, &survivors->all, all)
    if (str_eq(family->mark, mark))
        return;
    family = mem_new(sizeof(*family));
    str_copy(family->mark, sizeof(family->mark), mark);
    family->until_ms = clock_mono_ms() + (restoring ? RESTORE_UNDO_WORKER_MS : SURVIVORS_MS);
    family->restoring = restoring;
    LIST_INSERT_HEAD(&survivors->all, family, all);
    loop_timer_set(survivors->timer, 0);
}

bool survivors_restoring(const struct survivors *survivors)
{
    const struct family *family;
    LIST_FOREACH(family, &survivors->all, all)
    if (family->restoring)
        return true;
    return false;
}

void survivors_adopt(struct survivors *survivors, const json_t *start)
{
    str_format(survivors->mark, sizeof(survivors->mark), OFFSPRING_MARK "%s:", json_str(start, "installation", "-"));
    survivors->restoring = json_bool(start, "restoring", false);
    if (adopt(survivors, ADOPT_MS))
        return;
    if (survivors->missed)
        log_line(LOG_LEVEL_WARNING, NULL, "not every process could be looked at: writers of an earlier run may have been missed, and are looked for again");
    loop_timer_set(survivors->again, survivors->again_ms);
}

bool survivors_own(const struct survivors *survivors, pid_t pid)
{
    const struct family *family;
    if (survivors->lister == pid)
        return true;
    LIST_FOREACH(family, &survivors->all, all)
    if (family->looker == pid)
        return true;
    return false;
}

void survivors_kill(struct survivors *survivors, const char *mark)
{
    struct family *family, *next;
    for (family = LIST_FIRST(&survivors->all); family; family = next) {
        next = LIST_NEXT(family, all);
        if (!mark || str_eq(family->mark, mark))
            end(family);
    }
}

bool survivors_have(const struct survivors *survivors, const char *mark)
{
    const struct family *family;
    LIST_FOREACH(family, &survivors->all, all)
    if (str_eq(family->mark, mark))
        return true;
    return false;
}

bool survivors_none(const struct survivors *survivors)
{
    return LIST_EMPTY(&survivors->all);
}
