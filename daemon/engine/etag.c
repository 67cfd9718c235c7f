#include "engine/etag.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "crypto/hash.h"

/* Long enough that two representations never share one. */
enum { ETAG_BYTES = 18 };

char *etag_make(const char *text, size_t size, char ret[ETAG_SIZE])
{
    uint8_t digest[HASH_SIZE];

    hash_sha256(text, size, digest);
    AUTO_FREE char *coded = hash_base64url(digest, ETAG_BYTES);
    str_format(ret, ETAG_SIZE, "\"%s\"", coded);
    return ret;
}

struct tag {
    const char *text; /* with its quotes */
    size_t length;
    bool weak;
};

/* The next tag of the list at *at, which goes on behind it and its comma; false: it is not well-formed. */
static bool tag_next(const char **at, struct tag *ret)
{
    const char *from = *at;

    ret->weak = strncmp(from, "W/", 2) == 0;
    from += ret->weak ? 2 : 0;
    if (*from != '"')
        return false;
    const char *end = from + 1;
    while (*end == 0x21 || (unsigned char)*end > 0x22) /* etagc; DEL is let through, no tag of ours has it */
        end++;
    if (*end != '"')
        return false;
    *ret = (struct tag){from, (size_t)(end + 1 - from), ret->weak};
    end += 1 + strspn(end + 1, " \t");
    if (*end && *end != ',')
        return false;
    *at = end + strspn(end, ", \t");
    return true;
}

static bool is_any(const char *list)
{
    return list[0] == '*' && list[1 + strspn(list + 1, " \t")] == '\0';
}

bool etag_list_valid(const char *list)
{
    struct tag tag;

    if (is_any(list))
        return true;
    list += strspn(list, ", \t");
    if (!*list)
        return false;
    while (*list)
        if (!tag_next(&list, &tag))
            return false;
    return true;
}

bool etag_listed(const char *list, const char *etag, bool strong)
{
    struct tag tag;

    if (is_any(list))
        return true;
    list += strspn(list, ", \t");
    while (*list && tag_next(&list, &tag))
        if (!(strong && tag.weak) && tag.length == strlen(etag) && memcmp(tag.text, etag, tag.length) == 0)
            return true;
    return false;
}
