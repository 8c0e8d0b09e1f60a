/* histogram - how often a value was how large: counts by bucket, and their
 * sum. Counting takes two relaxed atomic additions, no lock, no memory; a
 * reading taken meanwhile may lack what is being counted. */
#ifndef HSMINT_HISTOGRAM_H
#define HSMINT_HISTOGRAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_BOUNDS_MAX 16

struct histogram_scale {
    size_t n;
    uint64_t bounds[HISTOGRAM_BOUNDS_MAX]; /* inclusive, rising */
    double unit; /* what is shown is a value divided by this */
};
/* Microseconds, shown as seconds: 0.5 ms to 30 s. */
extern const struct histogram_scale histogram_seconds;
/* Numbers of things: 1 to 256. */
extern const struct histogram_scale histogram_numbers;

struct histogram { /* all zero is an empty one */
    atomic_uint_fast64_t buckets[HISTOGRAM_BOUNDS_MAX + 1];
    atomic_uint_fast64_t sum;
};
void histogram_add(struct histogram *h, const struct histogram_scale *s,
                   uint64_t value);

bool histogram_is_empty(const struct histogram *h);

struct histogram_reading {
    /* Up to each bound; [n] is +Inf and so the count. */
    uint64_t cumulative[HISTOGRAM_BOUNDS_MAX + 1];
    uint64_t sum;
};
void histogram_read(const struct histogram *h, const struct histogram_scale *s,
                    struct histogram_reading *out);

#endif
