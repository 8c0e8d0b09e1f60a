/* keys_record - the public keys that a reader of the log needs: the record
 * `keys`, which verifies all that follows it. */
#ifndef HSMINT_CORE_KEYS_RECORD_H
#define HSMINT_CORE_KEYS_RECORD_H

#include "module/core/core.h"
#include "module/store/store.h"

/* Writes one where it would not say what the last one said. The notary's, for
 * each keeper that it attaches: no call is made before. */
MUST_CHECK enum code keys_record_write(struct core *c, struct error *e);

/* The same in the transaction that stores these pins. */
MUST_CHECK enum code keys_record_put(struct core *c, struct store_tx *tx,
                                     const char *pins, struct error *e);

#endif
