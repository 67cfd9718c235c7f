#pragma once
/* A built-in writer: its own executable quiesced-writer-NAME = this vtable around the shared main loop (writer_main.c),
 * which speaks writer protocol 1 (JSON lines on standard input and output). Any executable that speaks it is a writer too. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* One event as the writer sees it. */
struct writer_event {
    const char *name;           /* "prepare_backup", ... */
    const json_t *request;      /* the whole request */
    const json_t *components;   /* array, never NULL */
    const char *backup_type;    /* "full", ... */
    int64_t deadline_ms;        /* CLOCK_MONOTONIC milliseconds */
};

struct writer {
    unsigned abi;
    const char *name;           /* "sqlite" */
    /* configuration: the writer's entry of the configuration file. *ret_state is handed to every other call. Required. */
    int (*open)(const json_t *configuration, void **ret_state, struct err *err);
    /* ret_metadata: the "metadata" object of protocol 1. Repeatable, keeps no hold. Required. */
    int (*identify)(void *state, int64_t deadline_ms, json_t **ret_metadata, struct err *err);
    /* Any event. ret_components: array of per-component answers (may stay NULL). Unknown events return 0. Required. */
    int (*event)(void *state, const struct writer_event *event, json_t **ret_components, struct err *err);
    /* An fd whose hang-up means that the hold is lost (database socket), or -1. Optional. */
    int (*watch_fd)(void *state);
    /* Undo every hold and free. Called on end-of-file, on every exit. Required. */
    void (*close)(void *state);
    /* freeze holds something that stops the application. The main loop then sends itself "abort" once freeze_timeout_ms
     * of the writer's metadata has passed since freeze (VSS: a writer thaws itself), and fails the next event. */
    bool leased;
    /* For a hold that the application itself ends after a while: called every renew_ms between freeze and thaw. An error
     * means that the hold is lost. Optional. */
    int (*renew)(void *state, struct err *err);
    int64_t renew_ms;
};
enum { WRITER_ABI = 1 };

/* Offered by the main loop to whoever waits inside an event: true once standard input was hung up or SIGTERM has
 * arrived. Stop waiting and return an error then; close() follows. */
bool writer_abandoned(void);
/* Is this writer's component (logical_path "", name) selected by the event? Always, when component_mode is false. */
bool writer_selected(const struct writer_event *event, const char *name);
/* The moment (CLOCK_MONOTONIC, milliseconds) to give up at, so that the answer is still in time: a tenth of what is
 * left, at most 500 ms, before the deadline. */
int64_t writer_give_up_ms(int64_t deadline_ms);

/* Defined by each writer's file. */
extern const struct writer *const writer_this;
#define WRITER_EXPORT(name) const struct writer *const writer_this = &writer_##name
