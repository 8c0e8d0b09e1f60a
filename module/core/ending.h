/* ending - many leases at once into state revoking, a few hundred in a
 * transaction, so that the store is nobody's alone; the sweeper does the rest.
 * Waking it is the caller's. */
#ifndef HSMINT_CORE_ENDING_H
#define HSMINT_CORE_ENDING_H

#include "common/error.h"
#include "common/text.h"
#include "module/store/store.h"

struct caller;
struct core;

/* All pending and active ones that match. One that ends meanwhile is none. *n:
 * how many were found. by NULL: the daemon itself. */
MUST_CHECK enum code ending_mark(struct core *c,
                                 const struct store_lease_query *q,
                                 const char *reason, const struct caller *by,
                                 size_t *n, struct error *e);

/* The same of those that the caller names. */
struct ending_id {
    char text[TEXT_ID_LEN + 1];
};
struct ending {
    struct ending_id *ids; /* owned */
    size_t n, room;
};
void ending_clear(struct ending *d);
#define ENDING CLEANUP(ending_clear) struct ending
MUST_CHECK enum code ending_add(struct ending *d, const char *id,
                                struct error *e);
MUST_CHECK enum code ending_do(struct core *c, const struct ending *d,
                               const char *reason, const struct caller *by,
                               struct error *e);

#endif
