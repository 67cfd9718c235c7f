#pragma once
/* A built-in writer: its own executable quiesced-writer-NAME = this vtable around the shared main loop (writer_main.c),
 * which speaks writer protocol 1 (JSON lines on standard input and output). Any executable that speaks it is a writer too. */
#include <jansson.h>
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
};
enum { WRITER_ABI = 1 };

/* Defined by each writer's file. */
extern const struct writer *const writer_this;
#define WRITER_EXPORT(name) const struct writer *const writer_this = &writer_##name
