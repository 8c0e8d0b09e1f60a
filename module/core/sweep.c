/* sweep - see sweep.h. */
#include "config.h"

#include "module/core/sweep.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/held.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/lease_record.h"
#include "module/core/search.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BATCH = 64,
    IDLE_WAIT_MS = 100,     /* after a pass that could do nothing */
    PROBE_MAX_MS = 1500,    /* between probes of a service that is down */
    LATE_MS = 2000,         /* alive so long past its end: an alarm */
    HORIZON_MS = 40000,     /* beyond any back-off of a lease */
    ENDED_KEPT_MS = 300000, /* longer than any call */
    PRUNE_EVERY_MS = 600000,
    PRUNE_LIMIT = 1000
};
#define KEEP_REVOKED_MS (INT64_C(30) * 86400 * 1000)
#define KEEP_JOURNAL_MS (INT64_C(86400) * 1000)

/* ---- how organisations do ---- */

static struct sweep_org *org_state(struct sweep *s, int64_t org)
{
    struct sweep_org *more;

    for (int i = 0; i < s->n_orgs; i++) {
        if (s->orgs[i].org == org)
            return &s->orgs[i];
    }
    more = reallocarray(s->orgs, (size_t)s->n_orgs + 1, sizeof(*more));
    if (!more)
        return NULL;
    s->orgs = more;
    more[s->n_orgs] = (struct sweep_org){.org = org};
    return &more[s->n_orgs++];
}

static bool is_blocked(struct sweep *s, int64_t org)
{
    const struct sweep_org *o = org_state(s, org);

    return !o || clock_monotonic_ms() < o->not_before_ms;
}

static void org_failed(struct core *c, int64_t org, const struct error *why)
{
    struct sweep_org *o = org_state(&c->sweep, org);
    int64_t wait;
    char name[64];

    if (!o)
        return;
    wait = lease_backoff_ms(o->fails, 0);
    if (wait > PROBE_MAX_MS)
        wait = PROBE_MAX_MS;
    if (wait < why->retry_after_ms)
        wait = why->retry_after_ms;
    o->fails++;
    o->not_before_ms = clock_monotonic_ms() + wait;
    metrics_failing(&c->metrics, org, true);
    core_org_name(c, org, name);
    warnings_raise(&c->warnings, ALARM_REVOCATION_WAITS, name,
                   "revocations do not get through: %s", why->text);
}

static void org_answered(struct core *c, int64_t org)
{
    struct sweep_org *o = org_state(&c->sweep, org);
    char name[64];

    if (!o || o->fails == 0)
        return;
    o->fails = 0;
    o->not_before_ms = 0;
    o->recovered = true;
    metrics_failing(&c->metrics, org, false);
    core_org_name(c, org, name);
    warnings_drop(&c->warnings, ALARM_REVOCATION_WAITS, name);
}

static bool any_failing(const struct sweep *s)
{
    for (int i = 0; i < s->n_orgs; i++) {
        if (s->orgs[i].fails > 0)
            return true;
    }
    return false;
}

static bool any_recovered(const struct sweep *s)
{
    for (int i = 0; i < s->n_orgs; i++) {
        if (s->orgs[i].recovered)
            return true;
    }
    return false;
}

/* ---- sessions and applications that ended ---- */

struct mark {
    struct core *core;
    struct store_lease *leases;
    size_t n;
};

static void mark_clear(struct mark *m)
{
    for (size_t i = 0; i < m->n; i++)
        store_lease_clear(&m->leases[i]);
    free(m->leases);
}

static enum code collect_bound(const struct store_lease *l, void *ctx,
                               struct error *e)
{
    struct mark *m = ctx;
    struct store_lease *more;

    if (l->state >= LEASE_REVOKING)
        return OK;
    more = reallocarray(m->leases, m->n + 1, sizeof(*more));
    if (!more)
        return error_set(e, ERR_NOMEM, "no memory to end a session");
    m->leases = more;
    memset(&more[m->n], 0, sizeof(*more));
    return lease_copy(&more[m->n++], l, e);
}

/* One transaction for all. A lease that changed meanwhile is found by the next
 * round. */
static enum code mark_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct mark *m = ctx;

    for (size_t i = 0; i < m->n; i++) {
        struct store_lease *l = &m->leases[i];
        enum lease_state was = l->state;
        enum code code = lease_apply(m->core, l, LEASE_END, 0, NULL, e);

        const struct lease_record moved = {.lease = l, .was = was};

        if (!code)
            code = store_lease_update(tx, l, was, e);
        if (!code)
            code = lease_record(m->core, tx, &moved, e);
        l->state = was;
        if (code && code != ERR_EXISTS)
            return code;
    }
    return OK;
}

static enum code mark_ended(struct core *c, const char *application,
                            int64_t session, size_t *n, struct error *e)
{
    struct store_lease_query q = {
        .application = application, .session = session, .live_only = true};
    CLEANUP(mark_clear) struct mark m = {.core = c};
    enum code code = store_lease_each(c->store, &q, collect_bound, &m, e);

    for (size_t i = 0; !code && i < m.n; i++)
        code = lease_text(&m.leases[i].reason, "session", e);
    *n = m.n;
    if (code || m.n == 0)
        return code;
    return store_commit(c->store, STORE_RESERVE, mark_rows, &m, e);
}

static void end_sessions(struct core *c)
{
    char *application;
    int64_t session;

    while (ended_next(&c->ended, &application, &session)) {
        struct error e = {0};
        size_t n = 0;
        enum code code = mark_ended(c, application, session, &n, &e);

        if (!code && n == 0 && session == 0)
            code = held_drop(c, application, &e);
        if (!code && n == 0) /* none is left */
            ended_mark(&c->ended, application, session);
        free(application);
        sweep_beat(c);
        if (code) {
            log_failure(&e, "a session's leases and login cannot be ended yet");
            return;
        }
    }
}

/* ---- due leases ---- */

struct task {
    struct store_lease lease;
    struct inflight_hold hold;
};

struct batch {
    struct core *core;
    struct task tasks[BATCH];
    int n;
    int64_t now_ms;
    int64_t late; /* leases alive past their end */
};

static void batch_clear(struct batch *b)
{
    for (int i = 0; i < b->n; i++) {
        store_lease_clear(&b->tasks[i].lease);
        inflight_leave(&b->tasks[i].hold);
    }
}

static bool is_due(struct batch *b, const struct store_lease *l)
{
    const struct sweep_org *o = org_state(&b->core->sweep, l->org);

    if (l->state == LEASE_ACTIVE)
        return l->expires_ms <= b->now_ms;
    if (l->next_try_ms <= b->now_ms)
        return true;
    return o && o->recovered && *l->last_error;
}

/* Full: the scan ends with ERR_LIMIT, which is no failure. */
static enum code collect(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    struct batch *b = ctx;
    struct task *t = &b->tasks[b->n];
    enum code code;

    if (b->n == BATCH)
        return ERR_LIMIT;
    if (l->state != LEASE_PENDING && l->expires_ms + LATE_MS < b->now_ms)
        b->late++;
    if (!is_due(b, l) || is_blocked(&b->core->sweep, l->org))
        return OK;
    *t = (struct task){0};
    if (!inflight_try(&b->core->inflight, "lease", l->id, &t->hold))
        return OK; /* a call is under way for it */
    code = lease_copy(&t->lease, l, e);
    b->n++;
    return code;
}

static bool needs_search(const struct store_lease *l)
{
    return l->state != LEASE_ACTIVE && !*l->account_id;
}

static bool is_stale(struct core *c, struct task *t)
{
    LEASE now = {0};

    return store_lease_get(c->store, t->lease.id, &now, NULL) != OK ||
           now.state != t->lease.state;
}

static enum code delete_counted(struct core *c, struct store_lease *l,
                                struct error *e)
{
    int64_t began = clock_monotonic_us();
    enum code code = lease_delete(
        c, l, l->state == LEASE_ACTIVE ? "expired" : "revoked", NULL, e);

    metrics_count(&c->metrics, METRICS_REVOCATIONS, l->org, l->role, "daemon",
                  error_name(code));
    if (!code)
        metrics_time(&c->metrics, METRICS_REVOKE_SECONDS,
                     clock_monotonic_us() - began);
    return code;
}

/* Only once no work of others can have come in between. */
static bool delete_one(struct core *c, struct task *t)
{
    struct error e = {0};
    int64_t org = t->lease.org;
    enum code code;

    sweep_beat(c);
    if (is_blocked(&c->sweep, org) || is_stale(c, t))
        return false;
    code = delete_counted(c, &t->lease, &e);
    if (code == ERR_EXISTS)
        return true;
    if (code) {
        log_failure(&e, "lease %s is not revoked yet", t->lease.id);
        org_failed(c, org, &e);
        return false;
    }
    org_answered(c, org);
    return true;
}

static bool search_group(struct batch *b, int first)
{
    struct store_lease *leases[BATCH];
    const struct store_lease *f = &b->tasks[first].lease;
    struct error e = {0};
    int64_t org = f->org;
    int n = 0;

    if (is_blocked(&b->core->sweep, org))
        return false;
    for (int i = first; i < b->n; i++) {
        struct store_lease *l = &b->tasks[i].lease;

        if (needs_search(l) && l->org == org &&
            strcmp(l->project, f->project) == 0 &&
            !is_stale(b->core, &b->tasks[i]))
            leases[n++] = l;
    }
    if (n == 0)
        return false;
    if (search_accounts(b->core, leases, n, &e) != OK) {
        log_failure(&e, "the accounts of %d pending leases cannot be searched",
                    n);
        org_failed(b->core, org, &e);
        return false;
    }
    org_answered(b->core, org);
    return true;
}

/* Leases that were found go at once; the others are closed or looked for
 * again, so that none needs a search in this batch any more. */
static bool search_all(struct batch *b)
{
    bool done = false;

    for (int i = 0; i < b->n; i++) {
        struct task *t = &b->tasks[i];

        if (needs_search(&t->lease) && t->lease.next_try_ms <= b->now_ms &&
            t->lease.state != LEASE_REVOKED)
            done = search_group(b, i) || done;
    }
    return done;
}

static void tell_late(struct core *c, const struct batch *b)
{
    if (b->late > 0)
        warnings_raise(&c->warnings, ALARM_REVOCATION_LATE, "leases",
                       "keys are alive past the end of their leases");
    else if (!any_failing(&c->sweep))
        warnings_drop(&c->warnings, ALARM_REVOCATION_LATE, "leases");
}

static enum code collect_lane(const struct store_lane *l, void *ctx,
                              struct error *e)
{
    struct batch *b = ctx;
    int64_t until = b->now_ms + (any_recovered(&b->core->sweep) ? HORIZON_MS : 0);

    if (l->kind == LANE_PROOF || l->due_ms > until)
        return OK;
    return store_lane_due(b->core->store, l, until, 0, collect, b, e);
}

static bool sweep_due(struct core *c)
{
    bool recovered = any_recovered(&c->sweep);
    CLEANUP(batch_clear)
    struct batch b = {.core = c, .now_ms = clock_wall_ms()};
    struct error e = {0};
    bool done;
    enum code code = store_lane_each(c->store, collect_lane, &b, &e);

    if (code && code != ERR_LIMIT) {
        log_failure(&e, "due leases cannot be listed");
        return false;
    }
    for (int i = 0; recovered && b.n < BATCH && i < c->sweep.n_orgs; i++)
        c->sweep.orgs[i].recovered = false;
    tell_late(c, &b);
    done = search_all(&b);
    for (int i = 0; i < b.n; i++) {
        struct store_lease *l = &b.tasks[i].lease;

        if (l->state != LEASE_REVOKED && *l->account_id)
            done = delete_one(c, &b.tasks[i]) || done;
    }
    return done;
}

/* ---- housekeeping ---- */

static enum code prune_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    int64_t now = *(int64_t *)ctx;
    enum code code =
        store_lease_prune(tx, now - KEEP_REVOKED_MS, PRUNE_LIMIT, e);

    return code ? code : store_journal_prune(tx, now - KEEP_JOURNAL_MS, e);
}

static void prune(struct core *c)
{
    int64_t mono = clock_monotonic_ms(), wall = clock_wall_ms();
    struct error e = {0};

    if (c->sweep.pruned_ms && mono - c->sweep.pruned_ms < PRUNE_EVERY_MS)
        return;
    c->sweep.pruned_ms = mono;
    ended_prune(&c->ended, mono - ENDED_KEPT_MS);
    if (store_commit(c->store, STORE_RESERVE, prune_rows, &wall, &e) != OK)
        log_failure(&e, "old rows cannot be pruned");
}

bool sweep_pass(struct core *c)
{
    keeper_check(c->keeper);
    end_sessions(c);
    prune(c);
    return sweep_due(c);
}

/* ---- the thread ---- */

static int64_t wait_ms(struct core *c)
{
    int64_t due, wait;

    if (store_lease_next_due(c->store, &due, NULL) != OK || due == INT64_MAX)
        return SWEEP_PERIOD_MS;
    wait = due - clock_wall_ms();
    if (wait < IDLE_WAIT_MS)
        return IDLE_WAIT_MS;
    return wait < SWEEP_PERIOD_MS ? wait : SWEEP_PERIOD_MS;
}

static void sleep_until_poked(struct sweep *s, int64_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->poked &&
           pthread_cond_timedwait(&s->poke, &s->lock, &until) == 0)
        ;
    s->poked = false;
    pthread_mutex_unlock(&s->lock);
}

static bool is_stopped(struct sweep *s)
{
    bool stop;

    pthread_mutex_lock(&s->lock);
    stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return stop;
}

static void *run(void *arg)
{
    struct core *c = arg;

    while (!is_stopped(&c->sweep)) {
        sweep_beat(c);
        if (!sweep_pass(c))
            sleep_until_poked(&c->sweep, wait_ms(c));
    }
    return NULL;
}

void sweep_beat(struct core *c)
{
    atomic_store(&c->sweep.beat_ms, clock_monotonic_ms());
}

int64_t sweep_silent_ms(struct core *c)
{
    int64_t beat = atomic_load(&c->sweep.beat_ms);

    return beat ? clock_monotonic_ms() - beat : 0;
}

enum code sweep_start(struct core *c, struct error *e)
{
    int r;

    sweep_beat(c);
    r = pthread_create(&c->sweep.thread, NULL, run, c);

    if (r != 0)
        return error_errno(e, r, "cannot start the sweeper's thread");
    c->sweep.started = true;
    return OK;
}

void sweep_wake(struct core *c)
{
    pthread_mutex_lock(&c->sweep.lock);
    c->sweep.poked = true;
    pthread_cond_signal(&c->sweep.poke);
    pthread_mutex_unlock(&c->sweep.lock);
}

void sweep_stop(struct core *c)
{
    pthread_mutex_lock(&c->sweep.lock);
    c->sweep.stop = true;
    pthread_cond_signal(&c->sweep.poke);
    pthread_mutex_unlock(&c->sweep.lock);
    if (c->sweep.started)
        pthread_join(c->sweep.thread, NULL);
    free(c->sweep.orgs);
}
