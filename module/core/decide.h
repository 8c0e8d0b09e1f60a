/* decide - may they, by a set of policies? spec/POLICY.md, "The decision".
 *
 * No lock, no clock, no store but through `usage`: so `hsmint policy test` and
 * a real call go the same way.
 */
#ifndef HSMINT_CORE_DECIDE_H
#define HSMINT_CORE_DECIDE_H

#include "module/core/policies.h"
#include "module/store/store.h"

#define DECIDE_REASON_MAX 320

/* What the caller has in the organisations and roles of `p`. */
typedef enum code (*decide_usage_fn)(const struct policy *p, void *ctx,
                                     struct store_usage *out, struct error *e);
struct decide_question {
    struct policy_question q;
    int64_t now_ms;
    int64_t life_s;        /* of the lease, from its issue; 0: none named */
    decide_usage_fn usage; /* NULL: live leases and mints are not counted */
    void *ctx;
};

struct verdict {
    enum code code; /* OK, ERR_DENIED, ERR_LIMIT or ERR_TTL */
    char policy[POLICY_NAME_MAX]; /* the one that decided; "" if none did */
    char reason[DECIDE_REASON_MAX];
    int nearness;      /* of refusals: the higher, the less was missing */
    int64_t max_ttl_s; /* OK: of the policy that allows; 0: no limit */
};

/* Fails only where `usage` does. `considered`: NULL, or an array that gets
 * {policy, effect, result, reason} of every policy. */
MUST_CHECK enum code decide(const struct policy_set *set,
                            const struct decide_question *d, struct verdict *v,
                            json_t *considered, struct error *e);

#endif
