/* signer - a participant of a ceremony who signs with a key of their own: EC
 * P-256 or P-384 and RSA (2048 bits or more, PKCS#1 v1.5) with SHA-256, or
 * Ed25519. */
#ifndef HSMINT_AUDIT_SIGNER_H
#define HSMINT_AUDIT_SIGNER_H

#include "common/error.h"

/* PEM, a public key or a certificate, to base64 of its SubjectPublicKeyInfo;
 * caller frees. ERR_INVALID: none, a private key, or one that does not do. */
MUST_CHECK enum code signer_read(const char *pem, size_t len, char **spki,
                                 struct error *e);
/* "EC P-256", "RSA-3072" … ERR_INVALID: not one that does. */
#define SIGNER_KIND_MAX 32
MUST_CHECK enum code signer_kind(const uint8_t *spki, size_t len,
                                 char kind[SIGNER_KIND_MAX], struct error *e);
/* A signature of the text, as it is kept: of an EC key as ASN.1. ERR_SEAL. */
MUST_CHECK enum code signer_verify(const uint8_t *spki, size_t len,
                                   const void *text, size_t text_len,
                                   const uint8_t *signature,
                                   size_t signature_len, struct error *e);
/* One as tools make it: EC also as r and s (PKCS#11). *out: as it is kept.
 * ERR_SEAL with what to do. */
MUST_CHECK enum code signer_take(const uint8_t *spki, size_t len,
                                 const void *text, size_t text_len,
                                 const uint8_t *signature,
                                 size_t signature_len, uint8_t *out,
                                 size_t cap, size_t *out_len, struct error *e);

#endif
