/* Last-Event-ID of a stream: an id is digits alone, at most 2^53 - 1, and read as the number that they are; all else is refused and changes
 * nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/stream.h"
#include "base/cleanup.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

/* The same, read plainly: by comparing digits. */
static bool is_id(const char *text)
{
    static const char most[] = "9007199254740991";
    size_t length = strlen(text);
    if (length == 0 || strspn(text, "0123456789") != length)
        return false;
    text += strspn(text, "0");
    length = strlen(text);
    return length < strlen(most) || (length == strlen(most) && strcmp(text, most) <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t id = -7;
    char plain[32];
    AUTO_FREE char *text = str_new("%.*s", (int)size, (const char *)data);
    bool taken = stream_read_id(text, &id);
    if (taken != is_id(text))
        fail(taken ? "taken, and no id" : "an id, and refused", text);
    if (!taken && id != -7)
        fail("refused, and something is left", text);
    snprintf(plain, sizeof(plain), "%" PRId64, id);
    const char *digits = text + strspn(text, "0");
    if (taken && !str_eq(plain, *digits ? digits : "0"))
        fail("another number", text);
    return 0;
}
