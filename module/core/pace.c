/* pace - see pace.h. */
#include "config.h"

#include "module/core/pace.h"

#include "common/text.h"

#include <stdlib.h>
#include <string.h>

enum { CUT_APART_MS = 1000, RATE_WAIT_MS = 1000 };
#define WINDOW_MIN 1.0

void pace_init(struct pace *p, int ceiling, int places)
{
    *p = (struct pace){.ceiling = ceiling, .places = places};
}

void pace_clear(struct pace *p)
{
    for (int i = 0; i < p->n_lanes; i++)
        free(p->lanes[i].project);
    free(p->lanes);
    free(p->orgs);
    *p = (struct pace){.ceiling = p->ceiling};
}

enum pace_outcome pace_outcome(const struct error *why)
{
    switch (why->code) {
    case OK:
        return PACE_DONE;
    case ERR_SERVICE_RATE:
        return PACE_RATE;
    case ERR_SERVICE_DOWN:
    case ERR_SERVICE_AUTH:
        return PACE_SERVICE;
    case ERR_SERVICE_UNKNOWN:
        return PACE_LOST;
    case ERR_SERVICE_FORBIDDEN:
    case ERR_SERVICE_REFUSED:
    case ERR_SERVICE_FAILED:
    case ERR_SERVICE_REPLY:
    case ERR_NOT_FOUND:
    case ERR_PROJECT:
    case ERR_KEEPER: /* it may have died of one lane's reply */
        return PACE_PROJECT;
    default:
        return PACE_LOCAL;
    }
}

/* ---- who is known ---- */

struct pace_org *pace_org(struct pace *p, int64_t org)
{
    for (int i = 0; i < p->n_orgs; i++)
        if (p->orgs[i].org == org)
            return &p->orgs[i];
    return NULL;
}

static const struct pace_org *org_of(const struct pace *p, int lane)
{
    return &p->orgs[p->lanes[lane].at];
}

/* Its number; -1: no memory. */
static int add_org(struct pace *p, int64_t org)
{
    struct pace_org *more;

    for (int i = 0; i < p->n_orgs; i++)
        if (p->orgs[i].org == org)
            return i;
    more = reallocarray(p->orgs, (size_t)p->n_orgs + 1, sizeof(*more));
    if (!more)
        return -1;
    p->orgs = more;
    more[p->n_orgs] = (struct pace_org){.org = org, .window = p->ceiling};
    return p->n_orgs++;
}

int pace_lane(struct pace *p, int64_t org, const char *project)
{
    struct pace_lane *more;
    char *name;
    int at;

    for (int i = 0; i < p->n_lanes; i++)
        if (p->lanes[i].org == org && strcmp(p->lanes[i].project, project) == 0)
            return i;
    at = add_org(p, org);
    if (at < 0)
        return -1;
    more = reallocarray(p->lanes, (size_t)p->n_lanes + 1, sizeof(*more));
    if (!more)
        return -1;
    p->lanes = more;
    name = strdup(project);
    if (!name)
        return -1;
    more[p->n_lanes] = (struct pace_lane){.org = org, .at = at, .project = name};
    return p->n_lanes++;
}

/* ---- whose turn it is ---- */

static bool is_suspect(const struct pace_lane *l)
{
    return l->fails > 0 || l->slow;
}

static int window_of(const struct pace_org *o)
{
    return o->fails > 0 ? 1 : (int)o->window;
}

static int suspects_max(const struct pace *p)
{
    return p->places > 1 ? p->places / 2 : 1;
}

/* But for the clock. One place beyond the window is for another lane than the
 * one that fills it: it may have become slow a moment ago. */
static bool has_room(const struct pace *p, const struct pace_lane *l,
                     const struct pace_org *o)
{
    int window = window_of(o);
    bool other = o->fails == 0 && l->under_way == 0;

    if (l->queued == 0 || o->under_way >= window + (other ? 1 : 0))
        return false;
    if (l->fails > 0 && l->under_way > 0)
        return false;
    return !is_suspect(l) || p->suspects < suspects_max(p);
}

static int64_t held_until(const struct pace_lane *l, const struct pace_org *o)
{
    int64_t until = o->not_before_ms;

    if (until < o->held_ms)
        until = o->held_ms;
    return until < l->not_before_ms ? l->not_before_ms : until;
}

static bool goes_before(const struct pace *p, int a, int b)
{
    const struct pace_lane *la = &p->lanes[a], *lb = &p->lanes[b];
    const struct pace_org *oa = org_of(p, a), *ob = org_of(p, b);

    if (oa->under_way != ob->under_way)
        return oa->under_way < ob->under_way;
    if (oa->turn != ob->turn)
        return oa->turn < ob->turn;
    if (la->under_way != lb->under_way)
        return la->under_way < lb->under_way;
    return la->turn < lb->turn;
}

int pace_next(const struct pace *p, int64_t now_ms)
{
    int best = -1;

    for (int i = 0; i < p->n_lanes; i++) {
        const struct pace_org *o = org_of(p, i);

        if (has_room(p, &p->lanes[i], o) &&
            held_until(&p->lanes[i], o) <= now_ms &&
            (best < 0 || goes_before(p, i, best)))
            best = i;
    }
    return best;
}

int64_t pace_wake_ms(const struct pace *p, int64_t now_ms)
{
    int64_t first = INT64_MAX;

    for (int i = 0; i < p->n_lanes; i++) {
        const struct pace_org *o = org_of(p, i);
        int64_t until = held_until(&p->lanes[i], o);

        if (has_room(p, &p->lanes[i], o) && until > now_ms && until < first)
            first = until;
    }
    return first;
}

void pace_begin(struct pace *p, int lane, int64_t now_ms, struct pace_turn *t)
{
    struct pace_lane *l = &p->lanes[lane];
    struct pace_org *o = &p->orgs[l->at];

    *t = (struct pace_turn){
        .lane = lane, .suspect = is_suspect(l), .began_ms = now_ms};
    l->turn = o->turn = ++p->turns;
    l->under_way++;
    o->under_way++;
    p->under_way++;
    p->suspects += t->suspect;
}

/* ---- what came of it ---- */

static int64_t backoff_ms(int fails, int64_t most)
{
    int64_t wait = PACE_BACKOFF_FIRST_MS;
    uint16_t dice = 0;

    while (--fails > 0 && wait < most)
        wait *= 2;
    if (wait > most)
        wait = most;
    if (text_random(&dice, sizeof(dice), NULL) == OK)
        wait += wait * dice / 65536 / 4; /* up to a quarter more */
    return wait;
}

static void cut(struct pace_org *o, int64_t now_ms)
{
    if (o->cut_ms && now_ms - o->cut_ms < CUT_APART_MS)
        return; /* these calls were under way before the last cut */
    o->cut_ms = now_ms;
    o->window = o->window / 2 < WINDOW_MIN ? WINDOW_MIN : o->window / 2;
}

static bool succeeded(struct pace *p, struct pace_lane *l, struct pace_org *o)
{
    bool recovered = l->fails > 1 || o->fails > 1;

    l->fails = o->fails = 0;
    l->not_before_ms = o->not_before_ms = 0;
    o->window += 1 / o->window;
    if (o->window > p->ceiling)
        o->window = p->ceiling;
    return recovered;
}

void pace_skip(struct pace *p, const struct pace_turn *t)
{
    struct pace_lane *l = &p->lanes[t->lane];

    l->under_way--;
    p->orgs[l->at].under_way--;
    p->under_way--;
    p->suspects -= t->suspect;
}

/* What was under way when the last one failed is the same failure. */
static void failed(const struct pace_turn *t, enum pace_outcome outcome,
                   int64_t now_ms, int *fails, int64_t *failed_ms,
                   int64_t *not_before_ms)
{
    int64_t most = outcome == PACE_LOCAL  ? PACE_LOCAL_MAX_MS
                   : outcome == PACE_LOST ? PACE_LOST_MAX_MS
                                          : PACE_BACKOFF_MAX_MS;

    if (*fails > 0 && t->began_ms < *failed_ms)
        return;
    ++*fails;
    *failed_ms = now_ms;
    *not_before_ms = now_ms + backoff_ms(*fails, most);
}

bool pace_end(struct pace *p, const struct pace_turn *t,
              enum pace_outcome outcome, int64_t now_ms)
{
    struct pace_lane *l = &p->lanes[t->lane];
    struct pace_org *o = &p->orgs[l->at];

    pace_skip(p, t);
    l->slow = now_ms - t->began_ms > PACE_SLOW_MS;
    switch (outcome) {
    case PACE_DONE:
        return succeeded(p, l, o);
    case PACE_RATE: /* pace_hear() has it */
        break;
    case PACE_PROJECT:
    case PACE_LOST:
        failed(t, outcome, now_ms, &l->fails, &l->failed_ms, &l->not_before_ms);
        break;
    case PACE_SERVICE:
    case PACE_LOCAL:
        failed(t, outcome, now_ms, &o->fails, &o->failed_ms, &o->not_before_ms);
        break;
    }
    return false;
}

/* A tenth of what is left is the callers'. */
static bool is_spent(const struct pace_told *told)
{
    int64_t kept = told->limit / 10 > 0 ? told->limit / 10 : 1;

    return told->limit > 0 && told->reset_ms > 0 && told->remaining <= kept;
}

void pace_hear(struct pace *p, int64_t org, const struct pace_told *told,
               int64_t now_ms)
{
    struct pace_org *o = pace_org(p, org);
    int64_t wait = told->retry_after_ms;

    if (!o)
        return;
    if (told->answered && o->fails > 0)
        o->not_before_ms = 0; /* whoever asked: the service is there */
    if (told->refused) {
        cut(o, now_ms);
        if (wait == 0)
            wait = RATE_WAIT_MS;
    } else if (is_spent(told)) {
        wait = told->reset_ms;
    } else {
        return;
    }
    if (o->held_ms < now_ms + wait)
        o->held_ms = now_ms + wait;
}

void pace_release(struct pace *p, int64_t org)
{
    struct pace_org *o = pace_org(p, org);

    if (o)
        o->not_before_ms = 0;
    for (int i = 0; i < p->n_lanes; i++)
        if (p->lanes[i].org == org)
            p->lanes[i].not_before_ms = 0;
}

bool pace_fails(const struct pace *p, int64_t org)
{
    for (int i = 0; i < p->n_orgs; i++)
        if (p->orgs[i].org == org && p->orgs[i].fails > 0)
            return true;
    for (int i = 0; i < p->n_lanes; i++)
        if (p->lanes[i].org == org && p->lanes[i].fails > 0)
            return true;
    return false;
}
