/* watch - the thread that looks at what no call would tell: the HSM, the
 * keeper, the disk, the store, the clock; it raises and drops their alarms.
 *
 * What the HSM said last is kept, so that a status never waits for an HSM that
 * hangs. It also brings a keeper that was started again to log in.
 */
#ifndef HSMINT_CORE_WATCH_H
#define HSMINT_CORE_WATCH_H

#include "common/error.h"
#include "common/json.h"
#include "module/core/jump.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct core;

struct watch {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below but `jump` */
    pthread_cond_t changed;
    bool started, stop;
    uint64_t asked, done; /* looks */
    int64_t began_ms;            /* monotonic; of a look under way, else 0 */
    json_t *hsm;                 /* what the last look saw; never changed */
    int64_t hsm_ms;              /* monotonic; when it was seen */
    int64_t took_us;
    struct jump jump;            /* the thread's own */
};
#define WATCH_INIT                                                             \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }
#define WATCH_PERIOD_MS 5000  /* while all is well */
#define WATCH_TROUBLE_MS 1000 /* while an alarm is up */

MUST_CHECK enum code watch_start(struct core *c, struct error *e);
void watch_stop(struct core *c);
/* Look soon: something went wrong. */
void watch_poke(struct core *c);
/* The HSM as the keeper described it: a look that begins now, or after
 * `wait_ms` the last one. age_ms: how old that is; took_us: how long it took;
 * unanswered_ms: for how long the HSM has not answered the look under way. state "unknown": never seen.
 * NULL: no memory. */
json_t *watch_hsm(struct core *c, int wait_ms);

#endif
