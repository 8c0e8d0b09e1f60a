/* Sealed blobs: every mechanism that SoftHSM has, every byte changed, other
 * subjects, many threads; the HMAC key and data objects. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "hsm/envelope.h"
#include "hsm/soft.h"

#include <pthread.h>

static struct seal_subject subject(const char *org)
{
    struct seal_subject s = {.kind = SEAL_ADMIN_KEY, .version = 3};
    snprintf(s.org, sizeof s.org, "%s", org);
    snprintf(s.key_id, sizeof s.key_id, "key_abc");
    snprintf(s.endpoint, sizeof s.endpoint, "https://api.openai.com/v1");
    snprintf(s.organization_id, sizeof s.organization_id, "org-1");
    return s;
}

static void round_trip(struct hsm *h, size_t len)
{
    struct seal_subject s = subject("default"), got;
    SECRET plain = NULL;
    SECRET opened = NULL;
    FREE uint8_t *blob = NULL;
    size_t blob_len;
    must(secret_new(&plain, len, &error));
    memset(secret_bytes(plain), 0x5a, len);
    secret_set_len(plain, len);
    must(hsm_seal(h, &s, plain, &blob, &blob_len, &error));
    assert_true(blob_len <= SEAL_BLOB_MAX);
    must(hsm_unseal(h, blob, blob_len, &got, &opened, &error));
    assert_true(secret_equal(plain, opened));
    assert_memory_equal(&s, &got, sizeof s);
}

static void sizes(void **state)
{
    struct hsm *h = provisioned(state);
    static const size_t lengths[] = {1, 15, 16, 17, 164, 4096, BLOB_PLAIN_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        round_trip(h, lengths[i]);
    struct seal_subject s = subject("default");
    SECRET none = NULL;
    uint8_t *blob = NULL;
    size_t len;
    must(secret_new(&none, BLOB_PLAIN_MAX + 1, &error));
    must_fail(ERR_INVALID, hsm_seal(h, &s, none, &blob, &len, &error));
    secret_set_len(none, BLOB_PLAIN_MAX + 1);
    must_fail(ERR_INVALID, hsm_seal(h, &s, none, &blob, &len, &error));
    secret_set_len(none, 8);
    s.kind = (enum seal_kind)4;
    must_fail(ERR_INTERNAL, hsm_seal(h, &s, none, &blob, &len, &error));
    s = subject("line\nbreak");
    must_fail(ERR_INVALID, hsm_seal(h, &s, none, &blob, &len, &error));
}

/* No byte may change, none be missing or added: the signature holds all. */
static void every_byte_counts(void **state)
{
    struct hsm *h = provisioned(state);
    struct seal_subject s = subject("default"), got;
    SECRET plain = secret_of("sk-admin-0123456789");
    FREE uint8_t *blob = NULL;
    size_t len;
    must(hsm_seal(h, &s, plain, &blob, &len, &error));
    for (size_t i = 0; i < len; i++) {
        struct secret *opened = NULL;
        blob[i] ^= 1;
        must_fail(ERR_SEAL, hsm_unseal(h, blob, len, &got, &opened, &error));
        must_fail(ERR_SEAL, hsm_verify(h, blob, len, &got, &error));
        assert_null(opened);
        blob[i] ^= 1;
    }
    for (size_t n = 0; n < len; n++)
        must_fail(ERR_SEAL, hsm_verify(h, blob, n, &got, &error));
    FREE uint8_t *longer = calloc(1, len + 1);
    memcpy(longer, blob, len);
    must_fail(ERR_SEAL, hsm_verify(h, longer, len + 1, &got, &error));
    must(hsm_verify(h, blob, len, &got, &error));
}

/* Below the signature, additional data bind the subject too: put another
 * organisation's header before the ciphertext, signed by the right key. */
static enum code op_swap(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    (void)arg;
    struct seal_subject one = subject("default"), two = subject("another");
    SECRET plain = secret_of("sk-admin-0123456789");
    SECRET opened = NULL;
    FREE uint8_t *blob = NULL;
    size_t len, header_len;
    struct blob b;
    uint8_t header[BLOB_HEADER_MAX];
    enum code rc = envelope_make(s, &h->ring, &one, plain, &blob, &len, e);
    if (!rc)
        rc = envelope_verify(h->ring.set, blob, len, &b, e);
    if (!rc)
        rc = blob_header(&two, b.mechanism, b.label, header, &header_len, e);
    if (rc)
        return rc;
    struct seal_key k = keyring_seal_key(&h->ring);
    must(seal_decrypt(s, &k, blob, b.header_len, &b.sealed, &opened, e));
    secret_free(opened);
    opened = NULL;
    return seal_decrypt(s, &k, header, header_len, &b.sealed, &opened, e);
}

static void other_organisation_of(struct hsm *h)
{
    enum code rc = hsm_run(h, NEED_READY, false, op_swap, NULL, &error);
    assert_true(rc == ERR_SEAL || rc == ERR_HSM_FAILED);
    round_trip(h, 20); /* the session is whole again */
}

static void other_organisation(void **state)
{
    other_organisation_of(provisioned(state));
}

static void rsa_with_sha1(void **state)
{
    struct fixture *f = fixture(state);
    /* SoftHSM has OAEP with SHA-1 only: the better one is tried and fails. */
    const enum seal_mechanism rsa[] = {MECH_OAEP_SHA256, MECH_OAEP_SHA1};
    f->settings.hsm_allow_sha1 = true;
    restart(f);
    hsm_mechanisms(f->hsm, rsa, 2);
    struct hsm *h = provisioned(state);
    assert_int_equal(atomic_load(&h->keys)->mechanism, MECH_OAEP_SHA1);
    round_trip(h, 1);
    round_trip(h, 4096);
    other_organisation_of(h);

    JSON out = NULL;
    bool by_hsm;
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must(hsm_provision(f->hsm, false, f->pins, &out, &error));
    round_trip(f->hsm, 32);
    f->settings.hsm_allow_sha1 = false;
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must_fail(ERR_CONFIG, hsm_provision(f->hsm, false, f->pins, &out, &error));
}

/* SHA-1 is not even tried unless it is asked for. */
static void sha1_is_asked_for(void **state)
{
    struct fixture *f = fixture(state);
    for (size_t i = 0; i < f->hsm->mechanisms_count; i++)
        assert_int_not_equal(f->hsm->mechanisms[i], MECH_OAEP_SHA1);
    f->settings.hsm_allow_sha1 = true;
    restart(f);
    size_t n = f->hsm->mechanisms_count;
    assert_int_equal(f->hsm->mechanisms[n - 1], MECH_OAEP_SHA1);
}

/* HSMs that make the IV themselves, played over SoftHSM: each hands it out in
 * its own way. */
static CK_FUNCTION_LIST real, played;
static enum seal_mechanism playing;
static uint8_t hsm_iv[12];

static CK_RV play_init(CK_SESSION_HANDLE session, CK_MECHANISM *m,
                       CK_OBJECT_HANDLE key)
{
    CK_GCM_PARAMS *p = m->pParameter, mine = *p;
    if ((p->pIv == NULL) == (playing == MECH_GCM_WRITTEN))
        return CKR_MECHANISM_PARAM_INVALID;
    hsm_iv[0]++; /* another one each time */
    mine.pIv = hsm_iv;
    mine.ulIvLen = sizeof hsm_iv;
    mine.ulIvBits = 8 * sizeof hsm_iv;
    if (playing == MECH_GCM_WRITTEN)
        memcpy(p->pIv, hsm_iv, sizeof hsm_iv);
    CK_MECHANISM inner = {CKM_AES_GCM, &mine, sizeof mine};
    return real.C_EncryptInit(session, &inner, key);
}

static CK_RV play_encrypt(CK_SESSION_HANDLE session, CK_BYTE *data,
                          CK_ULONG len, CK_BYTE *out, CK_ULONG *out_len)
{
    size_t iv = playing == MECH_GCM_WRITTEN ? 0 : sizeof hsm_iv;
    size_t front = playing == MECH_GCM_PREPENDED ? iv : 0;
    *out_len -= iv;
    CK_RV rv = real.C_Encrypt(session, data, len, out + front, out_len);
    if (rv == CKR_OK && iv)
        memcpy(front ? out : out + *out_len, hsm_iv, iv);
    *out_len += iv;
    return rv;
}

static enum code op_self_test(struct hsm *h, struct session *s, void *arg,
                              struct error *e)
{
    struct seal_key k = keyring_seal_key(&h->ring);
    k.mechanism = *(enum seal_mechanism *)arg;
    return seal_self_test(s, &k, e);
}

static void hsm_makes_the_iv(void **state)
{
    struct hsm *h = provisioned(state);
    CK_FUNCTION_LIST *f = h->pool.f;
    real = played = *f;
    played.C_EncryptInit = play_init;
    played.C_Encrypt = play_encrypt;
    enum seal_mechanism own[] = {MECH_GCM_WRITTEN, MECH_GCM_APPENDED,
                                 MECH_GCM_PREPENDED};
    for (int try = 0; try < 3; try++) {
        /* SoftHSM itself takes zeroes for an IV, which must not pass. */
        assert_int_not_equal(
            hsm_run(h, NEED_READY, false, op_self_test, &own[try], &error), OK);
        h->pool.f = &played;
        for (int is = 0; is < 3; is++) {
            playing = own[is];
            enum code rc =
                hsm_run(h, NEED_READY, false, op_self_test, &own[try], &error);
            if ((rc == OK) != (try == is))
                fail_msg("%s on an HSM of %s: %s", seal_name(own[try]),
                         seal_name(own[is]), rc ? error.text : "passed");
        }
        h->pool.f = f;
    }
}

struct worker {
    struct hsm *h;
    int id;
    int failed;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct error e;
    struct seal_subject s = subject("default"), got;
    s.version = (uint32_t)w->id;
    for (int i = 0; i < 50; i++) {
        SECRET plain = NULL;
        SECRET opened = NULL;
        FREE uint8_t *blob = NULL;
        size_t len;
        uint8_t digest[32] = {(uint8_t)i}, signature[64];
        if (secret_dup(&plain, &i, sizeof i, &e) ||
            hsm_seal(w->h, &s, plain, &blob, &len, &e) ||
            hsm_unseal(w->h, blob, len, &got, &opened, &e) ||
            hsm_sign(w->h, HSM_LOG, digest, signature, &e) ||
            !secret_equal(plain, opened) || got.version != s.version)
            w->failed++;
    }
    return NULL;
}

static void threads(void **state)
{
    struct fixture *f = fixture(state);
    f->settings.hsm_sessions = 3; /* fewer than there are threads */
    restart(f);
    struct hsm *h = provisioned(state);
    enum { THREADS = 6 };
    pthread_t t[THREADS];
    struct worker w[THREADS];
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct worker){h, i, 0};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(t[i], NULL);
        assert_int_equal(w[i].failed, 0);
    }
    JSON d = NULL;
    must(hsm_describe(h, &d, &error));
    json_t *sessions = json_object_get(d, "sessions");
    assert_int_equal(json_integer_value(json_object_get(sessions, "allowed")),
                     3);
    assert_true(json_integer_value(json_object_get(sessions, "open")) <= 3);
    assert_int_equal(json_integer_value(json_object_get(sessions, "busy")), 0);
}

static void hmac(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    const char *texts[] = {"one", "two", "one"};
    uint8_t macs[3][32], one[32];
    must(hsm_hmac(h, "one", 3, one, &error));
    must(hsm_hmac_many(h, texts, 3, macs, &error));
    assert_memory_equal(one, macs[0], 32);
    assert_memory_equal(one, macs[2], 32);
    assert_memory_not_equal(one, macs[1], 32);
    bool by_hsm;
    JSON out = NULL;
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must(hsm_provision(f->hsm, false, f->pins, &out, &error));
    must(hsm_hmac(f->hsm, "one", 3, macs[1], &error));
    assert_memory_equal(one, macs[1], 32);
}

static void signatures(void **state)
{
    struct hsm *h = provisioned(state);
    const struct keyset *k = atomic_load(&h->keys);
    uint8_t digest[32] = {1, 2, 3}, signature[64];
    static const enum hsm_use uses[] = {HSM_BLOB, HSM_CALL, HSM_LOG};
    for (int i = 0; i < 3; i++) {
        must(hsm_sign(h, uses[i], digest, signature, &error));
        assert_true(soft_verify(k->keys[uses[i]].public, digest, signature));
        assert_false(
            soft_verify(k->keys[uses[(i + 1) % 3]].public, digest, signature));
        signature[i] ^= 1;
        assert_false(soft_verify(k->keys[uses[i]].public, digest, signature));
    }
    must_fail(ERR_INTERNAL, hsm_sign(h, HSM_SEAL, digest, signature, &error));
}

struct seen {
    int n;
    uint8_t last[8];
    size_t len;
};

static enum code see(const uint8_t *data, size_t len, void *ctx,
                     struct error *e)
{
    (void)e;
    struct seen *s = ctx;
    s->n++;
    s->len = len;
    memcpy(s->last, data, len < sizeof s->last ? len : sizeof s->last);
    return OK;
}

static void data_objects(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    struct seen s = {0};
    must(hsm_data_get(h, "anchor", see, &s, &error));
    assert_int_equal(s.n, 0);
    must(hsm_data_put(h, "anchor", (const uint8_t *)"first", 5, &error));
    must(hsm_data_put(h, "other", (const uint8_t *)"other", 5, &error));
    must(hsm_data_put(h, "anchor", (const uint8_t *)"second", 6, &error));
    must(hsm_data_get(h, "anchor", see, &s, &error));
    assert_int_equal(s.n, 1);
    assert_int_equal(s.len, 6);
    assert_memory_equal(s.last, "second", 6);
    bool by_hsm;
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    s.n = 0;
    must(hsm_data_get(f->hsm, "anchor", see, &s, &error));
    assert_int_equal(s.n, 1);
    must(hsm_data_delete(f->hsm, "anchor", &error));
    must(hsm_data_delete(f->hsm, "anchor", &error));
    s.n = 0;
    must(hsm_data_get(f->hsm, "anchor", see, &s, &error));
    assert_int_equal(s.n, 0);
    must(hsm_data_get(f->hsm, "other", see, &s, &error));
    assert_int_equal(s.n, 1);
    must_fail(ERR_INVALID, hsm_data_put(f->hsm, "x", NULL, 0, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(sizes),
        FIXTURE_TEST(every_byte_counts),
        FIXTURE_TEST(other_organisation),
        FIXTURE_TEST(rsa_with_sha1),
        FIXTURE_TEST(sha1_is_asked_for),
        FIXTURE_TEST(hsm_makes_the_iv),
        FIXTURE_TEST(threads),
        FIXTURE_TEST(hmac),
        FIXTURE_TEST(signatures),
        FIXTURE_TEST(data_objects),
    };
    return cmocka_run_group_tests_name("hsm-seal", tests, NULL, NULL);
}
