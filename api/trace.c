#include "api/trace.h"

#include <stdint.h>
#include <string.h>

#include "base/str.h"
#include "crypto/hash.h"

/* "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": where the parts lie, and how long they are. */
enum { VERSION = 0, TRACE = 3, SPAN = 36, FLAGS = 53, PAIR = 2, TRACE_DIGITS = 32, SPAN_DIGITS = 16, SPAN_BYTES = 8, LENGTH = 55 };

static bool is_hex(const char *text, size_t digits)
{
    return strspn(text, "0123456789abcdef") >= digits;
}

static bool is_zero(const char *text, size_t digits)
{
    return strspn(text, "0") >= digits;
}

/* A later version may have more behind the flags, after another dash. */
static bool is_valid(const char *header)
{
    size_t length = strlen(header);

    if (length < LENGTH || !is_hex(header + VERSION, PAIR) || strncmp(header, "ff", PAIR) == 0)
        return false;
    if (strncmp(header, "00", PAIR) == 0 ? length != LENGTH : length > LENGTH && header[LENGTH] != '-')
        return false;
    return header[TRACE - 1] == '-' && is_hex(header + TRACE, TRACE_DIGITS) && !is_zero(header + TRACE, TRACE_DIGITS) &&
           header[SPAN - 1] == '-' && is_hex(header + SPAN, SPAN_DIGITS) && !is_zero(header + SPAN, SPAN_DIGITS) && header[FLAGS - 1] == '-' &&
           is_hex(header + FLAGS, PAIR);
}

bool trace_take(const char *header, char ret[TRACEPARENT_SIZE])
{
    uint8_t span[SPAN_BYTES];

    *ret = '\0';
    if (!header || !is_valid(header))
        return false;
    hash_random(span, sizeof(span));
    span[0] |= 1; /* never all zeros */
    str_format(ret, TRACEPARENT_SIZE, "00-%.*s-%02x%02x%02x%02x%02x%02x%02x%02x-%.*s", TRACE_DIGITS, header + TRACE, span[0], span[1], span[2],
               span[3], span[4], span[5], span[6], span[7], PAIR, header + FLAGS);
    return true;
}

void trace_id(const char traceparent[TRACEPARENT_SIZE], char ret[TRACE_ID_SIZE])
{
    str_format(ret, TRACE_ID_SIZE, "%.*s", *traceparent ? TRACE_DIGITS : 0, *traceparent ? traceparent + TRACE : "");
}
