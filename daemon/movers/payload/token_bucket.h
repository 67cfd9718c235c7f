#pragma once
/* A rate kept by counting: tokens are bytes, and come in at the rate. Reads no clock: the caller tells the time. */
#include <stdint.h>

struct token_bucket {
    int64_t rate;   /* tokens per second; 0 = there is no limit */
    int64_t tokens; /* what is left; below 0: taken ahead of its time */
    int64_t at_ms;  /* when that was counted */
};
void token_bucket_init(struct token_bucket *ret, int64_t rate, int64_t now_ms);
/* Takes n and returns how many milliseconds the caller has to wait before it takes more. What was not used is kept for a quarter of a
 * second: a source that paused does not burst for long. */
int64_t token_bucket_take(struct token_bucket *bucket, int64_t n, int64_t now_ms);
