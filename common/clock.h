/* clock - wall, monotonic and boot time, replaceable in tests.
 *
 * Units are milliseconds unless a name says otherwise. */
#ifndef HSMINT_CLOCK_H
#define HSMINT_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct clock_source {
    int64_t (*wall_ms)(void *ctx);      /* since 1970, UTC */
    int64_t (*monotonic_ms)(void *ctx); /* stops while suspended */
    int64_t (*boot_ms)(void *ctx);      /* goes on while suspended */
    void *ctx;
};

int64_t clock_wall_ms(void);
int64_t clock_monotonic_ms(void);
int64_t clock_boot_ms(void);
/* Microseconds, to time a piece of work; never replaced. */
int64_t clock_monotonic_us(void);
/* So long from now by the monotonic clock, for pthread_cond_clockwait(); never
 * replaced. */
struct timespec clock_in_ms(int64_t ms);
/* For tests; NULL gives the real clocks back. Not thread-safe: call it before
 * the threads start. */
void clock_replace(const struct clock_source *source);

#define CLOCK_TEXT_MAX 32
/* "2026-11-21T09:26:15.123Z" (RFC 3339, UTC). Returns buf. */
char *clock_text(int64_t wall_ms, char buf[CLOCK_TEXT_MAX]);

#endif
