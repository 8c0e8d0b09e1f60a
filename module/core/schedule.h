/* schedule - when an admin key is to be rotated, and how long it may live: only
 * reckoning, over an organisation's configuration and the time.
 *
 *   rotation_period    a period after the last rotation; what was missed is due
 *   rotation_schedule  at the cron's times (UTC). With rotation_window only for
 *                      so long after each of them; what was missed waits for
 *                      the next. Without, what was missed is due
 *
 * A last rotation that lies more than an hour ahead was noted by a clock that was
 * wrong: one is due.
 *
 * A key lives to its planned rotation and a slack beyond: rotation_slack, or
 * four periods, at least 30 days. It is rotated once half of the slack is left,
 * whatever the plan says.
 */
#ifndef HSMINT_CORE_SCHEDULE_H
#define HSMINT_CORE_SCHEDULE_H

#include "module/core/orgconfig.h"

#define SCHEDULE_NEVER INT64_MAX
#define SCHEDULE_KEY_MAX_S 31536000 /* a year: the service's longest life */
#define SCHEDULE_PERIOD_MIN_S 600

/* All in milliseconds since 1970. */
struct schedule {
    int64_t due_ms;     /* when to rotate; SCHEDULE_NEVER */
    int64_t until_ms;   /* and until when; SCHEDULE_NEVER: there is no end */
    int64_t overdue_ms; /* it should have been done by then; SCHEDULE_NEVER */
    const char *cause;  /* "period", "schedule", "expiry", or what was wanted:
                           config.rotation_wanted. "" with SCHEDULE_NEVER */
};

/* That the fields go together: ERR_INVALID. */
MUST_CHECK enum code schedule_check(const struct config *c, struct error *e);
/* It is rotated by itself: a period or schedule, and not disabled. */
bool schedule_is_on(const struct config *c);
/* For a configuration that has an admin key. */
struct schedule schedule_next(const struct config *c, int64_t now_ms);
/* The plan comes later than the key's end allows: as after the schedule was
 * lengthened. */
bool schedule_outgrown(const struct config *c, int64_t now_ms);
/* The life of a key that is made now, in seconds; 0: without end, as nothing
 * rotates it. */
int64_t schedule_life_s(const struct config *c, int64_t now_ms);
/* So long before the key's end somebody should look, in milliseconds: half of
 * the slack; two weeks where nothing rotates it. */
int64_t schedule_margin_ms(const struct config *c);

#endif
