#include <string.h>

#include "base/jsonspec.h"

/* jansson recurses per level, up to 2048 of them, before it gives up: look first. Brackets within strings do not
 * count. Returns the offset of the bracket that is one too deep, or length. */
static size_t json_depth_fault(const char *text, size_t length, size_t max_depth)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t at = 0; at < length; at++) {
        char c = text[at];
        if (in_string) {
            if (c == '\\')
                at++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth)
                return at;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return length;
}

json_t *json_parse_strict(const char *text, size_t length, size_t max_depth, struct err *err)
{
    size_t fault = json_depth_fault(text, length, max_depth);
    if (fault < length) {
        size_t line = 1, column = 1;
        for (size_t at = 0; at < fault; at++) {
            column = text[at] == '\n' ? 1 : column + 1;
            line += text[at] == '\n';
        }
        err_invalid(err, "", "not valid JSON: line %zu, column %zu: nested deeper than %zu levels", line, column,
                    max_depth);
        return NULL;
    }
    json_error_t cause;
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &cause);
    if (!value)
        err_invalid(err, "", "not valid JSON: line %d, column %d: %s", cause.line, cause.column, cause.text);
    return value;
}
