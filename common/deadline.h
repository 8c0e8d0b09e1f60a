/* deadline - waits for descriptors that end.
 *
 * By the real monotonic clock, also where a test replaces common/clock: a
 * test's time must not make I/O hang. */
#ifndef HSMINT_DEADLINE_H
#define HSMINT_DEADLINE_H

#include "common/error.h"

#include <stdint.h>

/* The point in time `ms` from now; -1 (never) for a negative one. */
int64_t deadline_after(int ms);
/* What is left until then, for poll(2): -1 never, 0 it has passed. */
int deadline_left(int64_t end);
/* Until one of `events` or an error of fd; ERR_DEADLINE. */
MUST_CHECK enum code deadline_wait(int fd, short events, int64_t end,
                                   struct error *e);

#endif
