/* bucket - so many a second, and a burst: a token bucket.
 *
 * Full at first (zeroed). Times are milliseconds of one monotonic clock; the
 * rest is counted in thousandths of a token, so that slow rates lose none. */
#ifndef HSMINT_BUCKET_H
#define HSMINT_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket_rate {
    int64_t per_second; /* 0: no limit */
    int64_t burst;      /* at least 1 */
};

struct bucket {
    int64_t missing; /* thousandths that are missing to a full one */
    int64_t at_ms;   /* when that was true */
};

static inline int64_t bucket_missing(const struct bucket *b,
                                     const struct bucket_rate *r, int64_t now)
{
    int64_t since = now > b->at_ms ? now - b->at_ms : 0;
    if (since >= b->missing / r->per_second + 1) /* and no product overflows */
        return 0;
    int64_t missing = b->missing - since * r->per_second;
    return missing > 0 ? missing : 0;
}

/* Nothing is missing: to forget it changes nothing. */
static inline bool bucket_full(const struct bucket *b,
                               const struct bucket_rate *r, int64_t now)
{
    return r->per_second == 0 || bucket_missing(b, r, now) == 0;
}

/* When the next token is there: `now`, or later. */
static inline int64_t bucket_due(const struct bucket *b,
                                 const struct bucket_rate *r, int64_t now)
{
    if (r->per_second == 0)
        return now;
    int64_t over = bucket_missing(b, r, now) - (r->burst - 1) * 1000;
    return over <= 0 ? now : now + (over + r->per_second - 1) / r->per_second;
}

/* One token goes, which was due. */
static inline void bucket_take(struct bucket *b, const struct bucket_rate *r,
                               int64_t now)
{
    if (r->per_second == 0)
        return;
    b->missing = bucket_missing(b, r, now) + 1000;
    b->at_ms = now;
}

#endif
