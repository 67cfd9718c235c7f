#pragma once
/* Numbers of the users and groups that the configuration names. Whoever knows them (NSS) may be a directory service that does not answer:
 * serve's loop waits for it only so long, and goes by what was known before. */
#include <jansson.h>
#include <stdint.h>

enum { LOCAL_USERS_MS = 2000, LOCAL_USERS_NOBODY = -1, LOCAL_USERS_UNKNOWN = -2 };

/* The number of "user:NAME" or "group:NAME", LOCAL_USERS_NOBODY, or, when the question failed, LOCAL_USERS_UNKNOWN: no answer. May take its time: it runs in a thread of its own. */
typedef int64_t (*local_users_find_fn)(const char *key);
int64_t local_users_find(const char *key); /* of this machine */

/* Looks up every user and group of principals (the configuration's). known: {KEY: number}, changed where there was an answer within
 * patience_ms. Returns how many there were none of. */
size_t local_users_look_up(json_t *known, const json_t *principals, local_users_find_fn find, int patience_ms);
/* Of one entry of principals: its number, LOCAL_USERS_NOBODY, or LOCAL_USERS_UNKNOWN when there has never been an answer. */
int64_t local_users_number(const json_t *known, const json_t *entry);
