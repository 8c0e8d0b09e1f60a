/* histogram - see histogram.h. */
#include "config.h"

#include "common/histogram.h"

const struct histogram_scale histogram_seconds = {
    15,
    {500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
     1000000, 2500000, 5000000, 10000000, 30000000},
    1e6};
const struct histogram_scale histogram_numbers = {
    9, {1, 2, 4, 8, 16, 32, 64, 128, 256}, 1};

void histogram_add(struct histogram *h, const struct histogram_scale *s,
                   uint64_t value)
{
    size_t i = 0;
    while (i < s->n && value > s->bounds[i])
        i++;
    atomic_fetch_add_explicit(&h->sum, value, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
}

void histogram_read(const struct histogram *h, const struct histogram_scale *s,
                    struct histogram_reading *out)
{
    uint64_t n = 0;
    for (size_t i = 0; i <= s->n; i++) {
        n += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        out->cumulative[i] = n;
    }
    out->sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
}

bool histogram_is_empty(const struct histogram *h)
{
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
        if (atomic_load_explicit(&h->buckets[i], memory_order_relaxed))
            return false;
    return true;
}
