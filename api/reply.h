#pragma once
/* Answers: JSON, problem bodies (RFC 9457), and what every answer carries. Each of these makes the reply final; it is
 * sent when the request has ended. */
#include "api/exchange.h"

/* Extra headers first: printf-style value. */
void reply_header(struct exchange *exchange, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void reply_json(struct exchange *exchange, int status, const json_t *body);
/* Bytes that outlive everything. */
void reply_static(struct exchange *exchange, const char *content_type, const char *body, size_t size);
/* Text that may change after this call. */
void reply_text_copy(struct exchange *exchange, const char *content_type, const char *text);
/* The engine's answer, and send it. text: the body as reply_text made it, when many get the same answer; else NULL. */
void reply_engine(struct exchange *exchange, const struct engine_answer *answer, const char *text);
char *reply_text(const json_t *body); /* malloc'ed */

void reply_invalid(struct exchange *exchange); /* 400 with exchange->faults */
void reply_no_body(struct exchange *exchange); /* 400: the operation takes none */
void reply_unauthorized(struct exchange *exchange);
void reply_forbidden(struct exchange *exchange);
void reply_no_path(struct exchange *exchange);
void reply_no_method(struct exchange *exchange);
void reply_options(struct exchange *exchange);
void reply_too_large(struct exchange *exchange);
void reply_head_too_large(struct exchange *exchange);
void reply_unsupported_type(struct exchange *exchange);
void reply_draining(struct exchange *exchange);
void reply_not_found(struct exchange *exchange, const char *what);
