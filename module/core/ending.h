/* ending - many leases at once into state revoking, in one transaction; the
 * sweeper does the rest. */
#ifndef HSMINT_CORE_ENDING_H
#define HSMINT_CORE_ENDING_H

#include "common/error.h"
#include "module/store/store.h"

struct core;

/* All pending and active ones that match. A lease that changed meanwhile is
 * left out, for the next look. *n: how many were found. */
MUST_CHECK enum code ending_mark(struct core *c,
                                 const struct store_lease_query *q,
                                 const char *reason, size_t *n,
                                 struct error *e);

#endif
