/* marker - the end of a name that only this instance could have made: 8 random
 * characters and 10 of their keyed hash. */
#ifndef HSMINT_MARKER_H
#define HSMINT_MARKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MARKER_RANDOM 8
#define MARKER_HASH 10
#define MARKER_LEN (MARKER_RANDOM + MARKER_HASH)

/* `n` characters of [a-z2-7] (base32, lower case, no padding) of data's first
 * 5*n bits, and a NUL. */
void marker_base32(char *out, size_t n, const uint8_t *data);
/* Where the marker begins in a name that ends in '-' and what could be one;
 * NULL for others. */
const char *marker_find(const char *name);

#endif
