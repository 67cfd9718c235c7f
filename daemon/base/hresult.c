#include "base/hresult.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

struct hresult_row {
    uint32_t value;
    int http;
    const char *name;
    const char *meaning, *cause, *cure;
};

#define HRESULT_ROW(hr_name, hr_value, hr_http, hr_meaning, hr_cause, hr_cure)                                         \
    {(uint32_t)(hr_value), (hr_http), #hr_name, (hr_meaning), (hr_cause), (hr_cure)},
static const struct hresult_row hresult_rows[] = {
#include "base/hresult.def"
};
#undef HRESULT_ROW

static const struct hresult_row *hresult_find(uint32_t hr)
{
    for (size_t i = 0; i < ELEMENTS(hresult_rows); i++)
        if (hresult_rows[i].value == hr)
            return &hresult_rows[i];
    for (size_t i = 0; i < ELEMENTS(hresult_rows); i++)
        if (hresult_rows[i].value == (uint32_t)VSS_E_UNEXPECTED)
            return &hresult_rows[i];
    return &hresult_rows[0];
}

const char *hresult_name(uint32_t hr)
{
    return hresult_find(hr)->name;
}

const char *hresult_meaning(uint32_t hr)
{
    return hresult_find(hr)->meaning;
}

const char *hresult_cause(uint32_t hr)
{
    return hresult_find(hr)->cause;
}

const char *hresult_cure(uint32_t hr)
{
    return hresult_find(hr)->cure;
}

size_t hresult_count(void)
{
    return ELEMENTS(hresult_rows);
}

uint32_t hresult_at(size_t i)
{
    return hresult_rows[i].value;
}

int hresult_http(uint32_t hr)
{
    return hresult_find(hr)->http;
}

void hresult_hex(uint32_t hr, char ret_hex[11])
{
    snprintf(ret_hex, 11, "0x%08X", hr);
}

bool hresult_by_name(const char *name, uint32_t *ret_hr)
{
    for (size_t i = 0; name && i < ELEMENTS(hresult_rows); i++)
        if (strcmp(hresult_rows[i].name, name) == 0) {
            *ret_hr = hresult_rows[i].value;
            return true;
        }
    return false;
}
