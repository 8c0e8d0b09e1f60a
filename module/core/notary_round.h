/* notary_round - one round of the notary: a keeper that was started is attached,
 * what is new is signed, and the note is kept. On the notary's thread alone.
 * Beside it, for any thread, what else is told of store and anchor (notary.h).
 */
#ifndef HSMINT_CORE_NOTARY_ROUND_H
#define HSMINT_CORE_NOTARY_ROUND_H

#include "module/core/core.h"

/* anchor: on the HSM, too. */
MUST_CHECK enum code notary_round(struct core *c, bool anchor, struct error *e);
/* The HSM or its keeper is away: other alarms tell that. */
bool notary_is_away(enum code code);

#endif
