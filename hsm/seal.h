/* seal - encrypt and decrypt by whatever the HSM can do (spec/SEAL.md). */
#ifndef HSMINT_SEAL_H
#define HSMINT_SEAL_H

#include "hsm/blob.h"
#include "hsm/pool.h"

#include <openssl/evp.h>

struct seal_key {
    const char *label;
    enum seal_mechanism mechanism;
    CK_OBJECT_HANDLE handle; /* AES key, or RSA private key */
    EVP_PKEY *public;        /* RSA; else NULL */
};

/* Room for what sealing makes. */
struct seal_buffer {
    uint8_t wrapped[BLOB_WRAPPED_MAX];
    uint8_t iv[BLOB_IV_MAX];
    uint8_t *cipher; /* malloc */
};
void seal_buffer_clear(struct seal_buffer *b);

/* *out points into *b. */
MUST_CHECK enum code seal_encrypt(struct session *s, const struct seal_key *k,
                                  const uint8_t *aad, size_t aad_size,
                                  const struct secret *plain,
                                  struct seal_buffer *b, struct sealed *out,
                                  struct error *e);
MUST_CHECK enum code seal_decrypt(struct session *s, const struct seal_key *k,
                                  const uint8_t *aad, size_t aad_size,
                                  const struct sealed *in,
                                  struct secret **plain, struct error *e);
/* A full round trip: opens again, never with other additional data or a
 * flipped bit, and never twice with one IV. */
MUST_CHECK enum code seal_self_test(struct session *s, const struct seal_key *k,
                                    struct error *e);

bool seal_is_rsa(enum seal_mechanism m);
const char *seal_name(enum seal_mechanism m);

#endif
