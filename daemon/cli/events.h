#pragma once
/* GET /events and GET /jobs/{id}/events as whole events. */
#include <jansson.h>
#include <stdbool.h>

#include "cli/client.h"

/* path: with its query. Gives each event (`Event` of openapi.yaml) to fn until it returns false or the stream ends. 0; -1 with err: not reached, or it broke; or the
 * exit code of a refusal, which has been told. */
typedef bool (*event_fn)(void *arg, const json_t *event);
int events_read(struct client *client, const char *path, const volatile int *stop, event_fn fn, void *arg, struct err *err);
