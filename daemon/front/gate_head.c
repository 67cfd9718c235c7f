#include "front/gate_head.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

struct text {
    const char *at;
    size_t length;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* RFC 9110 5.6.2 */
static const bool token[256] = {
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['!'] = true, ['#' ... '\''] = true,
    ['*'] = true,         ['+'] = true,         ['-'] = true,         ['.'] = true, ['^'] = true,
    ['_'] = true,         ['`'] = true,         ['|'] = true,         ['~'] = true,
};

/* The line without its CR LF; *at moves behind it. */
static struct text next_line(const char **at, const char *end)
{
    const char *lf = memchr(*at, '\n', (size_t)(end - *at));
    struct text line = {*at, (size_t)(lf - 1 - *at)};
    *at = lf + 1;
    return line;
}

static bool text_is(struct text text, const char *word)
{
    return text.length == strlen(word) && strncasecmp(text.at, word, text.length) == 0;
}

/* --- the request line --- */

static const struct refusal *read_version(struct text version, struct head *head)
{
    static const char shape[] = "HTTP/";
    const char *digits = version.at + strlen(shape);
    if (version.length != strlen(shape) + 3 || memcmp(version.at, shape, strlen(shape)) != 0 || !is_digit(digits[0]) ||
        digits[1] != '.' || !is_digit(digits[2]))
        return &refusal_version;
    head->minor = digits[2] - '0';
    if (digits[0] == '0')
        return &refusal_http09;
    if (digits[0] != '1')
        return &refusal_version_unsupported;
    return head->minor > 1 ? &refusal_version : NULL;
}

/* libmicrohttpd keeps a record of each parameter of a query. */
static size_t cost_of_query(const char *at, const char *end)
{
    size_t cost = GATE_FIELD_COST;
    for (; at < end; at++)
        cost += *at == '&' ? GATE_FIELD_COST : 0;
    return cost;
}

static const struct refusal *read_target(struct text target, struct head *head)
{
    if (target.length == 0 || memchr(target.at, '\t', target.length))
        return &refusal_start_line;
    if (memmem(target.at, target.length, "%00", 3))
        return &refusal_target_nul;
    const char *query = memchr(target.at, '?', target.length);
    if (query)
        head->cost += cost_of_query(query, target.at + target.length);
    return NULL;
}

static const struct refusal *read_start_line(struct text line, struct head *head)
{
    const char *end = line.at + line.length;
    const char *first = memchr(line.at, ' ', line.length);
    if (!first || first == line.at)
        return &refusal_start_line;
    const char *second = memchr(first + 1, ' ', (size_t)(end - first - 1));
    if (!second)
        return &refusal_http09;
    if (memchr(second + 1, ' ', (size_t)(end - second - 1)))
        return &refusal_start_line;
    const struct refusal *refusal = read_target((struct text){first + 1, (size_t)(second - first - 1)}, head);
    return refusal ? refusal : read_version((struct text){second + 1, (size_t)(end - second - 1)}, head);
}

/* --- headers that must not be misread --- */

static const struct refusal *read_host(struct text value, struct head *head)
{
    (void)head;
    if (value.length == 0)
        return &refusal_host;
    for (size_t i = 0; i < value.length; i++) /* RFC 3986 3.2.2 and 3.2.3 */
        if (!is_digit(value.at[i]) && !is_alpha(value.at[i]) && !is_one_of(value.at[i], "-._~%!$&'()*+,;=:[]"))
            return &refusal_host;
    return NULL;
}

/* A number beyond 64 bits is one, too large. */
static const struct refusal *read_length(struct text value, struct head *head)
{
    head->framing = FRAMING_LENGTH;
    if (value.length == 0)
        return &refusal_length;
    for (size_t i = 0; i < value.length; i++) {
        if (!is_digit(value.at[i]))
            return &refusal_length;
        uint64_t digit = (uint64_t)(value.at[i] - '0');
        head->length = head->length > (UINT64_MAX - digit) / 10 ? UINT64_MAX : head->length * 10 + digit;
    }
    return NULL;
}

static const struct refusal *read_encoding(struct text value, struct head *head)
{
    head->framing = FRAMING_CHUNKED;
    return text_is(value, "chunked") ? NULL : &refusal_encoding;
}

static const char cookie[] = "cookie";

enum once { ONCE_HOST, ONCE_LENGTH, ONCE_ENCODING };

static const struct {
    const char *name;
    const struct refusal *(*read)(struct text value, struct head *head); /* NULL: the value is not front's business */
} once[] = {
    [ONCE_HOST] = {"host", read_host},
    [ONCE_LENGTH] = {"content-length", read_length},
    [ONCE_ENCODING] = {"transfer-encoding", read_encoding},
    {"content-type", NULL},
    {"authorization", NULL},
};

static bool saw(const struct head *head, enum once which)
{
    return head->seen & (1U << which);
}

static const struct refusal *read_header(struct text line, struct head *head)
{
    struct text name = {line.at, 0};
    if (is_space(line.at[0]))
        return &refusal_fold;
    while (name.length < line.length && token[(unsigned char)line.at[name.length]])
        name.length++;
    if (name.length < line.length && is_space(line.at[name.length]))
        return memchr(line.at, ':', line.length) ? &refusal_space_before_colon : &refusal_name;
    if (name.length == 0 || name.length == line.length || line.at[name.length] != ':')
        return &refusal_name;
    struct text value = {line.at + name.length + 1, line.length - name.length - 1};
    while (value.length > 0 && is_space(value.at[0])) /* what stands behind is left: readers differ there */
        value.at++, value.length--;
    head->cookies = head->cookies || text_is(name, cookie);
    for (size_t i = 0; i < ELEMENTS(once); i++) {
        if (!text_is(name, once[i].name))
            continue;
        if (saw(head, i))
            return &refusal_repeated;
        head->seen |= 1U << i;
        return once[i].read ? once[i].read(value, head) : NULL;
    }
    return NULL;
}

static const struct refusal *check_whole(const struct head *head, size_t length, const struct gate_limits *limits)
{
    if (saw(head, ONCE_LENGTH) && saw(head, ONCE_ENCODING))
        return &refusal_length_and_encoding;
    if (head->minor == 0 && saw(head, ONCE_ENCODING))
        return &refusal_encoding_http10;
    if (head->minor > 0 && !saw(head, ONCE_HOST))
        return &refusal_host_missing;
    if (length + head->cost > limits->head_bytes)
        return &refusal_head_large;
    if (head->framing == FRAMING_LENGTH && head->length > limits->body_bytes)
        return &refusal_body_large;
    return NULL;
}

const struct refusal *head_read(const uint8_t *bytes, size_t length, const struct gate_limits *limits, struct head *ret)
{
    const char *at = (const char *)bytes;
    const char *end = at + length;
    *ret = (struct head){0};
    const struct refusal *refusal = read_start_line(next_line(&at, end), ret);
    while (!refusal) {
        struct text line = next_line(&at, end);
        if (line.length == 0)
            return check_whole(ret, length, limits);
        ret->cost += GATE_FIELD_COST;
        refusal = read_header(line, ret);
    }
    return refusal;
}

void head_hide_cookies(uint8_t *bytes, size_t length)
{
    const char *at = (const char *)bytes;
    const char *end = at + length;
    while (at < end) {
        struct text line = next_line(&at, end);
        if (line.length > strlen(cookie) && line.at[strlen(cookie)] == ':' &&
            text_is((struct text){line.at, strlen(cookie)}, cookie))
            bytes[line.at - (const char *)bytes] = 'x';
    }
}
