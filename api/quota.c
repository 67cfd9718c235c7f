#include "api/quota.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { BUCKETS = 256 };

struct quota_entry {
    struct quota_entry *next, **link;
    char *name;
    size_t n;
};

struct quota {
    struct quota_entry *buckets[BUCKETS];
};

/* FNV-1a. */
static struct quota_entry **bucket(struct quota *quota, const char *name)
{
    uint32_t hash = 2166136261u;

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return &quota->buckets[hash % BUCKETS];
}

struct quota *quota_new(void)
{
    return mem_new(sizeof(struct quota));
}

struct quota_entry *quota_take(struct quota *quota, const char *name, size_t most)
{
    struct quota_entry **first = bucket(quota, name), *entry = *first;

    while (entry && !str_eq(entry->name, name))
        entry = entry->next;
    if (most == 0 || (entry && entry->n >= most))
        return NULL;
    if (!entry) {
        entry = mem_new(sizeof(*entry));
        *entry = (struct quota_entry){.next = *first, .link = first, .name = str_dup(name)};
        if (entry->next)
            entry->next->link = &entry->next;
        *first = entry;
    }
    entry->n++;
    return entry;
}

void quota_give(struct quota_entry *entry)
{
    if (--entry->n > 0)
        return;
    *entry->link = entry->next;
    if (entry->next)
        entry->next->link = entry->link;
    free(entry->name);
    free(entry);
}

void quota_free(struct quota *quota)
{
    free(quota);
}
