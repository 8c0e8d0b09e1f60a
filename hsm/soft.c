#include "config.h"

#include "hsm/soft.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

/* Cleanup functions for OpenSSL's objects; each takes NULL. */
#define FREEP(type, free)                                                      \
    static void type##_freep(type **p)                                         \
    {                                                                          \
        free(*p);                                                              \
    }
FREEP(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
FREEP(EVP_CIPHER_CTX, EVP_CIPHER_CTX_free)
FREEP(ECDSA_SIG, ECDSA_SIG_free)
FREEP(OSSL_PARAM_BLD, OSSL_PARAM_BLD_free)
FREEP(OSSL_PARAM, OSSL_PARAM_free)
FREEP(BIGNUM, BN_free)
#define AUTO(type) type *CLEANUP(type##_freep)

void evp_pkey_freep(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
    *key = NULL;
}

void soft_sha256(const void *data, size_t len, uint8_t digest[32])
{
    /* Fails only without memory: then no digest may look right. */
    if (EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL) != 1)
        abort();
}

/* SubjectPublicKeyInfo of P-256, up to the uncompressed point. */
static const uint8_t p256_head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a,
                                    0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
                                    0x01, 0x07, 0x03, 0x42, 0x00};
#define POINT 65

enum code soft_ec_spki(const uint8_t *point, size_t len, uint8_t **spki,
                       size_t *spki_len, struct error *e)
{
    if (len == POINT + 2 && point[0] == 0x04 && point[1] == POINT) {
        point += 2;
        len -= 2;
    }
    if (len != POINT || point[0] != 0x04)
        return error_set(e, ERR_HSM_KEYS,
                         "the HSM gave a public key that is no uncompressed "
                         "P-256 point");
    *spki_len = sizeof p256_head + POINT;
    *spki = malloc(*spki_len);
    if (!*spki)
        return error_set(e, ERR_NOMEM, "public key");
    memcpy(*spki, p256_head, sizeof p256_head);
    memcpy(*spki + sizeof p256_head, point, POINT);
    return OK;
}

static EVP_PKEY *rsa_from(const BIGNUM *n, const BIGNUM *exponent)
{
    AUTO(OSSL_PARAM_BLD) build = OSSL_PARAM_BLD_new();
    AUTO(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *key = NULL;
    if (!build || !ctx ||
        !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) ||
        !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent))
        return NULL;
    AUTO(OSSL_PARAM) params = OSSL_PARAM_BLD_to_param(build);
    if (!params || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        return NULL;
    return key;
}

enum code soft_rsa_spki(const uint8_t *n, size_t n_len, const uint8_t *exponent,
                        size_t e_len, uint8_t **spki, size_t *spki_len,
                        struct error *e)
{
    AUTO(BIGNUM) bn = BN_bin2bn(n, (int)n_len, NULL);
    AUTO(BIGNUM) be = BN_bin2bn(exponent, (int)e_len, NULL);
    EVP_PKEY *key CLEANUP(evp_pkey_freep) = bn && be ? rsa_from(bn, be) : NULL;
    uint8_t *der = NULL;
    int len = key ? i2d_PUBKEY(key, &der) : -1;
    if (len <= 0)
        return error_set(e, ERR_HSM_KEYS,
                         "the HSM gave an RSA public key that OpenSSL does "
                         "not take");
    *spki = malloc((size_t)len);
    if (*spki)
        memcpy(*spki, der, (size_t)len);
    OPENSSL_free(der);
    *spki_len = (size_t)len;
    return *spki ? OK : error_set(e, ERR_NOMEM, "public key");
}

static const uint8_t ed25519_head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                       0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
#define ED25519_POINT 32

enum code soft_ed25519_spki(const uint8_t *point, size_t len, uint8_t **spki,
                            size_t *spki_len, struct error *e)
{
    static const uint8_t octets[] = {0x04, 0x20}, bits[] = {0x03, 0x21, 0x00};
    if (len == ED25519_POINT + sizeof octets &&
        memcmp(point, octets, sizeof octets) == 0)
        point += sizeof octets;
    else if (len == ED25519_POINT + sizeof bits &&
             memcmp(point, bits, sizeof bits) == 0)
        point += sizeof bits;
    else if (len != ED25519_POINT)
        return error_set(e, ERR_HSM_KEYS,
                         "the HSM gave a public key that is no Ed25519 point");
    *spki_len = sizeof ed25519_head + ED25519_POINT;
    *spki = malloc(*spki_len);
    if (!*spki)
        return error_set(e, ERR_NOMEM, "public key");
    memcpy(*spki, ed25519_head, sizeof ed25519_head);
    memcpy(*spki + sizeof ed25519_head, point, ED25519_POINT);
    return OK;
}

static bool is_of_kind(EVP_PKEY *key, enum soft_kind kind)
{
    char group[32] = "";
    if (kind == SOFT_EC)
        return EVP_PKEY_is_a(key, "EC") &&
               EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
               strcmp(group, "prime256v1") == 0;
    return kind == SOFT_RSA
               ? EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= 3072
               : EVP_PKEY_is_a(key, "ED25519");
}

enum code soft_public(const uint8_t *spki, size_t len, enum soft_kind kind,
                      EVP_PKEY **out, struct error *e)
{
    static const char *const names[] = {"EC P-256", "RSA of 3072 bits or more",
                                        "Ed25519"};
    const uint8_t *p = spki;
    EVP_PKEY *key CLEANUP(evp_pkey_freep) = d2i_PUBKEY(NULL, &p, (long)len);
    if (!key || p != spki + len || !is_of_kind(key, kind))
        return error_set(e, ERR_HSM_KEYS, "a public key is not %s",
                         names[kind]);
    *out = key;
    key = NULL;
    return OK;
}

enum code soft_der(const uint8_t signature[64], uint8_t *der, size_t *len,
                   struct error *e)
{
    AUTO(ECDSA_SIG) sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature, 32, NULL);
    BIGNUM *s = BN_bin2bn(signature + 32, 32, NULL);
    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return error_set(e, ERR_NOMEM, "a signature");
    }
    uint8_t *p = der;
    int n = i2d_ECDSA_SIG(sig, NULL);
    if (n <= 0 || n > SOFT_DER_MAX || i2d_ECDSA_SIG(sig, &p) != n)
        return error_set(e, ERR_NOMEM, "a signature");
    *len = (size_t)n;
    return OK;
}

bool soft_verify(EVP_PKEY *key, const uint8_t digest[32],
                 const uint8_t signature[64])
{
    uint8_t der[SOFT_DER_MAX];
    size_t len = 0;
    AUTO(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new(key, NULL);
    return soft_der(signature, der, &len, NULL) == OK && ctx &&
           EVP_PKEY_verify_init(ctx) == 1 &&
           EVP_PKEY_verify(ctx, der, len, digest, 32) == 1;
}

static void md_ctx_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

bool soft_verify_ed25519(EVP_PKEY *key, const void *text, size_t len,
                         const uint8_t signature[64])
{
    EVP_MD_CTX *ctx CLEANUP(md_ctx_freep) = EVP_MD_CTX_new();
    return ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
           EVP_DigestVerify(ctx, signature, 64, text, len) == 1;
}

enum code soft_oaep_encrypt(EVP_PKEY *key, bool sha1,
                            const struct secret *plain, uint8_t *out,
                            size_t *len, struct error *e)
{
    const EVP_MD *md = sha1 ? EVP_sha1() : EVP_sha256();
    AUTO(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new(key, NULL);
    if (!ctx || EVP_PKEY_encrypt_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) != 1 ||
        EVP_PKEY_encrypt(ctx, out, len, secret_data(plain),
                         secret_len(plain)) != 1)
        return error_set(e, ERR_SEAL, "RSA-OAEP encryption failed");
    return OK;
}

enum code soft_gcm_encrypt(const struct secret *key, const uint8_t iv[12],
                           const uint8_t *aad, size_t aad_size,
                           const struct secret *plain, uint8_t *cipher,
                           struct error *e)
{
    AUTO(EVP_CIPHER_CTX) ctx = EVP_CIPHER_CTX_new();
    int n = 0, len = (int)secret_len(plain);
    if (!ctx || secret_len(key) != 32 ||
        EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, secret_data(key),
                           iv) != 1 ||
        EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_size) != 1 ||
        EVP_EncryptUpdate(ctx, cipher, &n, secret_data(plain), len) != 1 ||
        EVP_EncryptFinal_ex(ctx, cipher + len, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, SOFT_TAG,
                            cipher + len) != 1)
        return error_set(e, ERR_SEAL, "AES-GCM encryption failed");
    return OK;
}

enum code soft_gcm_decrypt(const struct secret *key, const uint8_t iv[12],
                           const uint8_t *aad, size_t aad_size,
                           const uint8_t *cipher, size_t cipher_len,
                           struct secret *plain, struct error *e)
{
    AUTO(EVP_CIPHER_CTX) ctx = EVP_CIPHER_CTX_new();
    if (cipher_len < SOFT_TAG || cipher_len - SOFT_TAG > secret_capacity(plain))
        return error_set(e, ERR_SEAL, "AES-GCM: wrong length");
    int n = 0, len = (int)(cipher_len - SOFT_TAG);
    uint8_t tag[SOFT_TAG];
    memcpy(tag, cipher + len, SOFT_TAG);
    if (!ctx || secret_len(key) != 32 ||
        EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, secret_data(key),
                           iv) != 1 ||
        EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_size) != 1 ||
        EVP_DecryptUpdate(ctx, secret_bytes(plain), &n, cipher, len) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SOFT_TAG, tag) != 1 ||
        EVP_DecryptFinal_ex(ctx, secret_bytes(plain) + len, &n) != 1) {
        wipe(secret_bytes(plain), secret_capacity(plain));
        return error_set(e, ERR_SEAL,
                         "the sealed value does not open: it was changed, or "
                         "sealed for something else");
    }
    secret_set_len(plain, (size_t)len);
    return OK;
}
