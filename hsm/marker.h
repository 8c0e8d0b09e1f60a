/* marker - the end of a name that only this instance could have made: 8 random
 * characters and 10 of their keyed hash; and the keyed hash of a minted key. */
#ifndef HSMINT_MARKER_H
#define HSMINT_MARKER_H

#include "hsm/hsm.h"

#include <stddef.h>

#define MARKER_RANDOM 8
#define MARKER_HASH 10
#define MARKER_LEN (MARKER_RANDOM + MARKER_HASH)

/* `n` characters of [a-z2-7] (base32, lower case, no padding) of data's first
 * 5*n bits, and a NUL. */
void marker_base32(char *out, size_t n, const uint8_t *data);
/* Where the marker begins in a name that ends in '-' and what could be one;
 * NULL for others. */
const char *marker_find(const char *name);

/* Does it end in a marker that was made with this HMAC key? */
MUST_CHECK enum code marker_fits(const struct secret *key, const char *name,
                                 bool *fits, struct error *e);

/* The keyed hash by which a minted key is found in the log, in hex; len at
 * most SECRET_MAX - 5. */
MUST_CHECK enum code marker_hash_value(struct hsm *h, const void *value,
                                       size_t len, char hex[65],
                                       struct error *e);

#endif
