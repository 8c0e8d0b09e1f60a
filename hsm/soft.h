/* soft - cryptography without secrets of the HSM, by OpenSSL's EVP: public
 * keys, verification, and the data-key half of RSA sealing. */
#ifndef HSMINT_SOFT_H
#define HSMINT_SOFT_H

#include "common/error.h"
#include "common/secret.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void evp_pkey_freep(EVP_PKEY **key);

void soft_sha256(const void *data, size_t len, uint8_t digest[32]);

/* SubjectPublicKeyInfo, DER; caller frees. `point`: CKA_EC_POINT, as a DER
 * OCTET STRING or bare. */
MUST_CHECK enum code soft_ec_spki(const uint8_t *point, size_t len,
                                  uint8_t **spki, size_t *spki_len,
                                  struct error *e);
MUST_CHECK enum code soft_rsa_spki(const uint8_t *n, size_t n_len,
                                   const uint8_t *exponent, size_t e_len,
                                   uint8_t **spki, size_t *spki_len,
                                   struct error *e);
/* `point`: CKA_EC_POINT, as HSMs give it: in an OCTET STRING, a BIT STRING, or
 * bare. */
MUST_CHECK enum code soft_ed25519_spki(const uint8_t *point, size_t len,
                                       uint8_t **spki, size_t *spki_len,
                                       struct error *e);
enum soft_kind { SOFT_EC, SOFT_RSA, SOFT_ED25519 };
/* What must it be: EC P-256, RSA of 3072 bits or more, or Ed25519. */
MUST_CHECK enum code soft_public(const uint8_t *spki, size_t len,
                                 enum soft_kind kind, EVP_PKEY **out,
                                 struct error *e);
bool soft_verify_ed25519(EVP_PKEY *key, const void *text, size_t len,
                         const uint8_t signature[64]);

/* Raw r||s as ASN.1. */
#define SOFT_DER_MAX 80
MUST_CHECK enum code soft_der(const uint8_t signature[64], uint8_t *der,
                              size_t *len, struct error *e);
/* Raw r||s over a digest. */
bool soft_verify(EVP_PKEY *key, const uint8_t digest[32],
                 const uint8_t signature[64]);

MUST_CHECK enum code soft_oaep_encrypt(EVP_PKEY *key, bool sha1,
                                       const struct secret *plain, uint8_t *out,
                                       size_t *len, struct error *e);
/* AES-256-GCM, 12 bytes of IV; the tag is at the ciphertext's end. */
MUST_CHECK enum code soft_gcm_encrypt(const struct secret *key,
                                      const uint8_t iv[12], const uint8_t *aad,
                                      size_t aad_size,
                                      const struct secret *plain,
                                      uint8_t *cipher, struct error *e);
MUST_CHECK enum code soft_gcm_decrypt(const struct secret *key,
                                      const uint8_t iv[12], const uint8_t *aad,
                                      size_t aad_size, const uint8_t *cipher,
                                      size_t cipher_len, struct secret *plain,
                                      struct error *e);
#define SOFT_TAG 16

#endif
