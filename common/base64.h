/* base64 - RFC 4648 §4, with padding; decoding takes the canonical form only:
 * what is decoded encodes to the same text. */
#ifndef HSMINT_BASE64_H
#define HSMINT_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE64_LEN(bytes) (((bytes) + 2) / 3 * 4) /* without a NUL */

/* Caller frees; NULL: no memory. */
char *base64_encode(const void *data, size_t len);
/* `len` characters. False: no base64, not canonical, empty, or more than `cap`
 * bytes. */
bool base64_decode(const char *text, size_t len, uint8_t *out, size_t cap,
                   size_t *out_len);

#endif
