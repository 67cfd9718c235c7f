#pragma once
#include <stdint.h>

int64_t clock_mono_ms(void); /* CLOCK_MONOTONIC, milliseconds: deadlines and windows */
int64_t clock_mono_us(void);
int64_t clock_real_ms(void); /* CLOCK_REALTIME, milliseconds since 1970 UTC: what people see */

enum { CLOCK_RFC3339_SIZE = 32 };
/* "2026-11-24T00:00:00.000Z"; returns ret. */
char *clock_rfc3339(int64_t real_ms, char ret[CLOCK_RFC3339_SIZE]);
/* Back again, of what that writes; -1 for what is no such time, NULL included. */
int64_t clock_from_rfc3339(const char *text);
