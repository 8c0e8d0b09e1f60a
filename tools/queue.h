/* queue - work of many identities, taken in turn.
 *
 * Each identity has a flow: its own line of items, how many of them are under
 * way, and its bucket. Flows that wait stand in a ring, and each gets one item
 * a turn: a thousand items of one do not hold up another's one.
 *
 * There are `places` for items under way. Where flows are to share them
 * (`shared`), one may begin another item while it has fewer under way than
 * places are free: alone it gets half of them, the next one half of the rest,
 * and so on, so that items that never end do not take all.
 *
 * Data only: no lock, no thread, no clock. Whoever owns it has them.
 */
#ifndef HSMINT_QUEUE_H
#define HSMINT_QUEUE_H

#include "tools/bucket.h"

#include <stddef.h>

struct queue_item { /* first member of what waits */
    struct queue_item *next;
};

struct queue_flow { /* zeroed by its owner; outlives its items */
    struct queue_flow *next, *previous; /* in the ring, while it has items */
    struct queue_item *first, *last;
    int under_way;
    struct bucket bucket;
};

struct queue {
    struct bucket_rate rate; /* of each flow */
    int places;
    bool shared;

    struct queue_flow *turn; /* whose it is; NULL: nothing waits */
    int under_way, waiting;
};

void queue_put(struct queue *q, struct queue_flow *f, struct queue_item *i);
/* Whose turn it is: its first item, with a place and a token. NULL: none may
 * begin now; *due_ms then says when a token lets one (INT64_MAX: none does). */
struct queue_item *queue_take(struct queue *q, int64_t now_ms,
                              struct queue_flow **flow, int64_t *due_ms);
/* Would queue_take() give one? */
bool queue_ready(const struct queue *q, int64_t now_ms, int64_t *due_ms);
void queue_done(struct queue *q, struct queue_flow *f);
/* Nothing of it waits or is under way, and its bucket is full. */
bool queue_flow_idle(const struct queue *q, const struct queue_flow *f,
                     int64_t now_ms);

#endif
