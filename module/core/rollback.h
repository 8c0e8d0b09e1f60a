/* rollback - the store is not the one that was signed last: rolled back,
 * restored, or copied. A row of meta remembers it until an administrator
 * accepts it; the log goes on under its next epoch meanwhile.
 */
#ifndef HSMINT_CORE_ROLLBACK_H
#define HSMINT_CORE_ROLLBACK_H

#include "module/core/checkpoint.h"

/* What the store remembers: raises the alarm. */
MUST_CHECK enum code rollback_load(struct core *c, struct error *e);
/* Told once by each anchor: the record, the row, the alarm. */
MUST_CHECK enum code rollback_note(struct core *c,
                                   const struct checkpoint_state *s,
                                   const struct error *why, struct error *e);

#endif
