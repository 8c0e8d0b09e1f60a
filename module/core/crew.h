/* crew - the threads that do what is due, several at a time: a queue for each
 * lane, and the pace (pace.h) that says whose turn it is.
 *
 * Callers go first: while they have calls under way the crew has at most as
 * many, and always one. Where a service does not answer, one thread looks every
 * REACH_MS whether it does again, without a key and without a record (the
 * keeper's verb `reach`), so that the calls themselves, which are recorded, can
 * become ever rarer.
 *
 * `lock` guards all but the atomics; it is not held while work is done.
 */
#ifndef HSMINT_CORE_CREW_H
#define HSMINT_CORE_CREW_H

#include "common/text.h"
#include "module/core/pace.h"

#include <pthread.h>
#include <stdatomic.h>

struct core;

#define CREW_MAX 64
#define CREW_QUEUE 32 /* leases of a lane that are known to be due */
#define CREW_REACH_MS 1000

struct crew_item {
    char lease[TEXT_ID_LEN + 1]; /* "": free */
    uint64_t order;
    bool busy;
};

/* One a lane, by its number in the pace. */
struct crew_lane {
    struct crew_item items[CREW_QUEUE];
    bool again; /* well after failures: what waits is due at once */
};

enum crew_reach { REACH_UNKNOWN, REACH_NO, REACH_YES };
/* One an organisation, by its number in the pace. */
struct crew_org {
    enum crew_reach reach; /* since the last failure */
    bool reaching;
    int64_t reach_ms; /* when to look again, monotonic */
    int refused;      /* 429s in a row */
};

struct crew {
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool stop;
    struct pace pace;
    struct crew_lane *lanes; /* as many as pace.n_lanes */
    int n_lanes;
    struct crew_org *orgs;
    int n_orgs;
    uint64_t orders;
    int n_members;
    struct crew_member {
        struct core *core;
        pthread_t thread;
        atomic_int_fast64_t began_ms; /* monotonic; 0: idle */
    } members[CREW_MAX];
    atomic_int callers;
    atomic_int_fast64_t caller_ms; /* monotonic; when the last one's call ended */
};
#define CREW_INIT                                                              \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER    \
    }

MUST_CHECK enum code crew_start(struct core *c, struct error *e);
/* What is under way ends first. */
void crew_stop(struct core *c);
/* How many more leases of this lane may be queued; 0 too while it is held by
 * failures. *again: those that failed are to be made due first. */
int crew_room(struct core *c, int64_t org, const char *project, bool *again);
/* Queued, unless it is already. */
void crew_add(struct core *c, int64_t org, const char *project,
              const char *lease);
bool crew_fails(struct core *c); /* any organisation */
/* How long the longest step has taken; 0: none is under way. */
int64_t crew_busy_ms(struct core *c);

/* The gate's: a caller's call is under way, or has ended; what a reply told. */
void crew_caller(struct core *c, bool begins);
void crew_hear(struct core *c, const char *org, const struct pace_told *told);

#endif
