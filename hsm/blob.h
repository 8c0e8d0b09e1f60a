/* blob - the bytes of a sealed secret (spec/SEAL.md). No cryptography here. */
#ifndef HSMINT_BLOB_H
#define HSMINT_BLOB_H

#include "hsm/hsm.h"

#define BLOB_LABEL_MAX 64
#define BLOB_HEADER_MAX (4 + 2 + 4 + 5 * (2 + SEAL_TEXT_MAX))
#define BLOB_WRAPPED_MAX 1024
#define BLOB_IV_MAX 16
#define BLOB_SIGNATURE 64
#define BLOB_TAG 16
#define BLOB_PLAIN_MAX 32768

/* Kinds beyond those of hsm.h, for the keeper's own use. */
#define SEAL_PROBE ((enum seal_kind)4)

enum seal_mechanism {
    MECH_GCM_CALLER = 1,   /* AES-GCM in the HSM, our random IV */
    MECH_GCM_WRITTEN = 2,  /* IV given as zeroes, written back by the HSM */
    MECH_GCM_APPENDED = 3, /* IV of the HSM behind the ciphertext */
    MECH_GCM_PREPENDED = 4,
    MECH_OAEP_SHA256 = 5, /* data key under RSA, AES-GCM in software */
    MECH_OAEP_SHA1 = 6,
    MECHS
};

/* What encryption made, or what decryption takes; points into others' memory.
 */
struct sealed {
    const uint8_t *wrapped; /* data key under RSA; none with 1-4 */
    size_t wrapped_len;
    const uint8_t *iv;
    size_t iv_size;
    const uint8_t *cipher; /* with its tag at the end */
    size_t cipher_len;
};

struct blob {
    struct seal_subject subject;
    enum seal_mechanism mechanism;
    char label[BLOB_LABEL_MAX]; /* of the key that seals it */
    size_t header_len;          /* the first bytes: additional data */
    struct sealed sealed;
    size_t signed_len;        /* the bytes that are signed */
    const uint8_t *signature; /* BLOB_SIGNATURE bytes, the last */
};

/* The header's bytes. ERR_INVALID for texts that are too long or not plain
 * ASCII. */
MUST_CHECK enum code blob_header(const struct seal_subject *s,
                                 enum seal_mechanism mechanism,
                                 const char *label,
                                 uint8_t header[BLOB_HEADER_MAX], size_t *len,
                                 struct error *e);
/* Header and sealed parts in one allocation, with room for the signature that
 * the caller appends: *len is what is to be signed. */
MUST_CHECK enum code blob_build(const uint8_t *header, size_t header_len,
                                const struct sealed *parts, uint8_t **out,
                                size_t *len, struct error *e);
/* Strict: one byte sequence a blob. Results point into data. ERR_SEAL. */
MUST_CHECK enum code blob_parse(const uint8_t *data, size_t len, struct blob *b,
                                struct error *e);

#endif
