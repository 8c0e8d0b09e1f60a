/* life - the daemon's own records: that it begins and leaves, and that it lost
 * or found the HSM. */
#ifndef HSMINT_CORE_LIFE_H
#define HSMINT_CORE_LIFE_H

#include "common/error.h"

#include <stdbool.h>

struct core;

/* First of all that a daemon records: without it nothing is. */
MUST_CHECK enum code life_start(struct core *c, struct error *e);
/* Last; what cannot be written is told in the log. */
void life_stop(struct core *c);
/* As the watch sees the HSM; by one thread. What cannot be written is written
 * with the next look. */
void life_hsm(struct core *c, bool lost, const char *reason);

#endif
