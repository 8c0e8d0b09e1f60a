/* absent - the proof that accounts are gone: each project is listed, and none
 * of them is there. */
#ifndef HSMINT_CORE_ABSENT_H
#define HSMINT_CORE_ABSENT_H

#include "common/json.h"

#include <stdint.h>

struct core;

/* `ids`: of leases. *found: how many of their accounts are still there, by
 * name; their leases are due to be revoked again. */
MUST_CHECK enum code absent_check(struct core *c, const json_t *ids,
                                  int64_t *found, struct error *e);

#endif
