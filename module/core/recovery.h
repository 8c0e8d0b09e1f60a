/* recovery - the HMAC key as the keeper gave it, encrypted to [hsm] recovery_key,
 * kept for the day on which the HSM is gone. spec/SEAL.md, "Recovery key". Here it
 * is opened by nobody. */
#ifndef HSMINT_CORE_RECOVERY_H
#define HSMINT_CORE_RECOVERY_H

#include "module/core/core.h"
#include "module/store/store.h"

#define RECOVERY_CHECK 64 /* hex */

/* Asks this keeper for one, where the settings name a recovery key and what is
 * kept is for another, or of another HMAC key. Failing is an alarm. */
void recovery_keep(struct core *c, uint64_t generation);
/* By which a key that somebody gives is known: "" where none is kept. */
MUST_CHECK enum code recovery_check(struct core *c,
                                    char check[RECOVERY_CHECK + 1],
                                    struct error *e);
/* The HMAC key is lost: what is kept is of no use for the next one. It stays in
 * the store for its owner. */
MUST_CHECK enum code recovery_lost(struct store_tx *tx, struct error *e);

#endif
