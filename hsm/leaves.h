/* leaves - the records of calls that were executed and not yet seen in a
 * signed tree, and the last leaves of the tree, among which a call's record may
 * be before the call is executed. Not thread-safe: the ledger's lock guards it.
 */
#ifndef HSMINT_LEAVES_H
#define HSMINT_LEAVES_H

#include "common/merkle.h"

#define LEAVES_MAX 1024      /* outstanding; then no more calls are made */
#define LEAVES_RECENT 32768u /* of the tree's last, that are remembered */

struct leaf {
    struct merkle_hash hash;
    int64_t since_ms; /* boot time */
    uint64_t serial;  /* grows with each that is remembered */
    bool shown;       /* among the leaves of a tree that is not signed yet */
};

struct leaves {
    struct leaf list[LEAVES_MAX]; /* in the order of their serials */
    size_t n;
    uint64_t serial; /* of the last */
};
/* False: there are LEAVES_MAX. */
bool leaves_add(struct leaves *l, const struct merkle_hash *hash,
                int64_t since_ms);
/* How long the oldest waits; 0: none does. */
int64_t leaves_oldest_ms(const struct leaves *l, int64_t now_ms);
/* One of serial <= `until` that is not shown; NULL: none. */
const struct leaf *leaves_hidden(const struct leaves *l, uint64_t until);
void leaves_forget_shown(struct leaves *l);

/* ---- the last leaves of the tree, each by its index ---- */

struct recent;
MUST_CHECK enum code recent_new(struct recent **out, struct error *e);
void recent_free(struct recent *r); /* takes NULL */
/* Leaf `index` follows the last; another index begins anew with it. */
void recent_add(struct recent *r, uint64_t index,
                const struct merkle_hash *hash);
/* Leaves from `size` on were none after all. */
void recent_cut(struct recent *r, uint64_t size);
/* Its index; UINT64_MAX: not among those that are remembered. */
uint64_t recent_find(const struct recent *r, const struct merkle_hash *hash);

#endif
