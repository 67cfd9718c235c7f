#pragma once
/* Entity tags (RFC 9110 8.8.3): strong ones, of the bytes of a representation. */
#include <stdbool.h>
#include <stddef.h>

enum { ETAG_SIZE = 27 }; /* quotes, 24 characters of base64url for 18 bytes of SHA-256, NUL */

/* text: as it is sent. Returns ret, with its quotes. */
char *etag_make(const char *text, size_t size, char ret[ETAG_SIZE]);
/* Is it "*" or a list of entity tags? */
bool etag_list_valid(const char *list);
/* Does a valid list name etag, or is it "*"? strong: a W/ in the list never matches (If-Match); else it does not matter
 * (If-None-Match). */
bool etag_listed(const char *list, const char *etag, bool strong);
