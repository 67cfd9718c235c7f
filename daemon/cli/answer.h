#pragma once
/* What the daemon answered, told to a person or to a script. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/client.h"
#include "cli/ctl.h"

/* The exit code that a status of HTTP means. */
int answer_exit(int status);
/* CTL_OK for a success; else says the problem on standard error and returns its exit code. */
int answer_check(const struct reply *reply);
/* One call; its body with --json, or when show is NULL indented; else show prints it. Returns an exit code. */
typedef void (*answer_show_fn)(const json_t *body);
int answer_call(struct ctl *ctl, const char *method, const char *path, const json_t *body, answer_show_fn show);
void answer_print(const json_t *body); /* NULL (204): null, so that there is a document in any case */

/* Seconds since 1970; -1 for what is no time. */
int64_t time_of(const char *rfc3339);
enum { AMOUNT_SIZE = 32, AGE_SIZE = 32 };
const char *amount_text(int64_t bytes, char ret[AMOUNT_SIZE]);    /* "1.4 GiB"; "?" when negative */
const char *age_text(const char *rfc3339, char ret[AGE_SIZE]);    /* "3 h ago", "in 2 days"; "-" for NULL */

/* Columns of a list: members of its rows, "a.b" for one of an object, "@a" as an age, "#a" as an amount of bytes. */
void table_print(const json_t *items, const char *const *columns);
/* All pages of a list, ctl->limit rows at most; filters: an object of query parameters. */
int answer_list(struct ctl *ctl, const char *path, const json_t *filters, const char *const *columns);
