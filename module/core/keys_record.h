/* keys_record - the public keys that a reader of the log needs: the record
 * `keys`, which verifies all that follows it. */
#ifndef HSMINT_CORE_KEYS_RECORD_H
#define HSMINT_CORE_KEYS_RECORD_H

#include "module/core/core.h"

/* Writes one where it would not say what the last one said. log: [vkey] of the
 * keys that sign the log, NULL for those of the last record. Before
 * core_init() nothing is done. */
MUST_CHECK enum code keys_record_write(struct core *c, const json_t *log,
                                       struct error *e);
/* The first one, in the transaction that stores the pins. */
MUST_CHECK enum code keys_record_first(struct core *c, struct store_tx *tx,
                                       const struct caller *by,
                                       const char *pins, struct error *e);

#endif
