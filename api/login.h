#pragma once
/* A request's way in: rate of its address, credential, rate of its principal. */
#include "api/exchange.h"

#define LOGIN_COOKIE "__Host-quiesced"

/* Counts the request against its address. false: refused with 429, the reply is there. */
bool login_address(struct exchange *exchange);
/* Fills in the principal; false: refused with 401 or 429, the reply is there. */
bool login(struct exchange *exchange);
/* The same with a credential that the body brings (POST /login). */
bool login_with(struct exchange *exchange, const struct credential *credential);
/* Of a browser's login: what its pages send as X-CSRF-Token. false: the request has no login's cookie. */
enum { LOGIN_CSRF_SIZE = HASH_HEX_SIZE };
bool login_csrf(const struct exchange *exchange, char ret[LOGIN_CSRF_SIZE]);
void login_csrf_of(const char *cookie, char ret[LOGIN_CSRF_SIZE]);
/* May a page of somebody else have made this request? Browsers say so of every request, and of nothing else can they be trusted
 * not to send a certificate or a cookie along. false: refused with 403. */
bool login_same_site(struct exchange *exchange);
/* Is the credential still what it was? It may have been revoked while the body came. false: refused with 401. */
bool login_again(struct exchange *exchange);
/* The same without a reply, of one that has been answered: false when it would not be let in any more. No use of the credential: a login
 * of which nothing but a stream is left ends when it has been idle for its time. */
bool login_holds(struct exchange *exchange);
