#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fault.h"

static int64_t clock_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_mono_ms(void)
{
    return clock_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_mono_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

int64_t clock_real_ms(void)
{
    return clock_us(CLOCK_REALTIME) / 1000 + fault_clock_ms();
}

char *clock_rfc3339(int64_t real_ms, char ret[CLOCK_RFC3339_SIZE])
{
    int64_t seconds = real_ms / 1000;
    int milliseconds = (int)(real_ms % 1000);
    if (milliseconds < 0) { /* before 1970: the division rounds towards zero */
        milliseconds += 1000;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm parts;
    if (!gmtime_r(&when, &parts) || parts.tm_year + 1900 > 9999 || parts.tm_year + 1900 < 0) {
        /* RFC 3339 has four digits for the year: clamp instead of writing what no reader takes. */
        snprintf(ret, CLOCK_RFC3339_SIZE, "%s", seconds > 0 ? "9999-12-31T23:59:59.999Z" : "0000-01-01T00:00:00.000Z");
        return ret;
    }
    char date[20];
    strftime(date, sizeof(date), "-%m-%dT%H:%M:%S", &parts); /* %Y would not pad years below 1000 with zeros */
    snprintf(ret, CLOCK_RFC3339_SIZE, "%04u%s.%03uZ", (unsigned)(parts.tm_year + 1900) % 10000u, date,
             (unsigned)milliseconds % 1000u);
    return ret;
}

int64_t clock_from_rfc3339(const char *text)
{
    struct tm parts = {0};
    unsigned milliseconds = 0;
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &parts) : NULL;
    if (!rest || !*rest || (*rest == '.' && sscanf(rest, ".%3uZ", &milliseconds) != 1) || rest[strlen(rest) - 1] != 'Z')
        return -1;
    return (int64_t)timegm(&parts) * 1000 + milliseconds;
}
