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
#include "module/core/policies.h"

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
/* Records that `why` was the answer. */
void core_refused(struct core *c, const struct caller *by, uint32_t caps,
                  const char *org, const char *role, const struct error *why);
/* At the end: how many were left out. */
void core_refused_rest(struct core *c);

/* ---- leases: their lives and numbers ---- */
struct permit_lease {
    struct core *core;
    const struct caller *by;
    enum capability cap;
    const char *org;   /* the caller's, as long as this lives */
    const char *role;
    const char *shown; /* what errors call the role */
    int64_t life_s;    /* from its issue; 0: none named */
    /* The answer. */
    int64_t max_life_s; /* of the policy that allows; 0: no limit */
    /* Its own. */
    struct who who;
    struct policy_set *set; /* NULL: user mode */
    bool refused_inside;    /* permit_lease_again() refused */
};
void permit_lease_clear(struct permit_lease *p);
#define PERMIT_LEASE CLEANUP(permit_lease_clear) struct permit_lease

/* Subject, hours and life; sets max_life_s. */
MUST_CHECK enum code permit_lease_open(struct permit_lease *p, struct error *e);
/* Live leases and mints a minute as well, now. */
MUST_CHECK enum code permit_lease_room(struct permit_lease *p, struct error *e);
/* The same as the transaction sees them that will insert the lease. A refusal
 * is recorded by permit_lease_settle(), outside of it. */
MUST_CHECK enum code permit_lease_again(struct permit_lease *p,
                                        struct store_tx *tx, struct error *e);
void permit_lease_settle(struct permit_lease *p, const struct error *why);

#endif
