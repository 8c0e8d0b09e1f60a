/* The transcript of a ceremony: one form, every signature, and whatever somebody
 * does to the file afterwards. */
#include "config.h"

#include "tests/unit/ceremony_fixture.h"

#include "module/audit/attestation.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void all_sign(struct transcript *t, const struct people *p)
{
    static const char *const names[SIGNERS] = {"Ada Lovelace", "Grace Hopper",
                                               "Edsger W. Dijkstra"};
    for (int i = SIGNERS; i-- > 0;) { /* in any order */
        uint8_t bytes[1024];
        size_t n = sign_with(p->keys[i], t->text, t->text_len, bytes);
        must(ceremony_sign(t, names[i], bytes, n, &error));
    }
}

static void one_form(void **state)
{
    (void)state;
    struct people p = people_new();
    TRANSCRIPT t = a_transcript(&p);
    FREE char *again = NULL;
    FREE char *file = NULL;
    JSON back = NULL;
    must(transcript_format(t->json, &again, &error));
    assert_string_equal(again, t->text);
    must(transcript_parse(again, strlen(again), &back, &error));
    assert_true(json_equal(back, t->json));
    all_sign(t, &p);
    must(transcript_write(t, &file, &error));
    assert_int_equal(faults(t), 0);
    TRANSCRIPT same = NULL;
    must(transcript_read(file, strlen(file), &same, &error));
    assert_int_equal(faults(same), 0);
    for (int i = 0; i < SIGNERS; i++)
        assert_int_equal(same->by[i].len, t->by[i].len);
    people_free(&p);
}

/* Is this still a transcript that holds? */
static bool holds(const char *bytes, size_t len)
{
    TRANSCRIPT t = NULL;
    return transcript_read(bytes, len, &t, NULL) == OK && faults(t) == 0;
}

static void every_byte(void **state)
{
    (void)state;
    struct people p = people_new();
    TRANSCRIPT t = a_transcript(&p);
    FREE char *file = NULL;
    all_sign(t, &p);
    must(transcript_write(t, &file, &error));
    size_t len = strlen(file);
    assert_true(holds(file, len));
    for (size_t i = 0; i < len; i++) {
        static const char flips[] = {1, 0x20};
        for (size_t k = 0; k < sizeof flips; k++) {
            file[i] ^= flips[k];
            if (holds(file, len))
                fail_msg("byte %zu flipped by %#x is not found", i, flips[k]);
            file[i] ^= flips[k];
        }
        if (i % 5)
            continue;
        char was = file[i]; /* cut out */
        memmove(file + i, file + i + 1, len - i);
        if (holds(file, len - 1))
            fail_msg("byte %zu taken out is not found", i);
        memmove(file + i + 1, file + i, len - i);
        file[i] = was;
    }
    assert_true(holds(file, len));
    people_free(&p);
}

/* Line `line` of those that begin with a dash, without its newline. */
static char *signature_line(char *file, size_t line)
{
    char *at = strstr(file, "\n\n\xe2\x80\x94 ") + 2;
    while (line-- > 0)
        at = strchr(at, '\n') + 1;
    return at;
}

static char *assembled(const char *file, const char *order)
{
    FREE char *copy = strdup(file);
    char *at = signature_line(copy, 0), *out = calloc(2, strlen(file) + 1);
    memcpy(out, file, (size_t)(at - copy));
    for (; *order; order++) {
        const char *line = signature_line(copy, (size_t)(*order - '0'));
        strncat(out, line, strcspn(line, "\n") + 1);
    }
    return out;
}

/* 0, 1: the log's; 2, 3, 4: the participants'. */
static void lines_of_signatures(void **state)
{
    (void)state;
    struct people p = people_new();
    TRANSCRIPT t = a_transcript(&p);
    FREE char *file = NULL;
    all_sign(t, &p);
    must(transcript_write(t, &file, &error));
    static const struct {
        const char *order;
        bool holds;
    } rows[] = {{"01234", true},  {"01", true},     {"0124", true},
                {"0", false},     {"1", false},     {"10", false},
                {"1234", false},  {"0234", false},  {"01324", false},
                {"20134", false}, {"02134", false}, {"012343", false},
                {"001", false},   {"011", false},   {"0101", false},
                {"01011", false}, {"", false},      {"234", false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        FREE char *other = assembled(file, rows[i].order);
        if (holds(other, strlen(other)) != rows[i].holds)
            fail_msg("signatures %s", rows[i].order);
    }
    people_free(&p);
}

/* Names of participants changed places, and so did their lines. */
static void swapped_people(void **state)
{
    (void)state;
    struct people p = people_new();
    JSON statement = a_statement(&p);
    json_t *list = json_object_get(statement, "participants");
    JSON name = json_incref(json_object_get(json_array_get(list, 0), "name"));
    TRANSCRIPT t = a_transcript(&p);
    all_sign(t, &p);
    json_object_set(json_array_get(list, 0), "name",
                    json_object_get(json_array_get(list, 1), "name"));
    json_object_set(json_array_get(list, 1), "name", name);
    /* What the log's key signed stays as it was. */
    free(t->text);
    must(transcript_format(statement, &t->text, &error));
    t->text_len = strlen(t->text);
    json_decref(t->json);
    t->json = json_incref(statement);
    /* Both of the log's first, then each who signed. */
    assert_int_equal(faults(t), 1 + SIGNERS);
    people_free(&p);
}

static void replayed(void **state)
{
    (void)state;
    struct people p = people_new();
    uint8_t bytes[1024];
    TRANSCRIPT before = a_transcript(&p);
    JSON statement = a_statement(&p);
    json_object_set_new(statement, "time",
                        json_string("2026-11-22T20:00:00.000Z"));
    FREE char *file = a_file(&p, statement);
    TRANSCRIPT t = NULL;
    must(transcript_read(file, strlen(file), &t, &error));
    size_t n =
        sign_with(p.keys[ED25519], before->text, before->text_len, bytes);
    must(ceremony_sign(before, "Edsger W. Dijkstra", bytes, n, &error));
    must_fail(ERR_SEAL,
              ceremony_sign(t, "Edsger W. Dijkstra", bytes, n, &error));
    /* … nor in another's place. */
    must_fail(ERR_SEAL, ceremony_sign(before, "Ada Lovelace", bytes, n,
                                      &error));
    must_fail(ERR_EXISTS, ceremony_sign(before, "Edsger W. Dijkstra", bytes, n,
                                        &error));
    must_fail(ERR_NOT_FOUND, ceremony_sign(before, "Edsger", bytes, n, &error));
    must_fail(ERR_INVALID, ceremony_sign(before, "Ren\xc3\xa9 Descartes", bytes,
                                         n, &error));
    /* A file that somebody put it into all the same. */
    t->by[ED25519] = before->by[ED25519];
    assert_int_equal(faults(t), 1);
    people_free(&p);
}

/* As PKCS#11 gives it: r and s. */
static void raw_signature(void **state)
{
    (void)state;
    struct people p = people_new();
    TRANSCRIPT t = a_transcript(&p);
    uint8_t der[1024], raw[96] = {0};
    size_t n = sign_with(p.keys[P384], t->text, t->text_len, der);
    const unsigned char *at = der;
    ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &at, (long)n);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, 48), 48);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + 48, 48), 48);
    ECDSA_SIG_free(s);
    must_fail(ERR_SEAL, ceremony_sign(t, "Ada Lovelace", raw, 95, &error));
    must(ceremony_sign(t, "Ada Lovelace", raw, sizeof raw, &error));
    assert_int_equal(t->by[0].len, n);
    assert_memory_equal(t->by[0].bytes, der, n);
    assert_int_equal(faults(t), 0);
    people_free(&p);
}

/* The log's key was another's: given keys are what tells. */
static void another_log(void **state)
{
    (void)state;
    struct people p = people_new(), q = people_new();
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    JSON verdict = NULL;
    TRANSCRIPT t = a_transcript(&p);
    TRANSCRIPT other = a_transcript(&q);
    struct note_key key;
    must(keyring_new(&keys, &error));
    must(transcript_log_key(t, 0, &key, &error));
    must(keyring_give(keys, &key, &error));
    must(ceremony_check(t, keys, &verdict, &error));
    assert_int_equal(json_array_size(json_object_get(verdict, "faults")), 0);
    json_freep(&verdict);
    must(ceremony_check(other, keys, &verdict, &error));
    assert_int_equal(json_array_size(json_object_get(verdict, "faults")), 1);
    /* Its signatures under this statement. */
    memcpy(t->log, other->log, sizeof t->log);
    assert_int_not_equal(faults(t), 0);
    people_free(&p);
    people_free(&q);
}

/* The statement vouches for the keys of calls in the log's first records: nobody
 * has to compare them by hand. */
static void keys_of_calls(void **state)
{
    (void)state;
    struct people p = people_new();
    TRANSCRIPT t = a_transcript(&p);
    EVP_PKEY *ours = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    FREE char *spki = spki_of(ours);
    FREE char *strange = spki_of(other);
    json_t *keys = json_object_get(t->json, "keys");
    const struct {
        const char *key;
        int64_t seq, stranger;
    } rows[] = {
        {spki, 2, 0},
        {strange, 2, 2},
        {"", 2, 2},
        {"no base64", 2, 2},
        /* After the ceremony it is another one's to tell. */
        {strange, 12, 0},
    };
    assert_int_equal(
        json_array_append_new(keys, hsm_key("hsmint-call-1", "call", ours)), 0);
    /* A key of the HSM's that signs the log signs no calls. */
    assert_int_equal(
        json_array_append_new(keys, hsm_key("hsmint-log-2", "log", other)), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ceremony_trace trace;
        JSON json = json_pack("{s[{ss ss}{ss ss}]}", "call", "keyid",
                              "hsmint-call-1:00", "public_key", spki, "keyid",
                              "mine\n:00", "public_key", rows[i].key);
        const struct record r = {
            .kind = RECORD_KEYS, .seq = rows[i].seq, .json = json};
        must(ceremony_trace_begin(&trace, t, &error));
        ceremony_trace_record(&trace, &r);
        assert_int_equal(trace.stranger_seq, rows[i].stranger);
        assert_false(trace.forgets);
        assert_string_equal(trace.stranger,
                            rows[i].stranger ? "mine\\x0a:00" : "");
    }
    /* Rotated so often that the pins let go of the first. */
    struct ceremony_trace trace;
    json_object_set_new(json_array_get(keys, json_array_size(keys) - 2),
                        "version", json_integer(9));
    must(ceremony_trace_begin(&trace, t, &error));
    assert_true(trace.forgets);
    EVP_PKEY_free(ours);
    EVP_PKEY_free(other);
    people_free(&p);
}

/* An honest signature over keys that were outside, or were not where it says. */
static void keys_from_outside(void **state)
{
    (void)state;
    static const struct {
        const char *member;
        json_t *(*value)(void);
    } rows[] = {{"local", json_false},        {"local", json_null},
                {"extractable", json_true},   {"extractable", json_null},
                {"sensitive", json_false},    {"never_extractable", json_false},
                {"always_sensitive", json_null}};
    struct people p = people_new();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        JSON statement = a_statement(&p);
        TRANSCRIPT t = NULL;
        json_object_set_new(
            json_array_get(json_object_get(statement, "keys"), 0),
            rows[i].member, rows[i].value());
        FREE char *file = a_file(&p, statement);
        must(transcript_read(file, strlen(file), &t, &error));
        assert_int_equal(faults(t), 1);
    }
    JSON statement = a_statement(&p);
    TRANSCRIPT t = NULL;
    json_object_set_new(json_array_get(json_object_get(statement, "keys"), 1),
                        "fingerprint", json_string("00"));
    FREE char *file = a_file(&p, statement);
    must(transcript_read(file, strlen(file), &t, &error));
    assert_int_equal(faults(t), 1);
    people_free(&p);
}

/* ---- what is given ---- */

static enum code check_name(const char *name)
{
    return transcript_check_name("participant", name, &error);
}

static void names(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",        " Ada",      "Ada ",      "Ada\nRole: owner",
        "A\x1b[31mda", "A\x7f", "\xe2\x80\xae" "adA", "Ada\xe2\x80\x8b",
        "Ada\xe2\x81\xa6", "Ada\xff", "Ada\xc2\x85", "Ada\xef\xbb\xbf",
        "A\xc2\xad" "da"};
    static const char *const good[] = {
        "Ada", "Ren\xc3\xa9 Descartes", "\xd7\xa9\xd7\xa8\xd7\x94",
        "\xe5\xb1\xb1\xe7\x94\xb0", "O'Neill-Smith, Jr."};
    char long_name[TRANSCRIPT_NAME_MAX + 2];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        must_fail(ERR_INVALID, check_name(bad[i]));
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        must(check_name(good[i]));
    memset(long_name, 'a', sizeof long_name);
    long_name[TRANSCRIPT_NAME_MAX] = '\0';
    must(check_name(long_name));
    long_name[TRANSCRIPT_NAME_MAX] = 'a';
    long_name[TRANSCRIPT_NAME_MAX + 1] = '\0';
    must_fail(ERR_INVALID, check_name(long_name));
}

static enum code given(const char *text)
{
    JSON j = NULL;
    must(json_parse(text, strlen(text), "given", &j, &error));
    return transcript_check_given(j, &error);
}

static void what_is_given(void **state)
{
    (void)state;
    must(given("{\"participants\":[],\"attestations\":[]}"));
    must_fail(ERR_INVALID, given("{\"participants\":[]}"));
    must_fail(ERR_INVALID, given("{\"participants\":{},\"attestations\":[]}"));
    must_fail(ERR_INVALID, given("{\"participants\":[1],\"attestations\":[]}"));
    must_fail(ERR_INVALID,
              given("{\"participants\":[{\"name\":\"a\"}],\"attestations\":[]}"));
    must_fail(ERR_INVALID,
              given("{\"participants\":[{\"name\":\"a\",\"role\":\"r\"},"
                    "{\"name\":\"a\",\"role\":\"s\"}],\"attestations\":[]}"));
    must_fail(ERR_INVALID,
              given("{\"participants\":[{\"name\":\"a\",\"role\":\"r\","
                    "\"public_key\":\"AAAA\"},{\"name\":\"b\",\"role\":\"s\","
                    "\"public_key\":\"AAAA\"}],\"attestations\":[]}"));
    must_fail(ERR_INVALID,
              given("{\"participants\":[{\"name\":\"a\",\"role\":\"r\","
                    "\"public_key\":\"?\"}],\"attestations\":[]}"));
    must_fail(ERR_INVALID,
              given("{\"participants\":[],\"attestations\":[{\"key\":\"a b\","
                    "\"bytes\":\"AAAA\"}]}"));
    must_fail(ERR_INVALID,
              given("{\"participants\":[],\"attestations\":[{\"key\":\"hsm\","
                    "\"bytes\":\"\"}]}"));
}

static void bounds(void **state)
{
    (void)state;
    JSON people = json_array();
    for (int i = 0; i < 10000; i++)
        json_array_append_new(people, json_pack("{so ss}", "name",
                                                json_sprintf("p %d", i), "role",
                                                "r"));
    JSON many = json_pack("{sO s[]}", "participants", people, "attestations");
    must_fail(ERR_INVALID, transcript_check_given(many, &error));
    static uint8_t bytes[TRANSCRIPT_ATTESTATION_MAX + 1];
    FREE char *largest = base64_encode(bytes, TRANSCRIPT_ATTESTATION_MAX);
    FREE char *larger = base64_encode(bytes, sizeof bytes);
    JSON huge = json_pack("{s[] s[{ss ss}]}", "participants", "attestations",
                          "key", "hsm", "bytes", larger);
    must_fail(ERR_INVALID, transcript_check_given(huge, &error));
    JSON list = json_array();
    JSON full = json_pack("{s[] sO}", "participants", "attestations", list);
    for (size_t i = 0; i < TRANSCRIPT_ATTESTED_MAX / TRANSCRIPT_ATTESTATION_MAX;
         i++)
        json_array_append_new(list, json_pack("{ss ss}", "key", "hsm", "bytes",
                                              largest));
    must(transcript_check_given(full, &error));
    /* All that is let in has room in the file. */
    struct people p = people_new();
    JSON statement = a_statement(&p);
    json_object_set(statement, "attestations", list);
    FREE char *file = a_file(&p, statement);
    assert_true(holds(file, strlen(file)));
    json_array_append_new(list,
                          json_pack("{ss ss}", "key", "hsm", "bytes", "AA=="));
    must_fail(ERR_INVALID, transcript_check_given(full, &error));
    people_free(&p);
}

/* ---- keys and attestations ---- */

static char *pem_of(EVP_PKEY *key, bool private)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *at = NULL;
    assert_int_equal(private ? PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0,
                                                        NULL, NULL)
                             : PEM_write_bio_PUBKEY(bio, key),
                     1);
    long n = BIO_get_mem_data(bio, &at);
    char *text = strndup(at, (size_t)n);
    BIO_free(bio);
    return text;
}

static enum code read_pem(EVP_PKEY *key, bool private)
{
    FREE char *pem = pem_of(key, private);
    FREE char *spki = NULL;
    return signer_read(pem, strlen(pem), &spki, &error);
}

static void public_keys(void **state)
{
    (void)state;
    struct people p = people_new();
    EVP_PKEY *bad[] = {EVP_RSA_gen(1024), EVP_EC_gen("P-521"),
                       EVP_EC_gen("secp256k1"),
                       EVP_PKEY_Q_keygen(NULL, NULL, "X25519")};
    for (int i = 0; i < SIGNERS; i++) {
        must(read_pem(p.keys[i], false));
        must_fail(ERR_INVALID, read_pem(p.keys[i], true));
        assert_non_null(strstr(error.text, "private key"));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        must_fail(ERR_INVALID, read_pem(bad[i], false));
        EVP_PKEY_free(bad[i]);
    }
    FREE char *none = NULL;
    must_fail(ERR_INVALID, signer_read("garbage", 7, &none, &error));
    people_free(&p);
}

static size_t certificate(EVP_PKEY *about, EVP_PKEY *by, uint8_t out[4096])
{
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    unsigned char *at = out;
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                               (const unsigned char *)"a\x1b[2J", -1, -1, 0);
    X509_set_issuer_name(x, name);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 60);
    X509_set_pubkey(x, about);
    assert_true(X509_sign(x, by, EVP_sha256()) > 0);
    size_t n = (size_t)i2d_X509(x, &at);
    X509_free(x);
    return n;
}

static void attestations(void **state)
{
    (void)state;
    struct people p = people_new();
    struct attestation a;
    uint8_t der[4096], spki[512];
    unsigned char *at = spki;
    size_t len = (size_t)i2d_PUBKEY(p.log, &at);
    size_t n = certificate(p.log, p.keys[P384], der);
    attestation_look(&a, der, n, spki, len);
    assert_int_equal(a.certificates, 1);
    assert_true(a.is_about);
    assert_null(strchr(a.subject, 0x1b));
    assert_non_null(strstr(a.issuer, "CN="));
    n = certificate(p.keys[P384], p.keys[P384], der);
    attestation_look(&a, der, n, spki, len);
    assert_false(a.is_about);
    attestation_look(&a, der, n, spki, 0);
    assert_false(a.is_about);
    attestation_look(&a, (const uint8_t *)"vendor", 6, spki, len);
    assert_int_equal(a.certificates, 0);
    people_free(&p);
}

/* What a stranger gave asks nobody for a passphrase. */
static void encrypted_pem(void **state)
{
    (void)state;
    static const char of[] = "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
                             "00112233445566778899AABBCCDDEEFF\n\n"
                             "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU"
                             "\n-----END ";
    static const char *const kinds[] = {"CERTIFICATE", "PUBLIC KEY"};
    int in[2], left = 0, status;
    assert_int_equal(pipe(in), 0);
    assert_int_equal(write(in[1], "secret\n", 7), 7);
    pid_t child = fork();
    if (child == 0) { /* it is asked on the terminal, or else here */
        (void)setsid();
        (void)dup2(in[0], STDIN_FILENO);
        (void)alarm(20);
        for (int i = 0; i < 2; i++) {
            char pem[512];
            struct attestation a;
            FREE char *spki = NULL;
            int n = snprintf(pem, sizeof pem, "-----BEGIN %s-----%s%s-----\n",
                             kinds[i], of, kinds[i]);
            attestation_look(&a, (uint8_t *)pem, (size_t)n, NULL, 0);
            if (a.certificates || signer_read(pem, (size_t)n, &spki, NULL) == OK)
                _exit(1);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(ioctl(in[0], FIONREAD, &left), 0);
    assert_int_equal(left, 7);
    (void)close(in[0]);
    (void)close(in[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_form),
        cmocka_unit_test(every_byte),
        cmocka_unit_test(lines_of_signatures),
        cmocka_unit_test(swapped_people),
        cmocka_unit_test(replayed),
        cmocka_unit_test(raw_signature),
        cmocka_unit_test(another_log),
        cmocka_unit_test(keys_of_calls),
        cmocka_unit_test(keys_from_outside),
        cmocka_unit_test(names),
        cmocka_unit_test(what_is_given),
        cmocka_unit_test(bounds),
        cmocka_unit_test(public_keys),
        cmocka_unit_test(attestations),
        cmocka_unit_test(encrypted_pem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
