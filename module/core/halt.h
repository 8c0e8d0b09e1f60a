/* halt - no new leases, of one organisation or of all, while those that there
 * are end. In memory: what needs it after a restart asks for it again.
 * Thread-safe.
 */
#ifndef HSMINT_CORE_HALT_H
#define HSMINT_CORE_HALT_H

#include "common/error.h"

#include <pthread.h>
#include <stdint.h>

#define HALT_ALL 0 /* ids of organisations are positive */
#define HALT_MAX 16

struct halt {
    pthread_mutex_t lock;
    struct {
        int64_t org;
        const char *why; /* static */
    } items[HALT_MAX];
    int n;
};
#define HALT_INIT                                                              \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* Twice needs halt_end() twice. `why` ("revoke-all is under way") is static.
 * A lease is inserted only after halt_check() in its transaction: one that is
 * not in the store when the next transaction begins never will be. */
MUST_CHECK enum code halt_begin(struct halt *h, int64_t org, const char *why,
                                struct error *e);
void halt_end(struct halt *h, int64_t org);
/* Another `why` for all of this organisation. */
void halt_say(struct halt *h, int64_t org, const char *why);
/* ERR_LIMIT while there is one. */
MUST_CHECK enum code halt_check(struct halt *h, int64_t org, struct error *e);

#endif
