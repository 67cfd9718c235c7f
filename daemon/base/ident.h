#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { UUID_SIZE = 37 };
/* A new UUIDv7 (RFC 9562 5.7), monotonic within this process: ids sort by creation. */
char *uuid_v7(char ret[UUID_SIZE]);
/* A stable name-based UUIDv8 from the SHA-256-free FNV/SplitMix mix of two strings: the same input
 * always gives the same id (used for instance_id of a configured writer). */
char *uuid_named(const char *space, const char *name, char ret[UUID_SIZE]);
/* Lower-case canonical form? */
bool uuid_valid(const char *text);
