/* inflight - keys of work under way, so that two threads do not do the same.
 *
 * No lock is held while the work runs: a second comer waits until the key is
 * free, and then looks at the state anew.
 */
#ifndef HSMINT_CORE_INFLIGHT_H
#define HSMINT_CORE_INFLIGHT_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>

struct inflight_entry;
struct inflight {
    pthread_mutex_t lock;
    pthread_cond_t left;
    struct inflight_entry *first;
};
#define INFLIGHT_INIT                                                          \
    {                                                                          \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL              \
    }

/* One key that is held; `entry` NULL holds nothing. */
struct inflight_hold {
    struct inflight *table;
    struct inflight_entry *entry;
};
void inflight_leave(struct inflight_hold *h);
#define INFLIGHT CLEANUP(inflight_leave) struct inflight_hold

/* Key: "<kind>:<a>:<b>:<c>"; parts that are NULL or "" are left empty. */
MUST_CHECK enum code inflight_enter(struct inflight *t, const char *kind,
                                    const char *a, const char *b, const char *c,
                                    struct inflight_hold *h, struct error *e);
/* false: somebody has it, or no memory. */
bool inflight_try(struct inflight *t, const char *kind, const char *a,
                  struct inflight_hold *h);

#endif
