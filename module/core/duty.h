/* duty - what has to be done for one lease that is due, by its row: one table
 * of what its row says and what is done. */
#ifndef HSMINT_CORE_DUTY_H
#define HSMINT_CORE_DUTY_H

#include "common/error.h"

#include <stdbool.h>

struct core;

/* Does it, if it is due still and nobody else is at it. *done false: nothing
 * was to do. An error is why it has to be tried again; the row says when. */
MUST_CHECK enum code duty_do(struct core *c, const char *lease, bool *done,
                             struct error *e);

#endif
