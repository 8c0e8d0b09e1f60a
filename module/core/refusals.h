/* refusals - each is recorded with its reason; one who is refused again and
 * again fills no store: some a second and an hour of one owner, and some a second
 * of all, are written, and the next record of that owner counts those that were
 * left out.
 * Thread-safe. */
#ifndef HSMINT_CORE_REFUSALS_H
#define HSMINT_CORE_REFUSALS_H

#include "module/core/identity.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    REFUSALS_OWNERS = 256,     /* remembered; one that is pushed out is summed */
    REFUSALS_OF_ONE = 4,       /* records a second of one owner */
    REFUSALS_OF_ALL = 32,      /* and of all */
    REFUSALS_HOURLY = 1000,    /* an hour, of one owner */
    REFUSALS_HOURLY_ALL = 4000 /* and of all */
};

struct refusals_owner {
    char owner[IDENTITY_OWNER_MAX];
    int64_t second, hour; /* monotonic */
    int written, in_hour;
    int64_t left_out;
};
struct refusals {
    pthread_mutex_t lock;
    struct refusals_owner owners[REFUSALS_OWNERS];
    struct refusals_owner all;
};
#define REFUSALS_INIT                                                          \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* true: write it, with what was left out of this owner, and of owners that
 * are no longer remembered. */
bool refusals_take(struct refusals *r, const char *owner, int64_t now_ms,
                   int64_t *left_out, int64_t *left_out_others);
/* It could not be written. */
void refusals_give_back(struct refusals *r, const char *owner, int64_t n,
                        int64_t others);
/* All that was left out; none is after. */
int64_t refusals_rest(struct refusals *r);

#endif
