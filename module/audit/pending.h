/* pending - calls that have no outcome yet, by their ids.
 *
 * A hash table that grows with what is open at a time, not with the log.
 */
#ifndef HSMINT_AUDIT_PENDING_H
#define HSMINT_AUDIT_PENDING_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

struct pending;

MUST_CHECK enum code pending_new(struct pending **out, struct error *e);
void pending_free(struct pending *p); /* takes NULL */
void pending_freep(struct pending **p);
/* *known: it is open already. */
MUST_CHECK enum code pending_open(struct pending *p, const char *call,
                                  int64_t seq, bool *known, struct error *e);
/* False: it is not open. */
bool pending_close(struct pending *p, const char *call);
/* Those that are left, in no order. */
void pending_each(const struct pending *p,
                  void (*fn)(void *ctx, const char *call, int64_t seq),
                  void *ctx);

#endif
