#pragma once
/* Waiting for a job, with its progress on a terminal. */
#include <jansson.h>

#include "cli/ctl.h"

/* A call that answers 202 with a job: waits for its end unless ctl->wait is false, and tells it. body: borrowed or NULL. */
int watch_call(struct ctl *ctl, const char *method, const char *path, const json_t *body);
/* Waits for that job. An interrupt (Ctrl-C) asks the daemon to cancel it, and waits on for how it really ends; a second one leaves
 * it alone. Returns the exit code of its end; *ret_job, when not NULL: as it ended, the caller's. */
int watch_job(struct ctl *ctl, const char *id, json_t **ret_job);
/* Was the last wait interrupted? The job may have ended well all the same. */
bool watch_was_interrupted(void);
/* Says how it ended: text, or with --json the job. */
int watch_told(struct ctl *ctl, const json_t *job);
