/* keyschedule - see keyschedule.h. */
#include "config.h"

#include "module/core/keyschedule.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/keyrotate.h"
#include "module/core/keyrotation.h"

#include <stdio.h>
#include <string.h>

enum {
    OVERDUE_MS = 600000, /* due for so long, and not done: an alarm */
    RETRY_FIRST_MS = 10000,
    RETRY_MAX_MS = 600000,
    AHEAD_MS = 3600000 /* by which clocks may differ */
};

static const char *const kinds[KEYSCHEDULE_KINDS] = {"call", "log", "seal"};
/* Of alarms; no organisation has such a name. */
static const char *const objects[KEYSCHEDULE_KINDS] = {"hsm/call", "hsm/log",
                                                       "hsm/seal"};

static int64_t period_s(const struct settings *s, int kind)
{
    const int64_t periods[KEYSCHEDULE_KINDS] = {
        s->call_period_s, s->log_period_s, s->seal_period_s};

    return periods[kind];
}

/* A key of the future was made by a clock that was ahead: its age is not known. */
static int64_t age_due_ms(const struct keystate_doc *d, int64_t period,
                          int64_t now_ms)
{
    int64_t since = keystate_now(d)->at_ms;

    if (period <= 0)
        return INT64_MAX;
    return since > now_ms + AHEAD_MS ? now_ms : since + period * 1000;
}

/* ---- trying ---- */

static void note_failure(struct core *c, int kind, const struct error *why)
{
    int64_t wait = RETRY_FIRST_MS;

    for (int i = 0; i < c->keyschedule.kinds[kind].tries && wait < RETRY_MAX_MS;
         i++)
        wait *= 2;
    if (wait > RETRY_MAX_MS)
        wait = RETRY_MAX_MS;
    c->keyschedule.kinds[kind].tries++;
    c->keyschedule.kinds[kind].not_before_ms = clock_monotonic_ms() + wait;
    c->keyschedule.kinds[kind].error = *why;
    if (why->code != ERR_EXISTS)
        log_failure(why, "the HSM's %s key is due to be rotated", kinds[kind]);
}

static void begin(struct core *c, int kind, const char *cause)
{
    struct error why = {0};
    JSON out = NULL;

    if (atomic_load(&c->unlock.ready) == 0 ||
        clock_monotonic_ms() < c->keyschedule.kinds[kind].not_before_ms)
        return;
    if (keyrotate_run(c, NULL, kinds[kind], cause, &out, &why) != OK) {
        note_failure(c, kind, &why);
        return;
    }
    log_info("the HSM's %s key was rotated (%s)", kinds[kind], cause);
    c->keyschedule.kinds[kind].tries = 0;
    error_clear(&c->keyschedule.kinds[kind].error);
}

/* ---- alarms ---- */

static void tell(struct core *c, int kind, const struct keystate_doc *d,
                 bool compromised)
{
    const struct error *why = &c->keyschedule.kinds[kind].error;
    int64_t since = c->keyschedule.kinds[kind].due_since_ms;
    char at[CLOCK_TEXT_MAX];

    if (!compromised)
        warnings_drop(&c->warnings, ALARM_KEY_COMPROMISED, objects[kind]);
    else
        warnings_raise(&c->warnings, ALARM_KEY_COMPROMISED, objects[kind],
                       "%s was declared compromised at %s, and no other key "
                       "has its place yet%s%s",
                       d->label, clock_text(d->declared_ms, at),
                       why->code ? ": " : "", why->code ? why->text : "");
    if (compromised || !since || clock_monotonic_ms() - since < OVERDUE_MS)
        warnings_drop(&c->warnings, ALARM_ROTATION_OVERDUE, objects[kind]);
    else
        warnings_raise(&c->warnings, ALARM_ROTATION_OVERDUE, objects[kind],
                       "%s, in use since %s, is older than [hsm] %s_period%s%s",
                       d->label, clock_text(keystate_now(d)->at_ms, at),
                       kinds[kind], why->code ? ": " : "",
                       why->code ? why->text : "");
}

static void look_at(struct core *c, int kind)
{
    struct keystate_doc d = {.n = 0};
    int64_t *since = &c->keyschedule.kinds[kind].due_since_ms;
    int64_t now = clock_wall_ms();
    bool due, compromised;

    if (keystates_in_use(c, kinds[kind], &d, NULL) != OK)
        return;
    compromised = d.declared_ms != 0;
    due = compromised ||
          now >= age_due_ms(&d, period_s(c->settings, kind), now);
    if (!due)
        *since = 0;
    else if (!*since)
        *since = clock_monotonic_ms();
    tell(c, kind, &d, compromised);
    if (due)
        begin(c, kind,
              compromised ? KEYROTATION_COMPROMISED : KEYROTATION_SCHEDULE);
    if (due && c->keyschedule.kinds[kind].tries == 0 &&
        keystates_in_use(c, kinds[kind], &d, NULL) == OK)
        tell(c, kind, &d, d.declared_ms != 0);
}

void keyschedule_look(struct core *c)
{
    for (int kind = 0; kind < KEYSCHEDULE_KINDS; kind++)
        look_at(c, kind);
}

/* ---- for people ---- */

json_t *keyschedule_json(struct core *c)
{
    JSON out = json_object();

    for (int kind = 0; kind < KEYSCHEDULE_KINDS; kind++) {
        struct keystate_doc d = {.n = 0};
        int64_t period = period_s(c->settings, kind);

        if (period == 0 || keystates_in_use(c, kinds[kind], &d, NULL) != OK)
            continue;
        if (json_object_set_new(out, kinds[kind],
                                json_pack("{sI sI}", "period",
                                          (json_int_t)period, "next_ms",
                                          (json_int_t)age_due_ms(
                                              &d, period, clock_wall_ms()))) !=
            0)
            return NULL;
    }
    return json_incref(out);
}
