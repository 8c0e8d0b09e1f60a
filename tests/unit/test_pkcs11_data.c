/* Roles, the configuration, the admin key, and random numbers. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "module/pkcs11/random.h"
#include "tests/unit/p11.h"

/* ---- administrator ---- */

#define ROLE_JSON "{\"project_id\": \"proj_1\", \"ttl\": \"1h\"}"

static void roles_are_data(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    ok(try_login(s, CKU_SO, FAKE_PIN));
    CK_OBJECT_HANDLE o = 0, p = 0;
    CK_ATTRIBUTE t[] = {A_DATA,
                        A_TEXT(CKA_APPLICATION, "hsmint:role"),
                        A_TEXT(CKA_LABEL, "my-role"),
                        A_BOOL(CKA_TOKEN, yes),
                        A_BOOL(CKA_PRIVATE, no),
                        A_TEXT(CKA_VALUE, ROLE_JSON)};
    ok(p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_non_null(strstr(fake_last("SetRole"), "\"name\":\"my-role\""));
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), "proj_1"));
    assert_null(strstr(text_of(s, o, CKA_VALUE), "my-role"));
    CK_ATTRIBUTE all[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:role")};
    assert_int_equal(found(s, all, 2, &p, 1), 1);
    assert_int_equal(p, o);
    assert_string_equal(text_of(s, p, CKA_LABEL), "my-role");
    CK_ATTRIBUTE v[] = {A_TEXT(CKA_VALUE, "{\"ttl\": 60}")};
    ok(p11->C_SetAttributeValue(s, o, v, 1));
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), "60"));
    ok(p11->C_DestroyObject(s, o));
    assert_int_equal(found(s, all, 2, &p, 1), 0);
}

static void a_role_that_another_deleted_is_gone(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    ok(try_login(s, CKU_SO, FAKE_PIN));
    write_role_and_config(s);
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_DATA, A_TEXT(CKA_LABEL, "web")};
    CK_ATTRIBUTE a = {CKA_VALUE, NULL, 0};
    assert_int_equal(found(s, t, COUNT(t), &o, 1), 1);
    fake_fail("DeleteRole", ERR_NOT_FOUND);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, o, &a, 1));
}

static void bad_data_are_refused(void **state)
{
    (void)state;
    static const struct {
        CK_RV rv;
        const char *application, *label, *value, *text;
    } table[] = {
        {CKR_ATTRIBUTE_VALUE_INVALID, "other", "r", "{}", "hsmint:role"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:role", "r", "[]", "object"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:role", "r", "", "CKA_VALUE"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:role", "r", "{\"a\":", "VALUE"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:role", "admin-key", "{}", "role"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:role", "a\r\nb", "{}", "role"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:role", "../x", "{}", "role"},
        {CKR_ATTRIBUTE_VALUE_INVALID, "hsmint:config", "",
         "{\"admin_api_key\":\"sk-admin-x\"}", "secret key"},
    };
    CK_SESSION_HANDLE s = logged_in();
    for (size_t i = 0; i < COUNT(table); i++) {
        CK_OBJECT_HANDLE o = 0;
        CK_ATTRIBUTE t[] = {
            A_DATA,
            {CKA_APPLICATION, (void *)(uintptr_t)table[i].application,
             strlen(table[i].application)},
            {CKA_LABEL, (void *)(uintptr_t)table[i].label,
             strlen(table[i].label)},
            {CKA_VALUE, (void *)(uintptr_t)table[i].value,
             strlen(table[i].value)},
        };
        CK_RV rv = p11->C_CreateObject(s, t, COUNT(t), &o);
        if (rv != table[i].rv || !strstr(why(s), table[i].text))
            fail_msg("row %zu: 0x%lx, %s", i, rv, why(s));
        assert_null(strstr(why(s), "sk-admin-x"));
    }
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE unlabelled[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:role"),
                                 A_TEXT(CKA_VALUE, "{}")};
    gives(CKR_TEMPLATE_INCOMPLETE, p11->C_CreateObject(s, unlabelled, 3, &o));
    CK_ATTRIBUTE good[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:role"),
                           A_TEXT(CKA_LABEL, "r"), A_TEXT(CKA_VALUE, "{}")};
    CK_SESSION_HANDLE ro = open_session(false);
    gives(CKR_SESSION_READ_ONLY, p11->C_CreateObject(ro, good, 4, &o));
    fake_fail("SetRole", ERR_DENIED);
    gives(CKR_FUNCTION_REJECTED, p11->C_CreateObject(s, good, 4, &o));
    assert_int_equal(fake_calls("SetRole"), 1);
    assert_int_equal(fake_calls("SetConfig"), 0);
}

static void configuration_and_admin_key(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    ok(try_login(s, CKU_SO, FAKE_PIN));
    CK_OBJECT_HANDLE config = 0, key = 0, o = 0;
    CK_ATTRIBUTE t[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:config"),
                        A_TEXT(CKA_VALUE, "{\"organization_id\": \"org-1\"}")};
    ok(p11->C_CreateObject(s, t, COUNT(t), &config));
    CK_ATTRIBUTE k[] = {A_CLASS,
                        A_TYPE,
                        A_BOOL(CKA_TOKEN, yes),
                        A_TEXT(CKA_LABEL, "admin-key"),
                        A_BOOL(CKA_EXTRACTABLE, yes),
                        A_TEXT(CKA_VALUE, "sk-admin-12345\n")};
    ok(p11->C_CreateObject(s, k, COUNT(k), &key));
    assert_string_equal(fake_sealed(), "sk-admin-12345");
    assert_null(strstr(fake_last("SetConfig"), "sk-admin"));
    CK_ATTRIBUTE find[] = {A_CLASS, A_TEXT(CKA_LABEL, "admin-key")};
    assert_int_equal(found(s, find, 2, &o, 1), 1);
    assert_int_equal(o, key);
    assert_string_equal(text_of(s, key, CKA_ID), "key_adm");
    assert_true(truth_of(s, key, CKA_SENSITIVE));
    assert_false(truth_of(s, key, CKA_EXTRACTABLE));
    assert_false(truth_of(s, key, CKA_PRIVATE));
    char buf[64];
    CK_ATTRIBUTE v = {CKA_VALUE, buf, sizeof(buf)};
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, key, &v, 1));
    gives(CKR_ACTION_PROHIBITED, p11->C_DestroyObject(s, key));
    gives(CKR_ACTION_PROHIBITED, p11->C_SetAttributeValue(s, key, find, 1));
    ok(generate(s, find, 2, &o));
    assert_int_equal(o, key);
    assert_int_equal(fake_calls("RotateConfig"), 1);
    gives(CKR_TEMPLATE_INCONSISTENT, generate(s, k, COUNT(k), &o));
    fake_fail("RotateConfig", ERR_DENIED);
    gives(CKR_FUNCTION_REJECTED, generate(s, find, 2, &o));
    CK_ATTRIBUTE empty[] = {A_CLASS, A_TEXT(CKA_LABEL, "admin-key"),
                            A_TEXT(CKA_VALUE, "")};
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(s, empty, 3, &o));
    gives(CKR_TEMPLATE_INCOMPLETE, p11->C_CreateObject(s, empty, 2, &o));
    ok(p11->C_DestroyObject(s, config));
    assert_int_equal(found(s, find, 2, &o, 1), 0);
    assert_int_equal(fake_calls("Mint"), 0);
}

/* ---- random numbers ---- */

static void random_numbers_come_from_the_daemon(void **state)
{
    (void)state;
    static CK_BYTE a[3000], b[3000], zeros[3000];
    CK_SESSION_HANDLE s = open_session(false);
    ok(p11->C_GenerateRandom(s, a, sizeof(a)));
    assert_int_equal(fake_calls("Random"), 3);
    ok(p11->C_GenerateRandom(s, b, sizeof(b) - 1));
    assert_int_equal(b[2999], 0);
    assert_memory_not_equal(a, b, sizeof(a));
    for (size_t at = 0; at < sizeof(a) - 8; at += 1000)
        assert_memory_not_equal(a + at, zeros, 8);
    assert_memory_not_equal(a + 2990, zeros, 8);
    ok(p11->C_GenerateRandom(s, NULL, 0));
    ok(p11->C_GenerateRandom(s, a, 0));
    gives(CKR_ARGUMENTS_BAD, p11->C_GenerateRandom(s, NULL, 8));
    gives(CKR_ARGUMENTS_BAD, p11->C_GenerateRandom(s, a, (CK_ULONG)-1));
    gives(CKR_ARGUMENTS_BAD, p11->C_GenerateRandom(s, a, RANDOM_MAX + 1));
    gives(CKR_SESSION_HANDLE_INVALID, p11->C_GenerateRandom(s + 1, a, 8));
    gives(CKR_RANDOM_SEED_NOT_SUPPORTED, p11->C_SeedRandom(s, a, 8));
    gives(CKR_ARGUMENTS_BAD, p11->C_SeedRandom(s, NULL, 8));
    fake_fail("Random", ERR_HSM_ABSENT);
    gives(CKR_DEVICE_ERROR, p11->C_GenerateRandom(s, a, 8));
    CK_TOKEN_INFO t;
    ok(p11->C_GetTokenInfo(1, &t));
    assert_true(t.flags & CKF_RNG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(roles_are_data),
        T(a_role_that_another_deleted_is_gone),
        T(bad_data_are_refused),
        T(configuration_and_admin_key),
        T(random_numbers_come_from_the_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
