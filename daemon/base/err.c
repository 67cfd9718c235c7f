#include "base/err.h"

#include <stdio.h>
#include <string.h>

#include "base/jsonspec.h"
#include "base/str.h"

static void err_reset(struct err *err, uint32_t hr, const char *hint)
{
    err->hr = hr;
    err->text[0] = '\0';
    err->pointer[0] = '\0';
    err->reason[0] = '\0';
    str_copy(err->hint, sizeof(err->hint), hint ? hint : "");
}

/* Formats into a buffer of its own first: an argument may well be the old err->text. */
__attribute__((format(printf, 2, 0))) static void err_vformat(char text[sizeof(((struct err *)0)->text)],
                                                              const char *fmt, va_list args)
{
    if (vsnprintf(text, sizeof(((struct err *)0)->text), fmt, args) < 0)
        text[0] = '\0';
}

int err_set(struct err *err, uint32_t hr, const char *hint, const char *fmt, ...)
{
    if (!err)
        return -1;
    char text[sizeof(err->text)];
    va_list args;
    va_start(args, fmt);
    err_vformat(text, fmt, args);
    va_end(args);
    err_reset(err, hr, hint);
    memcpy(err->text, text, sizeof(text));
    return -1;
}

int err_errno(struct err *err, uint32_t hr, int errnum, const char *hint, const char *fmt, ...)
{
    if (!err)
        return -1;
    char text[sizeof(err->text)];
    char reason[128];
    va_list args;
    va_start(args, fmt);
    err_vformat(text, fmt, args);
    va_end(args);
    err_reset(err, hr, hint);
    str_format(err->text, sizeof(err->text), "%s: %s", text, strerror_r(errnum, reason, sizeof(reason)));
    return -1;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    if (!err)
        return -1;
    char prefix[sizeof(err->text)];
    char text[sizeof(err->text)];
    va_list args;
    va_start(args, fmt);
    err_vformat(prefix, fmt, args);
    va_end(args);
    str_format(text, sizeof(text), "%s: %s", prefix, err->text);
    memcpy(err->text, text, sizeof(text));
    return -1;
}

int err_invalid(struct err *err, const char *pointer, const char *fmt, ...)
{
    if (!err)
        return -1;
    char text[sizeof(err->text)];
    va_list args;
    va_start(args, fmt);
    err_vformat(text, fmt, args);
    va_end(args);
    char kept[sizeof(err->pointer)]; /* the caller may pass err->pointer itself */
    str_copy(kept, sizeof(kept), pointer ? pointer : "");
    err_reset(err, (uint32_t)E_INVALIDARG, NULL);
    memcpy(err->text, text, sizeof(text));
    memcpy(err->pointer, kept, sizeof(kept));
    return -1;
}

json_t *err_to_json(const struct err *err)
{
    /* Text may quote foreign bytes (file names) and may have been cut inside a character: replace what is not UTF-8. */
    char hex[11];
    hresult_hex(err->hr, hex);
    json_t *doc = json_object();
    json_put(doc, "hresult", json_string(hresult_name(err->hr)));
    json_put(doc, "code", json_string(hex));
    json_put(doc, "detail", json_text(err->text));
    json_put(doc, "hint", json_text(err->hint));
    json_put(doc, "reason", json_text(err->reason));
    json_put(doc, "pointer", json_text(err->pointer));
    return doc;
}

void err_from_json(struct err *err, const json_t *doc)
{
    if (!err)
        return;
    err_reset(err, (uint32_t)VSS_E_UNEXPECTED, json_str(doc, "hint", ""));
    uint32_t hr;
    if (hresult_by_name(json_str(doc, "hresult", NULL), &hr) && hr != (uint32_t)S_OK)
        err->hr = hr;
    str_copy(err->text, sizeof(err->text), json_str(doc, "detail", "no detail was given"));
    str_copy(err->reason, sizeof(err->reason), json_str(doc, "reason", ""));
    str_copy(err->pointer, sizeof(err->pointer), json_str(doc, "pointer", ""));
}
