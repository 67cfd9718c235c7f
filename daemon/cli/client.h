#pragma once
/* One connection to the daemon: libcurl, whose header nobody else includes. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct client;
struct reply {
    int status;     /* of HTTP */
    json_t *body;   /* NULL when there is none, or it is no JSON */
    char *text;     /* the body as it came; never NULL */
    json_t *sent;   /* what was asked with; NULL: no body */
};

/* target: cli/target.h, borrowed for the client's life. NULL with err. */
struct client *client_new(const json_t *target, struct err *err);
void client_free(struct client *client); /* NULL is fine */
/* body: borrowed, NULL = none. 0 with *ret filled, or -1 with err: no answer that can be trusted, or *stop became true meanwhile
 * (NULL: nothing stops it). */
int client_call(struct client *client, const char *method, const char *path, const json_t *body, const volatile int *stop, struct reply *ret,
                struct err *err);
/* From now on replies are without control characters. */
void client_for_people(struct client *client);
/* How long a call may take from now on, in all; 0: as long as something comes. */
void client_patience(struct client *client, int seconds);
/* "NAME: VALUE", sent with every call from now on; borrowed. */
void client_header(struct client *client, const char *header);
void reply_clear(struct reply *reply);
/* Where the pieces of an answer's body go, until `take` returns false, the answer ends, or *stop. */
typedef bool (*client_take_fn)(void *arg, const char *data, size_t size);
struct client_sink {
    client_take_fn take;
    void *arg;
    const volatile int *stop; /* may be NULL */
};
/* 0: it has come to its end, or was refused (ret->status is not 200 then, and ret->body says why; release with reply_clear). -1 with err: no
 * answer, or one that broke off. */
int client_stream(struct client *client, const char *path, const struct client_sink *sink, struct reply *ret, struct err *err);
/* Percent-encoded; malloc'ed. */
char *client_escape(const char *text);
