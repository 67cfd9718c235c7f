#include "front/gate.h"

#include <string.h>

#include <llhttp.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "front/gate_head.h"

/* What stands between the data of two chunks, or after the last one: CR LF, sixteen digits (64 bits), CR LF, CR LF.
 * More leading zeros than that would have no end. */
enum { CHUNK_FRAME_MAX = 22 };

struct gate {
    llhttp_t parser;
    struct gate_limits limits;
    enum gate_place place;
    bool closed;      /* the client said that its request is the last one: nothing passes any more */
    bool in_trailers; /* headers now are trailers */
    uint64_t requests;
    const struct refusal *refusal; /* why a callback stopped llhttp */

    /* the head in hand */
    uint8_t *kept;
    size_t kept_length;
    size_t length; /* of the head so far */
    size_t lines, line_length;
    bool after_cr, empty_line;
    size_t head_word; /* how much of "HEAD " it begins with */
    struct head head;

    /* the body in hand */
    uint64_t body;
    size_t frame;        /* bytes of chunk framing since the last data */
    const char *framing; /* where these begin in the bytes at hand */
};

/* --- llhttp --- */

static int stop(llhttp_t *parser, const struct refusal *why)
{
    struct gate *gate = parser->data;
    gate->refusal = why;
    return -1;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t length)
{
    const struct gate *gate = parser->data;
    (void)at;
    (void)length;
    return gate->in_trailers ? stop(parser, &refusal_trailer) : 0;
}

/* Both readings must agree on how the body is framed. */
static int on_headers_complete(llhttp_t *parser)
{
    struct gate *gate = parser->data;
    bool chunked = parser->flags & F_CHUNKED;
    parser->upgrade = 0; /* nobody here switches protocols: what follows is the next request */
    gate->in_trailers = true;
    return chunked == (gate->head.framing == FRAMING_CHUNKED) && parser->content_length == gate->head.length
               ? 0
               : stop(parser, &refusal_framing);
}

static int on_chunk_header(llhttp_t *parser)
{
    const struct gate *gate = parser->data;
    return parser->content_length > gate->limits.body_bytes - gate->body ? stop(parser, &refusal_body_large) : 0;
}

static int on_chunk_extension(llhttp_t *parser, const char *at, size_t length)
{
    (void)at;
    (void)length;
    return stop(parser, &refusal_chunk_extension);
}

static int on_body(llhttp_t *parser, const char *at, size_t length)
{
    struct gate *gate = parser->data;
    gate->frame += (size_t)(at - gate->framing);
    if (gate->frame > CHUNK_FRAME_MAX)
        return stop(parser, &refusal_chunk);
    gate->frame = 0;
    gate->framing = at + length;
    gate->body += length;
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct gate *gate = parser->data;
    gate->closed = !llhttp_should_keep_alive(parser);
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_header_field,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_chunk_extension_name = on_chunk_extension,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static const struct refusal *refusal_of(const struct gate *gate, enum llhttp_errno code)
{
    static const struct {
        enum llhttp_errno code;
        const struct refusal *refusal;
    } rows[] = {
        {HPE_INVALID_METHOD, &refusal_method},
        {HPE_INVALID_URL, &refusal_target},
        {HPE_INVALID_VERSION, &refusal_version},
        {HPE_INVALID_CHUNK_SIZE, &refusal_chunk},
    };
    if (gate->refusal)
        return gate->refusal;
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (rows[i].code == code)
            return rows[i].refusal;
    return gate->place == GATE_BODY ? &refusal_chunk : &refusal_framing;
}

/* Gives llhttp bytes; *ret_end: where it found the message's end, or NULL. */
static const struct refusal *parse(struct gate *gate, const uint8_t *bytes, size_t length, const uint8_t **ret_end)
{
    gate->framing = (const char *)bytes;
    enum llhttp_errno code = llhttp_execute(&gate->parser, (const char *)bytes, length);
    const uint8_t *behind = bytes + length;
    *ret_end = NULL;
    if (code != HPE_OK && code != HPE_PAUSED)
        return refusal_of(gate, code);
    if (code == HPE_PAUSED) {
        behind = *ret_end = (const uint8_t *)llhttp_get_error_pos(&gate->parser);
        llhttp_resume(&gate->parser);
    }
    gate->frame += (size_t)((const char *)behind - gate->framing);
    return gate->place == GATE_BODY && gate->frame > CHUNK_FRAME_MAX ? &refusal_chunk : NULL;
}

/* --- heads --- */

static void begin_message(struct gate *gate)
{
    gate->place = GATE_BETWEEN;
    gate->length = gate->lines = gate->line_length = gate->head_word = 0;
    gate->body = 0;
    gate->frame = 0;
    gate->after_cr = gate->empty_line = gate->in_trailers = false;
}

/* Bytes that may stand anywhere in a line. */
static const bool plain[256] = {['\t'] = true, [' ' ... '~'] = true, [0x80 ... 0xff] = true};

/* One byte of a head. Every rule on single bytes is here, so that a head that breaks one is not waited for. */
static const struct refusal *judge_byte(struct gate *gate, uint8_t byte)
{
    static const char head_word[] = "HEAD ";
    if (gate->after_cr != (byte == '\n'))
        return gate->after_cr ? &refusal_bare_cr : &refusal_bare_lf;
    if (!plain[byte] && byte != '\r' && byte != '\n')
        return &refusal_control;
    if (gate->length == gate->head_word && gate->head_word < strlen(head_word) && byte == head_word[gate->head_word])
        gate->head_word++;
    gate->after_cr = byte == '\r';
    if (byte != '\r' && byte != '\n')
        gate->line_length++;
    return ++gate->length > gate->limits.head_bytes ? &refusal_head_large : NULL;
}

/* Most of a head, in a loop that does nothing else. Stops where the limit would be passed, too. */
static void skip_plain(struct gate *gate, const uint8_t **at, const uint8_t *end)
{
    const uint8_t *start = *at;
    if (gate->after_cr || gate->length < sizeof("HEAD "))
        return;
    if ((size_t)(end - start) > gate->limits.head_bytes - gate->length)
        end = start + (gate->limits.head_bytes - gate->length);
    while (*at < end && plain[**at])
        ++*at;
    gate->line_length += (size_t)(*at - start);
    gate->length += (size_t)(*at - start);
}

/* Moves *at behind the head's end (true), or to end. */
static bool scan(struct gate *gate, const uint8_t **at, const uint8_t *end, const struct refusal **ret_refusal)
{
    while (*at < end && !*ret_refusal) {
        skip_plain(gate, at, end);
        if (*at == end)
            break;
        uint8_t byte = *(*at)++;
        *ret_refusal = judge_byte(gate, byte);
        if (byte != '\n' || *ret_refusal)
            continue;
        if (gate->line_length == 0)
            return true;
        gate->line_length = 0;
        if (gate->lines++ > gate->limits.headers)
            *ret_refusal = &refusal_headers_many;
    }
    return false;
}

static void keep(struct gate *gate, const uint8_t *bytes, size_t length)
{
    gate->kept = mem_resize(gate->kept, gate->kept_length + length);
    memcpy(gate->kept + gate->kept_length, bytes, length);
    gate->kept_length += length;
}

static void drop_kept(struct gate *gate)
{
    free(TAKE_PTR(gate->kept));
    gate->kept_length = 0;
}

/* A line before the request line that is empty: RFC 9112 2.2 has one ignored. It does not pass; what passes before it
 * is moved up to what comes after it. */
static const struct refusal *skip_empty_line(struct gate *gate, const uint8_t *start, uint8_t *at,
                                             struct gate_pass *pass)
{
    bool again = gate->empty_line;
    memmove(at - pass->rest_length, start - pass->rest_length, pass->rest_length);
    pass->rest = at - pass->rest_length;
    drop_kept(gate);
    begin_message(gate);
    gate->empty_line = true;
    return again ? &refusal_empty_lines : NULL;
}

static const struct refusal *judge_head(struct gate *gate, uint8_t *bytes, size_t length)
{
    const uint8_t *end;
    const struct refusal *refusal = head_read(bytes, length, &gate->limits, &gate->head);
    if (!refusal)
        refusal = parse(gate, bytes, length, &end);
    if (refusal)
        return refusal;
    if (gate->head.cookies)
        head_hide_cookies(bytes, length);
    if (gate->head.framing == FRAMING_CHUNKED || gate->head.length > 0) {
        gate->place = GATE_BODY;
        gate->frame = sizeof("\r\n") - 1; /* as if data had gone before */
        return end ? &refusal_framing : NULL;
    }
    begin_message(gate);
    return end == bytes + length ? NULL : &refusal_framing;
}

/* From *at on stands a head, or the rest of one. */
static const struct refusal *feed_head(struct gate *gate, uint8_t **at, const uint8_t *end, struct gate_pass *pass)
{
    const struct refusal *refusal = NULL;
    uint8_t *start = *at;
    const uint8_t *behind = start;
    gate->place = GATE_HEAD;
    bool whole = scan(gate, &behind, end, &refusal);
    *at += behind - start;
    if (refusal)
        return refusal;
    if (whole && gate->lines == 0)
        return skip_empty_line(gate, start, *at, pass);
    if (gate->kept || !whole)
        keep(gate, start, (size_t)(behind - start));
    if (!whole)
        return NULL;
    refusal = gate->kept ? judge_head(gate, gate->kept, gate->kept_length)
                         : judge_head(gate, start, (size_t)(behind - start));
    if (refusal)
        return refusal;
    gate->requests++;
    if (gate->kept) { /* it began before the bytes at hand, so nothing of these has passed yet */
        pass->kept = TAKE_PTR(gate->kept);
        pass->kept_length = gate->kept_length;
        gate->kept_length = 0;
        pass->rest = behind;
    } else {
        pass->rest_length = (size_t)(behind - pass->rest);
    }
    return NULL;
}

/* --- bodies --- */

static const struct refusal *feed_body(struct gate *gate, uint8_t **at, const uint8_t *end, struct gate_pass *pass)
{
    const uint8_t *behind;
    const struct refusal *refusal = parse(gate, *at, (size_t)(end - *at), &behind);
    if (refusal)
        return refusal;
    if (behind)
        begin_message(gate);
    else
        behind = end;
    *at += behind - *at;
    pass->rest_length = (size_t)(behind - pass->rest);
    return NULL;
}

const struct refusal *gate_feed(struct gate *gate, uint8_t *bytes, size_t length, struct gate_pass *ret)
{
    const struct refusal *refusal = NULL;
    uint8_t *at = bytes;
    *ret = (struct gate_pass){.rest = bytes};
    while (at < bytes + length && !refusal && !(gate->closed && gate->place == GATE_BETWEEN))
        refusal = (gate->place == GATE_BODY ? feed_body : feed_head)(gate, &at, bytes + length, ret);
    return refusal;
}

enum gate_place gate_place(const struct gate *gate)
{
    return gate->place;
}

uint64_t gate_requests(const struct gate *gate)
{
    return gate->requests;
}

bool gate_head_only(const struct gate *gate)
{
    return gate->head_word == strlen("HEAD ");
}

struct gate *gate_new(const struct gate_limits *limits)
{
    struct gate *gate = mem_new(sizeof(*gate));
    llhttp_init(&gate->parser, HTTP_REQUEST, &settings);
    gate->parser.data = gate;
    gate->limits = *limits;
    return gate;
}

void gate_free(struct gate *gate)
{
    if (!gate)
        return;
    free(gate->kept);
    free(gate);
}
