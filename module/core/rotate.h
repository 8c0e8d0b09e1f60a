/* rotate - a new admin key takes the place of the old one, inside the
 * boundary: the daemon sees sealed keys and ids, never a key.
 *
 * On command: makes, proves and takes the new key, then returns; a thread
 * deletes the old one once calls in flight have ended, and sees it refused. It
 * also goes on, after whatever end the daemon had, where rotation.h's document
 * says, and begins one when schedule.h says that it is due. The last key that
 * works is never given up, and no key of ours but the current one is left in the
 * end.
 */
#ifndef HSMINT_CORE_ROTATE_H
#define HSMINT_CORE_ROTATE_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>

#include <stdint.h>
#include <stddef.h>

struct core;
struct caller;

/* What the thread knows of an organisation whose key is due. */
struct rotate_org {
    char name[64];
    int tries;              /* in vain, since the last success */
    int64_t not_before_ms;  /* by steady.h */
    struct error error;     /* of the last try */
    bool due;               /* now, for this cause */
    char cause[16];
    bool left; /* a key that should be gone is not */
    uint64_t looked_at; /* the keeper that was asked which key it has */
};

struct rotate {
    pthread_t thread;
    struct rotate_org *orgs; /* the thread's own */
    size_t n_orgs;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool started, stop, poked;
};
#define ROTATE_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

MUST_CHECK enum code rotate_start(struct core *c, struct error *e);
void rotate_stop(struct core *c);
void rotate_poke(struct core *c); /* something may be due */
/* For whom holds the organisation's "config" in core's inflight table: a new
 * key is in use when it returns OK. */
MUST_CHECK enum code rotate_held(struct core *c, const struct caller *by,
                                 const char *org, const char *cause,
                                 struct error *e);

#endif
