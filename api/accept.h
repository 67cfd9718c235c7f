#pragma once
/* Accept (RFC 9110 12.5.1): may a reply of one of these media types be sent? */
#include <stdbool.h>

/* types: NULL-ended. What of the header cannot be understood is passed over; a header of which nothing can allows all. */
bool accept_allows(const char *accept, const char *const *types);
