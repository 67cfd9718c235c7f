#pragma once
/* Where the next page of a list begins, bound to the list, its filters and its order: with others it would skip rows without a word. */
#include "api/exchange.h"

/* place: the engine's own word for it. malloc'ed. */
char *cursor_make(const struct exchange *exchange, const char *place);
/* The place, malloc'ed; NULL: no cursor that this list, with these filters in this order, has given. */
char *cursor_read(const struct exchange *exchange, const char *cursor);
