/* The keeper's HSM against a real token: log in, provision, seal, sign. */
#include "tests/unit/hsm_fixture.h"

static void first_start(void **state)
{
    struct hsm *h = fixture(state)->hsm;
    JSON d = NULL;
    must(hsm_describe(h, &d, &error));
    assert_string_equal(text_of(d, "state"), "locked");
    assert_string_equal(text_of(d, "label"), "fixture");
    must_fail(ERR_LOCKED, hsm_provision(h, true, NULL, &d, &error));
    assert_false(hsm_ready(h));

    bool by_hsm = false;
    SECRET pin = secret_of(SOFTHSM_PIN);
    must(hsm_login(h, pin, false, &by_hsm, &error));
    assert_true(by_hsm);
    JSON e = NULL;
    must(hsm_describe(h, &e, &error));
    assert_string_equal(text_of(e, "state"), "unprovisioned");
    must_fail(ERR_HSM_KEYS, hsm_provision(h, false, NULL, &d, &error));

    JSON out = NULL;
    must(hsm_provision(h, true, NULL, &out, &error));
    assert_true(hsm_ready(h));
    assert_string_equal(text_of(out, "mechanism"), "aes-gcm-iv-given");
    /* Four, and one that not every SoftHSM can make. */
    assert_in_range(json_array_size(json_object_get(out, "keys")), HSM_USES - 1,
                    HSM_USES);
}

static void seal_and_open(void **state)
{
    struct hsm *h = provisioned(state);
    struct seal_subject s = {.kind = SEAL_ADMIN_KEY,
                             .version = 7,
                             .org = "default",
                             .key_id = "key_1",
                             .endpoint = "https://api.openai.com/v1",
                             .organization_id = ""};
    SECRET plain = secret_of("sk-admin-test");
    SECRET opened = NULL;
    FREE uint8_t *blob = NULL;
    size_t len;
    must(hsm_seal(h, &s, plain, &blob, &len, &error));
    struct seal_subject got;
    for (int i = 0; i < 2; i++) {
        must(hsm_unseal(h, blob, len, &got, &opened, &error));
        assert_true(secret_equal(plain, opened));
        assert_memory_equal(&got, &s, sizeof s);
        secret_free(opened);
        opened = NULL;
    }
    must(hsm_verify(h, blob, len, &got, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(first_start),
        FIXTURE_TEST(seal_and_open),
    };
    return cmocka_run_group_tests_name("hsm", tests, NULL, NULL);
}
