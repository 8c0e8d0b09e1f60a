/* hours - see hours.h. */
#include "config.h"

#include "module/core/hours.h"

#include <string.h>

#define MINUTES_A_DAY 1440
#define DAYS_A_WEEK 7
#define ALL_DAYS 0x7f
#define THURSDAY 3 /* 1970-01-01 */

static const char *const names[DAYS_A_WEEK] = {"mon", "tue", "wed", "thu",
                                               "fri", "sat", "sun"};

/* Length of the name, 0 if it is none. */
static size_t take_day(const char *s, unsigned *day)
{
    for (*day = 0; *day < DAYS_A_WEEK; ++*day) {
        if (strncmp(s, names[*day], 3) == 0)
            return 3;
    }
    return 0;
}

static size_t take_days(const char *s, uint8_t *days)
{
    unsigned first, last;
    size_t n = take_day(s, &first);

    if (strncmp(s, "daily", 5) == 0) {
        *days = ALL_DAYS;
        return 5;
    }
    last = first;
    if (n && s[n] == '-') {
        if (take_day(s + n + 1, &last) == 0)
            return 0;
        n += 4;
    }
    if (n == 0)
        return 0;
    *days = (uint8_t)(1u << first);
    while (first != last) {
        first = (first + 1) % DAYS_A_WEEK;
        *days |= (uint8_t)(1u << first);
    }
    return n;
}

static bool two_digits(const char *s, unsigned *n)
{
    if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9')
        return false;
    *n = (unsigned)(s[0] - '0') * 10 + (unsigned)(s[1] - '0');
    return true;
}

/* "HH:MM" */
static bool take_time(const char *s, uint16_t *minutes)
{
    unsigned hour, minute;

    if (!two_digits(s, &hour) || s[2] != ':' || !two_digits(s + 3, &minute) ||
        minute > 59 || hour * 60 + minute > MINUTES_A_DAY)
        return false;
    *minutes = (uint16_t)(hour * 60 + minute);
    return true;
}

enum code hours_parse(struct hours *h, const char *text, struct error *e)
{
    size_t n = take_days(text, &h->days);
    const char *begin = text + n + 1;

    if (n == 0 || text[n] != ' ' || strnlen(begin, 12) != 11 ||
        begin[5] != '-' || !take_time(begin, &h->begin) ||
        !take_time(begin + 6, &h->end) || h->begin == MINUTES_A_DAY)
        return error_set(e, ERR_INVALID,
                         "\"%.64s\" is no window of time: write it like "
                         "\"mon-fri 07:00-19:00\" or \"daily 22:00-06:00\", in "
                         "UTC",
                         text);
    if (h->begin == h->end)
        return error_set(e, ERR_INVALID,
                         "\"%.64s\" ends when it begins: for whole days write "
                         "00:00-24:00",
                         text);
    return OK;
}

bool hours_open(const struct hours *h, int64_t wall_ms)
{
    int64_t minutes = wall_ms / 60000;
    unsigned day = (unsigned)((minutes / MINUTES_A_DAY + THURSDAY) %
                              DAYS_A_WEEK);
    unsigned now = (unsigned)(minutes % MINUTES_A_DAY);
    unsigned yesterday = (day + DAYS_A_WEEK - 1) % DAYS_A_WEEK;
    bool today = h->days >> day & 1;

    if (wall_ms < 0)
        return false;
    if (h->begin < h->end)
        return today && now >= h->begin && now < h->end;
    return (today && now >= h->begin) ||
           (h->days >> yesterday & 1 && now < h->end);
}
