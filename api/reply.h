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
void reply_empty(struct exchange *exchange, int status);
/* 200, a body that comes bit by bit (http.h); sends its head. */
void reply_live(struct exchange *exchange, const char *content_type, long (*read)(void *exchange, char *buffer, size_t room));
/* Text that may change after this call. */
void reply_text_copy(struct exchange *exchange, const char *content_type, const char *text);
/* Takes body. */
void reply_owned(struct exchange *exchange, const char *content_type, char *body, size_t size);
/* A list of the engine's, one item a line, and send it. */
void reply_lines(struct exchange *exchange, const struct engine_answer *answer);
/* The engine's answer, and send it. text: the body as reply_text made it, when many get the same answer; else NULL. */
void reply_engine(struct exchange *exchange, const struct engine_answer *answer, const char *text);
char *reply_text(const json_t *body); /* malloc'ed */
char *reply_answer_text(const struct engine_answer *answer); /* malloc'ed; NULL without a body */
/* 200, with what comes out of a pipe (owned; -1: HEAD), and send it. */
void reply_stream(struct exchange *exchange, const char *content_type, int pipe);

void reply_invalid(struct exchange *exchange); /* 400 with exchange->faults */
void reply_no_body(struct exchange *exchange); /* 400: the operation takes none */
void reply_unauthorized(struct exchange *exchange);
/* 429, Retry-After: wait seconds. */
void reply_locked_out(struct exchange *exchange, int wait);               /* after wrong credentials */
void reply_too_many(struct exchange *exchange, int wait, const char *who); /* requests */
/* 429 or 503: as many of what ("streams", "waits": the reason, too) as limits.… allows are there already. Sends it. */
void reply_crowded(struct exchange *exchange, int status, const char *what);
void reply_forbidden(struct exchange *exchange);
void reply_foreign_page(struct exchange *exchange); /* 403 */
void reply_csrf(struct exchange *exchange);         /* 403 */
void reply_no_path(struct exchange *exchange);
void reply_no_method(struct exchange *exchange);
void reply_options(struct exchange *exchange);
void reply_expectation_failed(struct exchange *exchange); /* 417 */
void reply_not_acceptable(struct exchange *exchange); /* 406 */
void reply_other_type(struct exchange *exchange, const char *const *types); /* the same: this call answers these alone (NULL-ended) */
void reply_too_large(struct exchange *exchange);
void reply_unsupported_type(struct exchange *exchange);
void reply_draining(struct exchange *exchange);
void reply_not_found(struct exchange *exchange, const char *what);
