/* Message signatures: the vectors of RFC 9421 and RFC 9530. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/sigbase.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

static void content_digest_of_rfc9530(void **state)
{
    char out[SIGBASE_DIGEST_MAX];
    (void)state;
    assert_int_equal(
        sigbase_content_digest("{\"hello\": \"world\"}", 18, out, NULL), OK);
    assert_string_equal(
        out, "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:");
    /* Appendix B: with the newline at the end. */
    assert_int_equal(
        sigbase_content_digest("{\"hello\": \"world\"}\n", 19, out, NULL), OK);
    assert_string_equal(
        out, "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    assert_int_equal(sigbase_content_digest(NULL, 0, out, NULL), OK);
    assert_string_equal(
        out, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
}

/* RFC 9421 B.1.3 */
static const char rfc_key[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf\n"
    "w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n"
    "-----END PUBLIC KEY-----\n";

/* Raw r||s in base64 over `text`, by the RFC's key. */
static int verify(const char *base64, const char *text)
{
    unsigned char raw[72];
    assert_int_equal(EVP_DecodeBlock(raw, (const unsigned char *)base64,
                                     (int)strlen(base64)),
                     66);
    ECDSA_SIG *sig = ECDSA_SIG_new();
    assert_non_null(sig);
    ECDSA_SIG_set0(sig, BN_bin2bn(raw, 32, NULL),
                   BN_bin2bn(raw + 32, 32, NULL));
    unsigned char *der = NULL;
    int der_len = i2d_ECDSA_SIG(sig, &der);
    BIO *bio = BIO_new_mem_buf(rfc_key, -1);
    EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    assert_non_null(key);
    assert_int_equal(EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, key),
                     1);
    int ok = EVP_DigestVerify(md, der, (size_t)der_len,
                              (const unsigned char *)text, strlen(text));
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    BIO_free(bio);
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    return ok;
}

/* RFC 9421 B.2.4: the base is right when the RFC's signature fits it. */
static void signature_base_of_rfc9421(void **state)
{
    const struct sigbase_component c[] = {
        {"@status", "200"},
        {"content-type", "application/json"},
        {"content-digest",
         "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX6"
         "9wWdXymyU0rjJuahq4l5aGgfLQ==:"},
        {"content-length", "23"},
    };
    FREE char *base = NULL;
    (void)state;
    assert_int_equal(
        sigbase_build(c, 4,
                      "(\"@status\" \"content-type\" \"content-digest\" "
                      "\"content-length\");created=1618884473;"
                      "keyid=\"test-key-ecc-p256\"",
                      &base, NULL),
        OK);
    static const char signature[] =
        "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eC"
        "dlYUEkLIj+32oiasw==";
    assert_int_equal(verify(signature, base), 1);
    base[1] ^= 1;
    assert_int_equal(verify(signature, base), 0);
}

/* RFC 9421 B.2.5, hmac-sha256: the one of its keys that is no key pair. */
static void hmac_of_rfc9421(void **state)
{
    const struct sigbase_component c[] = {
        {"date", "Tue, 20 Apr 2021 02:07:55 GMT"},
        {"@authority", "example.com"},
        {"content-type", "application/json"},
    };
    static const char key[] = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzN"
                              "JjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    uint8_t raw[72], mac[32];
    char text[64];
    FREE char *base = NULL;
    size_t n = 0;
    (void)state;
    assert_int_equal(sigbase_build(c, 3,
                                   "(\"date\" \"@authority\" "
                                   "\"content-type\");created=1618884473;"
                                   "keyid=\"test-shared-secret\"",
                                   &base, NULL),
                     OK);
    assert_int_equal(EVP_DecodeBlock(raw, (const unsigned char *)key,
                                     (int)strlen(key)),
                     66);
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, raw, 64,
                              (const unsigned char *)base, strlen(base), mac,
                              sizeof(mac), &n));
    EVP_EncodeBlock((unsigned char *)text, mac, 32);
    assert_string_equal(text, "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
}

/* RFC 9421 B.1.4 and B.2.6, ed25519: components of a request. */
static void request_of_rfc9421(void **state)
{
    const struct sigbase_component c[] = {
        {"date", "Tue, 20 Apr 2021 02:07:55 GMT"},
        {"@method", "POST"},
        {"@path", "/foo"},
        {"@authority", "example.com"},
        {"content-type", "application/json"},
        {"content-length", "18"},
    };
    static const char key_text[] =
        "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
    static const char signature[] =
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6"
        "vuQv5lIp5WPpBKRCw==";
    unsigned char point[34], raw[72];
    FREE char *base = NULL;
    (void)state;
    assert_int_equal(
        sigbase_build(c, 6,
                      "(\"date\" \"@method\" \"@path\" \"@authority\" "
                      "\"content-type\" \"content-length\");"
                      "created=1618884473;keyid=\"test-key-ed25519\"",
                      &base, NULL),
        OK);
    EVP_DecodeBlock(point, (const unsigned char *)key_text,
                    (int)strlen(key_text));
    EVP_DecodeBlock(raw, (const unsigned char *)signature,
                    (int)strlen(signature));
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, point, 32);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    assert_non_null(key);
    assert_int_equal(EVP_DigestVerifyInit(md, NULL, NULL, NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(md, raw, 64, (unsigned char *)base,
                                      strlen(base)),
                     1);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
}

static void call_has_its_parameters(void **state)
{
    struct sigbase_call c = {.method = "POST",
                             .target_uri = "https://h/v1/organization/projects",
                             .content_digest = "sha-256=:x:",
                             .nonce = "n0",
                             .keyid = "k:1",
                             .created_s = 17};
    FREE char *params = NULL;
    uint8_t digest[32], expected[32];
    (void)state;
    assert_int_equal(sigbase_call(&c, &params, digest, NULL), OK);
    assert_string_equal(params,
                        "(\"@method\" \"@target-uri\" \"content-digest\")"
                        ";created=17;nonce=\"n0\";keyid=\"k:1\""
                        ";alg=\"ecdsa-p256-sha256\";tag=\"hsmint\"");
    static const char base[] =
        "\"@method\": POST\n"
        "\"@target-uri\": https://h/v1/organization/projects\n"
        "\"content-digest\": sha-256=:x:\n"
        "\"@signature-params\": (\"@method\" \"@target-uri\" "
        "\"content-digest\");created=17;nonce=\"n0\";keyid=\"k:1\""
        ";alg=\"ecdsa-p256-sha256\";tag=\"hsmint\"";
    EVP_Digest(base, sizeof(base) - 1, expected, NULL, EVP_sha256(), NULL);
    assert_memory_equal(digest, expected, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_digest_of_rfc9530),
        cmocka_unit_test(signature_base_of_rfc9421),
        cmocka_unit_test(hmac_of_rfc9421),
        cmocka_unit_test(request_of_rfc9421),
        cmocka_unit_test(call_has_its_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
