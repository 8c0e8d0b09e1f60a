/* cron - see cron.h. */
#include "config.h"

#include "common/cron.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MINUTES_A_DAY = 1440, DAYS_MAX = 8 * 366 + 1 /* to any 29 February */ };
#define DAY_MS INT64_C(86400000)
#define LAST_DAY INT64_C(2932896) /* 9999-12-31 */

/* ---- text ---- */

struct field {
    const char *name;
    int min, max;
    const char *names; /* three letters each, from `min` on; NULL: none */
};

static const struct field fields[] = {
    {"minute", 0, 59, NULL},
    {"hour", 0, 23, NULL},
    {"day of month", 1, 31, NULL},
    {"month", 1, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"},
    {"day of week", 0, 7, "SUNMONTUEWEDTHUFRISAT"},
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

static const char *read_number(const char *p, int *value)
{
    size_t digits = strspn(p, "0123456789");

    if (digits == 0 || digits > 2)
        return NULL;
    *value = atoi(p);
    return p + digits;
}

/* A number or a name; NULL when it is neither or out of bounds. */
static const char *read_value(const struct field *f, const char *p, int *value)
{
    const char *end = read_number(p, value);

    if (end)
        return *value >= f->min && *value <= f->max ? end : NULL;
    for (const char *n = f->names; n && *n; n += 3) {
        if (strncasecmp(n, p, 3) == 0) {
            *value = f->min + (int)((n - f->names) / 3);
            return p + 3;
        }
    }
    return NULL;
}

/* "*", "5", "1-5", each with "/2" behind: "5/2" goes on to the end. */
static const char *read_item(const struct field *f, const char *p,
                             uint64_t *bits)
{
    int from = f->min, to = f->max, step = 1;
    bool is_single = false;

    if (*p == '*') {
        p++;
    } else {
        p = read_value(f, p, &from);
        is_single = p && *p != '-';
        if (p && *p == '-')
            p = read_value(f, p + 1, &to);
    }
    if (!p || to < from)
        return NULL;
    if (*p == '/') {
        p = read_number(p + 1, &step);
        if (!p || step == 0)
            return NULL;
    } else if (is_single) {
        to = from;
    }
    for (int i = from; i <= to; i += step)
        *bits |= UINT64_C(1) << i;
    return p;
}

static const char *read_field(const struct field *f, const char *p,
                              uint64_t *bits)
{
    *bits = 0;
    p = read_item(f, p + strspn(p, " "), bits);
    while (p && *p == ',')
        p = read_item(f, p + 1, bits);
    return p && (!*p || *p == ' ') ? p : NULL;
}

static bool is_any(const char *p)
{
    p += strspn(p, " ");
    return p[0] == '*' && (p[1] == ' ' || !p[1]);
}

enum code cron_parse(struct cron *c, const char *text, struct error *e)
{
    uint64_t *bits[FIELDS] = {&c->minutes, &c->hours, &c->days, &c->months,
                              &c->weekdays};
    bool any[FIELDS];
    const char *p = text;

    for (size_t i = 0; i < FIELDS; i++) {
        any[i] = is_any(p);
        p = read_field(&fields[i], p, bits[i]);
        if (!p)
            return error_set(e, ERR_INVALID,
                             "its %s is not understood; cron's five fields are "
                             "needed, like \"0 3 * * SUN\"",
                             fields[i].name);
    }
    if (p[strspn(p, " ")])
        return error_set(e, ERR_INVALID,
                         "there is text behind its five fields");
    c->any_day = any[2];
    c->any_weekday = any[4];
    if (c->weekdays >> 7 & 1) /* Sunday, once more */
        c->weekdays |= 1;
    if (cron_next(c, 0) == CRON_NEVER)
        return error_set(e, ERR_INVALID, "this day never comes");
    return OK;
}

/* ---- time ---- */

static bool has(uint64_t bits, int n)
{
    return bits >> n & 1;
}

/* `day`: whole days since 1970. */
static bool is_day(const struct cron *c, int64_t day)
{
    time_t at = (time_t)(day * (DAY_MS / 1000));
    struct tm tm;

    if (!gmtime_r(&at, &tm) || !has(c->months, tm.tm_mon + 1))
        return false;
    if (c->any_day || c->any_weekday)
        return has(c->days, tm.tm_mday) && has(c->weekdays, tm.tm_wday);
    return has(c->days, tm.tm_mday) || has(c->weekdays, tm.tm_wday);
}

static bool is_minute(const struct cron *c, int minute)
{
    return has(c->hours, minute / 60) && has(c->minutes, minute % 60);
}

/* From this minute of this day on, itself included, a step of one minute. */
static int64_t search(const struct cron *c, int64_t day, int minute, int step)
{
    for (int n = 0; n < DAYS_MAX && day >= 0 && day <= LAST_DAY; n++) {
        if (is_day(c, day)) {
            for (; minute >= 0 && minute < MINUTES_A_DAY; minute += step) {
                if (is_minute(c, minute))
                    return day * DAY_MS + INT64_C(60000) * minute;
            }
        }
        day += step;
        minute = step > 0 ? 0 : MINUTES_A_DAY - 1;
    }
    return CRON_NEVER;
}

int64_t cron_next(const struct cron *c, int64_t wall_ms)
{
    int64_t minute = wall_ms < 0 ? 0 : wall_ms / 60000 + 1;

    return search(c, minute / MINUTES_A_DAY, (int)(minute % MINUTES_A_DAY), 1);
}

int64_t cron_last(const struct cron *c, int64_t wall_ms)
{
    int64_t minute = wall_ms / 60000;

    if (wall_ms < 0)
        return CRON_NEVER;
    return search(c, minute / MINUTES_A_DAY, (int)(minute % MINUTES_A_DAY), -1);
}
