#include "config.h"

#include "hsm/seal.h"

#include "common/text.h"
#include "hsm/soft.h"

#include <stdlib.h>
#include <string.h>

#define IV 12
#define DATA_KEY 32
#define TAG_BITS (BLOB_TAG * 8)

bool seal_is_rsa(enum seal_mechanism m)
{
    return m == MECH_OAEP_SHA256 || m == MECH_OAEP_SHA1;
}

const char *seal_name(enum seal_mechanism m)
{
    static const char *const names[MECHS] = {
        [MECH_GCM_CALLER] = "aes-gcm-iv-given",
        [MECH_GCM_WRITTEN] = "aes-gcm-iv-written-back",
        [MECH_GCM_APPENDED] = "aes-gcm-iv-appended",
        [MECH_GCM_PREPENDED] = "aes-gcm-iv-prepended",
        [MECH_OAEP_SHA256] = "rsa-oaep-sha256-aes-gcm",
        [MECH_OAEP_SHA1] = "rsa-oaep-sha1-aes-gcm",
    };
    return m > 0 && m < MECHS ? names[m] : "unknown";
}

void seal_buffer_clear(struct seal_buffer *b)
{
    free(b->cipher);
    b->cipher = NULL;
}

static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p; /* PKCS#11's inputs are not const */
}

/* ---- AES-GCM in the HSM ---- */

/* How the IV gets in and out, by mechanism. */
static void gcm_params(enum seal_mechanism m, uint8_t *iv, const uint8_t *aad,
                       size_t aad_size, CK_GCM_PARAMS *p)
{
    bool own = m == MECH_GCM_APPENDED || m == MECH_GCM_PREPENDED;
    *p = (CK_GCM_PARAMS){.pIv = own ? NULL : iv,
                         .ulIvLen = own ? 0 : IV,
                         .ulIvBits = own ? 0 : IV * 8,
                         .pAAD = unconst(aad),
                         .ulAADLen = aad_size,
                         .ulTagBits = TAG_BITS};
}

/* Take the IV out of what the HSM gave, where it put it there. */
static enum code gcm_split(enum seal_mechanism m, size_t plain_len,
                           size_t out_len, struct seal_buffer *b,
                           struct sealed *out, struct error *e)
{
    size_t body = plain_len + BLOB_TAG;
    size_t extra = out_len >= body ? out_len - body : SIZE_MAX;
    out->cipher = b->cipher;
    out->cipher_len = body;
    out->iv = b->iv;
    if (m == MECH_GCM_CALLER || m == MECH_GCM_WRITTEN) {
        out->iv_size = IV;
        return extra == 0 ? OK
                          : error_set(e, ERR_HSM_FAILED,
                                      "HSM: C_Encrypt gave %zu bytes, not %zu",
                                      out_len, body);
    }
    if (extra < IV || extra > BLOB_IV_MAX)
        return error_set(e, ERR_HSM_FAILED,
                         "HSM: C_Encrypt gave no IV with the ciphertext");
    bool front = m == MECH_GCM_PREPENDED;
    memcpy(b->iv, front ? b->cipher : b->cipher + body, extra);
    out->cipher = front ? b->cipher + extra : b->cipher;
    out->iv_size = extra;
    return OK;
}

static enum code gcm_encrypt(struct session *s, const struct seal_key *k,
                             const uint8_t *aad, size_t aad_size,
                             const struct secret *plain, struct seal_buffer *b,
                             struct sealed *out, struct error *e)
{
    enum code rc = OK;
    memset(b->iv, 0, sizeof b->iv);
    if (k->mechanism == MECH_GCM_CALLER)
        rc = text_random(b->iv, IV, e);
    if (rc)
        return rc;
    CK_GCM_PARAMS p;
    gcm_params(k->mechanism, b->iv, aad, aad_size, &p);
    CK_MECHANISM m = {CKM_AES_GCM, &p, sizeof p};
    CK_ULONG len = secret_len(plain) + BLOB_TAG + BLOB_IV_MAX;
    rc = HSM_CALL(s, e, k->label, C_EncryptInit, &m, k->handle);
    if (!rc)
        rc = HSM_CALL(s, e, k->label, C_Encrypt, unconst(secret_data(plain)),
                      secret_len(plain), b->cipher, &len);
    static const uint8_t zero[IV] = {0};
    if (!rc && k->mechanism == MECH_GCM_WRITTEN && memcmp(b->iv, zero, IV) == 0)
        rc = error_set(e, ERR_HSM_FAILED, "HSM: it wrote no IV back");
    return rc ? rc : gcm_split(k->mechanism, secret_len(plain), len, b, out, e);
}

static enum code gcm_decrypt(struct session *s, const struct seal_key *k,
                             const uint8_t *aad, size_t aad_size,
                             const struct sealed *in, struct secret *plain,
                             struct error *e)
{
    CK_GCM_PARAMS p = {.pIv = unconst(in->iv),
                       .ulIvLen = in->iv_size,
                       .ulIvBits = in->iv_size * 8,
                       .pAAD = unconst(aad),
                       .ulAADLen = aad_size,
                       .ulTagBits = TAG_BITS};
    CK_MECHANISM m = {CKM_AES_GCM, &p, sizeof p};
    CK_ULONG len = secret_capacity(plain);
    enum code rc = HSM_CALL(s, e, k->label, C_DecryptInit, &m, k->handle);
    if (!rc)
        rc = HSM_CALL(s, e, k->label, C_Decrypt, unconst(in->cipher),
                      in->cipher_len, secret_bytes(plain), &len);
    if (rc)
        return rc;
    if (len != in->cipher_len - BLOB_TAG)
        return error_set(e, ERR_HSM_FAILED,
                         "HSM: C_Decrypt with %s gave a wrong length",
                         k->label);
    secret_set_len(plain, len);
    return OK;
}

/* ---- a data key under RSA, the rest in software ---- */

static enum code rsa_encrypt(const struct seal_key *k, const uint8_t *aad,
                             size_t aad_size, const struct secret *plain,
                             struct seal_buffer *b, struct sealed *out,
                             struct error *e)
{
    SECRET key = NULL;
    enum code rc = secret_new(&key, DATA_KEY, e);
    if (!rc)
        rc = text_random(secret_bytes(key), DATA_KEY, e);
    if (!rc)
        rc = text_random(b->iv, IV, e);
    if (rc)
        return rc;
    secret_set_len(key, DATA_KEY);
    size_t len = sizeof b->wrapped;
    rc = soft_oaep_encrypt(k->public, k->mechanism == MECH_OAEP_SHA1, key,
                           b->wrapped, &len, e);
    if (!rc)
        rc = soft_gcm_encrypt(key, b->iv, aad, aad_size, plain, b->cipher, e);
    *out = (struct sealed){b->wrapped, len,       b->iv,
                           IV,         b->cipher, secret_len(plain) + BLOB_TAG};
    return rc;
}

static enum code rsa_open_key(struct session *s, const struct seal_key *k,
                              const struct sealed *in, struct secret *key,
                              struct error *e)
{
    bool sha1 = k->mechanism == MECH_OAEP_SHA1;
    CK_RSA_PKCS_OAEP_PARAMS p = {.hashAlg = sha1 ? CKM_SHA_1 : CKM_SHA256,
                                 .mgf = sha1 ? CKG_MGF1_SHA1 : CKG_MGF1_SHA256,
                                 .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM m = {CKM_RSA_PKCS_OAEP, &p, sizeof p};
    CK_ULONG len = secret_capacity(key);
    enum code rc = HSM_CALL(s, e, k->label, C_DecryptInit, &m, k->handle);
    if (!rc)
        rc = HSM_CALL(s, e, k->label, C_Decrypt, unconst(in->wrapped),
                      in->wrapped_len, secret_bytes(key), &len);
    if (rc)
        return rc;
    if (len != DATA_KEY)
        return error_set(e, ERR_SEAL, "HSM: the data key has a wrong length");
    secret_set_len(key, DATA_KEY);
    return OK;
}

static enum code rsa_decrypt(struct session *s, const struct seal_key *k,
                             const uint8_t *aad, size_t aad_size,
                             const struct sealed *in, struct secret *plain,
                             struct error *e)
{
    SECRET key = NULL;
    if (in->iv_size != IV)
        return error_set(e, ERR_SEAL, "the sealed blob has a wrong IV");
    /* Some HSMs want room for the whole modulus. */
    enum code rc = secret_new(&key, BLOB_WRAPPED_MAX, e);
    if (!rc)
        rc = rsa_open_key(s, k, in, key, e);
    if (!rc)
        rc = soft_gcm_decrypt(key, in->iv, aad, aad_size, in->cipher,
                              in->cipher_len, plain, e);
    return rc;
}

/* ---- either ---- */

enum code seal_encrypt(struct session *s, const struct seal_key *k,
                       const uint8_t *aad, size_t aad_size,
                       const struct secret *plain, struct seal_buffer *b,
                       struct sealed *out, struct error *e)
{
    size_t len = secret_len(plain);
    if (len == 0 || len > BLOB_PLAIN_MAX)
        return error_set(e, ERR_INVALID, "seal: 1 to %d bytes, not %zu",
                         BLOB_PLAIN_MAX, len);
    *out = (struct sealed){0};
    b->cipher = malloc(len + BLOB_TAG + BLOB_IV_MAX);
    if (!b->cipher)
        return error_set(e, ERR_NOMEM, "seal: no memory");
    if (seal_is_rsa(k->mechanism))
        return rsa_encrypt(k, aad, aad_size, plain, b, out, e);
    return gcm_encrypt(s, k, aad, aad_size, plain, b, out, e);
}

enum code seal_decrypt(struct session *s, const struct seal_key *k,
                       const uint8_t *aad, size_t aad_size,
                       const struct sealed *in, struct secret **plain,
                       struct error *e)
{
    SECRET p = NULL;
    enum code rc = secret_new(&p, in->cipher_len, e);
    if (rc)
        return rc;
    rc = seal_is_rsa(k->mechanism) ? rsa_decrypt(s, k, aad, aad_size, in, p, e)
                                   : gcm_decrypt(s, k, aad, aad_size, in, p, e);
    if (rc)
        return rc;
    *plain = p;
    p = NULL;
    return OK;
}

static void seal_buffer_clearp(struct seal_buffer *b)
{
    seal_buffer_clear(b);
}

/* Must fail: what was sealed is opened with one bit of it, or of the
 * additional data, turned round. */
static bool opens_changed(struct session *s, const struct seal_key *k,
                          const uint8_t *aad, size_t aad_size, uint8_t *bit,
                          const struct sealed *in)
{
    SECRET plain = NULL;
    *bit ^= 1;
    bool opened = seal_decrypt(s, k, aad, aad_size, in, &plain, NULL) == OK;
    *bit ^= 1;
    return opened;
}

enum code seal_self_test(struct session *s, const struct seal_key *k,
                         struct error *e)
{
    uint8_t aad[] = "hsmint self-test";
    struct seal_buffer a CLEANUP(seal_buffer_clearp) = {.cipher = NULL};
    struct seal_buffer b CLEANUP(seal_buffer_clearp) = {.cipher = NULL};
    struct sealed one, two;
    SECRET plain = NULL;
    SECRET again = NULL;
    enum code rc = secret_dup(&plain, "sixteen or more bytes", 21, e);
    if (!rc)
        rc = seal_encrypt(s, k, aad, sizeof aad, plain, &a, &one, e);
    if (!rc)
        rc = seal_encrypt(s, k, aad, sizeof aad, plain, &b, &two, e);
    if (!rc)
        rc = seal_decrypt(s, k, aad, sizeof aad, &one, &again, e);
    if (rc)
        return rc;
    const char *fault = NULL;
    uint8_t *first = a.cipher + (one.cipher - a.cipher);
    if (!secret_equal(plain, again))
        fault = "gives back other bytes";
    else if (one.iv_size == two.iv_size && memcmp(a.iv, b.iv, one.iv_size) == 0)
        fault = "uses an IV twice";
    else if (opens_changed(s, k, aad, sizeof aad, aad, &one))
        fault = "does not bind additional data";
    else if (opens_changed(s, k, aad, sizeof aad, first, &one) ||
             opens_changed(s, k, aad, sizeof aad, first + one.cipher_len - 1,
                           &one))
        fault = "opens changed ciphertext";
    if (fault)
        return error_set(e, ERR_HSM_FAILED, "HSM: self-test of %s: it %s",
                         seal_name(k->mechanism), fault);
    return OK;
}
