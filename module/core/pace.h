/* pace - how much the sweeper may ask of the services at once, and of whom next.
 *
 * An organisation has a window: how many of its calls may be under way. It is
 * halved by each refusal for too many requests (429), grows by one a window's
 * worth of successes, and never beyond the ceiling; Retry-After and the
 * rate-limit headers of any reply, a caller's too, hold it. A lane is one
 * project of an organisation. What fails for a project holds its lane; what
 * fails for all (no connection, no signature, the admin key refused) holds the
 * organisation, which is then probed by one call at a time.
 *
 * Whose turn it is: the organisation with the fewest calls under way, then the
 * longest wait; the same among its lanes. Lanes that fail or are slow have at
 * most half of all places together, so that some are left to the others.
 *
 * No clock and no lock: times are the caller's (monotonic ms), and so is the
 * lock that guards it.
 */
#ifndef HSMINT_CORE_PACE_H
#define HSMINT_CORE_PACE_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

#define PACE_BACKOFF_FIRST_MS 250
#define PACE_BACKOFF_MAX_MS 60000 /* of calls, each of which is recorded */
#define PACE_LOST_MAX_MS 4000     /* a retry finds most of them done */
#define PACE_LOCAL_MAX_MS 1500    /* where nothing was sent nor recorded */
#define PACE_SLOW_MS 2000         /* a lane whose calls take longer is slow */

enum pace_outcome {
    PACE_DONE,
    PACE_PROJECT, /* failed, for this project */
    PACE_LOST,    /* sent, and no reply came, from a service that is there */
    PACE_RATE,    /* refused: too many requests */
    PACE_SERVICE, /* failed, whatever the project */
    PACE_LOCAL    /* the same, and nothing left this host */
};
enum pace_outcome pace_outcome(const struct error *why);

struct pace_org {
    int64_t org;
    double window;
    int under_way;
    int fails;             /* in a row, that hold the organisation */
    int64_t failed_ms;     /* when the last of them was counted */
    int64_t not_before_ms; /* after failures */
    int64_t held_ms;       /* until then by the service's word */
    int64_t cut_ms;        /* when the window was last halved */
    uint64_t turn;
};

struct pace_lane {
    int64_t org;
    int at; /* of its organisation in `orgs` */
    char *project; /* owned */
    int queued;    /* the sweeper's: what waits in its queue */
    int under_way;
    int fails; /* in a row */
    int64_t failed_ms; /* when the last of them was counted */
    bool slow;
    int64_t not_before_ms;
    uint64_t turn;
};

struct pace {
    int ceiling; /* of one organisation's window */
    int places;  /* of all */
    struct pace_org *orgs;
    int n_orgs;
    struct pace_lane *lanes; /* they come, and never go */
    int n_lanes;
    uint64_t turns;
    int under_way, suspects; /* of these, in lanes that fail or are slow */
};

void pace_init(struct pace *p, int ceiling, int places);
void pace_clear(struct pace *p);
/* The lane's number, made if need be; -1: no memory. */
int pace_lane(struct pace *p, int64_t org, const char *project);
/* NULL: not known. */
struct pace_org *pace_org(struct pace *p, int64_t org);
/* The queued lane whose turn it is, or -1: none may begin now. */
int pace_next(const struct pace *p, int64_t now_ms);
/* When one may that is only held now; INT64_MAX: none is. */
int64_t pace_wake_ms(const struct pace *p, int64_t now_ms);

/* What begins counts as under way, and as suspect or not, until it ends. */
struct pace_turn {
    int lane;
    bool suspect;
    int64_t began_ms;
};
void pace_begin(struct pace *p, int lane, int64_t now_ms, struct pace_turn *t);
/* true: after more than one failure it is well again. */
bool pace_end(struct pace *p, const struct pace_turn *t,
              enum pace_outcome outcome, int64_t now_ms);

/* There was nothing to do: it tells nothing. */
void pace_skip(struct pace *p, const struct pace_turn *t);

/* What any reply told of limits. limit 0: nothing of them. */
struct pace_told {
    bool refused;  /* 429 */
    bool answered; /* as it was asked to */
    uint32_t retry_after_ms;
    int64_t limit, remaining, reset_ms; /* requests; ms until all are back */
};
void pace_hear(struct pace *p, int64_t org, const struct pace_told *told,
               int64_t now_ms);
/* The service answers again: what failures hold may go. */
void pace_release(struct pace *p, int64_t org);
/* Is anything held by failures, in this organisation? */
bool pace_fails(const struct pace *p, int64_t org);

#endif
