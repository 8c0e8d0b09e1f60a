/* plan - see plan.h. */
#include "config.h"

#include "module/audit/plan.h"

#include "common/cron.h"

#define TIME_MAX_MS INT64_C(253402300799999) /* the year 9999 ends */
#define GRACE_MAX_MS INT64_C(3600000) /* so late is not overdue */

static const struct plan never = {PLAN_NEVER, PLAN_NEVER};

static int64_t milliseconds(const json_t *config, const char *name)
{
    json_int_t s = json_integer_value(json_object_get(config, name));
    return s > 0 && s < INT32_MAX ? (int64_t)s * 1000 : 0;
}

struct plan plan_next(const json_t *config, int64_t since_ms)
{
    int64_t period = milliseconds(config, "rotation_period");
    int64_t window = milliseconds(config, "rotation_window");
    const char *schedule =
        json_string_value(json_object_get(config, "rotation_schedule"));
    struct cron cron;
    if (since_ms < 0 || since_ms > TIME_MAX_MS) /* a log may say what it likes */
        return never;
    if (json_is_true(json_object_get(config, "disable_automated_rotation")))
        return never;
    if (period)
        return (struct plan){since_ms + period,
                             since_ms + period +
                                 (period / 10 < GRACE_MAX_MS ? period / 10
                                                             : GRACE_MAX_MS)};
    if (!schedule || !*schedule || cron_parse(&cron, schedule, NULL))
        return never;
    int64_t due = cron_next(&cron, since_ms);
    return due == CRON_NEVER
               ? never
               : (struct plan){due, due + (window ? window : GRACE_MAX_MS)};
}
