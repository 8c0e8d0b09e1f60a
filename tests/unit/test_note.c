/* Signed notes: a published one, our own, and what is none. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base64.h"
#include "common/file.h"
#include "common/note.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DASH "\xe2\x80\x94"
static const char published_key[] =
    "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
static const char published[] =
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n" DASH
    " PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZ"
    "SNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

static void a_published_note(void **state)
{
    (void)state;
    struct note n;
    struct note_key k;
    bool found;
    FREE char *again = NULL;
    assert_int_equal(note_key_parse(&k, published_key, NULL), OK);
    assert_int_equal(note_key_format(&k, &again, NULL), OK);
    assert_string_equal(again, published_key);
    assert_int_equal(note_parse(&n, published, strlen(published), NULL), OK);
    assert_int_equal(n.n, 1);
    assert_int_equal(note_verify(&n, &k, &found, NULL), OK);
    assert_true(found);

    FREE char *changed = strdup(published);
    changed[3] = 'Y';
    assert_int_equal(note_parse(&n, changed, strlen(changed), NULL), OK);
    assert_int_equal(note_verify(&n, &k, &found, NULL), ERR_SEAL);
}

/* ---- our own, ECDSA ---- */

struct signer {
    EVP_PKEY *key;
    struct note_key public;
};

static void signer_new(struct signer *s, const char *name)
{
    uint8_t spki[128], *at = spki;
    s->key = EVP_EC_gen("P-256");
    assert_non_null(s->key);
    int len = i2d_PUBKEY(s->key, &at);
    assert_int_equal(
        note_key(&s->public, name, NOTE_ECDSA, spki, (size_t)len, NULL), OK);
}

static void sign(const struct signer *s, const char *text,
                 struct note_signature *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    *out = (struct note_signature){.len = sizeof out->bytes};
    strcpy(out->name, s->public.name);
    memcpy(out->id, s->public.id, sizeof out->id);
    assert_int_equal(
        EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, s->key), 1);
    assert_int_equal(EVP_DigestSign(ctx, out->bytes, &out->len,
                                    (const unsigned char *)text, strlen(text)),
                     1);
    EVP_MD_CTX_free(ctx);
}

static void a_checkpoint_of_two_signers(void **state)
{
    (void)state;
    struct signer a, b;
    struct note_signature s[2];
    struct checkpoint c = {.origin = "hsmint.example/log", .size = 300}, back;
    struct note n;
    bool found;
    FREE char *text = NULL;
    FREE char *all = NULL;
    memset(c.root.bytes, 0xa5, MERKLE_HASH);
    signer_new(&a, "hsmint.example/log");
    signer_new(&b, "hsmint.example/log");
    assert_int_equal(checkpoint_format(&c, &text, NULL), OK);
    sign(&a, text, &s[0]);
    sign(&b, text, &s[1]);
    assert_int_equal(note_format(text, s, 2, &all, NULL), OK);
    assert_int_equal(note_parse(&n, all, strlen(all), NULL), OK);
    assert_int_equal(n.n, 2);
    assert_int_equal(note_verify(&n, &a.public, &found, NULL), OK);
    assert_true(found);
    assert_int_equal(note_verify(&n, &b.public, &found, NULL), OK);
    assert_true(found);
    assert_int_equal(checkpoint_parse(&back, n.text, n.text_len, NULL), OK);
    assert_string_equal(back.origin, c.origin);
    assert_int_equal(back.size, 300);
    assert_true(merkle_equal(&back.root, &c.root));

    struct signer stranger;
    signer_new(&stranger, "hsmint.example/log");
    assert_int_equal(note_verify(&n, &stranger.public, &found, NULL), OK);
    assert_false(found);
    n.signatures[0].bytes[10] ^= 1;
    assert_int_equal(note_verify(&n, &a.public, &found, NULL), ERR_SEAL);
    EVP_PKEY_free(a.key);
    EVP_PKEY_free(b.key);
    EVP_PKEY_free(stranger.key);
}

/* ---- what is none ---- */

static void refused_notes(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\nname AAAAAAA=\n",
        "text\n\n" DASH " name\n",
        "text\n\n" DASH " name AAAAAAA=", /* cut */
        "text\n\n" DASH " name AAAAAB==\n",
        "text\n\n" DASH " name AAA\n",
        "text\n\n" DASH " na+me AAAAAAA=\n",
        "text\n\n" DASH " name AAAA\n",      /* no signature behind the id */
        "te\rxt\n\n" DASH " name AAAAAAA=\n", /* control character */
        "te\xff\n\n" DASH " name AAAAAAA=\n",
        "text\n\n" DASH " name AAAAAAA=\n\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct note n;
        struct error e = {.code = OK};
        if (note_parse(&n, bad[i], strlen(bad[i]), &e) != ERR_INVALID)
            fail_msg("taken: %s", bad[i]);
        assert_true(*e.text);
    }
}

static void refused_checkpoints(void **state)
{
    (void)state;
    static const char root[] = "4oh+KGiqF0kx2mbjJ+T9VbXBvL1LnMbPh2IBhQ3Pf8c=";
    static const char *const sizes[] = {"",   "-1", "01", "1 ", "x",
                                        "9223372036854775808",
                                        "18446744073709551616"};
    struct checkpoint c;
    char text[256];
    snprintf(text, sizeof text, "a\n0\n%s\n", root);
    assert_int_equal(checkpoint_parse(&c, text, strlen(text), NULL), OK);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        snprintf(text, sizeof text, "a\n%s\n%s\n", sizes[i], root);
        assert_int_equal(checkpoint_parse(&c, text, strlen(text), NULL),
                         ERR_INVALID);
    }
    static const char *const bad[] = {
        "",
        "a\n1\n",
        "a\n1\nAAAA\n",
        "a\n1\n4oh+KGiqF0kx2mbjJ+T9VbXBvL1LnMbPh2IBhQ3Pf8d=\n",
        "a b\n1\n4oh+KGiqF0kx2mbjJ+T9VbXBvL1LnMbPh2IBhQ3Pf8c=\n",
        "\n1\n4oh+KGiqF0kx2mbjJ+T9VbXBvL1LnMbPh2IBhQ3Pf8c=\n",
        "a\n1\n4oh+KGiqF0kx2mbjJ+T9VbXBvL1LnMbPh2IBhQ3Pf8c=", /* cut */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(checkpoint_parse(&c, bad[i], strlen(bad[i]), NULL),
                         ERR_INVALID);
}

static void refused_keys(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "name",
        "name+c74f20a3",
        "name+c74f20a3+AAAA",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+AxpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+AhpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy",
    };
    struct note_key k;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (note_key_parse(&k, bad[i], NULL) != ERR_INVALID)
            fail_msg("taken: %s", bad[i]);
}

/* ---- witnesses ---- */

/* Made by another implementation (python3-cryptography), with the private key
 * 00 01 02 … 1f. */
static const char witness_key[] =
    "witness.example/w1+e75f6532+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UN"
    "Xx3chmQSVTG4";
static const char cosigned[] =
    "hsmint/test\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n" DASH
    " witness.example/w1 519lMgAAAABpIB1ZsVZCcBkrIo6XTfKu7YZoV4WeqkT1"
    "ZqJykkbfjmPQ7T+chKSh48f5P9B1RjDkMbfEVEeJsufC3o5TuUrGnsXZDQ==\n";

static void a_cosignature(void **state)
{
    (void)state;
    struct note n;
    struct note_key k;
    bool found;
    FREE char *again = NULL;
    assert_int_equal(note_key_parse(&k, witness_key, NULL), OK);
    assert_int_equal(k.algorithm, NOTE_COSIGNATURE);
    assert_int_equal(note_key_format(&k, &again, NULL), OK);
    assert_string_equal(again, witness_key);
    assert_int_equal(note_parse(&n, cosigned, strlen(cosigned), NULL), OK);
    assert_int_equal(note_verify(&n, &k, &found, NULL), OK);
    assert_true(found);

    n.signatures[0].bytes[7] ^= 1; /* the time */
    assert_int_equal(note_verify(&n, &k, &found, NULL), ERR_SEAL);
    n.signatures[0].bytes[7] ^= 1;
    n.signatures[0].len--;
    assert_int_equal(note_verify(&n, &k, &found, NULL), ERR_SEAL);
    FREE char *changed = strdup(cosigned);
    *strchr(changed, '3') = '4';
    assert_int_equal(note_parse(&n, changed, strlen(changed), NULL), OK);
    assert_int_equal(note_verify(&n, &k, &found, NULL), ERR_SEAL);
}

/* ML-DSA's are longer than any that we know: let pass, not trusted. */
static void a_long_signature(void **state)
{
    (void)state;
    static const uint8_t bytes[4 + 2428] = {1, 2, 3, 4};
    struct note n;
    struct note_key k;
    bool found;
    FREE char *base64 = base64_encode(bytes, sizeof bytes);
    FREE char *both = NULL;
    assert_true(asprintf(&both, "%s" DASH " witness.example/pq %s\n", cosigned,
                         base64) > 0);
    assert_int_equal(note_key_parse(&k, witness_key, NULL), OK);
    assert_int_equal(note_parse(&n, both, strlen(both), NULL), OK);
    assert_int_equal(n.n, 2);
    assert_int_equal(n.signatures[1].len, 0);
    assert_memory_equal(n.signatures[1].id, bytes, 4);
    assert_int_equal(note_verify(&n, &k, &found, NULL), OK);
    assert_true(found);
    strcpy(n.signatures[1].name, k.name); /* said to be of a known key */
    memcpy(n.signatures[1].id, k.id, sizeof k.id);
    assert_int_equal(note_verify(&n, &k, &found, NULL), ERR_SEAL);
    struct error e;
    strrchr(both, ' ')[3] = '*';
    assert_int_equal(note_parse(&n, both, strlen(both), &e), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_published_note),
        cmocka_unit_test(a_cosignature),
        cmocka_unit_test(a_long_signature),
        cmocka_unit_test(a_checkpoint_of_two_signers),
        cmocka_unit_test(refused_notes),
        cmocka_unit_test(refused_checkpoints),
        cmocka_unit_test(refused_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
