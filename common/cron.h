/* cron - five fields that say when: minute, hour, day of month, month, day of
 * week; all in UTC, so that no hour is missing or comes twice.
 *
 * Numbers, three letters of a month's or day's name, lists, ranges, steps. As
 * POSIX's crontab has it, a day is meant when either of its two fields is, if
 * both are restricted.
 */
#ifndef HSMINT_CRON_H
#define HSMINT_CRON_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

#define CRON_NEVER INT64_MAX

struct cron { /* bit n: the value n */
    uint64_t minutes, hours, days, months, weekdays; /* Sunday is 0 */
    bool any_day, any_weekday;                       /* the field is "*" */
};

/* ERR_INVALID: not understood, or a day that never comes (30 February). */
MUST_CHECK enum code cron_parse(struct cron *c, const char *text,
                                struct error *e);
/* The first time after `wall_ms`, and the last one at or before it, in
 * milliseconds since 1970. CRON_NEVER beyond the years 1970 to 9999. */
int64_t cron_next(const struct cron *c, int64_t wall_ms);
int64_t cron_last(const struct cron *c, int64_t wall_ms);

#endif
