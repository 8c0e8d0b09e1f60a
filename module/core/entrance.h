/* entrance - the ways in: what a caller presents becomes a named login.
 *
 * A table of kinds, each with its verifier; around all of them the throttle,
 * the use on disk, and the records. Another kind (tokens of a cluster, of an
 * identity provider) is another row.
 */
#ifndef HSMINT_CORE_ENTRANCE_H
#define HSMINT_CORE_ENTRANCE_H

#include "module/core/login.h"
#include "module/core/logins.h"
#include "module/core/throttle.h"

#include <pthread.h>

#define LOGIN_KIND "login" /* of documents */

struct proof { /* what was presented, looked at */
    char name[IDENTITY_LOGIN_MAX];
    char hmac[LOGIN_HMAC_HEX + 1];
};

struct entrances {
    pthread_mutex_t lock; /* guards the counts */
    int64_t minute_ms;    /* monotonic: since when they count */
    int recorded;
    int64_t omitted;
    struct throttle throttle; /* guards itself */
};
#define ENTRANCES_INIT                                                         \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER,                                     \
        .throttle.lock = PTHREAD_MUTEX_INITIALIZER                             \
    }

/* The one answer to a wrong secret and to an unknown name. */
enum code entrance_refuse(struct error *e);

/* Records a login that failed, by what way and, where one was said, as whom;
 * so many a minute, of all. in_a_row 0: nobody counts. */
void entrance_failed(struct core *c, const struct caller *by, const char *kind,
                     const char *name, const char *reason, int in_a_row);
/* Count the use and record it: *out when it is on disk. logins.c */
MUST_CHECK enum code logins_use(struct core *c, const struct caller *by,
                                const char *kind, const struct proof *p,
                                bool hold, struct core_login *out,
                                struct error *e);

#endif
