/* cron: what is taken, and when it is. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/cron.h"

#include <string.h>
#include <time.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int64_t at(const char *text)
{
    struct tm tm = {0};

    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)timegm(&tm) * 1000;
}

static struct cron parsed(const char *text)
{
    struct cron c;
    struct error e = {0};

    if (cron_parse(&c, text, &e) != OK)
        fail_msg("“%s”: %s", text, e.text);
    return c;
}

static void five_fields_are_taken(void **state)
{
    static const char *const good[] = {"* * * * *",
                                       "0 3 * * 0",
                                       "*/15 * * * *",
                                       "0 0 1,15 * *",
                                       "0 9-17/2 * * MON-FRI",
                                       "5 4 * jan,JUL sun",
                                       "0 0 31 12 7",
                                       "0 0 29 2 *",
                                       "0 0 30 2 MON",
                                       " 0  0 1 1 * "};
    static const char *const bad[] = {
        "",           "* * * *",     "* * * * * *", "60 * * * *",
        "* 24 * * *", "* * 0 * *",   "* * 32 * *",  "* * * 13 *",
        "* * * * 8",  "5-1 * * * *", "*/0 * * * *", "a * * * *",
        "1, * * * *", "1- * * * *",  "*/x * * * *", "@daily",
        "0 0 30 2 *", "0 0 31 4,6 *", "* * * * *\n", "001 * * * *"};

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        (void)parsed(good[i]);
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct cron c;
        struct error e;

        if (cron_parse(&c, bad[i], &e) != ERR_INVALID)
            fail_msg("“%s” is taken", bad[i]);
    }
}

static const struct {
    const char *text, *from, *next, *last;
} times[] = {
    {"0 3 * * 1", "2026-11-21 12:00:00", "2026-11-23 03:00:00",
     "2026-11-16 03:00:00"},
    {"0 3 * * MON", "2026-11-23 03:00:00", "2026-11-30 03:00:00",
     "2026-11-23 03:00:00"},
    {"0 3 * * 1", "2026-11-23 02:59:59", "2026-11-23 03:00:00",
     "2026-11-16 03:00:00"},
    {"* * * * *", "2026-11-21 12:00:30", "2026-11-21 12:01:00",
     "2026-11-21 12:00:00"},
    {"*/15 * * * *", "2026-12-31 23:46:00", "2027-01-01 00:00:00",
     "2026-12-31 23:45:00"},
    {"0 0 29 2 *", "2096-03-01 00:00:00", "2104-02-29 00:00:00",
     "2096-02-29 00:00:00"},
    {"0 0 1 * MON", "2026-11-21 00:00:00", "2026-11-23 00:00:00",
     "2026-11-16 00:00:00"}, /* either of both */
    {"0 0 31 * *", "2026-11-21 00:00:00", "2026-12-31 00:00:00",
     "2026-10-31 00:00:00"},
    {"0 12 * * 7", "2026-11-21 00:00:00", "2026-11-22 12:00:00",
     "2026-11-15 12:00:00"},
    {"30 6/9 * * *", "2026-11-21 07:00:00", "2026-11-21 15:30:00",
     "2026-11-21 06:30:00"},
};

static void next_and_last_are_as_the_calendar_has_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(times); i++) {
        struct cron c = parsed(times[i].text);
        char text[CLOCK_TEXT_MAX];
        int64_t next = cron_next(&c, at(times[i].from));
        int64_t last = cron_last(&c, at(times[i].from));

        if (next != at(times[i].next))
            fail_msg("“%s” after %s: %s", times[i].text, times[i].from,
                     clock_text(next, text));
        if (last != at(times[i].last))
            fail_msg("“%s” before %s: %s", times[i].text, times[i].from,
                     clock_text(last, text));
    }
}

/* Minute by minute through a leap year, against the plain meaning. */
static void a_year_of_minutes(void **state)
{
    struct cron c = parsed("7,37 */5 13 * FRI");
    int64_t expected = cron_next(&c, at("2027-12-31 23:59:00"));

    (void)state;
    for (int64_t t = at("2028-01-01 00:00:00"); t < at("2029-01-01 00:00:00");
         t += 60000) {
        time_t s = (time_t)(t / 1000);
        struct tm tm;
        bool is;

        gmtime_r(&s, &tm);
        is = (tm.tm_min == 7 || tm.tm_min == 37) && tm.tm_hour % 5 == 0 &&
             (tm.tm_mday == 13 || tm.tm_wday == 5);
        assert_int_equal(is, t == expected);
        if (!is)
            continue;
        assert_int_equal(cron_last(&c, t), t);
        assert_int_equal(cron_last(&c, t + 59999), t);
        expected = cron_next(&c, t);
    }
}

static void beyond_the_calendar_is_never(void **state)
{
    struct cron c = parsed("0 0 1 1 *");

    (void)state;
    assert_true(cron_next(&c, INT64_MAX) == CRON_NEVER);
    assert_true(cron_next(&c, at("9999-01-02 00:00:00")) == CRON_NEVER);
    assert_true(cron_last(&c, -1) == CRON_NEVER);
    assert_int_equal(cron_next(&c, INT64_MIN), 0);
    assert_int_equal(cron_next(&c, 0), 60000 * 525600ll);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_fields_are_taken),
        cmocka_unit_test(next_and_last_are_as_the_calendar_has_them),
        cmocka_unit_test(a_year_of_minutes),
        cmocka_unit_test(beyond_the_calendar_is_never),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
