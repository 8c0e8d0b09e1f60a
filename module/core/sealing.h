/* sealing - who has had something sealed and has not stored it yet. A rotation
 * of the seal key waits for those that began before it, so that nothing that
 * the old key sealed is stored behind its back. Counted, not locked: nobody who
 * seals waits for anybody.
 */
#ifndef HSMINT_CORE_SEALING_H
#define HSMINT_CORE_SEALING_H

#include "common/error.h"

#include <pthread.h>

enum { SEALING_DRAIN_MS = 10000 /* that a change of the seal key waits */ };

struct sealing {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t left;
    unsigned turn; /* 0 or 1: who comes now */
    int n[2];      /* those who came in that turn, and are at it */
};
#define SEALING_INIT                                                           \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .left = PTHREAD_COND_INITIALIZER    \
    }

struct sealing_hold {
    struct sealing *sealing; /* NULL: holds nothing */
    unsigned turn;
};
struct sealing_hold sealing_enter(struct sealing *s);
void sealing_leave(struct sealing_hold *h);
#define SEALING_HOLD CLEANUP(sealing_leave) struct sealing_hold

/* Until all who are at it now have left; one caller at a time. ERR_DEADLINE. */
MUST_CHECK enum code sealing_drain(struct sealing *s, int ms, struct error *e);

#endif
