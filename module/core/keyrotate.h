/* keyrotate - another generation of the HSM's keys, made in the HSM:
 * keyrotation.h has the steps. On command; what an end of the daemon or of the
 * keeper cuts off, and what takes long, goes on from the thread of rotate.h. One
 * that cannot go on is told (ALARM_HSM_ROTATION), and let go on command.
 */
#ifndef HSMINT_CORE_KEYROTATE_H
#define HSMINT_CORE_KEYROTATE_H

#include "module/core/reseal.h"

#include <pthread.h>

struct core;
struct caller;
struct keystep;

struct keyrotate {
    /* Of whoever holds KEYSTEP_HOLD: */
    struct reseal_walk walk;
    bool looked;           /* for what an old key sealed, since the start */
    int tries;             /* in vain, since the last success */
    int64_t not_before_ms; /* monotonic: when the thread tries again */
    pthread_mutex_t lock;  /* guards all below */
    struct reseal_walk shown; /* the walk, for status */
    struct error why;         /* of the last try, where it failed */
};
#define KEYROTATE_INIT                                                         \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* Takes the next steps of a rotation that is under way, where the HSM is ready;
 * looks once after each start for what an old key sealed. true: there is more
 * to do at once. */
bool keyrotate_go_on(struct core *c);
/* Begins one and takes it as far as a command waits for it; why: keyrotation.h.
 * *out: core_rotate_hsm's. `by` NULL: nobody asks. ERR_EXISTS: one is under way.
 */
MUST_CHECK enum code keyrotate_run(struct core *c, const struct caller *by,
                                   const char *which, const char *cause,
                                   json_t **out, struct error *e);
/* The same for who holds KEYSTEP_HOLD and has `s`: keystep.h. */
MUST_CHECK enum code keyrotate_begin(struct keystep *s, const char *which,
                                     const char *cause, struct error *e);
/* Takes the next steps of the one in `s`, as far as a command waits for it. */
MUST_CHECK enum code keyrotate_finish(struct keystep *s, struct error *e);
/* For status: how far the walk is, and why the last try failed (NULL: it did
 * not). */
void keyrotate_show(struct core *c, const struct error *why);
/* {key, state, since_ms, error, and while keys are sealed anew: of, looked_at,
 * sealed_anew, left}; NULL: none is under way. */
json_t *keyrotate_json(struct core *c);
#endif
