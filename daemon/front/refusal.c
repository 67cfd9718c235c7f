#include "front/refusal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/hresult.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"

#define REFUSAL(name, status, detail, hint) const struct refusal refusal_##name = {status, #name, detail, hint}

/* RFC 9112 wherever a section is named. */
REFUSAL(bare_lf, 400, "a line of the head ends in LF alone", "End every line in CR LF (RFC 9112, 2.2).");
REFUSAL(bare_cr, 400, "a CR in the head is not followed by LF", "A CR stands before an LF and nowhere else.");
REFUSAL(control, 400, "the head has a control character (NUL, for one)", "Percent-encode it, or leave it out.");
REFUSAL(empty_lines, 400, "more than one empty line stands before the request line",
        "Begin a request with its request line.");
REFUSAL(start_line, 400, "the request line is not METHOD SP TARGET SP VERSION",
        "One space each, for example: GET /health/live HTTP/1.1 (RFC 9112, 3).");
REFUSAL(method, 501, "the method is none of HTTP's", "Methods are written in capitals, for example GET.");
REFUSAL(target, 400, "the target of the request line is malformed",
        "Send an absolute path; percent-encode what RFC 3986 does not allow in it.");
REFUSAL(target_nul, 400, "the target has %00", "No name has a NUL in it: leave it out.");
REFUSAL(http09, 400, "HTTP/0.9 is not spoken here", "Send HTTP/1.1.");
REFUSAL(version, 400, "the version in the request line is none", "Send HTTP/1.1.");
REFUSAL(version_unsupported, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here", "Send HTTP/1.1.");
REFUSAL(fold, 400, "a header is folded over several lines", "Write each header in one line (RFC 9112, 5.2).");
REFUSAL(name, 400, "a header line has no name, no colon, or a character in its name that is no token's",
        "Write NAME: VALUE (RFC 9112, 5).");
REFUSAL(space_before_colon, 400, "white space stands before the colon of a header",
        "Write NAME: VALUE (RFC 9112, 5.1).");
REFUSAL(repeated, 400, "a header that may be there once is there twice",
        "Send Host, Content-Length, Transfer-Encoding, Content-Type and Authorization once.");
REFUSAL(host_missing, 400, "Host is missing", "HTTP/1.1 needs Host: NAME[:PORT] (RFC 9112, 3.2).");
REFUSAL(host, 400, "Host is no name or address with an optional port", "Send Host: NAME[:PORT] (RFC 9112, 3.2).");
REFUSAL(length, 400, "Content-Length is no number", "Send decimal digits alone, once (RFC 9112, 6.3).");
REFUSAL(length_and_encoding, 400, "Content-Length and Transfer-Encoding are both there",
        "Send one of them (RFC 9112, 6.1).");
REFUSAL(encoding, 400, "Transfer-Encoding is not chunked alone", "Send Transfer-Encoding: chunked or Content-Length.");
REFUSAL(encoding_http10, 400, "HTTP/1.0 has no Transfer-Encoding", "Send HTTP/1.1, or Content-Length.");
REFUSAL(chunk, 400, "the body is not well chunked",
        "Each chunk: its size in hexadecimal digits, CR LF, that many bytes, CR LF (RFC 9112, 7.1).");
REFUSAL(chunk_extension, 400, "a chunk has an extension", "Nothing here reads chunk extensions: send none.");
REFUSAL(trailer, 400, "trailers follow the chunked body", "Nothing here reads trailers: send them as headers.");
REFUSAL(head_large, 431, "request line and headers are larger than the limit (limits.head_bytes)",
        "Send fewer or smaller headers; each counts 64 bytes beside its own, and so does each query parameter.");
REFUSAL(headers_many, 431, "there are more headers than the limit (limits.headers)", "Send fewer headers.");
REFUSAL(body_large, 413, "the body is larger than the limit (limits.body_bytes)", "Send a smaller body.");
REFUSAL(framing, 400, "the request is not HTTP/1.1 (RFC 9112)", "Send well-formed HTTP/1.1.");
REFUSAL(head_slow, 408, "the head did not come in time (limits.head_seconds)",
        "Send request line and headers at once.");
REFUSAL(body_slow, 408, "the body comes too slowly (limits.least_bytes_per_second)",
        "Send faster, or have the limit changed.");

static const struct {
    int status;
    uint32_t hr;
    const char *words;
} statuses[] = {
    {400, E_INVALIDARG, "Bad Request"},       {408, E_INVALIDARG, "Request Timeout"},
    {413, E_INVALIDARG, "Content Too Large"}, {431, E_INVALIDARG, "Request Header Fields Too Large"},
    {501, E_NOTIMPL, "Not Implemented"},      {505, E_NOTIMPL, "HTTP Version Not Supported"},
};

/* The members of Problem (openapi.yaml). The path was not looked at, so `instance` is empty. */
static char *problem_text(const struct refusal *refusal, uint32_t hr, const char *request_id)
{
    char code[11], type[96];
    hresult_hex(hr, code);
    str_format(type, sizeof(type), "/problems/%s", hresult_name(hr));
    AUTO_JSON json_t *body = json_pack(
        "{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:[]}", "type", type, "title", hresult_meaning(hr),
        "status", refusal->status, "detail", refusal->detail, "instance", "", "hresult", hresult_name(hr), "code", code,
        "hint", refusal->hint, "request_id", request_id, "reason", refusal->reason, "errors");
    return json_dumps(body, JSON_COMPACT);
}

char *refusal_reply(const struct refusal *refusal, bool head_only, size_t *ret_length)
{
    size_t row = 0;
    char id[UUID_SIZE], date[64];
    time_t now = time(NULL);
    struct tm tm;
    while (row < ELEMENTS(statuses) - 1 && statuses[row].status != refusal->status)
        row++;
    uuid_v7(id);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    AUTO_FREE char *text = problem_text(refusal, statuses[row].hr, id);
    char *reply = str_new(
        "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        "Content-Length: %zu\r\nX-Request-Id: %s\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n\r\n%s%s",
        refusal->status, statuses[row].words, date, strlen(text) + 1, id, head_only ? "" : text, head_only ? "" : "\n");
    *ret_length = strlen(reply);
    return reply;
}
