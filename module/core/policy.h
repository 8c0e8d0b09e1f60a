/* policy - one rule of who may do what: its syntax, and whether it matches.
 * spec/POLICY.md. No store, no clock, no lock: policies.h holds the set.
 */
#ifndef HSMINT_CORE_POLICY_H
#define HSMINT_CORE_POLICY_H

#include "common/error.h"
#include "common/json.h"
#include "module/core/identity.h"

#include <stdint.h>

enum capability {
    CAP_MINT,
    CAP_RENEW,
    CAP_REVOKE_OWN,
    CAP_READ,
    CAP_LIST_OWN,
    CAP_LIST_ANY,
    CAP_REVOKE_ANY,
    CAP_ADMINISTER,
    CAP_ROTATE,
    CAP_AUDIT,
    CAP_STATUS,
    CAPABILITIES
};
#define CAPABILITY_BIT(c) (1u << (c))
#define CAPABILITY_ABOUT_ROLES (CAPABILITY_BIT(CAP_ADMINISTER) - 1)
/* Any of these lets see a role. */
#define CAPABILITY_ROLE_SHOWN                                                  \
    (CAPABILITY_ABOUT_ROLES | CAPABILITY_BIT(CAP_ADMINISTER))
#define CAPABILITY_ALL (CAPABILITY_BIT(CAPABILITIES) - 1)
const char *capability_name(enum capability c); /* "revoke-own" */
/* ERR_INVALID */
MUST_CHECK enum code capability_parse(const char *name, enum capability *c,
                                      struct error *e);
bool capability_is_about_roles(enum capability c);

#endif
