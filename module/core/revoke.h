/* revoke - many leases at once: those that fit a filter, those of a role or an
 * organisation that goes.
 *
 * They are marked first, a few hundred in a transaction, and from then on are
 * the sweeper's, which never gives up; the caller waits a while for it.
 */
#ifndef HSMINT_CORE_REVOKE_H
#define HSMINT_CORE_REVOKE_H

#include "module/core/core.h"

/* Marks all live leases of an organisation (0: all) and role (NULL: all), but
 * for those that come meanwhile: see halt.h. */
MUST_CHECK enum code revoke_mark(struct core *c, int64_t org, const char *role,
                                 const char *reason, const struct caller *by,
                                 struct error *e);
/* Until none lives, or wait_ms are over. *left: how many still do. */
MUST_CHECK enum code revoke_wait(struct core *c, int64_t org, const char *role,
                                 int64_t wait_ms, int64_t *left,
                                 struct error *e);

#endif
