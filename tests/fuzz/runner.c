/* Runs a fuzz target without libFuzzer, so that every ./check does: each file of a folder as it is, then mutants of
 * them, the same ones each time. A failing input is written to the working directory as failing-input.
 *
 * usage: fuzz_NAME FOLDER [SECONDS [SEED]] */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

enum { FILES_MAX = 256, SIZE_MAX_BYTES = 8192, STEPS_MAX = 6, MUTANTS_BETWEEN_LOOKS = 100, SECONDS = 2 };

struct input {
    uint8_t bytes[SIZE_MAX_BYTES];
    size_t size;
};

static struct input files[FILES_MAX];
static size_t n_files;
static uint64_t seed = 1;
static struct input current;

static size_t below(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return n ? seed % n : 0;
}

static void put(struct input *input, size_t at, size_t drop, const uint8_t *bytes, size_t size)
{
    if (drop > input->size - at)
        drop = input->size - at;
    if (input->size - drop + size > SIZE_MAX_BYTES)
        return;
    memmove(input->bytes + at + size, input->bytes + at + drop, input->size - at - drop);
    memmove(input->bytes + at, bytes, size);
    input->size = input->size - drop + size;
}

static void step(struct input *input)
{
    static const uint8_t sharp[] = "\r\n\0 \t:;,+-0159afAF\x7f\x80\xff/%?&=#{}[]\"\\";
    const struct input *other = &files[below(n_files)];
    size_t at = below(input->size + 1);
    uint8_t copy[SIZE_MAX_BYTES];
    size_t length = below(16), from = below(other->size);
    switch (below(6)) {
    case 0:
        put(input, at, 1, &sharp[below(sizeof(sharp))], 1);
        break;
    case 1:
        put(input, at, 0, &sharp[below(sizeof(sharp))], 1);
        break;
    case 2:
        put(input, at, length, sharp, 0);
        break;
    case 3: /* a piece of another one */
        length = below(other->size - from + 1);
        memcpy(copy, other->bytes + from, length);
        put(input, at, below(16), copy, length);
        break;
    case 4: /* a piece of itself again */
        if (length > input->size - at)
            length = input->size - at;
        memcpy(copy, input->bytes + at, length);
        put(input, below(input->size + 1), 0, copy, length);
        break;
    default:
        if (input->size > 0)
            input->bytes[below(input->size)] ^= (uint8_t)(1U << below(8));
    }
}

static void read_files(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir)) && n_files < FILES_MAX;) {
        AUTO_FREE char *path = str_new("%s/%s", folder, entry->d_name);
        AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = entry->d_name[0] == '.' ? -1 : read(fd, files[n_files].bytes, SIZE_MAX_BYTES);
        if (n >= 0)
            files[n_files++].size = (size_t)n;
    }
    if (dir)
        closedir(dir);
}

static int by_bytes(const void *a, const void *b)
{
    const struct input *x = a, *y = b;
    return x->size != y->size ? (x->size > y->size) - (x->size < y->size) : memcmp(x->bytes, y->bytes, x->size);
}

static void keep_failing(void)
{
    AUTO_FD int fd = open("failing-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (write(fd, current.bytes, current.size) < 0)
        perror("failing-input");
}

static void on_abort(int signo)
{
    keep_failing();
    signal(signo, SIG_DFL);
    raise(signo);
}

static void run(void)
{
    AUTO_FREE uint8_t *exact =
        malloc(current.size ? current.size : 1); /* so that a sanitizer sees every step too far */
    memcpy(exact, current.bytes, current.size);
    LLVMFuzzerTestOneInput(exact, current.size);
}

int main(int argc, char **argv)
{
    time_t seconds = argc > 2 ? atoi(argv[2]) : SECONDS;
    seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(keep_failing);
    if (argc < 2)
        return 2;
    read_files(argv[1]);
    if (n_files == 0) {
        fprintf(stderr, "%s: no inputs\n", argv[1]);
        return 1;
    }
    qsort(files, n_files, sizeof(files[0]), by_bytes); /* folders have no order: the same mutants everywhere */
    for (size_t i = 0; i < n_files; i++) {
        current = files[i];
        run();
    }
    time_t end = time(NULL) + seconds;
    uint64_t n = 0;
    while (time(NULL) < end)
        for (int i = 0; i < MUTANTS_BETWEEN_LOOKS; i++, n++) {
            current = files[below(n_files)];
            for (size_t steps = 1 + below(STEPS_MAX); steps > 0; steps--)
                step(&current);
            run();
        }
    printf("%zu inputs, %llu mutants\n", n_files, (unsigned long long)n);
    return 0;
}
