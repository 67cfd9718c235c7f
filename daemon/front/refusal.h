#pragma once
/* Why front refuses a request, and what it then says: the one place where front speaks HTTP itself. */
#include <stdbool.h>
#include <stddef.h>

struct refusal {
    int status;
    const char *reason; /* for programs: the problem's `reason` */
    const char *detail, *hint;
};

/* Bytes, lines and framing of a request: front/gate.h. */
extern const struct refusal refusal_bare_lf, refusal_bare_cr, refusal_control, refusal_empty_lines, refusal_start_line,
    refusal_method, refusal_target, refusal_target_nul, refusal_http09, refusal_version, refusal_version_unsupported,
    refusal_fold, refusal_name, refusal_space_before_colon, refusal_repeated, refusal_host_missing, refusal_host,
    refusal_length, refusal_length_and_encoding, refusal_encoding, refusal_encoding_http10, refusal_chunk,
    refusal_chunk_extension, refusal_trailer, refusal_head_large, refusal_headers_many, refusal_body_large,
    refusal_framing;
/* Slow clients: front/pace.c. */
extern const struct refusal refusal_head_slow, refusal_body_slow;

/* The whole reply: status line, headers (Connection: close) and, unless head_only, a problem document with a fresh
 * request id. The caller frees it. */
char *refusal_reply(const struct refusal *refusal, bool head_only, size_t *ret_length);
