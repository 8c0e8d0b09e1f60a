/* hours - a weekly window of time, in UTC: "mon-fri 07:00-19:00". */
#ifndef HSMINT_CORE_HOURS_H
#define HSMINT_CORE_HOURS_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

struct hours {
    uint8_t days; /* on which it begins; bit 0 is Monday */
    uint16_t begin, end; /* minutes; an end before the beginning is the next
                            day's */
};

/* "DAYS HH:MM-HH:MM": DAYS is mon, mon-fri, fri-mon or daily; 24:00 is an end.
 * ERR_INVALID, with what to write. */
MUST_CHECK enum code hours_parse(struct hours *h, const char *text,
                                 struct error *e);
/* Begins with its first minute, ends before its last. */
bool hours_open(const struct hours *h, int64_t wall_ms);

#endif
