/* ceremony_fixture - a transcript whose keys are OpenSSL's, and those who sign
 * it. */
#ifndef HSMINT_TESTS_CEREMONY_FIXTURE_H
#define HSMINT_TESTS_CEREMONY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"
#include "common/transcript.h"
#include "module/audit/ceremony.h"
#include "module/audit/signer.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define ORIGIN "hsmint/0123456789abcdef0123456789abcdef"

static struct error error __attribute__((unused));

#define must(call)                                                             \
    do {                                                                       \
        error_clear(&error);                                                   \
        if ((call) != OK)                                                      \
            fail_msg("%s: %s", #call, error.text);                             \
    } while (0)

#define must_fail(want, call)                                                  \
    do {                                                                       \
        error_clear(&error);                                                   \
        enum code got_ = (call);                                               \
        if (got_ != (want))                                                    \
            fail_msg("%s: %s instead of %s: %s", #call, error_name(got_),      \
                     error_name(want), error.text);                            \
    } while (0)

static inline char *spki_of(EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int n = i2d_PUBKEY(key, &der);
    char *text = base64_encode(der, (size_t)n);
    OPENSSL_free(der);
    return text;
}

static inline char *fingerprint(const char *base64, char hex[65])
{
    uint8_t bytes[4096], digest[EVP_MAX_MD_SIZE];
    size_t len;
    assert_true(
        base64_decode(base64, strlen(base64), bytes, sizeof bytes, &len));
    assert_int_equal(EVP_Digest(bytes, len, digest, NULL, EVP_sha256(), NULL),
                     1);
    text_hex(hex, digest, 32);
    return hex;
}

/* As an HSM says of a key that hsmint made in it. */
static inline json_t *hsm_key(const char *label, const char *use,
                              EVP_PKEY *key)
{
    char hex[65] = "00";
    FREE char *spki = key ? spki_of(key) : NULL;
    json_t *k = json_pack(
        "{ss ss si ss ss sb sb ss ss ss sb sb sb sb sb sb sb sb sb sn sb sb sn "
        "sn sb sb ss ss?}",
        "label", label, "use", use, "version", 1, "state", "active", "type",
        key ? "EC P-256" : "AES-256", "present", 1, "witnessed", 1, "proof",
        "it signed", "id", "0011", "generated_by", "CKM_EC_KEY_PAIR_GEN",
        "local", 1, "never_extractable", 1, "always_sensitive", 1, "sensitive",
        1, "extractable", 0, "token", 1, "private", 1, "modifiable", 0,
        "copyable", 0, "encrypt", "decrypt", 0, "sign", 1, "verify", "wrap",
        "unwrap", 0, "derive", 0, "fingerprint",
        spki ? fingerprint(spki, hex) : hex, "public_key", spki);
    assert_non_null(k);
    return k;
}

static inline json_t *an_hsm(void)
{
    json_t *h = json_pack(
        "{ss ss ss ss ss ss ss ss ss ss ss sb ss ss ss ss ss ss ss}",
        "manufacturer", "Maker", "model", "", "serial", "12", "label", "test",
        "hardware", "2.6", "firmware", "2.6", "flags", "0x1", "slot", "Slot 1",
        "slot_manufacturer", "Maker", "slot_hardware", "1.0", "slot_firmware",
        "1.0", "slot_is_hardware", 0, "library", "Library",
        "library_manufacturer", "Maker", "library_version", "2.6",
        "library_file", "/usr/lib/x.so", "library_sha256", "ab", "pkcs11",
        "2.40", "seals_by", "aes-gcm-iv-given");
    assert_non_null(h);
    return h;
}

enum { P384, RSA2048, ED25519, SIGNERS };
struct people {
    EVP_PKEY *log, *log_ed;
    EVP_PKEY *keys[SIGNERS]; /* of Ada, Grace and Edsger */
};

static inline struct people people_new(void)
{
    static EVP_PKEY *rsa; /* slow to make */
    if (!rsa)
        rsa = EVP_RSA_gen(2048);
    EVP_PKEY_up_ref(rsa);
    return (struct people){
        .log = EVP_EC_gen("P-256"),
        .log_ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"),
        .keys = {EVP_EC_gen("P-384"), rsa,
                 EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")}};
}

static inline void people_free(struct people *p)
{
    EVP_PKEY_free(p->log);
    EVP_PKEY_free(p->log_ed);
    for (int i = 0; i < SIGNERS; i++)
        EVP_PKEY_free(p->keys[i]);
}

static inline json_t *a_statement(const struct people *p)
{
    static const char root[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    FREE char *ada = spki_of(p->keys[P384]);
    FREE char *grace = spki_of(p->keys[RSA2048]);
    FREE char *edsger = spki_of(p->keys[ED25519]);
    json_t *t = json_pack(
        "{ss ss ss ss so s[{ss}{ss}] s[ooo] s{ss sI ss sI ss} s[{ss ss ss}] s[{ss ss ss}{ss "
        "ss ss}{ss ss ss}{ss ss sn}] s[{ss ss}]}",
        "instance", "0123456789abcdef0123456789abcdef", "time",
        "2026-11-21T20:00:00.000Z", "version", "0.1.0", "asked_by", "user:0",
        "hsm", an_hsm(), "mechanisms", "name", "0x00001087 CKM_AES_GCM", "name",
        "0x80000001 (the maker's own)", "keys",
        hsm_key("hsmint-seal-1", "seal", NULL),
        hsm_key("hsmint-log-1", "log", p->log),
        hsm_key("hsmint-log-ed25519-1", "log-ed25519", p->log_ed), "log",
        "origin", ORIGIN, "size", (json_int_t)11, "root", root, "record",
        (json_int_t)11, "leaf", root, "states", "label", "hsmint-log-1",
        "state", "active", "since", "2026-11-21T19:59:00.000Z", "participants", "name", "Ada Lovelace",
        "role", "custodian", "public_key", ada, "name", "Grace Hopper", "role",
        "auditor", "public_key", grace, "name", "Edsger W. Dijkstra", "role",
        "witness", "public_key", edsger, "name", "Ren\xc3\xa9 Descartes",
        "role", "guest", "public_key", "attestations", "key", "hsm", "bytes",
        "AAECAw==");
    assert_non_null(t);
    return t;
}

/* Bytes that the key makes over them. */
static inline size_t sign_with(EVP_PKEY *key, const void *text, size_t len,
                               uint8_t out[1024])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t n = 1024;
    const EVP_MD *md = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, md, NULL, key), 1);
    assert_int_equal(EVP_DigestSign(ctx, out, &n, text, len), 1);
    EVP_MD_CTX_free(ctx);
    return n;
}

static inline void log_sign(EVP_PKEY *key, const char *text,
                            struct note_signature *s)
{
    bool ed = EVP_PKEY_is_a(key, "ED25519");
    uint8_t spki[512], bytes[1024];
    unsigned char *at = spki;
    struct note_key k;
    int n = i2d_PUBKEY(key, &at);
    must(note_key(&k, ORIGIN, ed ? NOTE_ED25519 : NOTE_ECDSA,
                  ed ? spki + n - 32 : spki, ed ? 32 : (size_t)n, &error));
    *s = (struct note_signature){.len = sign_with(key, text, strlen(text),
                                                  bytes)};
    strcpy(s->name, ORIGIN);
    memcpy(s->id, k.id, sizeof s->id);
    memcpy(s->bytes, bytes, s->len);
}

/* The file as the keeper gives it; caller frees. */
static inline char *a_file(const struct people *p, const json_t *statement)
{
    struct note_signature s[2];
    FREE char *text = NULL;
    char *file = NULL;
    must(transcript_format(statement, &text, &error));
    log_sign(p->log, text, &s[0]);
    log_sign(p->log_ed, text, &s[1]);
    must(note_format(text, s, 2, &file, &error));
    return file;
}

static inline struct transcript *a_transcript(const struct people *p)
{
    JSON statement = a_statement(p);
    FREE char *file = a_file(p, statement);
    struct transcript *t = NULL;
    must(transcript_read(file, strlen(file), &t, &error));
    return t;
}

/* How many faults its verdict has. */
static inline size_t faults(const struct transcript *t)
{
    CLEANUP(keyring_freep) struct keyring *none = NULL;
    JSON verdict = NULL;
    must(keyring_new(&none, &error));
    must(ceremony_check(t, none, &verdict, &error));
    return json_array_size(json_object_get(verdict, "faults"));
}

#endif
