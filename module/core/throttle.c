#include "config.h"

#include "module/core/throttle.h"

#include "common/clock.h"

static uint64_t place_of(const struct identity *id)
{
    return id->borrowed ? id->place | 1 : 0;
}

static bool is_free(const struct throttle_peer *p)
{
    return p->failures == 0 && p->busy == 0;
}

/* Fewer failures, or as many and longer ago; free ones before all. */
static bool goes_before(const struct throttle_peer *a,
                        const struct throttle_peer *b)
{
    if (a->failures != b->failures)
        return a->failures < b->failures;
    return a->failed_ms < b->failed_ms;
}

/* The peer's own place, else one to be had for it; NULL: all are in use. */
static struct throttle_peer *find(struct throttle *t, const struct identity *id)
{
    struct throttle_peer *spare = NULL;
    for (size_t i = 0; i < THROTTLE_PEERS; i++) {
        struct throttle_peer *p = &t->peers[i];
        if (!is_free(p) && p->uid == id->uid && p->place == place_of(id))
            return p;
        if (p->busy == 0 && (!spare || goes_before(p, spare)))
            spare = p;
    }
    if (spare)
        *spare = (struct throttle_peer){.uid = id->uid, .place = place_of(id)};
    return spare;
}

static int64_t wait_of(struct throttle_peer *p, int64_t now)
{
    if (p->failures && now - p->failed_ms >= THROTTLE_LOCK_MS)
        p->failures = 0;
    if (p->failures && now < p->not_before_ms)
        return p->not_before_ms - now;
    bool many = p->busy >= (p->failures ? 1 : THROTTLE_AT_ONCE);
    return many ? THROTTLE_DELAY_MIN_MS : 0;
}

enum code throttle_enter(struct throttle *t, const struct identity *id,
                         struct error *e)
{
    int64_t now = clock_monotonic_ms();
    int failures = 0;
    pthread_mutex_lock(&t->lock);
    struct throttle_peer *p = find(t, id);
    int64_t wait = p ? wait_of(p, now) : THROTTLE_DELAY_MIN_MS;
    if (p)
        failures = p->failures;
    if (wait == 0)
        p->busy++;
    pthread_mutex_unlock(&t->lock);
    if (wait == 0)
        return OK;
    enum code rc =
        failures ? error_set(e, ERR_PIN_HELD,
                             "not looked at: uid %lu brought %d wrong secret "
                             "ids in a row; try again in %lld ms",
                             (unsigned long)id->uid, failures, (long long)wait)
                 : error_set(e, ERR_PIN_HELD,
                             "not looked at: too many logins at once; try "
                             "again in %lld ms",
                             (long long)wait);
    if (e)
        e->retry_after_ms = (uint32_t)wait;
    return rc;
}

static int64_t delay_after(int failures)
{
    if (failures >= THROTTLE_TRIES)
        return THROTTLE_LOCK_MS;
    int64_t delay = THROTTLE_DELAY_MIN_MS;
    while (--failures > 0 && delay < THROTTLE_DELAY_MAX_MS)
        delay *= 2;
    return delay < THROTTLE_DELAY_MAX_MS ? delay : THROTTLE_DELAY_MAX_MS;
}

int throttle_leave(struct throttle *t, const struct identity *id,
                   enum throttle_outcome outcome)
{
    int64_t now = clock_monotonic_ms();
    pthread_mutex_lock(&t->lock);
    struct throttle_peer *p = find(t, id); /* busy, so it is there */
    p->busy--;
    if (outcome == THROTTLE_RIGHT)
        p->failures = 0;
    if (outcome == THROTTLE_WRONG) {
        p->failures++;
        p->failed_ms = now;
        p->not_before_ms = now + delay_after(p->failures);
    }
    int failures = p->failures;
    pthread_mutex_unlock(&t->lock);
    return failures;
}
