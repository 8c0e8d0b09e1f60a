/* pins - what the store has of the HSM's keys: which are in use, which were
 * before. spec/SEAL.md, "Pins". Whoever stores pins does it here, so that the
 * log tells the same.
 */
#ifndef HSMINT_CORE_PINS_H
#define HSMINT_CORE_PINS_H

#include "module/core/core.h"
#include "module/store/store.h"

#define META_PINS "hsm.pins"

/* In the caller's transaction: the pins, the record `keys` where it says
 * something new, and the states of the keys (keystates.h). `text`: the pins as the keeper gave them. `by` NULL: nobody
 * asked. `reason`: why they change, a word or a few for the log. */
MUST_CHECK enum code pins_put(struct core *c, struct store_tx *tx,
                              const struct caller *by, const char *text,
                              const char *reason, struct error *e);

/* The reason of pins that were not made for this state: since when they are as
 * they are, it does not know. */
#define PINS_RECOVERED "recovered"
/* The HSM is gone: of the keys that went with it. */
#define PINS_LOST "lost"

/* ERR_NOT_FOUND: before `hsmint init`. The caller frees. */
MUST_CHECK enum code pins_get(struct core *c, json_t **pins, struct error *e);

#endif
