#include "config.h"

#include "common/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t real_wall(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_REALTIME);
}

static int64_t real_monotonic(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_MONOTONIC);
}

static int64_t real_boot(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_BOOTTIME);
}

static const struct clock_source real = {real_wall, real_monotonic, real_boot,
                                         NULL};
static struct clock_source current = {real_wall, real_monotonic, real_boot,
                                      NULL};

int64_t clock_wall_ms(void)
{
    return current.wall_ms(current.ctx);
}

int64_t clock_monotonic_ms(void)
{
    return current.monotonic_ms(current.ctx);
}

int64_t clock_boot_ms(void)
{
    return current.boot_ms(current.ctx);
}

int64_t clock_monotonic_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void clock_replace(const struct clock_source *source)
{
    current = source ? *source : real;
}

char *clock_text(int64_t wall_ms, char buf[CLOCK_TEXT_MAX])
{
    int64_t ms = wall_ms % 1000;
    if (ms < 0)
        ms += 1000;
    time_t seconds = (time_t)((wall_ms - ms) / 1000);
    struct tm t;
    /* RFC 3339 has four digits of year; what is beyond is no time of ours. */
    if (!gmtime_r(&seconds, &t) || t.tm_year > 9999 - 1900 ||
        t.tm_year < -1900) {
        snprintf(buf, CLOCK_TEXT_MAX, "(out of range)");
        return buf;
    }
    char day[24];
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(buf, CLOCK_TEXT_MAX, "%s.%03dZ", day, (int)ms);
    return buf;
}

struct timespec clock_in_ms(int64_t ms)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    t.tv_sec += (time_t)(ms / 1000 + t.tv_nsec / 1000000000);
    t.tv_nsec %= 1000000000;
    return t;
}
