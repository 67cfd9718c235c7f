#include "movers/payload/token_bucket.h"

enum { KEPT_MS = 250 };

void token_bucket_init(struct token_bucket *ret, int64_t rate, int64_t now_ms)
{
    *ret = (struct token_bucket){.rate = rate, .at_ms = now_ms};
}

/* a * b / c for b < 2^32, without overflow before the result has one. */
static int64_t scaled(int64_t a, int64_t b, int64_t c)
{
    return a / c * b + a % c * b / c;
}

int64_t token_bucket_take(struct token_bucket *bucket, int64_t n, int64_t now_ms)
{
    int64_t most = scaled(bucket->rate, KEPT_MS, 1000), passed = now_ms - bucket->at_ms;
    if (bucket->rate <= 0)
        return 0;
    if (passed > 0) {
        /* As many milliseconds as fill it: more would only overflow. */
        int64_t missing_ms = scaled(most - bucket->tokens, 1000, bucket->rate) + 1;
        bucket->tokens += scaled(bucket->rate, passed < missing_ms ? passed : missing_ms, 1000);
        bucket->at_ms = now_ms;
    }
    if (bucket->tokens > most)
        bucket->tokens = most;
    bucket->tokens -= n;
    return bucket->tokens >= 0 ? 0 : scaled(-bucket->tokens, 1000, bucket->rate) + 1;
}
