/* hsm_status - how the HSM and its keys are, for people. */
#ifndef HSMINT_CORE_HSM_STATUS_H
#define HSMINT_CORE_HSM_STATUS_H

#include "common/json.h"

struct core;

/* What is known of the HSM: waits for it no longer than half a second. The
 * caller's; NULL: no memory. */
json_t *hsm_status(struct core *c);

#endif
