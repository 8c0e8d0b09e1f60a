/* sweep - see sweep.h. */
#include "config.h"

#include "module/core/sweep.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/ending.h"
#include "module/core/held.h"
#include "module/core/internal.h"

#include <stdlib.h>
#include <time.h>

enum {
    LATE_MS = 2000,         /* alive so long past its end: an alarm */
    ENDED_KEPT_MS = 300000, /* longer than any call */
    PRUNE_EVERY_MS = 600000,
    PRUNE_LIMIT = 1000
};
#define KEEP_REVOKED_MS (INT64_C(30) * 86400 * 1000)
#define KEEP_JOURNAL_MS (INT64_C(86400) * 1000)

static void beat(struct core *c)
{
    atomic_store(&c->sweep.beat_ms, clock_monotonic_ms());
}

/* ---- sessions and applications that ended ---- */

static enum code find_holder(const char *application, const char *owner,
                             void *ctx, struct error *e)
{
    (void)application, (void)owner, (void)e;
    *(bool *)ctx = true;
    return OK;
}

static enum code forget_holder(struct store_tx *tx, void *ctx, struct error *e)
{
    return store_holder_forget(tx, ctx, e);
}

/* What it held lives on, for others and to its end. */
static enum code drop_holder(struct core *c, char *application, struct error *e)
{
    bool found = false;
    enum code code =
        store_holder_each(c->store, application, find_holder, &found, e);

    return code || !found ? code
                          : store_commit(c->store, STORE_RESERVE, forget_holder,
                                         application, e);
}

static void end_sessions(struct core *c)
{
    char *application;
    int64_t session;

    while (ended_next(&c->ended, &application, &session)) {
        const struct store_lease_query q = {.application = application,
                                            .session = session,
                                            .live_only = true};
        struct error e = {0};
        size_t n = 0;
        enum code code = ending_mark(c, &q, "session", NULL, &n, &e);

        if (!code && n == 0 && session == 0)
            code = held_drop(c, application, &e);
        if (!code && n == 0 && session == 0)
            code = drop_holder(c, application, &e);
        if (!code && n == 0) /* none is left */
            ended_mark(&c->ended, application, session);
        free(application);
        beat(c);
        if (code) {
            log_failure(&e, "a session's leases and login cannot be ended yet");
            return;
        }
    }
}

/* ---- what is due ---- */

struct filling {
    struct core *core;
    int64_t now_ms, next_ms; /* steady */
    const struct store_lane *lane;
};

static enum code queue(const struct store_lease *l, void *ctx, struct error *e)
{
    struct filling *f = ctx;

    (void)e;
    crew_add(f->core, f->lane->org, f->lane->project, l->id);
    return OK;
}

struct again {
    const struct store_lane *lane;
    int64_t now_ms;
};

static enum code retry_lane(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct again *a = ctx;

    return store_lane_retry(tx, a->lane->org, a->lane->project, a->now_ms, e);
}

static enum code fill_lane(const struct store_lane *l, void *ctx,
                           struct error *e)
{
    struct filling *f = ctx;
    struct again a = {l, f->now_ms};
    bool again = false;
    int room = crew_room(f->core, l->org, l->project, &again);
    enum code code = OK;

    if (again)
        code = store_commit(f->core->store, STORE_RESERVE, retry_lane, &a, e);
    if (code)
        return code;
    if (l->due_ms > f->now_ms && !again) {
        if (l->due_ms < f->next_ms)
            f->next_ms = l->due_ms;
        return OK;
    }
    f->lane = l;
    if (room == 0)
        return OK;
    return store_lane_due(f->core->store, l, f->now_ms, CREW_QUEUE, queue, f,
                          e);
}

static void fill(struct core *c)
{
    struct filling f = {
        .core = c, .now_ms = steady_ms(c), .next_ms = INT64_MAX};
    struct error e = {0};

    if (store_lane_each(c->store, fill_lane, &f, &e) != OK)
        log_failure(&e, "due leases cannot be listed");
    c->sweep.next_ms = f.next_ms;
}

/* ---- what is late ---- */

static enum code add_late(const struct store_waiting *w, void *ctx,
                          struct error *e)
{
    (void)e;
    *(int64_t *)ctx += w->past_end;
    return OK;
}

static void tell_late(struct core *c)
{
    int64_t mono = clock_monotonic_ms(), late = 0;

    if (c->sweep.told_ms && mono - c->sweep.told_ms < SWEEP_PERIOD_MS)
        return;
    c->sweep.told_ms = mono;
    if (store_lease_waiting(c->store, steady_ms(c), LATE_MS, add_late, &late,
                            NULL) != OK)
        return;
    if (late > 0)
        warnings_raise(&c->warnings, ALARM_REVOCATION_LATE, "leases",
                       "%lld keys are alive past the end of their leases",
                       (long long)late);
    else if (!crew_fails(c))
        warnings_drop(&c->warnings, ALARM_REVOCATION_LATE, "leases");
}

/* ---- housekeeping ---- */

static enum code prune_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct core *c = ctx;
    enum code code = store_lease_prune(tx, steady_ms(c) - KEEP_REVOKED_MS,
                                       PRUNE_LIMIT, e);

    return code ? code
                : store_journal_prune(tx, clock_wall_ms() - KEEP_JOURNAL_MS, e);
}

static void prune(struct core *c)
{
    int64_t mono = clock_monotonic_ms();
    struct error e = {0};

    if (c->sweep.pruned_ms && mono - c->sweep.pruned_ms < PRUNE_EVERY_MS)
        return;
    c->sweep.pruned_ms = mono;
    ended_prune(&c->ended, mono - ENDED_KEPT_MS);
    if (store_commit(c->store, STORE_RESERVE, prune_rows, c, &e) != OK)
        log_failure(&e, "old rows cannot be pruned");
}

void sweep_pass(struct core *c)
{
    keeper_check(c->keeper);
    steady_keep(c);
    end_sessions(c);
    prune(c);
    fill(c);
    tell_late(c);
}

/* ---- the thread ---- */

static int64_t wait_ms(struct core *c)
{
    int64_t next = c->sweep.next_ms, now = steady_ms(c);

    if (next == INT64_MAX || next - now > SWEEP_PERIOD_MS)
        return SWEEP_PERIOD_MS;
    return next > now ? next - now : 1;
}

static void sleep_until_poked(struct sweep *s, int64_t ms)
{
    struct timespec until = clock_in_ms(ms);

    pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->poked &&
           pthread_cond_clockwait(&s->poke, &s->lock, CLOCK_MONOTONIC,
                                  &until) == 0)
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
        beat(c);
        sweep_pass(c);
        sleep_until_poked(&c->sweep, wait_ms(c));
    }
    return NULL;
}

int64_t sweep_silent_ms(struct core *c)
{
    int64_t last = atomic_load(&c->sweep.beat_ms);
    int64_t silent = last ? clock_monotonic_ms() - last : 0;
    int64_t busy = crew_busy_ms(c);

    return silent > busy ? silent : busy;
}

enum code sweep_start(struct core *c, struct error *e)
{
    enum code code = crew_start(c, e);
    int r;

    if (code)
        return code;
    beat(c);
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
    crew_stop(c);
}
