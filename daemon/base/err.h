#pragma once
/* The one error idiom: a code, what failed and why, and what to do about it.
 * A function that can fail takes `struct err *err` last and returns 0 or -1; on -1 err is filled.
 * The struct owns nothing: it may be copied and dropped. Passing NULL discards the text. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hresult.h"

struct err {
    uint32_t hr;        /* HRESULT, never S_OK once set */
    char text[768];     /* object and cause: "repository main: cannot create /x: No space left on device" */
    char hint[256];     /* what to do, a sentence, or "" */
    char pointer[160];  /* JSON pointer into the request when an input is at fault, or "" */
    char reason[48];    /* machine-readable sub-reason ("interrupted", "lease_expired"), or "" */
};

/* Fill err; always returns -1 so that `return err_set(...)` reads well. hint may be NULL. */
int err_set(struct err *err, uint32_t hr, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with ": strerror(errnum)" appended. */
int err_errno(struct err *err, uint32_t hr, int errnum, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Put "what: " before err's text (an outer layer names its object). Returns -1. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* E_INVALIDARG at a JSON pointer. Returns -1. */
int err_invalid(struct err *err, const char *pointer, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* {"hresult","code","detail","hint","reason","pointer"}: how an error crosses a process border.
 * Returns a new reference. err_from_json tolerates missing members (VSS_E_UNEXPECTED). */
#include <jansson.h>
json_t *err_to_json(const struct err *err);
void err_from_json(struct err *err, const json_t *doc);
