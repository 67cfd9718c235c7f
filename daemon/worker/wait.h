#pragma once
/* The worker's one waiting primitive: poll on both channels, SIGTERM, and whatever the phase waits for. Everything
 * that can end a phase early comes in here: a `cancel`, the end of either channel, a signal. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wait_source {
    int fd;
    short events; /* POLLIN, POLLOUT */
    void (*ready)(void *arg, int fd, short revents);
    void *arg;
};

struct wait {
    int core_fd;     /* -1 once lost */
    int agent_fd;    /* -1 once lost */
    int signal_fd;   /* SIGTERM and SIGINT */
    json_t *runs;    /* "run" messages that wait their turn */
    json_t *current; /* id of the operation in hand, or NULL; borrowed */
    bool cancelled;  /* the operation in hand has been cancelled */
    bool lost;       /* core or agent is gone, or we were told to end: undo everything and exit */
    bool let_go;     /* core alone has closed its channel, while nothing was in hand: the ordinary end */
    char lost_reason[128];
    json_t *agent_answer; /* the agent's newest word on a freeze set, or NULL; taken by whoever asked */
    int guardian_fd;      /* the worker's end to a guardian, that came with it; -1 = none */
    bool parked;          /* core's answer to "freezing" */
    json_t *release;      /* core's "release_hold", or NULL */
};

/* Takes over both channels (closed by wait_clear); blocks SIGTERM and SIGINT and ignores SIGPIPE for good. Returns 0 or -1 (errno). */
int wait_init(struct wait *wait, int core_fd, int agent_fd);
void wait_clear(struct wait *wait);

/* Waits until a source is ready, a channel speaks, or deadline_ms (CLOCK_MONOTONIC; INT64_MAX = none) has passed, and
 * serves what is ready. Sources with fd -1 are skipped. Returns how many sources were served. */
size_t wait_turn(struct wait *wait, const struct wait_source *sources, size_t n, int64_t deadline_ms);
/* Looks at the channels without waiting; true when the operation in hand has to stop. */
bool wait_look(struct wait *wait);
/* Has the operation in hand to stop (cancelled or lost)? */
bool wait_stopped(const struct wait *wait);
/* The next "run" message (new reference) or NULL. */
json_t *wait_next_run(struct wait *wait);
