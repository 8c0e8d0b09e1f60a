/* keys_record - the public keys that a reader of the log needs: the record
 * `keys`, which verifies all that follows it. */
#ifndef HSMINT_CORE_KEYS_RECORD_H
#define HSMINT_CORE_KEYS_RECORD_H

#include "module/core/core.h"
#include "module/store/store.h"

/* Writes one where it would not say what the last one said. The notary's, for
 * each keeper that it attaches: no call is made before. */
MUST_CHECK enum code keys_record_write(struct core *c, struct error *e);

/* What it would say of these pins: *more is the caller's, NULL where that would
 * be nothing new. */
MUST_CHECK enum code keys_record_of(struct core *c, const char *pins,
                                    json_t **more, struct error *e);
/* In the transaction that stores those pins. `more` stays the caller's; NULL
 * writes nothing. */
MUST_CHECK enum code keys_record_add(struct core *c, struct store_tx *tx,
                                     json_t *more, struct error *e);

#endif
