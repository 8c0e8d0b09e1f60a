/* projects - those that an organisation's live leases are in, looked at with an
 * admin key that is to take the place of the one in use. */
#ifndef HSMINT_CORE_PROJECTS_H
#define HSMINT_CORE_PROJECTS_H

#include "common/error.h"
#include "module/core/core.h"
#include "module/store/store.h"

/* ERR_EXISTS: the candidate is another organisation's, whose projects these are
 * not, so that it could not delete the accounts of the leases that live. */
MUST_CHECK enum code projects_check(struct core *c, const struct store_org *org,
                                    const struct caller *by, struct error *e);

#endif
