/* signer - see signer.h. */
#include "config.h"

#include "module/audit/signer.h"

#include "common/base64.h"
#include "common/file.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192
#define SPKI_MAX 2048
#define HALF_MAX 48 /* r or s of P-384 */

static void pkey_freep(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}
#define PKEY CLEANUP(pkey_freep) EVP_PKEY *

static void bio_freep(BIO **bio)
{
    BIO_free(*bio);
}
#define MEMORY CLEANUP(bio_freep) BIO *

/* ---- keys ---- */

static enum code not_one(struct error *e)
{
    return error_set(e, ERR_INVALID,
                     "not a public key that participants sign with: EC P-256 "
                     "or P-384, Ed25519, RSA of %d to %d bits",
                     RSA_BITS_MIN, RSA_BITS_MAX);
}

static enum code kind_of(EVP_PKEY *key, char kind[SIGNER_KIND_MAX],
                         struct error *e)
{
    char group[32] = "";
    int bits = EVP_PKEY_get_bits(key);
    const char *name = NULL;
    if (EVP_PKEY_is_a(key, "ED25519"))
        name = "Ed25519";
    if (EVP_PKEY_is_a(key, "EC") &&
        EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1)
        name = strcmp(group, "prime256v1") == 0  ? "EC P-256"
               : strcmp(group, "secp384r1") == 0 ? "EC P-384"
                                                 : NULL;
    if (EVP_PKEY_is_a(key, "RSA") && bits >= RSA_BITS_MIN &&
        bits <= RSA_BITS_MAX) {
        snprintf(kind, SIGNER_KIND_MAX, "RSA-%d", bits);
        return OK;
    }
    if (!name)
        return not_one(e);
    snprintf(kind, SIGNER_KIND_MAX, "%s", name);
    return OK;
}

/* The one encoding that OpenSSL writes, so that one key has one fingerprint. */
static enum code open_key(const uint8_t *spki, size_t len, EVP_PKEY **out,
                          char kind[SIGNER_KIND_MAX], struct error *e)
{
    const unsigned char *at = spki;
    unsigned char *again = NULL;
    PKEY key = d2i_PUBKEY(NULL, &at, (long)len);
    if (!key || at != spki + len)
        return not_one(e);
    int n = i2d_PUBKEY(key, &again);
    bool same = n > 0 && (size_t)n == len && memcmp(again, spki, len) == 0;
    OPENSSL_free(again);
    enum code rc = same ? kind_of(key, kind, e) : not_one(e);
    if (rc)
        return rc;
    *out = key;
    key = NULL;
    return OK;
}

enum code signer_kind(const uint8_t *spki, size_t len,
                      char kind[SIGNER_KIND_MAX], struct error *e)
{
    PKEY key = NULL;
    return open_key(spki, len, &key, kind, e);
}

static EVP_PKEY *read_pem(const char *pem, size_t len)
{
    char no_passphrase[] = ""; /* else the terminal is asked for one */
    MEMORY bio = BIO_new_mem_buf(pem, (int)len);
    EVP_PKEY *key =
        bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, no_passphrase) : NULL;
    if (key || !bio || BIO_reset(bio) < 0)
        return key;
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, no_passphrase);
    key = cert ? X509_get_pubkey(cert) : NULL;
    X509_free(cert);
    return key;
}

enum code signer_read(const char *pem, size_t len, char **spki, struct error *e)
{
    char kind[SIGNER_KIND_MAX];
    unsigned char *der = NULL;
    if (memmem(pem, len, "PRIVATE KEY-----", strlen("PRIVATE KEY-----")))
        return error_set(e, ERR_INVALID,
                         "this is a private key, which nobody else should "
                         "have: give the public one (openssl pkey -in KEY "
                         "-pubout)");
    PKEY key = read_pem(pem, len);
    if (!key)
        return error_set(e, ERR_INVALID,
                         "no public key: give PEM that begins with -----BEGIN "
                         "PUBLIC KEY----- (openssl pkey -in KEY -pubout), or a "
                         "certificate");
    enum code rc = kind_of(key, kind, e);
    if (rc)
        return rc;
    int n = i2d_PUBKEY(key, &der);
    *spki = n > 0 && n <= SPKI_MAX ? base64_encode(der, (size_t)n) : NULL;
    OPENSSL_free(der);
    return *spki ? OK : error_set(e, ERR_NOMEM, "a participant's key");
}

/* ---- signatures ---- */

static bool verifies(EVP_PKEY *key, const void *text, size_t text_len,
                     const uint8_t *signature, size_t len)
{
    const EVP_MD *md = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, signature, len, text, text_len) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

enum code signer_verify(const uint8_t *spki, size_t len, const void *text,
                        size_t text_len, const uint8_t *signature,
                        size_t signature_len, struct error *e)
{
    char kind[SIGNER_KIND_MAX];
    PKEY key = NULL;
    enum code rc = open_key(spki, len, &key, kind, e);
    if (rc)
        return rc;
    return verifies(key, text, text_len, signature, signature_len)
               ? OK
               : error_set(e, ERR_SEAL, "the signature does not verify");
}

/* r ‖ s as ASN.1; 0: it is not. */
static size_t to_der(const uint8_t *raw, size_t len, uint8_t *out, size_t cap)
{
    size_t half = len / 2, done = 0;
    unsigned char *der = NULL;
    if (len != 64 && len != 2 * HALF_MAX)
        return 0;
    ECDSA_SIG *s = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, (int)half, NULL);
    BIGNUM *t = BN_bin2bn(raw + half, (int)half, NULL);
    if (s && r && t && ECDSA_SIG_set0(s, r, t) == 1) {
        r = t = NULL;
        int n = i2d_ECDSA_SIG(s, &der);
        if (n > 0 && (size_t)n <= cap)
            memcpy(out, der, done = (size_t)n);
    }
    BN_free(r);
    BN_free(t);
    ECDSA_SIG_free(s);
    OPENSSL_free(der);
    return done;
}

enum code signer_take(const uint8_t *spki, size_t len, const void *text,
                      size_t text_len, const uint8_t *signature,
                      size_t signature_len, uint8_t *out, size_t cap,
                      size_t *out_len, struct error *e)
{
    char kind[SIGNER_KIND_MAX];
    PKEY key = NULL;
    enum code rc = open_key(spki, len, &key, kind, e);
    if (rc)
        return rc;
    *out_len = signature_len;
    if (signature_len <= cap &&
        verifies(key, text, text_len, signature, signature_len)) {
        memcpy(out, signature, signature_len);
        return OK;
    }
    if (EVP_PKEY_is_a(key, "EC"))
        *out_len = to_der(signature, signature_len, out, cap);
    if (EVP_PKEY_is_a(key, "EC") && *out_len &&
        verifies(key, text, text_len, out, *out_len))
        return OK;
    return error_set(e, ERR_SEAL,
                     "these %zu bytes are no signature of this statement by "
                     "their %s key: sign all that `hsmint ceremony statement` "
                     "prints%s, with that key",
                     signature_len, kind,
                     EVP_PKEY_is_a(key, "ED25519") ? "" : ", with SHA-256");
}
