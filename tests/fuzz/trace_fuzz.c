/* The header traceparent (W3C Trace Context): what is taken is the caller's trace and flags with a span of our own, well-formed, and taken
 * again as it is; what is not taken leaves nothing behind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/trace.h"
#include "base/cleanup.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

/* "00-" 32 digits "-" 16 digits "-" 2 digits, none of the first two all zeros. */
static bool well_formed(const char *text)
{
    static const char shape[] = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    for (size_t i = 0; i < sizeof(shape); i++)
        if (shape[i] == 'x' ? !strchr("0123456789abcdef", text[i]) || !text[i] : text[i] != shape[i])
            return false;
    return strspn(text + 3, "0") < 32 && strspn(text + 36, "0") < 16;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char taken[TRACEPARENT_SIZE] = "what was there before", again[TRACEPARENT_SIZE], id[TRACE_ID_SIZE];
    AUTO_FREE char *header = str_new("%.*s", (int)size, (const char *)data);
    if (!trace_take(header, taken)) {
        trace_id(taken, id);
        if (*taken || *id)
            fail("refused, and something is left", taken);
        return 0;
    }
    trace_id(taken, id);
    if (!well_formed(taken) || strncmp(taken + 3, header + 3, 32) != 0 || strncmp(taken + 53, header + 53, 2) != 0)
        fail("taken, and not what it was", header);
    if (strlen(id) != 32 || strncmp(id, taken + 3, 32) != 0)
        fail("another trace", id);
    if (strncmp(taken + 36, header + 36, 16) == 0)
        fail("the caller's span, not one of ours", taken); /* one in 2^64 */
    if (!trace_take(taken, again))
        fail("not taken again", taken);
    return 0;
}
