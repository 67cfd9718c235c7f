#pragma once
/* How many of something each principal has at once. */
#include <stddef.h>

struct quota;
struct quota_entry;

struct quota *quota_new(void);
void quota_free(struct quota *quota); /* NULL is fine; what was taken must have been given back */
/* One more for name; NULL when it has `most` already. */
struct quota_entry *quota_take(struct quota *quota, const char *name, size_t most);
void quota_give(struct quota_entry *entry);
