#include "config.h"

#include "hsm/pool.h"

#include "common/clock.h"

#include <errno.h>
#include <time.h>

enum code pool_init(struct pool *p, int limit, int64_t deadline_ms,
                    struct error *e)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&p->changed, &attr) != 0)
        return error_set(e, ERR_NOMEM, "HSM: no session pool");
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&p->lock, NULL);
    p->limit = limit < 1 ? 1 : limit > POOL_MAX ? POOL_MAX : limit;
    p->deadline_ms = deadline_ms;
    for (int i = 0; i < POOL_MAX; i++)
        p->sessions[i].pool = p;
    return OK;
}

void pool_clear(struct pool *p)
{
    (void)pthread_cond_destroy(&p->changed);
    (void)pthread_mutex_destroy(&p->lock);
}

enum code session_check(struct session *s, CK_RV rv, const char *function,
                        const char *object, struct error *e)
{
    if (rv == CKR_OK)
        return OK;
    switch (ckr_lookup(rv)->effect) {
    case CKR_HSM_GONE:
        atomic_store(&s->pool->gone, true);
        break;
    case CKR_SESSION_BROKEN:
        s->broken = true;
        break;
    case CKR_NO_EFFECT:
        break;
    }
    return ckr_check(rv, function, object, e);
}

/* Read-write: PKCS#11 asks for it to make keys and data objects. */
static CK_RV open_handle(struct pool *p, CK_SESSION_HANDLE *handle)
{
    return p->f->C_OpenSession(p->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION,
                               NULL, NULL, handle);
}

static void settle(struct session *s, CK_RV rv, CK_SESSION_HANDLE handle)
{
    (void)pthread_mutex_lock(&s->pool->lock);
    s->handle = handle;
    s->open = rv == CKR_OK;
    s->broken = false;
    (void)pthread_mutex_unlock(&s->pool->lock);
}

static CK_RV try_open(struct session *s)
{
    CK_SESSION_HANDLE handle = 0;
    CK_RV rv = open_handle(s->pool, &handle);
    settle(s, rv, handle);
    return rv;
}

enum code session_open(struct session *s, struct error *e)
{
    return session_check(s, try_open(s), "C_OpenSession", "the token", e);
}

/* The new one is opened first: closing the last session logs the user out. */
static void session_replace(struct session *s)
{
    struct pool *p = s->pool;
    CK_SESSION_HANDLE old = s->handle, fresh = 0;
    CK_RV rv = open_handle(p, &fresh);
    (void)p->f->C_CloseSession(old);
    settle(s, rv, fresh);
}

static struct session *pick(struct pool *p)
{
    struct session *closed = NULL;
    for (int i = 0; i < POOL_MAX; i++) {
        struct session *s = &p->sessions[i];
        if (s->busy)
            continue;
        if (s->open)
            return s;
        if (!closed)
            closed = s;
    }
    return closed;
}

static int count_open(const struct pool *p)
{
    int n = 0;
    for (int i = 0; i < POOL_MAX; i++)
        n += p->sessions[i].open;
    return n;
}

static bool may_enter(const struct pool *p, bool exclusive)
{
    if (exclusive)
        return !p->exclusive && p->busy == 0;
    return !p->exclusive && p->waiting == 0 && p->busy < p->limit;
}

static bool wait_turn(struct pool *p, bool exclusive)
{
    struct timespec until = clock_in_ms(p->deadline_ms);
    p->waiting += exclusive;
    int rc = 0;
    while (!may_enter(p, exclusive) && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&p->changed, &p->lock, &until);
    p->waiting -= exclusive;
    return may_enter(p, exclusive);
}

static struct session *enter(struct pool *p, bool exclusive)
{
    struct session *s = NULL;
    (void)pthread_mutex_lock(&p->lock);
    if (may_enter(p, exclusive) || wait_turn(p, exclusive)) {
        s = pick(p);
        s->busy = true;
        p->busy++;
        p->exclusive = exclusive;
    } else {
        (void)pthread_cond_broadcast(&p->changed); /* we wait no longer */
    }
    (void)pthread_mutex_unlock(&p->lock);
    return s;
}

static void leave(struct pool *p, struct session *s)
{
    (void)pthread_mutex_lock(&p->lock);
    bool many = p->exclusive || p->waiting > 0; /* who may go on now? */
    s->busy = false;
    p->busy--;
    p->exclusive = false;
    if (many)
        (void)pthread_cond_broadcast(&p->changed);
    else
        (void)pthread_cond_signal(&p->changed);
    (void)pthread_mutex_unlock(&p->lock);
}

/* An HSM that gives fewer sessions than were asked for: go on with those. */
static bool settle_for_fewer(struct pool *p)
{
    (void)pthread_mutex_lock(&p->lock);
    int open = count_open(p);
    if (open > 0 && open < p->limit)
        p->limit = open;
    (void)pthread_mutex_unlock(&p->lock);
    return open > 0;
}

enum code pool_take(struct pool *p, bool exclusive, struct session **out,
                    struct error *e)
{
    for (;;) {
        struct session *s = enter(p, exclusive);
        if (!s)
            return error_set(e, ERR_DEADLINE,
                             "HSM: no session came free within %lld ms "
                             "([hsm] sessions, deadline)",
                             (long long)p->deadline_ms);
        if (s->open || !p->f || atomic_load(&p->gone)) {
            *out = s;
            return OK;
        }
        CK_RV rv = try_open(s);
        if (rv == CKR_OK) {
            *out = s;
            return OK;
        }
        enum code rc = session_check(s, rv, "C_OpenSession", "the token", e);
        leave(p, s);
        if (rv != CKR_SESSION_COUNT || !settle_for_fewer(p))
            return rc;
    }
}

void pool_give(struct pool *p, struct session *s)
{
    if (s->broken && s->open && !atomic_load(&p->gone))
        session_replace(s);
    leave(p, s);
}

void pool_up(struct pool *p, CK_FUNCTION_LIST *f, CK_SLOT_ID slot)
{
    p->f = f;
    p->slot = slot;
    atomic_store(&p->gone, false);
}

void pool_down(struct pool *p)
{
    (void)pthread_mutex_lock(&p->lock);
    for (int i = 0; i < POOL_MAX; i++) {
        p->sessions[i].open = false;
        p->sessions[i].broken = false;
    }
    (void)pthread_mutex_unlock(&p->lock);
    p->f = NULL;
}

void pool_count(struct pool *p, int *open, int *busy, int *limit)
{
    (void)pthread_mutex_lock(&p->lock);
    *open = count_open(p);
    *busy = p->busy;
    *limit = p->limit;
    (void)pthread_mutex_unlock(&p->lock);
}
