/* sweep - the thread that ends what is due: expired leases, revocations that
 * wait, pending leases whose account has to be searched by its name, sessions
 * that went away. It never gives up.
 *
 * An organisation whose service (or the HSM) does not answer is probed with
 * one lease at a time; `lock` guards only stop and poke.
 */
#ifndef HSMINT_CORE_SWEEP_H
#define HSMINT_CORE_SWEEP_H

#include "common/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct core;

struct sweep_org { /* how an organisation's service does; sweeper's thread */
    int64_t org;
    int64_t fails;         /* in a row */
    int64_t not_before_ms; /* monotonic */
    bool recovered;        /* its waiting leases are due now */
};

struct sweep {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t poke;
    bool started, stop, poked;
    struct sweep_org *orgs;
    int n_orgs;
    int64_t pruned_ms; /* monotonic */
    atomic_int_fast64_t beat_ms; /* monotonic; its last step, 0: not started */
};
#define SWEEP_INIT                                                             \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .poke = PTHREAD_COND_INITIALIZER    \
    }
#define SWEEP_PERIOD_MS 1000

MUST_CHECK enum code sweep_start(struct core *c, struct error *e);
void sweep_stop(struct core *c);
/* Something may be due. */
void sweep_wake(struct core *c);
/* A step was made. Each has an end: one call, one transaction. */
void sweep_beat(struct core *c);
/* How long ago, in ms. */
int64_t sweep_silent_ms(struct core *c);
/* One pass. true: something was done, look again. The sweeper's thread calls
 * it; tests too, with no thread started. */
bool sweep_pass(struct core *c);

#endif
