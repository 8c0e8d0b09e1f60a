/* The keys of an instance whose HSM is gone, made again on another, of another
 * maker perhaps: hsm_restore_*. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "hsm/escrow.h"

static void log_in_again(struct fixture *f)
{
    bool by_hsm;
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
}

/* The token burns, and an empty one has its name. */
static struct hsm *another(struct fixture *f)
{
    softhsm_remove(&f->token);
    assert_true(softhsm_make(&f->token, "fixture"));
    restart(f);
    log_in_again(f);
    return f->hsm;
}

static const json_t *key_of(const json_t *pins, size_t use)
{
    return json_array_get(json_object_get(pins, "keys"), use);
}

static json_t *made(struct hsm *h, const json_t *pins, json_t *plan,
                    const struct secret *hmac)
{
    JSON out = NULL;
    must(hsm_restore_make(h, pins, plan, hmac, &out, &error));
    return json_incref(json_object_get(out, "pins"));
}

static json_t *planned(struct hsm *h, const json_t *pins)
{
    json_t *plan = NULL;
    must(hsm_restore_plan(h, pins, NULL, &plan, &error));
    return plan;
}

/* *mac: what the HMAC key says to a text. */
static void goes_on_with(struct hsm *h, const json_t *pins, uint8_t mac[32])
{
    JSON out = NULL;
    uint8_t digest[32] = {1}, signature[64], *blob = NULL;
    struct seal_subject s = {.kind = SEAL_VALUE, .version = 1};
    SECRET plain = secret_of("value");
    SECRET again = NULL;
    size_t len;
    must(hsm_provision(h, false, pins, &out, &error));
    assert_true(hsm_ready(h));
    must(hsm_sign(h, HSM_LOG, digest, signature, &error));
    must(hsm_seal(h, &s, plain, &blob, &len, &error));
    must(hsm_unseal(h, blob, len, &s, &again, &error));
    assert_true(secret_equal(plain, again));
    must(hsm_hmac(h, "text", 4, mac, &error));
    free(blob);
}

/* From AES to RSA and back: the old seal key's kind is its own, not the set's. */
static void mechanisms_may_differ(void **state)
{
    static const enum seal_mechanism rsa[] = {MECH_OAEP_SHA1};
    struct fixture *f = fixture(state);
    uint8_t first[32], second[32], third[32];
    SECRET hmac = NULL;
    struct hsm *h = provisioned(state);
    f->settings.hsm_allow_sha1 = true;
    must(hsm_hmac(h, "text", 4, first, &error));
    must(hsm_hmac_key(h, &hmac, &error));
    JSON pins = json_incref(f->pins);

    h = another(f);
    hsm_mechanisms(h, rsa, 1);
    JSON plan = planned(h, pins);
    JSON next = made(h, pins, plan, hmac);
    assert_string_equal(text_of(next, "instance"), text_of(pins, "instance"));
    assert_string_equal(text_of(key_of(next, HSM_SEAL), "label"),
                        "hsmint-seal-2");
    goes_on_with(h, next, second);
    assert_memory_equal(first, second, sizeof first);

    h = another(f);
    JSON plan_2 = planned(h, next);
    JSON last = made(h, next, plan_2, NULL);
    goes_on_with(h, last, third);
    assert_memory_not_equal(first, third, sizeof first);
    json_t *old = json_object_get(last, "old");
    assert_int_equal(json_array_size(old),
                     2 * json_array_size(json_object_get(pins, "keys")));
    for (size_t i = 0; i < json_array_size(old); i++)
        assert_string_equal(text_of(json_array_get(old, i), "role"),
                            "destroyed");
}

static void what_is_there_is_not_lost(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    JSON pins = json_incref(f->pins);
    JSON none = NULL;
    must_fail(ERR_EXISTS, hsm_restore_plan(h, pins, NULL, &none, &error));
    restart(f); /* nor where no pins were given yet */
    log_in_again(f);
    must_fail(ERR_EXISTS, hsm_restore_plan(f->hsm, pins, NULL, &none, &error));
    /* Given up, and back: pins that follow on it. */
    JSON given_up = json_deep_copy(pins);
    h = another(f);
    JSON plan = planned(h, pins);
    JSON next = made(h, pins, plan, NULL);
    must_fail(ERR_HSM_KEYS, hsm_restore_plan(h, given_up, NULL, &none, &error));
    must_fail(ERR_EXISTS, hsm_restore_plan(h, next, NULL, &none, &error));
    restart(f);
    must_fail(ERR_LOCKED, hsm_restore_plan(f->hsm, pins, NULL, &none, &error));
    assert_null(none);
}

static void cut_off_it_is_made_anew(void **state)
{
    struct fixture *f = fixture(state);
    JSON pins = NULL;
    JSON again = NULL;
    uint8_t mac[32];
    provisioned(state);
    pins = json_incref(f->pins);
    struct hsm *h = another(f);
    JSON plan = planned(h, pins);
    JSON lost = made(h, pins, plan, NULL);
    restart(f);
    log_in_again(f);
    h = f->hsm;
    must(hsm_restore_plan(h, pins, plan, &again, &error));
    assert_true(json_equal(plan, again));
    JSON next = made(h, pins, plan, NULL);
    assert_false(json_equal(lost, next));
    assert_string_equal(text_of(key_of(next, HSM_CALL), "id"),
                        text_of(key_of(lost, HSM_CALL), "id"));
    goes_on_with(h, next, mac); /* so each label is there once */
    /* A plan that follows on other pins, or on none. */
    JSON out = NULL;
    JSON empty = json_array();
    assert_int_not_equal(
        hsm_restore_make(h, next, plan, NULL, &out, &error), OK);
    must_fail(ERR_INVALID,
              hsm_restore_make(h, pins, empty, NULL, &out, &error));
}

static void only_64_digits_are_a_key(void **state)
{
    static const char *const bad[] = {
        "ab", "zz00000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000000000000000000000000000000000000000000"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        SECRET hex = secret_of(bad[i]);
        SECRET key = NULL;
        must_fail(ERR_INVALID, escrow_open(hex, &key, &error));
    }
    SECRET hex = secret_of(
        "000102030405060708090a0B0c0d0e0f101112131415161718191a1b1c1d1e1F");
    SECRET key = NULL;
    char one[65], other[65];
    must(escrow_open(hex, &key, &error));
    assert_int_equal(secret_len(key), 32);
    assert_int_equal(secret_data(key)[31], 0x1f);
    must(escrow_check(key, "a", one, &error));
    must(escrow_check(key, "b", other, &error));
    assert_string_not_equal(one, other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(mechanisms_may_differ),
        FIXTURE_TEST(what_is_there_is_not_lost),
        FIXTURE_TEST(cut_off_it_is_made_anew),
        cmocka_unit_test(only_64_digits_are_a_key),
    };
    return cmocka_run_group_tests_name("hsm-restore", tests, NULL, NULL);
}
