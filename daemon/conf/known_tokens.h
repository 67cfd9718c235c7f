#pragma once
/* Tokens that anybody would try first, and those that examples are written with. */

/* The word whose SHA-256 (hexadecimal, either case) this is, "" for that of nothing; NULL: none of ours. Static. */
const char *known_token(const char *sha256);
