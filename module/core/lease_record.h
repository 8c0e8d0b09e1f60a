/* lease_record - what the change of a lease's row means, for the audit log:
 * mint, revoke, dead. Each goes into the row's own transaction. */
#ifndef HSMINT_CORE_LEASE_RECORD_H
#define HSMINT_CORE_LEASE_RECORD_H

#include "module/core/core.h"

struct lease_record {
    const struct store_lease *lease; /* as it is now */
    enum lease_state was;
    bool made;               /* the service has just made its account */
    const char *key_hmac;    /* with made: of its key, hex; NULL: not known */
    const struct caller *by; /* NULL: the daemon itself */
};
MUST_CHECK enum code lease_record(struct core *c, struct store_tx *tx,
                                  const struct lease_record *r,
                                  struct error *e);

#endif
