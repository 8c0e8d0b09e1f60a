/* sweep - the thread that sees to it that what is due is done: expired leases,
 * revocations that wait, pending leases whose account has to be searched by its
 * name, proofs of death, sessions that went away. It never gives up.
 *
 * It finds them in the store, lane by lane, and hands them to the crew
 * (crew.h); by itself it does only what needs no service. `lock` guards stop
 * and poke.
 */
#ifndef HSMINT_CORE_SWEEP_H
#define HSMINT_CORE_SWEEP_H

#include "common/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct core;

struct sweep {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t poke;
    bool started, stop, poked;
    int64_t pruned_ms; /* monotonic */
    int64_t told_ms;   /* monotonic; what is late was counted */
    int64_t next_ms;   /* steady; what is due next, INT64_MAX: nothing */
    atomic_int_fast64_t beat_ms; /* monotonic; its last step, 0: not started */
};
#define SWEEP_INIT                                                             \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .poke = PTHREAD_COND_INITIALIZER    \
    }
#define SWEEP_PERIOD_MS 1000

/* And the crew. */
MUST_CHECK enum code sweep_start(struct core *c, struct error *e);
void sweep_stop(struct core *c);
/* Something may be due. */
void sweep_wake(struct core *c);
/* How long it, or the longest work of the crew, has made no step, in ms. */
int64_t sweep_silent_ms(struct core *c);
/* One pass, for tests: what is due is queued, not done. */
void sweep_pass(struct core *c);

#endif
