/* guard - how much one role may give away: live leases and mints within a
 * minute, in all and to each owner. spec/LEASES.md, "Guards".
 *
 * They are asked before the HSM signs, so that what loops costs little, and
 * once more in the transaction that inserts the lease: two at once cannot both
 * be the last.
 */
#ifndef HSMINT_CORE_GUARD_H
#define HSMINT_CORE_GUARD_H

#include "module/core/role.h"
#include "module/store/store.h"

struct core;

struct guard {
    const struct role *role;
    int64_t org;
    const char *name, *owner; /* of the role, of who mints */
};
/* ERR_LIMIT says which guard, and what to do. tx NULL: as of the last commit. */
MUST_CHECK enum code guard_check(struct core *c, const struct guard *g,
                                 struct store_tx *tx, struct error *e);

#endif
