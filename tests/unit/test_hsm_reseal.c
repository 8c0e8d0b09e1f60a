/* Another generation of the seal key: what the old one sealed opens, is sealed
 * anew for the same subject, and the HMAC key stays what it is. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "common/text.h"
#include "hsm/envelope.h"

#include <stdlib.h>
#include <string.h>

struct sealed_blob {
    uint8_t *data;
    size_t len;
};

static void sealed_clear(struct sealed_blob *s)
{
    free(s->data);
    s->data = NULL;
}
#define SEALED CLEANUP(sealed_clear) struct sealed_blob

static struct seal_subject subject_of(enum seal_kind kind)
{
    struct seal_subject s = {.kind = kind, .version = 7};
    snprintf(s.org, sizeof s.org, "acme");
    snprintf(s.key_id, sizeof s.key_id, "key_1");
    snprintf(s.endpoint, sizeof s.endpoint, "https://api.openai.com/v1");
    return s;
}

static struct sealed_blob seal(struct hsm *h, enum seal_kind kind, const char *text)
{
    struct seal_subject s = subject_of(kind);
    struct sealed_blob out = {NULL, 0};
    SECRET plain = secret_of(text);
    must(hsm_seal(h, &s, plain, &out.data, &out.len, &error));
    return out;
}

static struct sealed_blob reseal(struct hsm *h, const struct sealed_blob *of)
{
    struct sealed_blob out = {NULL, 0};
    must(hsm_reseal(h, of->data, of->len, &out.data, &out.len, &error));
    return out;
}

static void opens_to(struct hsm *h, const struct sealed_blob *b, const char *text)
{
    struct seal_subject s;
    SECRET plain = NULL;
    must(hsm_unseal(h, b->data, b->len, &s, &plain, &error));
    assert_int_equal(secret_len(plain), strlen(text));
    assert_memory_equal(secret_data(plain), text, strlen(text));
    assert_int_equal(s.version, 7);
    assert_string_equal(s.org, "acme");
    assert_string_equal(s.key_id, "key_1");
    assert_string_equal(s.endpoint, "https://api.openai.com/v1");
}

static json_t *rotated(struct hsm *h)
{
    JSON plan = NULL;
    JSON made = NULL;
    JSON out = NULL;
    must(hsm_rekey_plan(h, "seal", &plan, &error));
    must(hsm_rekey_make(h, "seal", plan, false, &made, &error));
    must(hsm_provision(h, true, json_object_get(made, "pins"), &out, &error));
    return json_incref(json_object_get(made, "pins"));
}

static void started_again(struct fixture *f, const json_t *pins)
{
    bool by_hsm;
    JSON out = NULL;
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must(hsm_provision(f->hsm, false, pins, &out, &error));
}

static void rotate_and_reseal(struct fixture *f)
{
    struct hsm *h = f->hsm;
    uint8_t before[32], after[32];
    JSON end = NULL;
    SEALED key = seal(h, SEAL_ADMIN_KEY, "sk-admin-1");
    SEALED value = seal(h, SEAL_VALUE, "sk-svcacct-1");
    must(hsm_hmac(h, "a", 1, before, &error));
    JSON pins = rotated(h);
    must(hsm_hmac(h, "a", 1, after, &error));
    assert_memory_equal(before, after, 32);
    /* The old ones open, and what is sealed now is of the new key. */
    assert_false(hsm_is_current(h, key.data, key.len));
    opens_to(h, &key, "sk-admin-1");
    SEALED fresh = seal(h, SEAL_VALUE, "sk-svcacct-2");
    assert_true(hsm_is_current(h, fresh.data, fresh.len));
    SEALED key_anew = reseal(h, &key);
    SEALED value_anew = reseal(h, &value);
    assert_true(hsm_is_current(h, key_anew.data, key_anew.len));
    opens_to(h, &key_anew, "sk-admin-1");
    opens_to(h, &value_anew, "sk-svcacct-1");
    SEALED same = reseal(h, &key_anew);
    assert_int_equal(same.len, key_anew.len);
    assert_memory_equal(same.data, key_anew.data, same.len);
    /* Not before a start in which nothing of the old key was opened. */
    must_fail(ERR_INVALID, hsm_destroy(h, "hsmint-seal-1", &end, &error));
    started_again(f, pins);
    opens_to(f->hsm, &key, "sk-admin-1");
    must_fail(ERR_INVALID, hsm_destroy(f->hsm, "hsmint-blob-1", &end, &error));
    started_again(f, pins);
    opens_to(f->hsm, &key_anew, "sk-admin-1");
    must(hsm_destroy(f->hsm, "hsmint-seal-1", &end, &error));
    started_again(f, json_object_get(end, "pins"));
    struct seal_subject s;
    must_fail(ERR_SEAL,
              hsm_verify(f->hsm, key.data, key.len, &s, &error));
    opens_to(f->hsm, &key_anew, "sk-admin-1");
    opens_to(f->hsm, &value_anew, "sk-svcacct-1");
    must(hsm_hmac(f->hsm, "a", 1, after, &error));
    assert_memory_equal(before, after, 32);
}

static void in_the_hsm(void **state)
{
    (void)provisioned(state);
    rotate_and_reseal(fixture(state));
}

static void with_a_data_key(void **state)
{
    struct fixture *f = fixture(state);
    const enum seal_mechanism rsa[] = {MECH_OAEP_SHA1}; /* all SoftHSM has */
    f->settings.hsm_allow_sha1 = true;
    restart(f);
    hsm_mechanisms(f->hsm, rsa, 1);
    (void)provisioned(state);
    rotate_and_reseal(f);
}

/* Several generations: each opens, and the last one's is what is sealed. */
static void generations(void **state)
{
    struct hsm *h = provisioned(state);
    SEALED first = seal(h, SEAL_VALUE, "one");
    json_decref(rotated(h));
    SEALED second = seal(h, SEAL_VALUE, "two");
    json_decref(rotated(h));
    opens_to(h, &first, "one");
    opens_to(h, &second, "two");
    SEALED anew = reseal(h, &first);
    opens_to(h, &anew, "one");
    assert_true(hsm_is_current(h, anew.data, anew.len));
}

static void refused(struct hsm *h, const uint8_t *blob, size_t len)
{
    SEALED out = {NULL, 0};
    must_fail(ERR_SEAL, hsm_reseal(h, blob, len, &out.data, &out.len, &error));
    assert_null(out.data);
}

/* Neither the HMAC key nor the probe, nor anything that was changed. */
static void others_are_refused(void **state)
{
    struct hsm *h = provisioned(state);
    SEALED value = seal(h, SEAL_VALUE, "sk-svcacct-1");
    const struct keyset *before = atomic_load(&h->keys);
    json_decref(rotated(h));
    refused(h, before->hmac, before->hmac_len);
    refused(h, before->probe, before->probe_len);
    for (size_t i = 0; i < value.len; i += 7) {
        value.data[i] ^= 1;
        refused(h, value.data, value.len);
        value.data[i] ^= 1;
    }
    for (size_t i = 0; i < value.len; i += 11)
        refused(h, value.data, i);
    opens_to(h, &value, "sk-svcacct-1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(in_the_hsm),
        FIXTURE_TEST(with_a_data_key),
        FIXTURE_TEST(generations),
        FIXTURE_TEST(others_are_refused),
    };
    return cmocka_run_group_tests_name("hsm-reseal", tests, NULL, NULL);
}
