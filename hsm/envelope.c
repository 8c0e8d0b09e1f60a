#include "config.h"

#include "hsm/envelope.h"

#include "hsm/soft.h"

#include <stdlib.h>
#include <string.h>

/* What is signed: a name of its own before the bytes, so that a signature of
 * a blob can never pass for one of something else. */
static void signed_digest(const uint8_t *data, size_t len, uint8_t digest[32])
{
    static const char domain[] = "hsmint-blob-v1"; /* its NUL is signed too */
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(ctx, domain, sizeof domain) != 1 ||
        EVP_DigestUpdate(ctx, data, len) != 1 ||
        EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        abort();
    EVP_MD_CTX_free(ctx);
}

static enum code seal_parts(struct session *s, const struct keyring *r,
                            const uint8_t *header, size_t header_len,
                            const struct secret *plain, uint8_t **out,
                            size_t *len, struct error *e)
{
    struct seal_key key = keyring_seal_key(r);
    struct seal_buffer buffer = {.cipher = NULL};
    struct sealed parts;
    enum code rc =
        seal_encrypt(s, &key, header, header_len, plain, &buffer, &parts, e);
    if (!rc)
        rc = blob_build(header, header_len, &parts, out, len, e);
    seal_buffer_clear(&buffer);
    return rc;
}

enum code envelope_make(struct session *s, const struct keyring *r,
                        const struct seal_subject *subject,
                        const struct secret *plain, uint8_t **out, size_t *len,
                        struct error *e)
{
    const struct keyset *k = r->set;
    uint8_t header[BLOB_HEADER_MAX], digest[32];
    size_t header_len, size;
    uint8_t *data = NULL;
    enum code rc = blob_header(subject, k->mechanism, k->keys[HSM_SEAL].label,
                               header, &header_len, e);
    if (!rc)
        rc = seal_parts(s, r, header, header_len, plain, &data, &size, e);
    if (rc)
        return rc;
    signed_digest(data, size, digest);
    rc = keyring_sign(s, r, HSM_BLOB, digest, data + size, e);
    /* Never hand out a blob that would be refused later. */
    if (!rc && !soft_verify(k->keys[HSM_BLOB].public, digest, data + size))
        rc = error_set(e, ERR_HSM_FAILED,
                       "HSM: the signature it gave for a blob is wrong");
    if (rc) {
        free(data);
        return rc;
    }
    *out = data;
    *len = size + BLOB_SIGNATURE;
    return OK;
}

/* The seal key of before that has this label, where it still opens: its index,
 * or old_n. */
static size_t find_old_seal(const struct keyset *k, const char *label)
{
    size_t i = 0;
    while (i < k->old_n &&
           (k->old[i].role != OLD_OPENS || k->old[i].key.use != HSM_SEAL ||
            strcmp(k->old[i].key.label, label) != 0))
        i++;
    return i;
}

bool envelope_is_current(const struct keyset *k, const struct blob *b)
{
    return strcmp(b->label, k->keys[HSM_SEAL].label) == 0;
}

enum code envelope_read(const struct keyset *k, const uint8_t *data, size_t len,
                        struct blob *b, struct error *e)
{
    enum code rc = blob_parse(data, len, b, e);
    if (rc)
        return rc;
    if (b->mechanism != k->mechanism ||
        (!envelope_is_current(k, b) && find_old_seal(k, b->label) == k->old_n))
        return error_set(e, ERR_SEAL,
                         "the blob was sealed with key %s by %s, and this HSM "
                         "has %s by %s",
                         b->label, seal_name(b->mechanism),
                         k->keys[HSM_SEAL].label, seal_name(k->mechanism));
    return OK;
}

/* Of the key in use, or of one before: what is sealed with the key in use is
 * signed by the key in use alone. */
static bool is_signed(const struct keyset *k, const struct blob *b,
                      const uint8_t digest[32])
{
    if (envelope_is_current(k, b))
        return soft_verify(k->keys[HSM_BLOB].public, digest, b->signature);
    for (size_t i = 0; i < k->old_n; i++)
        if (k->old[i].role == OLD_OPENS && k->old[i].key.use == HSM_BLOB &&
            soft_verify(k->old[i].key.public, digest, b->signature))
            return true;
    return false;
}

enum code envelope_verify(const struct keyset *k, const uint8_t *data,
                          size_t len, struct blob *b, struct error *e)
{
    enum code rc = envelope_read(k, data, len, b, e);
    if (rc)
        return rc;
    uint8_t digest[32];
    signed_digest(data, b->signed_len, digest);
    if (!is_signed(k, b, digest))
        return error_set(
            e, ERR_SEAL,
            "the blob's signature does not verify: it was changed, "
            "or another instance made it");
    return OK;
}

enum code envelope_open(struct session *s, const struct keyring *r,
                        const uint8_t *data, const struct blob *b,
                        struct secret **plain, struct error *e)
{
    struct seal_key key = keyring_seal_key(r);
    if (!envelope_is_current(r->set, b)) {
        size_t i = find_old_seal(r->set, b->label);
        if (i == r->set->old_n || r->old[i] == CK_INVALID_HANDLE)
            return error_set(e, ERR_SEAL,
                             "the blob was sealed with key %s, which is not on "
                             "the HSM any more",
                             b->label);
        const struct key *old = &r->set->old[i].key;
        key = (struct seal_key){old->label, r->set->mechanism, r->old[i],
                                old->public};
    }
    return seal_decrypt(s, &key, data, b->header_len, &b->sealed, plain, e);
}
