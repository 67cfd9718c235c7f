#include "store/kept.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { SLOTS = 1024, TEXT_MAX = 16 * 1024 };

struct kept {
    struct kept_view slots[SLOTS]; /* of several with the same slot the last one is there */
};

static struct kept_view *slot_of(const struct kept *kept, const char *id)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (; *id; id++)
        hash = (hash ^ (unsigned char)*id) * 16777619u;
    return (struct kept_view *)&kept->slots[hash % SLOTS];
}

static void slot_clear(struct kept_view *slot)
{
    free(slot->id);
    free(slot->owner);
    free(slot->text);
    *slot = (struct kept_view){0};
}

struct kept *kept_new(void)
{
    return mem_new(sizeof(struct kept));
}

void kept_free(struct kept *kept)
{
    if (kept)
        kept_drop_all(kept);
    free(kept);
}

const struct kept_view *kept_find(const struct kept *kept, const char *id)
{
    const struct kept_view *slot = slot_of(kept, id);
    return slot->id && str_eq(slot->id, id) ? slot : NULL;
}

void kept_put(struct kept *kept, const char *id, const char *owner, const char *text)
{
    struct kept_view *slot = slot_of(kept, id);
    size_t size = strlen(text);
    if (size > TEXT_MAX)
        return;
    slot_clear(slot);
    *slot = (struct kept_view){.id = str_dup(id), .owner = str_dup(owner), .text = str_dup(text), .size = size};
}

void kept_drop(struct kept *kept, const char *id)
{
    struct kept_view *slot = slot_of(kept, id);
    if (slot->id && str_eq(slot->id, id))
        slot_clear(slot);
}

void kept_drop_all(struct kept *kept)
{
    for (size_t i = 0; i < SLOTS; i++)
        slot_clear(&kept->slots[i]);
}
