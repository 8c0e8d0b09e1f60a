/* crew - see crew.h. */
#include "config.h"

#include "module/core/crew.h"

#include "common/clock.h"
#include "common/frame.h"
#include "common/log.h"
#include "module/core/duty.h"
#include "module/core/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CALLER_QUIET_MS = 20, /* between two calls of one caller */
    IDLE_MS = 1000,
    SPARE = 2, /* threads beyond one organisation's window: for the others */
    QUEUE_LOW = CREW_QUEUE / 2
};

/* ---- queues, with the lock held ---- */

static bool grow(struct crew *w)
{
    struct crew_lane *lanes;
    struct crew_org *orgs;

    while (w->n_lanes < w->pace.n_lanes) {
        lanes = reallocarray(w->lanes, (size_t)w->n_lanes + 1, sizeof(*lanes));
        if (!lanes)
            return false;
        w->lanes = lanes;
        memset(&lanes[w->n_lanes++], 0, sizeof(*lanes));
    }
    while (w->n_orgs < w->pace.n_orgs) {
        orgs = reallocarray(w->orgs, (size_t)w->n_orgs + 1, sizeof(*orgs));
        if (!orgs)
            return false;
        w->orgs = orgs;
        memset(&orgs[w->n_orgs++], 0, sizeof(*orgs));
    }
    return true;
}

static int lane_of(struct crew *w, int64_t org, const char *project)
{
    int lane = pace_lane(&w->pace, org, project);

    return lane >= 0 && grow(w) ? lane : -1;
}

static struct crew_item *find(struct crew_lane *l, const char *lease)
{
    for (int i = 0; i < CREW_QUEUE; i++)
        if (strcmp(l->items[i].lease, lease) == 0)
            return &l->items[i];
    return NULL;
}

static int n_items(const struct crew_lane *l)
{
    int n = 0;

    for (int i = 0; i < CREW_QUEUE; i++)
        n += *l->items[i].lease != '\0';
    return n;
}

static struct crew_item *take_first(struct crew_lane *l)
{
    struct crew_item *first = NULL;

    for (int i = 0; i < CREW_QUEUE; i++) {
        struct crew_item *t = &l->items[i];

        if (*t->lease && !t->busy && (!first || t->order < first->order))
            first = t;
    }
    if (first)
        first->busy = true;
    return first;
}

int crew_room(struct core *c, int64_t org, const char *project, bool *again)
{
    struct crew *w = &c->crew;
    int lane, room = 0;

    *again = false;
    pthread_mutex_lock(&w->lock);
    lane = lane_of(w, org, project);
    if (lane >= 0) {
        room = CREW_QUEUE - n_items(&w->lanes[lane]);
        *again = w->lanes[lane].again;
        w->lanes[lane].again = false;
    }
    pthread_mutex_unlock(&w->lock);
    return room >= CREW_QUEUE - QUEUE_LOW ? room : 0;
}

void crew_add(struct core *c, int64_t org, const char *project,
              const char *lease)
{
    struct crew *w = &c->crew;
    struct crew_item *t = NULL;
    int lane;

    pthread_mutex_lock(&w->lock);
    lane = lane_of(w, org, project);
    if (lane >= 0 && !find(&w->lanes[lane], lease))
        t = find(&w->lanes[lane], "");
    if (t) {
        *t = (struct crew_item){.order = ++w->orders};
        snprintf(t->lease, sizeof(t->lease), "%s", lease);
        w->pace.lanes[lane].queued++;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
}

/* ---- callers first ---- */

void crew_caller(struct core *c, bool begins)
{
    struct crew *w = &c->crew;

    if (!begins)
        atomic_store(&w->caller_ms, clock_monotonic_ms());
    atomic_fetch_add(&w->callers, begins ? 1 : -1);
}

/* As many as callers have, and one at least: the end of a lease is a promise,
 * too. */
static bool may_begin(struct crew *w, int64_t now)
{
    int callers = atomic_load(&w->callers);
    bool quiet =
        callers == 0 && now - atomic_load(&w->caller_ms) >= CALLER_QUIET_MS;

    return quiet || w->pace.under_way < (callers > 1 ? callers : 1);
}

void crew_hear(struct core *c, const char *org, const struct pace_told *told)
{
    struct crew *w = &c->crew;
    int64_t id = core_org_id(c, org);

    pthread_mutex_lock(&w->lock);
    pace_hear(&w->pace, id, told, clock_monotonic_ms());
    pthread_mutex_unlock(&w->lock);
}

/* ---- does the service answer again? ---- */

static bool ask_reach(struct core *c, int64_t org)
{
    const struct settings *s = c->settings;
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    char name[64];
    int deadline = (int)(s->hsm_deadline_ms + s->connect_ms + s->call_ms);

    core_org_name(c, org, name);
    request.verb = VERB_REACH;
    request.head = json_pack("{ss}", "org", name);
    return request.head &&
           unlock_call(c, &request, deadline, &reply, NULL, NULL) == OK &&
           json_is_true(json_object_get(reply.head, "answers"));
}

static int reach_next(struct crew *w, int64_t now)
{
    for (int i = 0; i < w->n_orgs; i++)
        if (!w->orgs[i].reaching && now >= w->orgs[i].reach_ms &&
            pace_fails(&w->pace, w->pace.orgs[i].org))
            return i;
    return -1;
}

/* Only what did not answer and then does frees what waits: a service that
 * answers this and fails all else is left to the back-off. */
static void reach(struct core *c, struct crew_member *m, int at)
{
    struct crew *w = &c->crew;
    int64_t org = w->pace.orgs[at].org;
    bool yes, freed = false;

    w->orgs[at].reaching = true;
    atomic_store(&m->began_ms, clock_monotonic_ms());
    pthread_mutex_unlock(&w->lock);
    yes = ask_reach(c, org);
    pthread_mutex_lock(&w->lock);
    atomic_store(&m->began_ms, 0);
    w->orgs[at].reaching = false;
    w->orgs[at].reach_ms = clock_monotonic_ms() + CREW_REACH_MS;
    if (yes && w->orgs[at].reach == REACH_NO) {
        pace_release(&w->pace, org);
        for (int i = 0; i < w->n_lanes; i++)
            w->lanes[i].again =
                w->lanes[i].again || w->pace.lanes[i].org == org;
        pthread_cond_broadcast(&w->work);
        freed = true;
    }
    w->orgs[at].reach = yes ? REACH_YES : REACH_NO;
    pthread_mutex_unlock(&w->lock);
    if (freed)
        sweep_wake(c);
    pthread_mutex_lock(&w->lock);
}

/* ---- work ---- */

/* The alarm is for what holds leases up, not for being asked to slow down, nor
 * for one reply that was lost. */
static void tell(struct core *c, int64_t org, enum pace_outcome outcome,
                 bool fails, int in_a_row, const struct error *why)
{
    char name[64];

    if ((outcome == PACE_RATE || outcome == PACE_LOST) && in_a_row < 2)
        return;
    core_org_name(c, org, name);
    if (outcome != PACE_DONE) {
        metrics_failing(&c->metrics, org, true);
        warnings_raise(&c->warnings, ALARM_REVOCATION_WAITS, name,
                       "revocations do not get through: %s", why->text);
    } else if (!fails) {
        metrics_failing(&c->metrics, org, false);
        warnings_drop(&c->warnings, ALARM_REVOCATION_WAITS, name);
    }
}

static void note_failure(struct crew *w, int at, enum pace_outcome outcome)
{
    struct crew_org *o = &w->orgs[at];

    o->refused = outcome == PACE_RATE ? o->refused + 1 : 0;
    if (outcome == PACE_PROJECT || outcome == PACE_LOST ||
        outcome == PACE_SERVICE)
        o->reach = REACH_UNKNOWN;
}

/* With the lock held. A service that loses all replies is away: what that holds
 * is freed when it answers again, and waits like the rest until then. */
static bool is_away(const struct crew *w, int at, enum pace_outcome outcome)
{
    return outcome == PACE_LOST && w->orgs[at].reach != REACH_YES;
}

/* With the lock held, which is given up while it works. */
static void work_on(struct core *c, struct crew_member *m, int lane)
{
    struct crew *w = &c->crew;
    struct crew_item *t = take_first(&w->lanes[lane]);
    char lease[TEXT_ID_LEN + 1];
    struct pace_turn turn;
    struct error why = {0};
    bool done = false, fails, low;
    enum pace_outcome outcome;
    int64_t org = w->pace.lanes[lane].org;
    int at = w->pace.lanes[lane].at, in_a_row, order;

    w->pace.lanes[lane].queued--;
    if (!t)
        return;
    memcpy(lease, t->lease, sizeof(lease));
    order = (int)(t - w->lanes[lane].items);
    pace_begin(&w->pace, lane, clock_monotonic_ms(), &turn);
    atomic_store(&m->began_ms, turn.began_ms);
    pthread_mutex_unlock(&w->lock);
    outcome = duty_do(c, lease, &done, &why) == OK ? PACE_DONE
                                                   : pace_outcome(&why);
    pthread_mutex_lock(&w->lock);
    atomic_store(&m->began_ms, 0);
    w->lanes[lane].items[order] = (struct crew_item){.order = 0};
    if (!done && outcome == PACE_DONE) {
        pace_skip(&w->pace, &turn);
    } else {
        if (pace_end(&w->pace, &turn,
                     is_away(w, at, outcome) ? PACE_PROJECT : outcome,
                     clock_monotonic_ms()))
            w->lanes[lane].again = true;
        note_failure(w, at, outcome);
    }
    fails = pace_fails(&w->pace, org);
    in_a_row = outcome == PACE_RATE ? w->orgs[at].refused
                                    : w->pace.lanes[lane].fails;
    low = w->pace.lanes[lane].queued <= QUEUE_LOW / 2;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    if (done || outcome != PACE_DONE)
        tell(c, org, outcome, fails, in_a_row, &why);
    if (low && done)
        sweep_wake(c);
    pthread_mutex_lock(&w->lock);
}

static int64_t idle_ms(struct crew *w, int64_t now)
{
    int64_t wait = pace_wake_ms(&w->pace, now);
    bool fails = false;

    for (int i = 0; i < w->n_orgs; i++)
        fails = fails || pace_fails(&w->pace, w->pace.orgs[i].org);
    wait = wait == INT64_MAX ? IDLE_MS : wait - now;
    if (!may_begin(w, now) && wait > CALLER_QUIET_MS)
        wait = CALLER_QUIET_MS;
    if (wait > IDLE_MS || (fails && wait > CREW_REACH_MS / 2))
        wait = fails ? CREW_REACH_MS / 2 : IDLE_MS;
    return wait > 0 ? wait : 1;
}

static void wait_for_work(struct crew *w, int64_t ms)
{
    struct timespec until = clock_in_ms(ms);

    pthread_cond_clockwait(&w->work, &w->lock, CLOCK_MONOTONIC, &until);
}

static void *run(void *arg)
{
    struct crew_member *m = arg;
    struct core *c = m->core;
    struct crew *w = &c->crew;

    keeper_give_way();
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        int64_t now = clock_monotonic_ms();
        int lane = may_begin(w, now) ? pace_next(&w->pace, now) : -1;
        int at = lane < 0 ? reach_next(w, now) : -1;

        if (lane >= 0)
            work_on(c, m, lane);
        else if (at >= 0)
            reach(c, m, at);
        else
            wait_for_work(w, idle_ms(w, now));
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Never more than half of the keeper's channels. */
static int ceiling(const struct settings *s)
{
    int most = s->keeper_threads > 2 ? s->keeper_threads / 2 : 1;

    return s->revoke_at_once < most ? s->revoke_at_once : most;
}

enum code crew_start(struct core *c, struct error *e)
{
    struct crew *w = &c->crew;
    int n = ceiling(c->settings) + SPARE;

    if (n > c->settings->keeper_threads)
        n = c->settings->keeper_threads;
    if (n > CREW_MAX)
        n = CREW_MAX;
    pace_init(&w->pace, ceiling(c->settings), n);
    for (; w->n_members < n; w->n_members++) {
        struct crew_member *m = &w->members[w->n_members];
        int r;

        m->core = c;
        r = pthread_create(&m->thread, NULL, run, m);
        if (r != 0)
            return error_errno(e, r, "cannot start the sweeper's threads");
    }
    return OK;
}

void crew_stop(struct core *c)
{
    struct crew *w = &c->crew;

    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_members; i++)
        pthread_join(w->members[i].thread, NULL);
    pace_clear(&w->pace);
    free(w->lanes);
    free(w->orgs);
    w->lanes = NULL;
    w->orgs = NULL;
    w->n_lanes = w->n_orgs = 0;
}

bool crew_fails(struct core *c)
{
    struct crew *w = &c->crew;
    bool fails = false;

    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->pace.n_orgs; i++)
        fails = fails || pace_fails(&w->pace, w->pace.orgs[i].org);
    pthread_mutex_unlock(&w->lock);
    return fails;
}

int64_t crew_busy_ms(struct core *c)
{
    int64_t now = clock_monotonic_ms(), longest = 0;

    for (int i = 0; i < c->crew.n_members; i++) {
        int64_t began = atomic_load(&c->crew.members[i].began_ms);

        if (began && now - began > longest)
            longest = now - began;
    }
    return longest;
}
