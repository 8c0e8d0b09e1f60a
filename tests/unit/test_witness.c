/* What the keeper tells of HSM and keys in a ceremony: of a real token, and of
 * HSMs that answer otherwise. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "common/transcript.h"
#include "hsm/witness.h"

/* The rest of a statement, so that it can be written and read. */
static json_t *stated(struct hsm *h)
{
    FREE char *text = NULL;
    JSON all = NULL;
    json_t *back = NULL;
    must(witness_hsm(h, &all, &error));
    JSON rest = json_pack(
        "{ss ss ss s{ss sI ss sI ss} s[] s[] s[]}", "time", "t", "version", "v",
        "asked_by", "user:0", "log", "origin", "o", "size", (json_int_t)1,
        "root", "r", "record", (json_int_t)1, "leaf", "l", "states",
        "participants", "attestations");
    assert_int_equal(json_object_update(all, rest), 0);
    must(transcript_format(all, &text, &error));
    must(transcript_parse(text, strlen(text), &back, &error));
    assert_true(json_equal(back, all));
    return back;
}

static const json_t *key(const json_t *t, const char *label)
{
    const json_t *keys = json_object_get(t, "keys");
    for (size_t i = 0; i < json_array_size(keys); i++)
        if (strcmp(text_of(json_array_get(keys, i), "label"), label) == 0)
            return json_array_get(keys, i);
    fail_msg("%s is not told", label);
    return NULL;
}

static bool is(const json_t *object, const char *member)
{
    return json_is_true(json_object_get(object, member));
}

static void a_real_token(void **state)
{
    struct fixture *f = fixture(state);
    bool by_hsm;
    JSON out = NULL;
    JSON t = stated(provisioned(state));
    assert_string_equal(text_of(t, "instance"),
                        text_of(f->pins, "instance"));
    assert_int_equal(json_array_size(json_object_get(t, "keys")), HSM_USES);
    const json_t *seal = key(t, "hsmint-seal-1");
    assert_true(is(seal, "local") && is(seal, "never_extractable") &&
                is(seal, "witnessed") && is(seal, "present"));
    assert_true(json_is_null(json_object_get(seal, "public_key")));
    assert_string_equal(text_of(seal, "generated_by"), "CKM_AES_KEY_GEN");
    assert_string_equal(text_of(key(t, "hsmint-log-1"), "type"), "EC P-256");
    /* The same keys by another process. */
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must(hsm_provision(f->hsm, false, f->pins, &out, &error));
    JSON again = stated(f->hsm);
    assert_false(is(key(again, "hsmint-seal-1"), "witnessed"));
    assert_true(is(key(again, "hsmint-seal-1"), "local"));
}

static void not_ready(void **state)
{
    struct fixture *f = fixture(state);
    JSON out = NULL;
    bool by_hsm;
    must_fail(ERR_LOCKED, witness_hsm(f->hsm, &out, &error));
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must_fail(ERR_HSM_KEYS, witness_hsm(f->hsm, &out, &error));
}

static void an_rsa_key_seals(void **state)
{
    struct fixture *f = fixture(state);
    const enum seal_mechanism rsa[] = {MECH_OAEP_SHA1};
    f->settings.hsm_allow_sha1 = true;
    restart(f);
    hsm_mechanisms(f->hsm, rsa, 1);
    JSON t = stated(provisioned(state));
    const json_t *seal = key(t, "hsmint-seal-1");
    assert_string_equal(text_of(seal, "type"), "RSA-3072");
    assert_string_equal(text_of(seal, "generated_by"),
                        "CKM_RSA_PKCS_KEY_PAIR_GEN");
    assert_true(is(seal, "present") && is(seal, "local"));
    assert_true(json_is_string(json_object_get(seal, "public_key")));
}

static void a_rotated_key(void **state)
{
    struct hsm *h = provisioned(state);
    JSON plan = NULL;
    JSON made = NULL;
    JSON out = NULL;
    must(hsm_rekey_plan(h, "call", &plan, &error));
    must(hsm_rekey_make(h, "call", plan, false, &made, &error));
    must(hsm_provision(h, false, json_object_get(made, "pins"), &out, &error));
    JSON t = stated(h);
    const json_t *old = key(t, "hsmint-call-1"), *now = key(t, "hsmint-call-2");
    assert_true(is(now, "witnessed") && is(old, "witnessed"));
    assert_string_equal(text_of(now, "state"), "active");
    assert_string_equal(text_of(old, "state"), "deactivated");
    assert_true(is(old, "present"));
    assert_string_equal(text_of(old, "proof"), "not asked");
}

/* ---- HSMs that answer otherwise ---- */

static CK_FUNCTION_LIST_PTR real;

static CK_RV strange_token(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    memset(info->model, ' ', sizeof info->model);
    memcpy(info->model, "  \x1b[2J\xff\xe2\x80\xae", 11);
    memset(info->manufacturerID, 0, sizeof info->manufacturerID);
    info->flags |= ~0ul;
    return rv;
}

static CK_RV strange_list(CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR list,
                          CK_ULONG_PTR n)
{
    (void)slot;
    if (*n < 3)
        return CKR_BUFFER_TOO_SMALL;
    list[0] = 0x80000001;
    list[1] = CKM_AES_GCM;
    list[2] = 0x7ffffff0;
    *n = 3;
    return CKR_OK;
}

static CK_RV no_mechanism(CK_SLOT_ID slot, CK_MECHANISM_TYPE type,
                          CK_MECHANISM_INFO_PTR info)
{
    (void)slot, (void)type, (void)info;
    return CKR_MECHANISM_INVALID;
}

static CK_RV silent(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR a,
                    CK_ULONG n)
{
    if (a->type != CKA_KEY_GEN_MECHANISM && a->type != CKA_COPYABLE &&
        a->type != CKA_MODIFIABLE)
        return real->C_GetAttributeValue(s, o, a, n);
    a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    return CKR_ATTRIBUTE_TYPE_INVALID;
}

static void an_hsm_of_another_kind(void **state)
{
    struct hsm *h = provisioned(state);
    real = h->pool.f;
    CK_FUNCTION_LIST strange = *real;
    strange.C_GetTokenInfo = strange_token;
    strange.C_GetMechanismList = strange_list;
    strange.C_GetMechanismInfo = no_mechanism;
    strange.C_GetAttributeValue = silent;
    h->pool.f = &strange;
    JSON t = stated(h);
    h->pool.f = real;
    const json_t *told = json_object_get(t, "hsm");
    assert_string_equal(text_of(told, "model"),
                        "\\x1b[2J\\xff\\xe2\\x80\\xae");
    assert_string_equal(text_of(told, "manufacturer"), "");
    const json_t *list = json_object_get(t, "mechanisms");
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(text_of(json_array_get(list, 0), "name"),
                        "0x00001087 CKM_AES_GCM");
    assert_non_null(strstr(text_of(json_array_get(list, 1), "name"), "unknown"));
    assert_non_null(strstr(text_of(json_array_get(list, 2), "name"), "maker"));
    assert_string_equal(text_of(key(t, "hsmint-call-1"), "generated_by"),
                        "not told");
    assert_true(json_is_null(
        json_object_get(key(t, "hsmint-call-1"), "copyable")));
    assert_true(is(key(t, "hsmint-call-1"), "local"));
}

static CK_RV endless_list(CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR list,
                          CK_ULONG_PTR n)
{
    (void)slot, (void)list;
    *n = 100000;
    return CKR_BUFFER_TOO_SMALL;
}

static void too_many_mechanisms(void **state)
{
    struct hsm *h = provisioned(state);
    JSON out = NULL;
    real = h->pool.f;
    CK_FUNCTION_LIST strange = *real;
    strange.C_GetMechanismList = endless_list;
    h->pool.f = &strange;
    must_fail(ERR_HSM_FAILED, witness_hsm(h, &out, &error));
    h->pool.f = real;
    JSON t = stated(h); /* nothing is left of it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_real_token),
        FIXTURE_TEST(not_ready),
        FIXTURE_TEST(an_rsa_key_seals),
        FIXTURE_TEST(a_rotated_key),
        FIXTURE_TEST(an_hsm_of_another_kind),
        FIXTURE_TEST(too_many_mechanisms),
    };
    if (!softhsm_module()) {
        print_message("no SoftHSM2 here\n");
        return 77;
    }
    return cmocka_run_group_tests_name("witness", tests, NULL, NULL);
}
