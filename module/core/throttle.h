/* throttle - wrong secret ids cost the peer that brings them time, and nobody
 * else. spec/POLICY.md, "Named logins".
 *
 * A peer is a uid; where nothing vouches for the uid, also its control group.
 * Nothing waits here: who comes too early is told when to come again. The
 * table is bounded; when it is full, whoever failed least and longest ago is
 * forgotten. One lock, held for a few lines.
 */
#ifndef HSMINT_CORE_THROTTLE_H
#define HSMINT_CORE_THROTTLE_H

#include "common/error.h"
#include "module/core/identity.h"

#include <pthread.h>

#define THROTTLE_PEERS 1024
#define THROTTLE_DELAY_MIN_MS 100
#define THROTTLE_DELAY_MAX_MS 5000
#define THROTTLE_TRIES 10 /* then none for THROTTLE_LOCK_MS */
#define THROTTLE_LOCK_MS (5 * 60 * 1000)
#define THROTTLE_AT_ONCE 16 /* of a peer that has not failed */

struct throttle_peer {
    uid_t uid;
    uint64_t place;
    int failures, busy; /* both 0: free */
    int64_t failed_ms, not_before_ms; /* monotonic */
};
struct throttle {
    pthread_mutex_t lock;
    struct throttle_peer peers[THROTTLE_PEERS];
};

enum throttle_outcome { THROTTLE_RIGHT, THROTTLE_WRONG, THROTTLE_NEITHER };

/* ERR_PIN_HELD with retry_after_ms. OK has to be followed by a leave. */
MUST_CHECK enum code throttle_enter(struct throttle *t,
                                    const struct identity *id,
                                    struct error *e);
/* Returns how many were wrong in a row. NEITHER: it was not looked at. */
int throttle_leave(struct throttle *t, const struct identity *id,
                   enum throttle_outcome outcome);

#endif
