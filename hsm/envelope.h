/* envelope - a sealed blob made, verified and opened with a keyring. */
#ifndef HSMINT_ENVELOPE_H
#define HSMINT_ENVELOPE_H

#include "hsm/keys.h"

MUST_CHECK enum code envelope_make(struct session *s, const struct keyring *r,
                                   const struct seal_subject *subject,
                                   const struct secret *plain, uint8_t **out,
                                   size_t *len, struct error *e);
/* Format, key, mechanism and signature. *b points into data. */
MUST_CHECK enum code envelope_verify(const struct keyset *k,
                                     const uint8_t *data, size_t len,
                                     struct blob *b, struct error *e);
/* The same without the signature, for bytes that verified before. */
MUST_CHECK enum code envelope_read(const struct keyset *k, const uint8_t *data,
                                   size_t len, struct blob *b, struct error *e);
/* Sealed with the key in use, not with one of before. */
bool envelope_is_current(const struct keyset *k, const struct blob *b);
/* After envelope_verify. */
MUST_CHECK enum code envelope_open(struct session *s, const struct keyring *r,
                                   const uint8_t *data, const struct blob *b,
                                   struct secret **plain, struct error *e);

#endif
