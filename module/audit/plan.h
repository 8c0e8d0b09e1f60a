/* plan - when a configuration, as its record has it, asks for the next rotation
 * of the admin key: hsmint.1, rotation_period and rotation_schedule.
 */
#ifndef HSMINT_AUDIT_PLAN_H
#define HSMINT_AUDIT_PLAN_H

#include "common/json.h"

#include <stdint.h>

#define PLAN_NEVER INT64_MAX

/* Milliseconds since 1970; PLAN_NEVER: nothing rotates it by itself. */
struct plan {
    int64_t due_ms;
    int64_t overdue_ms; /* the window's end, or a grace later */
};
/* After the rotation (or the configuration's begin) at since_ms. */
struct plan plan_next(const json_t *config, int64_t since_ms);

#endif
