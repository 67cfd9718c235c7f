/* Request bodies through the generated checks: whatever is sent, faults name a place in it; what is taken is what the
 * contract describes however often it is written and read again. The first byte chooses the operation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/openapi.gen.h"
#include "api/request.h"
#include "base/cleanup.h"
#include "base/jsonspec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FAULTS = 8 };

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

static const struct json_spec *choose(uint8_t byte)
{
    const struct json_spec *specs[256];
    size_t n = 0;
    for (size_t i = 0; i < api_n_routes && n < 256; i++)
        if (api_routes[i].body)
            specs[n++] = api_routes[i].body;
    return specs[byte % n];
}

static void check_faults(const struct json_fault *faults, size_t n)
{
    for (size_t i = 0; i < n && i < FAULTS; i++) {
        if (faults[i].pointer[0] != '\0' && faults[i].pointer[0] != '/')
            fail("no pointer", faults[i].pointer);
        if (!faults[i].detail[0])
            fail("a fault without words", faults[i].pointer);
        json_t *told = json_string(faults[i].pointer); /* it goes into the reply */
        if (!told)
            fail("a pointer that is no UTF-8", faults[i].detail);
        json_decref(told);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct json_fault faults[FAULTS] = {0};
    if (size == 0)
        return 0;
    const struct json_spec *spec = choose(data[0]);
    AUTO_JSON json_t *value = json_parse_strict((const char *)data + 1, size - 1, REQUEST_DEPTH_MAX, &err);
    if (!value) {
        if (!err.text[0])
            fail("refused without words", "");
        return 0;
    }
    size_t n = json_spec_check(spec, value, faults, FAULTS);
    check_faults(faults, n);
    AUTO_FREE char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    AUTO_JSON json_t *again = text ? json_parse_strict(text, strlen(text), REQUEST_DEPTH_MAX, &err) : NULL;
    if (!again)
        fail("what was taken cannot be read again", text ? text : "");
    if (json_spec_check(spec, again, faults, FAULTS) != n)
        fail("read again it is judged differently", text);
    return 0;
}
