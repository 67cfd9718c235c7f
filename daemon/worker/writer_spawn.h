#pragma once
/* From a writer's entry of the configuration to its process: command, user, environment. */
#include <jansson.h>

#include "base/err.h"
#include "base/proc.h"
#include "worker/writer_client.h"

/* Starts the process; ret_identity: whom it runs as. root: are we root (else it runs as we do). */
int writer_spawn(const json_t *entry, const char *session, const char *installation, bool root, struct writer_client *client,
                 struct proc_identity *ret_identity, struct err *err);
