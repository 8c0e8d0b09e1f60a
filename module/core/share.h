/* share - how many calls to the service one identity may have under way.
 *
 * A call holds one of the keeper's channels until the service has answered, or
 * has not within call_timeout. So that one identity's calls cannot hold them
 * all, each may begin another while it has fewer under way than are free:
 * alone it gets half of them, the next one half of the rest. One channel is
 * left to the daemon's own calls, which revoke on time. An identity here is a
 * uid: named logins are as many as one likes.
 *
 * Thread-safe.
 */
#ifndef HSMINT_CORE_SHARE_H
#define HSMINT_CORE_SHARE_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#define SHARE_MAX 64

struct shares {
    int places; /* 0: there is no limit */
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t left;
    int used;
    struct share_entry {
        uid_t uid;
        int n; /* 0: free */
    } entries[SHARE_MAX];
};

/* A call that may be under way; `shares` NULL holds nothing. */
struct share_hold {
    struct shares *shares;
    struct share_entry *entry;
};
void share_leave(struct share_hold *h);
#define SHARE CLEANUP(share_leave) struct share_hold

/* places: at most SHARE_MAX; 0: share_enter() holds nothing. */
void shares_init(struct shares *s, int places);
void shares_clear(struct shares *s);
/* Waits until this uid may have another. ERR_LIMIT when wait_ms are over. */
MUST_CHECK enum code share_enter(struct shares *s, uid_t uid, int wait_ms,
                                 struct share_hold *h, struct error *e);

#endif
