/* keys_record - the public keys that a reader of the log needs: the record
 * `keys`, which verifies all that follows it. */
#ifndef HSMINT_CORE_KEYS_RECORD_H
#define HSMINT_CORE_KEYS_RECORD_H

#include "module/core/core.h"

/* Writes one where it would not say what the last one said. The notary's, for
 * each keeper that it attaches: no call is made before. */
MUST_CHECK enum code keys_record_write(struct core *c, struct error *e);

#endif
