/* schedule - see schedule.h. */
#include "config.h"

#include "module/core/schedule.h"

#include "common/cron.h"
#include "common/text.h"

#include <string.h>

#define DAY_S INT64_C(86400)
#define SLACK_MIN_S (30 * DAY_S)
#define BY_HAND_S (14 * DAY_S) /* for a person to make a new key */
#define GRACE_MAX_MS INT64_C(3600000) /* so late without being overdue */

bool schedule_is_on(const struct config *c)
{
    return !c->disable_automated_rotation &&
           (c->rotation_period || *c->rotation_schedule);
}

static bool read_cron(const struct config *c, struct cron *cron)
{
    return *c->rotation_schedule &&
           cron_parse(cron, c->rotation_schedule, NULL) == OK;
}

/* The time between two planned rotations, in seconds. */
static int64_t interval_s(const struct config *c, int64_t now_ms)
{
    struct cron cron;
    int64_t first, longest = 0;

    if (!read_cron(c, &cron))
        return c->rotation_period;
    first = cron_next(&cron, now_ms);
    for (int i = 0; i < 12 && first != CRON_NEVER; i++) {
        int64_t next = cron_next(&cron, first);

        if (next != CRON_NEVER && next - first > longest)
            longest = next - first;
        first = next;
    }
    return longest / 1000;
}

static int64_t slack_s(const struct config *c, int64_t interval)
{
    int64_t slack = c->rotation_slack ? c->rotation_slack : 4 * interval;

    if (!c->rotation_slack && slack < SLACK_MIN_S)
        slack = SLACK_MIN_S;
    return slack < SCHEDULE_KEY_MAX_S - interval ? slack
                                                 : SCHEDULE_KEY_MAX_S - interval;
}

/* ---- what may be asked ---- */

static enum code check_cron(const struct config *c, struct error *e)
{
    struct cron cron;
    enum code code;

    if (!*c->rotation_schedule)
        return OK;
    code = cron_parse(&cron, c->rotation_schedule, e);
    return code ? error_prefix(e, "rotation_schedule") : OK;
}

static enum code check_length(const struct config *c, struct error *e)
{
    int64_t interval = interval_s(c, 0);
    int64_t slack = c->rotation_slack ? c->rotation_slack : SLACK_MIN_S;
    char text[TEXT_DURATION_MAX];

    if (c->rotation_period && c->rotation_period < SCHEDULE_PERIOD_MIN_S)
        return error_set(e, ERR_INVALID,
                         "rotation_period is at least ten minutes");
    if (schedule_is_on(c) && interval + slack > SCHEDULE_KEY_MAX_S)
        return error_set(e, ERR_INVALID,
                         "an admin key lives for a year at most, and has to "
                         "outlive its planned rotation by %s: rotate it more "
                         "often, or set a shorter rotation_slack",
                         text_duration_format(slack, text));
    return OK;
}

enum code schedule_check(const struct config *c, struct error *e)
{
    enum code code;

    if (c->rotation_period && *c->rotation_schedule)
        return error_set(e, ERR_INVALID,
                         "rotation_period and rotation_schedule exclude each "
                         "other; set one of them to \"\"");
    if (c->rotation_window && !*c->rotation_schedule)
        return error_set(e, ERR_INVALID,
                         "rotation_window goes with rotation_schedule only");
    code = check_cron(c, e);
    return code ? code : check_length(c, e);
}

/* ---- when ---- */

static const struct schedule never = {SCHEDULE_NEVER, SCHEDULE_NEVER,
                                      SCHEDULE_NEVER, ""};

static struct schedule at_once(int64_t now_ms, int64_t since_ms,
                               const char *cause)
{
    return (struct schedule){now_ms, SCHEDULE_NEVER, since_ms + GRACE_MAX_MS,
                             cause};
}

/* The clock was ahead then and was set back since: when it was is not known. */
static bool is_lost(const struct config *c, int64_t now_ms)
{
    return c->last_rotated_ms > now_ms + GRACE_MAX_MS;
}

static struct schedule by_period(const struct config *c, int64_t now_ms)
{
    int64_t period_ms = c->rotation_period * 1000;
    int64_t grace = period_ms / 10 < GRACE_MAX_MS ? period_ms / 10
                                                  : GRACE_MAX_MS;
    int64_t due = is_lost(c, now_ms) ? now_ms : c->last_rotated_ms + period_ms;

    return (struct schedule){due, SCHEDULE_NEVER, due + grace, "period"};
}

static struct schedule by_cron(const struct config *c, const struct cron *cron,
                               int64_t now_ms)
{
    int64_t window_ms = c->rotation_window * 1000;
    bool lost = is_lost(c, now_ms);
    int64_t last = cron_last(cron, now_ms);
    int64_t missed = cron_next(cron, lost ? 0 : c->last_rotated_ms);
    struct schedule s = {lost ? now_ms : missed, SCHEDULE_NEVER, SCHEDULE_NEVER,
                         "schedule"};

    if (missed == CRON_NEVER)
        return never;
    s.overdue_ms = s.due_ms + (window_ms ? window_ms : GRACE_MAX_MS);
    if (!window_ms)
        return s;
    /* The window that is open, else the next one. */
    if (last == CRON_NEVER || last < missed || now_ms > last + window_ms)
        s.due_ms = cron_next(cron, now_ms > missed - 1 ? now_ms : missed - 1);
    else
        s.due_ms = last;
    s.until_ms = s.due_ms == CRON_NEVER ? SCHEDULE_NEVER
                                        : s.due_ms + window_ms;
    if (lost)
        s.overdue_ms = s.until_ms;
    return s;
}

static struct schedule planned(const struct config *c, int64_t now_ms)
{
    struct cron cron;

    return read_cron(c, &cron) ? by_cron(c, &cron, now_ms)
                              : by_period(c, now_ms);
}

/* An end that comes before the key was made, or right after, is told by another
 * clock than ours: it must not rotate keys again and again. */
static int64_t near_end_ms(const struct config *c, int64_t now_ms)
{
    int64_t near = c->key_expires_ms - schedule_margin_ms(c);
    int64_t first = c->last_rotated_ms + SCHEDULE_PERIOD_MIN_S * 1000;

    if (!c->key_expires_ms)
        return SCHEDULE_NEVER;
    if (is_lost(c, now_ms))
        return near;
    if (c->key_expires_ms <= c->last_rotated_ms)
        return SCHEDULE_NEVER;
    return near > first ? near : first;
}

struct schedule schedule_next(const struct config *c, int64_t now_ms)
{
    struct schedule plan, end;
    int64_t near_end;

    if (*c->rotation_wanted)
        return at_once(now_ms, c->wanted_ms, c->rotation_wanted);
    if (!schedule_is_on(c))
        return never;
    plan = planned(c, now_ms);
    near_end = near_end_ms(c, now_ms);
    if (plan.due_ms <= near_end)
        return plan;
    end = at_once(near_end, near_end, "expiry");
    if (plan.overdue_ms < end.overdue_ms)
        end.overdue_ms = plan.overdue_ms;
    return end;
}

bool schedule_outgrown(const struct config *c, int64_t now_ms)
{
    return schedule_is_on(c) && planned(c, now_ms).due_ms > near_end_ms(c, now_ms);
}

int64_t schedule_life_s(const struct config *c, int64_t now_ms)
{
    struct config after = *c;
    struct schedule s;
    int64_t life;

    if (!schedule_is_on(c))
        return 0;
    /* As if it had just been rotated. */
    after.last_rotated_ms = now_ms;
    after.key_expires_ms = 0;
    after.rotation_wanted[0] = '\0';
    s = schedule_next(&after, now_ms);
    if (s.due_ms == SCHEDULE_NEVER)
        return 0;
    life = (s.due_ms - now_ms) / 1000 + slack_s(c, interval_s(c, now_ms));
    return life < SCHEDULE_KEY_MAX_S ? life : SCHEDULE_KEY_MAX_S;
}

int64_t schedule_margin_ms(const struct config *c)
{
    int64_t half = (c->key_expires_ms - c->last_rotated_ms) / 2, margin;

    if (!schedule_is_on(c))
        return BY_HAND_S * 1000;
    margin = slack_s(c, interval_s(c, c->last_rotated_ms)) * 500;
    /* A service that gives keys a shorter life than was asked for must not have
     * them rotated again and again: at half of their life. */
    return half > 0 && half < margin ? half : margin;
}
