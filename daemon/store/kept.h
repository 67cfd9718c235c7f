#pragma once
/* What readers made of records, kept until the record changes: a job that is polled is not parsed and written out anew
 * each time. A bounded table; who is not in it is read. */
#include <stddef.h>

struct kept;

struct kept_view {
    char *id;
    char *owner; /* of the record, for whoever checks who may see it */
    char *text;
    size_t size; /* of text, without its NUL */
};

struct kept *kept_new(void);
void kept_free(struct kept *kept);
/* NULL = not there. Valid until the loop turns, or anything is put. */
const struct kept_view *kept_find(const struct kept *kept, const char *id);
/* Copies. A text of more than 16 KiB is not kept. */
void kept_put(struct kept *kept, const char *id, const char *owner, const char *text);
void kept_drop(struct kept *kept, const char *id);
void kept_drop_all(struct kept *kept);
