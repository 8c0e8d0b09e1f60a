/* pool - the HSM's sessions, few and kept open.
 *
 * Every use of the PKCS#11 module holds a session of this pool. `shared` uses
 * go on side by side, one a session; an `exclusive` use (initialise, log in,
 * make keys) waits until all others have ended and keeps new ones out. So
 * whatever only exclusive uses change may be read by shared ones without a
 * lock, and C_Finalize never races another call. No mutex is held across a
 * call to the HSM.
 */
#ifndef HSMINT_POOL_H
#define HSMINT_POOL_H

#include "hsm/ckr.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define POOL_MAX 64

struct pool;

struct session {
    struct pool *pool;
    CK_SESSION_HANDLE handle;
    bool open;
    bool busy;
    bool broken; /* replaced when it is given back */
};

struct pool {
    pthread_mutex_t lock; /* guards limit, busy, waiting, exclusive and the
                             sessions' busy and open */
    pthread_cond_t changed;
    struct session sessions[POOL_MAX];
    int limit; /* falls when the HSM gives fewer than were asked for */
    int busy;
    int waiting; /* for exclusive use */
    bool exclusive;
    int64_t deadline_ms;
    atomic_bool gone; /* a call said so: initialise anew */
    /* Written in exclusive use only: */
    CK_FUNCTION_LIST *f; /* NULL: not initialised */
    CK_SLOT_ID slot;
};

MUST_CHECK enum code pool_init(struct pool *p, int limit, int64_t deadline_ms,
                               struct error *e);
void pool_clear(struct pool *p); /* no session is open or in use any more */

/* ERR_DEADLINE when none came free. While the HSM is not initialised, the
 * session is not open. */
MUST_CHECK enum code pool_take(struct pool *p, bool exclusive,
                               struct session **s, struct error *e);
void pool_give(struct pool *p, struct session *s);

/* In exclusive use. up: sessions may be opened on f and slot. down: all
 * sessions are forgotten (C_Finalize closes them). */
void pool_up(struct pool *p, CK_FUNCTION_LIST *f, CK_SLOT_ID slot);
void pool_down(struct pool *p);
MUST_CHECK enum code session_open(struct session *s, struct error *e);

void pool_count(struct pool *p, int *open, int *busy, int *limit);

/* The one way from a C_* call to an error: marks session or HSM too. */
MUST_CHECK enum code session_check(struct session *s, CK_RV rv,
                                   const char *function, const char *object,
                                   struct error *e);
/* HSM_CALL(s, e, "key hsmint-log-1", C_SignInit, &mechanism, key) */
#define HSM_CALL(s, e, object, function, ...)                                  \
    session_check((s), (s)->pool->f->function((s)->handle, ##__VA_ARGS__),     \
                  #function, (object), (e))

#endif
