/* When admin keys are rotated, and how long they live. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "module/core/schedule.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define DAY_MS INT64_C(86400000)
#define HOUR_MS INT64_C(3600000)

static int64_t at(const char *text)
{
    struct tm tm = {0};

    assert_non_null(strptime(text, "%Y-%m-%d %H:%M", &tm));
    return (int64_t)timegm(&tm) * 1000;
}

static struct config made(const char *json)
{
    struct config c = {0};
    struct error e = {0};
    JSON fields = json_loads(json, 0, NULL);

    assert_non_null(fields);
    assert_int_equal(OK, config_init(&c, &e));
    if (config_apply(&c, fields, false, &e) != OK)
        fail_msg("%s: %s", json, e.text);
    return c;
}

static void refused(const char *json, const char *part)
{
    CONFIG c = {0};
    struct error e = {0};
    JSON fields = json_loads(json, 0, NULL);

    assert_non_null(fields);
    assert_int_equal(OK, config_init(&c, &e));
    if (config_apply(&c, fields, false, &e) != ERR_INVALID ||
        !strstr(e.text, part))
        fail_msg("%s: “%s”", json, e.text);
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    refused("{\"rotation_period\":\"30d\",\"rotation_schedule\":\"0 3 * * 1\"}",
            "exclude each other");
    refused("{\"rotation_window\":\"2h\"}", "goes with rotation_schedule");
    refused("{\"rotation_schedule\":\"0 3 * *\"}", "day of week");
    refused("{\"rotation_schedule\":\"0 3 31 2 *\"}", "never comes");
    refused("{\"rotation_period\":\"60s\"}", "ten minutes");
    refused("{\"rotation_period\":\"350d\"}", "lives for a year");
    refused("{\"rotation_schedule\":\"0 3 1 1 *\"}", "lives for a year");
    refused("{\"rotation_period\":\"30d\",\"rotation_slack\":\"340d\"}",
            "lives for a year");
}

struct expected {
    const char *now, *due, *cause; /* due NULL: never */
    int64_t late_ms;               /* overdue_ms - due_ms; -1: not looked at */
};

static void expect(struct config *c, const struct expected *x)
{
    struct schedule s = schedule_next(c, at(x->now));
    char text[CLOCK_TEXT_MAX];

    if (!x->due) {
        assert_true(s.due_ms == SCHEDULE_NEVER);
        return;
    }
    if (s.due_ms != at(x->due) || strcmp(s.cause, x->cause) != 0)
        fail_msg("at %s: %s %s, not %s", x->now, s.cause,
                 clock_text(s.due_ms, text), x->due);
    if (x->late_ms >= 0)
        assert_int_equal(s.overdue_ms - s.due_ms, x->late_ms);
}

static void a_period_after_the_last_one(void **state)
{
    static const struct expected rows[] = {
        {"2026-01-02 00:00", "2026-01-31 00:00", "period", HOUR_MS},
        {"2026-03-02 00:00", "2026-01-31 00:00", "period", HOUR_MS},
    };
    CONFIG c = made("{\"rotation_period\":\"30d\"}");

    (void)state;
    c.last_rotated_ms = at("2026-01-01 00:00");
    for (size_t i = 0; i < COUNT(rows); i++)
        expect(&c, &rows[i]);
    c.disable_automated_rotation = true;
    expect(&c, &(struct expected){.now = "2026-06-01 00:00"});
}

/* 2026-11-16 and -23 are Mondays. */
static void a_schedule_with_and_without_a_window(void **state)
{
    static const struct expected with[] = {
        {"2026-11-17 00:00", "2026-11-23 03:00", "schedule", 2 * HOUR_MS},
        {"2026-11-23 02:59", "2026-11-23 03:00", "schedule", 2 * HOUR_MS},
        {"2026-11-23 04:59", "2026-11-23 03:00", "schedule", 2 * HOUR_MS},
        /* Missed: not before the next window, and overdue. */
        {"2026-11-23 05:01", "2026-11-30 03:00", "schedule", -1},
        {"2026-12-07 04:00", "2026-12-07 03:00", "schedule", -1},
    };
    static const struct expected without[] = {
        {"2026-11-17 00:00", "2026-11-23 03:00", "schedule", HOUR_MS},
        {"2026-12-25 00:00", "2026-11-23 03:00", "schedule", HOUR_MS},
    };
    CONFIG c = made("{\"rotation_schedule\":\"0 3 * * 1\","
                    "\"rotation_window\":\"2h\"}");

    (void)state;
    c.last_rotated_ms = at("2026-11-16 03:00") + 5000;
    for (size_t i = 0; i < COUNT(with); i++)
        expect(&c, &with[i]);
    assert_true(schedule_next(&c, at("2026-11-23 05:01")).overdue_ms ==
                at("2026-11-23 05:00"));
    assert_true(schedule_next(&c, at("2026-11-23 03:30")).until_ms ==
                at("2026-11-23 05:00"));
    c.rotation_window = 0;
    for (size_t i = 0; i < COUNT(without); i++)
        expect(&c, &without[i]);
}

static void what_is_wanted_comes_first(void **state)
{
    CONFIG c = made("{}");

    (void)state;
    expect(&c, &(struct expected){.now = "2026-11-17 00:00"});
    snprintf(c.rotation_wanted, sizeof(c.rotation_wanted), "first");
    c.wanted_ms = at("2026-11-16 00:00");
    expect(&c, &(struct expected){"2026-11-17 00:00", "2026-11-17 00:00",
                                  "first", -1});
    assert_true(schedule_next(&c, at("2026-11-17 00:00")).overdue_ms ==
                at("2026-11-16 01:00"));
}

static void keys_outlive_their_planned_rotation(void **state)
{
    static const struct {
        const char *json;
        int64_t days;
    } rows[] = {
        {"{}", 0},
        {"{\"rotation_period\":\"30d\"}", 150},
        {"{\"rotation_period\":\"1d\"}", 31},
        {"{\"rotation_period\":\"300d\"}", 365},
        {"{\"rotation_period\":\"30d\",\"rotation_slack\":\"10d\"}", 40},
        {"{\"rotation_period\":\"30d\",\"disable_automated_rotation\":true}",
         0},
        {"{\"rotation_schedule\":\"0 0 * * *\"}", 31},
        {"{\"rotation_schedule\":\"0 0 1 * *\"}", 10 + 4 * 31},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        CONFIG c = made(rows[i].json);
        int64_t life = schedule_life_s(&c, at("2026-11-21 00:00"));

        if (life != rows[i].days * 86400)
            fail_msg("%s: %lld days", rows[i].json, (long long)life / 86400);
    }
}

/* From 30 to 300 days: the key of before would end first. */
static void a_longer_schedule_rotates_first(void **state)
{
    CONFIG c = made("{\"rotation_period\":\"30d\"}");

    (void)state;
    c.last_rotated_ms = at("2026-01-01 00:00");
    c.key_expires_ms = c.last_rotated_ms +
                       schedule_life_s(&c, c.last_rotated_ms) * 1000;
    expect(&c, &(struct expected){"2026-01-02 00:00", "2026-01-31 00:00",
                                  "period", -1});
    assert_int_equal(schedule_margin_ms(&c), 60 * DAY_MS);
    assert_false(schedule_outgrown(&c, at("2026-01-02 00:00")));
    c.rotation_period = 300 * 86400;
    assert_true(schedule_outgrown(&c, at("2026-01-02 00:00")));
    expect(&c, &(struct expected){"2026-01-02 00:00", "2026-04-28 12:00",
                                  "expiry", -1});
}

/* A service that gives keys a week, whatever it is asked: half a week each. */
static void a_shorter_life_than_asked_does_not_rotate_for_ever(void **state)
{
    CONFIG c = made("{\"rotation_period\":\"30d\"}");

    (void)state;
    c.last_rotated_ms = at("2026-01-01 00:00");
    c.key_expires_ms = at("2026-01-08 00:00");
    expect(&c, &(struct expected){"2026-01-01 00:01", "2026-01-04 12:00",
                                  "expiry", -1});
}

/* The clock was years ahead when the key was made, and was set right since: when
 * that was cannot be told. */
static void a_last_rotation_in_the_future_is_none(void **state)
{
    static const struct expected rows[] = {
        {"2026-11-17 00:00", "2026-11-17 00:00", "period", HOUR_MS},
        {"2036-01-01 00:00", "2036-01-31 00:00", "period", HOUR_MS},
    };
    static const struct expected windows[] = {
        {"2026-11-17 00:00", "2026-11-23 03:00", "schedule", 2 * HOUR_MS},
        {"2026-11-23 04:00", "2026-11-23 03:00", "schedule", 2 * HOUR_MS},
        {"2026-11-23 05:01", "2026-11-30 03:00", "schedule", 2 * HOUR_MS},
    };
    CONFIG period = made("{\"rotation_period\":\"30d\"}");
    CONFIG cron = made("{\"rotation_schedule\":\"0 3 * * 1\"}");

    (void)state;
    period.last_rotated_ms = cron.last_rotated_ms = at("2036-01-01 00:00");
    for (size_t i = 0; i < COUNT(rows); i++)
        expect(&period, &rows[i]);
    expect(&cron, &(struct expected){"2026-11-17 00:00", "2026-11-17 00:00",
                                     "schedule", HOUR_MS});
    cron.rotation_window = 2 * 3600;
    for (size_t i = 0; i < COUNT(windows); i++)
        expect(&cron, &windows[i]);
    /* Correction by a little is no such leap. */
    period.last_rotated_ms = at("2026-11-17 00:59");
    expect(&period, &(struct expected){"2026-11-17 00:00", "2026-12-17 00:59",
                                       "period", HOUR_MS});
}

/* Ours is ahead of the service's clock by the life of a key, or more: no reason
 * to rotate again and again. */
static void an_end_before_its_begin_says_nothing(void **state)
{
    CONFIG c = made("{\"rotation_period\":\"30d\"}");

    (void)state;
    c.last_rotated_ms = at("2036-01-01 00:00");
    c.key_expires_ms = at("2027-04-01 00:00");
    expect(&c, &(struct expected){"2036-01-01 00:01", "2036-01-31 00:00",
                                  "period", HOUR_MS});
    c.key_expires_ms = at("2036-01-01 00:01");
    expect(&c, &(struct expected){"2036-01-01 00:02", "2036-01-01 00:10",
                                  "expiry", HOUR_MS});
}

/* It was overdue before its end came near. */
static void what_is_overdue_stays_so(void **state)
{
    CONFIG c = made("{\"rotation_schedule\":\"0 3 * * 1\","
                    "\"rotation_window\":\"2h\"}");
    struct schedule s;

    (void)state;
    c.last_rotated_ms = at("2026-11-16 03:00");
    c.key_expires_ms = at("2026-12-23 03:00"); /* half of the slack: 8 Dec */
    s = schedule_next(&c, at("2026-12-08 03:00"));
    assert_string_equal(s.cause, "expiry");
    assert_true(s.overdue_ms == at("2026-11-23 05:00"));
}

/* Rotates whenever it is due, looking once an hour, but not while down. */
struct year {
    int n, in_window, after_outage;
    bool expired;
};

static struct year live_through(struct config *c, const char *from,
                                int64_t days_down)
{
    struct year y = {0};
    int64_t start = at(from), dark = start + 100 * DAY_MS,
            light = dark + days_down * DAY_MS;

    c->last_rotated_ms = start;
    for (int64_t now = start; now < start + 365 * DAY_MS; now += HOUR_MS) {
        struct schedule s = schedule_next(c, now);

        if (now >= dark && now < light)
            continue;
        /* The key that is to make the next one lives. */
        y.expired = y.expired || (c->key_expires_ms && now >= c->key_expires_ms);
        if (s.due_ms > now || now > s.until_ms)
            continue;
        y.n++;
        y.in_window += s.until_ms != SCHEDULE_NEVER;
        y.after_outage += now == light;
        c->last_rotated_ms = now;
        c->key_expires_ms = now + schedule_life_s(c, now) * 1000;
    }
    return y;
}

static void a_year_with_an_outage(void **state)
{
    CONFIG period = made("{\"rotation_period\":\"720h\"}");
    CONFIG cron = made("{\"rotation_schedule\":\"0 3 * * 1\","
                       "\"rotation_window\":\"2h\"}");
    struct year a = live_through(&period, "2026-01-01 00:00", 60);
    struct year b = live_through(&cron, "2026-01-01 00:00", 10);
    struct year late = live_through(&cron, "2026-01-01 00:00", 60);

    (void)state;
    assert_int_equal(a.n, 10); /* 12, but for what the outage put off */
    assert_int_equal(a.after_outage, 1);
    assert_false(a.expired);
    assert_int_equal(b.n, b.in_window);
    assert_in_range(b.n, 52 - 2, 52 - 1);
    assert_int_equal(b.after_outage, 0);
    assert_false(b.expired);
    /* A week and 30 days: who is to survive more sets rotation_slack. */
    assert_true(late.expired);
    cron.rotation_slack = 70 * 86400;
    assert_false(live_through(&cron, "2026-01-01 00:00", 60).expired);
    printf("# 720h: %d rotations in a year with 60 days down; Mondays at three: "
           "%d with 10\n",
           a.n, b.n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(a_period_after_the_last_one),
        cmocka_unit_test(a_schedule_with_and_without_a_window),
        cmocka_unit_test(what_is_wanted_comes_first),
        cmocka_unit_test(keys_outlive_their_planned_rotation),
        cmocka_unit_test(a_longer_schedule_rotates_first),
        cmocka_unit_test(a_shorter_life_than_asked_does_not_rotate_for_ever),
        cmocka_unit_test(a_last_rotation_in_the_future_is_none),
        cmocka_unit_test(an_end_before_its_begin_says_nothing),
        cmocka_unit_test(what_is_overdue_stays_so),
        cmocka_unit_test(a_year_with_an_outage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
