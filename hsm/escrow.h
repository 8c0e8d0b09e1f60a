/* escrow - the HMAC key on paper, as it were: encrypted to the recovery key of
 * hsmint.conf, whose private half is kept far from here, for the day on which
 * the HSM is gone. spec/SEAL.md, "Recovery key". */
#ifndef HSMINT_ESCROW_H
#define HSMINT_ESCROW_H

#include "hsm/hsm.h"

#include <openssl/evp.h>

#define ESCROW_HEX 64 /* what is encrypted: the key in hex */

/* Tells whether a key is this instance's HMAC key, and nothing of it: 64 hex. */
MUST_CHECK enum code escrow_check(const struct secret *key,
                                  const char *instance, char hex[65],
                                  struct error *e);
/* The HMAC key from its owner's 64 hex digits. ERR_INVALID. */
MUST_CHECK enum code escrow_open(const struct secret *hex, struct secret **key,
                                 struct error *e);
/* RSA of 3072 bits or more, from PEM. ERR_CONFIG. */
MUST_CHECK enum code escrow_read_key(const char *path, EVP_PKEY **out,
                                     char fingerprint[65], struct error *e);

#endif
