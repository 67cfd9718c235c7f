#pragma once
/* One run of a backup program (restic, borg): started by its argument list, never through a shell; read, watched, cancelled, and its
 * failure explained: whose, why, what to do, and the line in which it told so. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/proc.h"
#include "movers/mover.h"

/* What a program's complaint means to us. */
struct program_complaint {
    const char *text; /* a part of it, in any case; the first row that fits counts */
    uint32_t hr;
    const char *cause; /* "repository NAME: ..." */
    const char *hint;
    const char *reason; /* err.reason, or NULL */
};
/* The reason of a repository that is away: of its data nothing is said. */
#define PROGRAM_UNREACHABLE "repository_unreachable"
/* What all runs of one program have in common. Static. */
struct program_kind {
    const char *name;
    const char *const *places; /* absolute paths, NULL-ended: the first that may be executed is taken */
    int stop_signal;           /* what makes it end by itself, leaving nothing locked */
    int warning_status;        /* an exit status that is a success with complaints; 0 = there is none */
    const struct program_complaint *complaints;
    size_t n_complaints;
    size_t n_untold; /* so many of them, the first, quote an address in pieces, the password in it too: nothing of what was said is told */
};

struct program_spec {
    const struct program_kind *kind;
    const char *repository;         /* its name, for messages. Borrowed as long as the program runs, as is host. */
    const struct mover_host *host;  /* NULL: cannot be cancelled */
    const char *const *argv;        /* after the program's name, NULL-ended */
    const char *const *environment; /* NULL-ended */
    const struct proc_fd *fds;      /* beside standard output and standard error */
    size_t n_fds;
    const char *directory; /* NULL = "/" */
};
enum { PROGRAM_FDS_MAX = 6 };

struct program {
    const struct program_kind *kind;
    const char *repository;
    const struct mover_host *host;
    pid_t pid;
    int pidfd, out_fd, err_fd;
    void (*tick)(void *arg, pid_t pid); /* about five times a second while something is awaited; may be NULL */
    void *tick_arg;
    /* Takes what it writes to standard error; NULL: the beginning is kept in errors. */
    void (*complain)(void *arg, const char *bytes, size_t n);
    void *complain_arg;
    char errors[2048]; /* the beginning of what it complained of */
    size_t n_errors;
};

int program_start(struct program *ret, const struct program_spec *spec, struct err *err);
/* Waits for output; *ret_n 0 = end. On cancel it is stopped, VSS_S_ASYNC_CANCELLED. A tar_input's read. */
int program_read(void *program, void *buffer, size_t size, size_t *ret_n, struct err *err);
/* Takes what is there without waiting; 0 bytes with *ret_ended false when there is nothing yet. */
int program_peek(struct program *program, void *buffer, size_t size, size_t *ret_n, bool *ret_ended);
/* Reads and drops what comes until its output ends. */
int program_drain(struct program *program, struct err *err);
/* Reaps it after its end of output; an exit status other than 0 becomes an error that quotes it. */
int program_finish(struct program *program, struct err *err);
/* Its stop signal, 20 s, SIGKILL. Does nothing when it does not run. */
void program_stop(struct program *program);
/* All that it prints (at most 64 MiB), then program_finish. *ret is NUL-terminated; caller frees. */
int program_collect(struct program *program, char **ret, size_t *ret_length, struct err *err);
/* Cancelled, locked, refused or away: a failure that says nothing of what the repository holds. */
bool program_tells_nothing(const struct err *cause);
/* Keeps text for the explanation of a failure, as far as there is room. */
void program_note(struct program *program, const char *text, size_t n);
