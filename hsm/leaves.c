/* leaves - see leaves.h. */
#include "config.h"

#include "hsm/leaves.h"

#include <stdlib.h>
#include <string.h>

bool leaves_add(struct leaves *l, const struct merkle_hash *hash,
                int64_t since_ms)
{
    if (l->n == LEAVES_MAX)
        return false;
    l->list[l->n++] = (struct leaf){*hash, since_ms, ++l->serial, false};
    return true;
}

int64_t leaves_oldest_ms(const struct leaves *l, int64_t now_ms)
{
    int64_t oldest = 0;
    for (size_t i = 0; i < l->n; i++)
        if (now_ms - l->list[i].since_ms > oldest)
            oldest = now_ms - l->list[i].since_ms;
    return oldest;
}

const struct leaf *leaves_hidden(const struct leaves *l, uint64_t until)
{
    for (size_t i = 0; i < l->n && l->list[i].serial <= until; i++)
        if (!l->list[i].shown)
            return &l->list[i];
    return NULL;
}

void leaves_forget_shown(struct leaves *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->n; i++)
        if (!l->list[i].shown)
            l->list[kept++] = l->list[i];
    l->n = kept;
}

/* ---- recent ---- */

#define BUCKETS 16384u

/* Chains of indexes + 1, 0 ends one. What an index below `first` had is
 * overwritten, so a chain ends there. */
struct recent {
    uint64_t first, end; /* indexes first … end - 1 are here */
    uint64_t heads[BUCKETS];
    struct {
        struct merkle_hash hash;
        uint64_t before;
    } ring[LEAVES_RECENT];
};

enum code recent_new(struct recent **out, struct error *e)
{
    *out = calloc(1, sizeof **out); /* pages that are not used cost nothing */
    return *out ? OK : error_set(e, ERR_NOMEM, "the log's last leaves");
}

void recent_free(struct recent *r)
{
    free(r);
}

static unsigned bucket(const struct merkle_hash *hash)
{
    return (hash->bytes[0] << 8 | hash->bytes[1]) % BUCKETS;
}

static void link_leaf(struct recent *r, uint64_t index)
{
    unsigned slot = (unsigned)(index % LEAVES_RECENT);
    unsigned at = bucket(&r->ring[slot].hash);
    r->ring[slot].before = r->heads[at];
    r->heads[at] = index + 1;
}

void recent_add(struct recent *r, uint64_t index,
                const struct merkle_hash *hash)
{
    if (index != r->end) {
        memset(r->heads, 0, sizeof r->heads);
        r->first = r->end = index;
    }
    r->ring[index % LEAVES_RECENT].hash = *hash;
    r->end = index + 1;
    if (r->end - r->first > LEAVES_RECENT)
        r->first = r->end - LEAVES_RECENT;
    link_leaf(r, index);
}

void recent_cut(struct recent *r, uint64_t size)
{
    if (size >= r->end)
        return;
    r->end = size > r->first ? size : r->first;
    memset(r->heads, 0, sizeof r->heads);
    for (uint64_t i = r->first; i < r->end; i++)
        link_leaf(r, i);
}

uint64_t recent_find(const struct recent *r, const struct merkle_hash *hash)
{
    uint64_t next = r->heads[bucket(hash)];
    while (next > r->first) { /* index + 1, and index >= first */
        unsigned slot = (unsigned)((next - 1) % LEAVES_RECENT);
        if (merkle_equal(&r->ring[slot].hash, hash))
            return next - 1;
        next = r->ring[slot].before;
    }
    return UINT64_MAX;
}
