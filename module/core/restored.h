/* restored - is this state a copy, a backup, or made anew for keys of before?
 *
 * Then the service may hold what this store never knew of, minted by a daemon
 * that may still run on the original. Until an administrator decides
 * (`hsmint reconcile --adopt` or `--revoke`) nothing is deleted but what this
 * state's own leases say at their end.
 *
 * How it is told: `hsmint restore` and `hsmint init --recover` write a mark
 * into the store; so does a start with a database in another place (the file's
 * inode) or on another machine (/etc/machine-id) than the one that wrote last;
 * and so does the log's anchor on the HSM (core/notary.h).
 */
#ifndef HSMINT_CORE_RESTORED_H
#define HSMINT_CORE_RESTORED_H

#include "common/error.h"
#include "module/store/store.h"

#include <pthread.h>
#include <stdbool.h>

struct core;

struct restored {
    pthread_mutex_t lock; /* guards the text */
    int64_t since_ms;     /* wall; 0: not marked */
    int64_t since_steady_ms; /* the same, as a time of leases */
    char reason[64];
};
#define RESTORED_INIT                                                          \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* At the start, before anything is sent: reads the mark, and looks whether the
 * file was moved. */
MUST_CHECK enum code restored_open(struct core *c, struct error *e);
/* *why: the text for whom it is refused. Asks the log, too. */
bool restored_is(struct core *c, struct error *why);
/* This lease may be another daemon's, too: it was minted before the mark. What
 * ends it is held until it is decided, unless it is the clock. Those pending
 * are held by the mark itself: they are due in years. */
bool restored_holds(struct core *c, const struct store_lease *l);
MUST_CHECK enum code restored_mark(struct core *c, const char *reason,
                                   struct error *e);
/* An administrator decided, and all was gone through. */
MUST_CHECK enum code restored_settle(struct core *c, const char *by,
                                     struct error *e);

#endif
