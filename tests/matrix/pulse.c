/* A heart that a freeze stops: writes one byte every 5 ms with O_DSYNC, and keeps a record of every beat that came late.
 *
 * usage: pulse FILE STATUS
 * STATUS (on a tmpfs, never frozen) holds the time of the last beat as 8 bytes (CLOCK_MONOTONIC, ns, native order), then
 * one pair of such numbers per pause longer than NOTABLE_NS: when it ended, how long it was. Ends on a signal, or when
 * its parent does. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { BEAT_NS = 5000000, NOTABLE_NS = 20000000, SPAN = 4096 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int fail(const char *what)
{
    fprintf(stderr, "pulse: %s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    int file = open(argv[1], O_WRONLY | O_CREAT | O_DSYNC | O_CLOEXEC, 0666);
    int status = open(argv[2], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0)
        return fail(argv[1]);
    if (status < 0 || ftruncate(status, sizeof(int64_t)) < 0)
        return fail(argv[2]);
    int64_t *last = mmap(NULL, sizeof(*last), PROT_READ | PROT_WRITE, MAP_SHARED, status, 0);
    if (last == MAP_FAILED)
        return fail(argv[2]);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    *last = now_ns();
    for (off_t at = 0;; at = (at + 1) % SPAN) {
        if (pwrite(file, "x", 1, at) != 1)
            return fail(argv[1]);
        int64_t beat = now_ns();
        const int64_t pause[2] = {beat, beat - *last};
        if (pause[1] > NOTABLE_NS && write(status, pause, sizeof(pause)) != sizeof(pause))
            return fail(argv[2]);
        __atomic_store_n(last, beat, __ATOMIC_RELEASE);
        nanosleep(&(const struct timespec){.tv_nsec = BEAT_NS}, NULL);
    }
}
