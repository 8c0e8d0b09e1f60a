/* permit - may this caller do that? spec/POLICY.md, "The decision".
 *
 * User mode: the daemon's own uid may all, others nothing. System mode: what
 * the policies say, nothing by default. Each refusal is ERR_DENIED, ERR_LIMIT
 * or ERR_TTL with its reason, and is recorded. Thread-safe; policies are asked
 * for every call, so a change takes effect at the next one.
 *
 * org NULL: the whole daemon; then only policies for all organisations allow,
 * and those that deny in any of them deny. role NULL: the capability is not
 * about roles, or it is enough to have it for some role.
 */
#ifndef HSMINT_CORE_PERMIT_H
#define HSMINT_CORE_PERMIT_H

#include "module/core/core.h"
#include "module/core/policy.h"

MUST_CHECK enum code core_permit(struct core *c, const struct caller *by,
                                 enum capability cap, const char *org,
                                 const char *role, struct error *e);
/* One of `caps` (CAPABILITY_BIT) is enough. */
MUST_CHECK enum code core_permit_any(struct core *c, const struct caller *by,
                                     uint32_t caps, const char *org,
                                     const char *role, struct error *e);
/* The same without a record: what a list shows. */
bool core_may(struct core *c, const struct caller *by, uint32_t caps,
              const char *org, const char *role);

#endif
