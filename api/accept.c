#include "api/accept.h"

#include <string.h>
#include <strings.h>

#include "base/str.h"

struct range {
    const char *text;
    size_t length; /* of type/subtype */
    bool refused;  /* q=0 */
};

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t");
}

/* A quality of nothing but zeros. */
static bool is_zero(const char *value)
{
    return value[0] == '0' && strspn(value, "0.") == strcspn(value, ",; \t");
}

/* Up to the next comma; *at goes on behind it. Commas in quoted parameters are not looked for: no media type of ours has any. */
static bool range_next(const char **at, struct range *ret)
{
    const char *from = skip_space(*at), *end = from + strcspn(from, ",");

    *ret = (struct range){.text = from, .length = strcspn(from, ",; \t")};
    for (const char *parameter = from; (parameter = memchr(parameter, ';', (size_t)(end - parameter)));) {
        parameter = skip_space(parameter + 1);
        if (strncasecmp(parameter, "q=", 2) == 0)
            ret->refused = is_zero(parameter + 2);
    }
    *at = *end ? end + 1 : end;
    const char *slash = memchr(from, '/', ret->length);
    return slash && slash > from && slash + 1 < from + ret->length;
}

/* How closely the range names the type: 3 itself, 2 its kind, 1 anything, 0 not at all. */
static int closeness(const struct range *range, const char *type)
{
    size_t kind = strcspn(type, "/") + 1;

    if (range->length == strlen(type) && strncasecmp(range->text, type, range->length) == 0)
        return 3;
    if (range->length == kind + 1 && range->text[kind] == '*' && strncasecmp(range->text, type, kind) == 0)
        return 2;
    return range->length == 3 && strncmp(range->text, "*/*", 3) == 0 ? 1 : 0;
}

bool accept_allows(const char *accept, const char *const *types)
{
    bool understood = false;

    for (size_t i = 0; types[i]; i++) {
        int closest = 0;
        bool refused = true;
        for (const char *at = accept; *at;) {
            struct range range;
            if (!range_next(&at, &range))
                continue;
            understood = true;
            int close = closeness(&range, types[i]);
            if (close > closest) {
                closest = close;
                refused = range.refused;
            }
        }
        if (!refused)
            return true;
    }
    return !understood;
}
