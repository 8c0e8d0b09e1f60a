/* look - how the HSM was when it was last looked at.
 *
 * A thread of its own asks the keeper, so that an HSM that hangs holds up
 * nobody who only wants to know. It is started by the first who asks, and
 * sleeps while nobody does.
 */
#ifndef HSMINT_CORE_LOOK_H
#define HSMINT_CORE_LOOK_H

#include "common/json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct core;

struct look {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    pthread_t thread;
    bool started, stop, wanted;
    json_t *told;    /* the keeper's description; NULL: none, it is absent */
    int64_t at_ms;   /* monotonic; 0: never looked */
    int64_t took_us;
};

void look_init(struct look *l);
/* Ends the thread: waits for a look that is under way (hsm deadline). */
void look_stop(struct look *l);
void look_clear(struct look *l);

struct look_seen {
    json_t *told; /* the caller's, not to be changed; NULL: absent */
    int64_t age_ms; /* -1: never looked yet */
    int64_t took_us;
};
/* What was seen at most max_age_ms ago; else looks anew, but waits for that no
 * longer than patience_ms and then tells what was seen before. */
void look_at_hsm(struct core *c, int64_t max_age_ms, int64_t patience_ms,
                 struct look_seen *out);

#endif
