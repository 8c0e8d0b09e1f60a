/* C_GenerateKey, C_CreateObject of a secret key, and their templates. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/p11.h"

/* ---- minting ---- */

static void nothing_is_minted_without_login(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    CK_OBJECT_HANDLE o = 3;
    CK_ATTRIBUTE t[] = {A_CLASS, A_TYPE, A_TEXT(CKA_LABEL, "my-role")};
    gives(CKR_USER_NOT_LOGGED_IN, generate(s, t, COUNT(t), &o));
    assert_int_equal(o, CK_INVALID_HANDLE);
    gives(CKR_USER_NOT_LOGGED_IN, p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_int_equal(fake_calls("Mint"), 0);
}

static void mint_and_read(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    char id[64], key[128];
    snprintf(id, sizeof(id), "%.60s", text_of(s, o, CKA_UNIQUE_ID));
    snprintf(key, sizeof(key), FAKE_KEY_PREFIX "%s", id);
    assert_string_equal(text_of(s, o, CKA_VALUE), key);
    assert_int_equal(number_of(s, o, CKA_VALUE_LEN), strlen(key));
    assert_string_equal(text_of(s, o, CKA_ID), id);
    assert_string_equal(text_of(s, o, CKA_LABEL), "my-role");
    assert_string_equal(text_of(s, o, CKA_HSMINT_ROLE), "my-role");
    assert_string_equal(text_of(s, o, CKA_HSMINT_API_BASE),
                        "https://api.openai.com/v1");
    assert_int_equal(number_of(s, o, CKA_CLASS), CKO_SECRET_KEY);
    assert_int_equal(number_of(s, o, CKA_KEY_TYPE), CKK_GENERIC_SECRET);
    assert_int_equal(number_of(s, o, CKA_KEY_GEN_MECHANISM),
                     CK_UNAVAILABLE_INFORMATION);
    assert_in_range(number_of(s, o, CKA_HSMINT_TTL), 3500, 3600);
    static const CK_ATTRIBUTE_TYPE is_true[] = {CKA_TOKEN, CKA_PRIVATE,
                                                CKA_EXTRACTABLE, CKA_MODIFIABLE,
                                                CKA_DESTROYABLE};
    static const CK_ATTRIBUTE_TYPE is_false[] = {CKA_SENSITIVE,
                                                 CKA_ALWAYS_SENSITIVE,
                                                 CKA_NEVER_EXTRACTABLE,
                                                 CKA_LOCAL,
                                                 CKA_COPYABLE,
                                                 CKA_ENCRYPT,
                                                 CKA_DECRYPT,
                                                 CKA_SIGN,
                                                 CKA_VERIFY,
                                                 CKA_WRAP,
                                                 CKA_UNWRAP,
                                                 CKA_DERIVE,
                                                 CKA_TRUSTED,
                                                 CKA_WRAP_WITH_TRUSTED};
    for (size_t i = 0; i < COUNT(is_true); i++)
        assert_true(truth_of(s, o, is_true[i]));
    for (size_t i = 0; i < COUNT(is_false); i++)
        assert_false(truth_of(s, o, is_false[i]));
    assert_int_equal(strlen(text_of(s, o, CKA_START_DATE)), 8);
    assert_int_equal(strlen(text_of(s, o, CKA_END_DATE)), 8);
    /* All of that from what the mint told. */
    assert_int_equal(fake_calls("ReadKey") + fake_calls("GetLease") +
                         fake_calls("ListLeases"),
                     0);
}

static void tools_templates_are_corrected(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    CK_ULONG len = 32, ttl = 900;
    CK_BYTE id[] = {0xca, 0xfe, 0x00}, one = 0;
    /* pkcs11-tool --keygen */
    CK_ATTRIBUTE tool[] = {A_CLASS,
                           A_BOOL(CKA_TOKEN, yes),
                           A_TYPE,
                           A_BOOL(CKA_SENSITIVE, no),
                           A_BOOL(CKA_EXTRACTABLE, yes),
                           A_BOOL(CKA_PRIVATE, no),
                           A_BOOL(CKA_ENCRYPT, yes),
                           A_BOOL(CKA_DECRYPT, yes),
                           A_VAR(CKA_VALUE_LEN, len),
                           A_TEXT(CKA_LABEL, "my-role"),
                           A_VAR(CKA_ID, id)};
    ok(generate(s, tool, COUNT(tool), &o));
    assert_true(truth_of(s, o, CKA_PRIVATE));
    assert_false(truth_of(s, o, CKA_ENCRYPT));
    CK_BYTE got[8];
    CK_ATTRIBUTE a = {CKA_ID, got, sizeof(got)};
    ok(p11->C_GetAttributeValue(s, o, &a, 1));
    assert_int_equal(a.ulValueLen, sizeof(id));
    assert_memory_equal(got, id, sizeof(id));
    /* NSS: no class, key type or label; the default role */
    CK_ATTRIBUTE nss[] = {A_VAR(CKA_VALUE_LEN, len), A_BOOL(CKA_TOKEN, yes),
                          A_BOOL(CKA_PRIVATE, yes), A_BOOL(CKA_ENCRYPT, yes),
                          A_BOOL(CKA_SIGN, yes)};
    ok(generate(s, nss, COUNT(nss), &o));
    assert_null(strstr(fake_last("Mint"), "\"role\""));
    /* C_CreateObject, for remoting: no value, or one byte */
    CK_ATTRIBUTE create[] = {A_CLASS,
                             A_TYPE,
                             A_BOOL(CKA_TOKEN, yes),
                             A_TEXT(CKA_LABEL, "my-role"),
                             A_VAR(CKA_VALUE, one),
                             A_VAR(CKA_HSMINT_TTL, ttl)};
    ok(p11->C_CreateObject(s, create, COUNT(create), &o));
    assert_in_range(number_of(s, o, CKA_HSMINT_TTL), 850, 900);
}

struct refusal {
    CK_RV rv;
    CK_ATTRIBUTE a;
    const char *text;
};

static void bad_templates_are_refused(void **state)
{
    (void)state;
    static CK_ULONG zero = 0, huge = ~0UL - 1, aes = CKK_AES;
    static CK_BYTE two = 2, big[70000];
    static const struct refusal table[] = {
        {CKR_ATTRIBUTE_VALUE_INVALID, A_BOOL(CKA_EXTRACTABLE, no),
         "extractable"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_TEXT(CKA_VALUE, "sk"), "minted"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_VALUE, big), "length"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_LABEL, big), "length"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_TEXT(CKA_LABEL, "a\0b"), "value"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_TEXT(CKA_LABEL, "\xff\xfe"), "value"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_ID, big), "length"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_TOKEN, two), "value"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_TOKEN, zero), "length"},
        {CKR_ATTRIBUTE_VALUE_INVALID, {CKA_TOKEN, NULL, 1}, "no value"},
        {CKR_ATTRIBUTE_VALUE_INVALID, {CKA_LABEL, NULL, ~0UL}, "no value"},
        {CKR_ATTRIBUTE_VALUE_INVALID, {CKA_LABEL, &two, ~0UL}, "no value"},
        {CKR_ATTRIBUTE_VALUE_INVALID, {CKA_VALUE_LEN, &two, 1}, "length"},
        {CKR_ATTRIBUTE_VALUE_INVALID, {CKA_START_DATE, &two, 1}, "length"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_HSMINT_TTL, zero), "live"},
        {CKR_ATTRIBUTE_VALUE_INVALID, A_VAR(CKA_HSMINT_TTL, huge), "live"},
        {CKR_TEMPLATE_INCONSISTENT, A_VAR(CKA_KEY_TYPE, aes), "lease"},
        {CKR_ATTRIBUTE_READ_ONLY, A_BOOL(CKA_LOCAL, yes), "0x163"},
        {CKR_ATTRIBUTE_READ_ONLY, A_TEXT(CKA_UNIQUE_ID, "x"), "0x4"},
        {CKR_ATTRIBUTE_READ_ONLY, A_TEXT(CKA_HSMINT_STATE, "x"), "lease"},
        {CKR_ATTRIBUTE_TYPE_INVALID, A_TEXT(CKA_MODULUS, "x"), "0x120"},
        {CKR_ATTRIBUTE_TYPE_INVALID, A_TEXT(CKA_WRAP_TEMPLATE, ""), "lease"},
    };
    CK_SESSION_HANDLE s = logged_in();
    for (size_t i = 0; i < COUNT(table); i++) {
        CK_OBJECT_HANDLE o = 7;
        CK_ATTRIBUTE t[] = {A_CLASS, table[i].a};
        CK_RV rv = p11->C_CreateObject(s, t, 2, &o);
        if (rv != table[i].rv || o != CK_INVALID_HANDLE)
            fail_msg("row %zu: 0x%lx", i, rv);
        if (!strstr(why(s), table[i].text))
            fail_msg("row %zu: %s", i, why(s));
        gives(table[i].rv, generate(s, t, 2, &o));
    }
    assert_int_equal(fake_calls("Mint"), 0);
}

static void arguments_are_checked(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE twice[] = {A_CLASS, A_TYPE, A_CLASS};
    CK_ATTRIBUTE none[] = {A_TYPE};
    CK_OBJECT_CLASS cert = CKO_CERTIFICATE;
    CK_ATTRIBUTE other[] = {A_VAR(CKA_CLASS, cert)};
    CK_ATTRIBUTE short_class[] = {{CKA_CLASS, &cert, 1}};
    CK_MECHANISM aes = {CKM_AES_KEY_GEN, NULL, 0};
    CK_MECHANISM with = {CKM_GENERIC_SECRET_KEY_GEN, &cert, sizeof(cert)};
    gives(CKR_TEMPLATE_INCONSISTENT, p11->C_CreateObject(s, twice, 3, &o));
    gives(CKR_TEMPLATE_INCOMPLETE, p11->C_CreateObject(s, none, 1, &o));
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(s, other, 1, &o));
    gives(CKR_ATTRIBUTE_VALUE_INVALID,
          p11->C_CreateObject(s, short_class, 1, &o));
    gives(CKR_ARGUMENTS_BAD, p11->C_CreateObject(s, NULL, 1, &o));
    gives(CKR_ARGUMENTS_BAD, p11->C_CreateObject(s, twice, 1, NULL));
    gives(CKR_ARGUMENTS_BAD, p11->C_CreateObject(s, twice, ~0UL, &o));
    gives(CKR_ARGUMENTS_BAD, p11->C_GenerateKey(s, NULL, none, 1, &o));
    gives(CKR_MECHANISM_INVALID, p11->C_GenerateKey(s, &aes, none, 1, &o));
    gives(CKR_MECHANISM_PARAM_INVALID,
          p11->C_GenerateKey(s, &with, none, 1, &o));
    gives(CKR_ARGUMENTS_BAD, generate(s, none, 1, NULL));
    gives(CKR_ARGUMENTS_BAD, p11->C_FindObjectsInit(s, NULL, 3));
    gives(CKR_ARGUMENTS_BAD, p11->C_FindObjectsInit(s, none, ~0UL));
    o = minted(s, "my-role", true);
    gives(CKR_ARGUMENTS_BAD, p11->C_GetAttributeValue(s, o, NULL, 1));
    gives(CKR_ARGUMENTS_BAD, p11->C_GetAttributeValue(s, o, none, 0));
    gives(CKR_ARGUMENTS_BAD, p11->C_GetAttributeValue(s, o, none, ~0UL));
    gives(CKR_ARGUMENTS_BAD, p11->C_SetAttributeValue(s, o, NULL, 1));
    gives(CKR_ARGUMENTS_BAD, p11->C_SetAttributeValue(s, o, none, 0));
    gives(CKR_OBJECT_HANDLE_INVALID,
          p11->C_GetAttributeValue(s, o + 99, none, 1));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o + 99));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_CopyObject(s, 0, NULL, 0, &o));
    CK_ULONG size;
    gives(CKR_ARGUMENTS_BAD, p11->C_GetObjectSize(s, o, NULL));
    ok(p11->C_GetObjectSize(s, o, &size));
    assert_int_equal(size, CK_UNAVAILABLE_INFORMATION);
    gives(CKR_ACTION_PROHIBITED, p11->C_CopyObject(s, o, NULL, 0, &o));
}

static void sizes_and_short_buffers(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    char label[16] = "untouched";
    CK_BBOOL b = 9;
    CK_ATTRIBUTE t[] = {
        {CKA_LABEL, NULL, 0},  {CKA_MODULUS, label, sizeof(label)},
        {CKA_LABEL, label, 3}, {CKA_TOKEN, &b, sizeof(b)},
        {CKA_LABEL, NULL, 77}, {CKA_WRAP_TEMPLATE, NULL, 0}};
    CK_RV rv = p11->C_GetAttributeValue(s, o, t, COUNT(t));
    assert_true(rv == CKR_BUFFER_TOO_SMALL || rv == CKR_ATTRIBUTE_TYPE_INVALID);
    assert_int_equal(t[0].ulValueLen, 7);
    assert_int_equal(t[1].ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_int_equal(t[2].ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_string_equal(label, "untouched");
    assert_int_equal(b, CK_TRUE); /* the others are answered all the same */
    assert_int_equal(t[4].ulValueLen, 7);
    assert_int_equal(t[5].ulValueLen, CK_UNAVAILABLE_INFORMATION);
    CK_ATTRIBUTE exact = {CKA_LABEL, label, 7};
    ok(p11->C_GetAttributeValue(s, o, &exact, 1));
    assert_memory_equal(label, "my-roleed", 9);
    /* Asked again as a refusal left it: all ones is no room for anything. */
    exact.ulValueLen = 3;
    gives(CKR_BUFFER_TOO_SMALL, p11->C_GetAttributeValue(s, o, &exact, 1));
    assert_int_equal(exact.ulValueLen, CK_UNAVAILABLE_INFORMATION);
    memset(label, '.', sizeof(label));
    gives(CKR_BUFFER_TOO_SMALL, p11->C_GetAttributeValue(s, o, &exact, 1));
    assert_int_equal(exact.ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_memory_equal(label, "................", sizeof(label));
}

static void the_daemons_refusals_have_a_text(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), other = open_session(false);
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "unknown")};
    assert_string_equal(why(s), "");
    gives(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, t, 1, &o));
    assert_non_null(strstr(why(s), "no role unknown"));
    assert_string_equal(why(other), ""); /* each session has its own */
    fake_fail("Mint", ERR_SERVICE_DOWN);
    gives(CKR_DEVICE_ERROR, generate(s, t, 1, &o));
    assert_non_null(strstr(why(s), "Mint fails as told"));
    /* It is an object to look at and nothing else. */
    CK_ATTRIBUTE e[] = {A_TEXT(CKA_LABEL, "hsmint:last-error")};
    assert_int_equal(found(s, e, 1, &o, 1), 1);
    gives(CKR_ACTION_PROHIBITED, p11->C_DestroyObject(s, o));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(other, o));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(nothing_is_minted_without_login),
        T(mint_and_read),
        T(tools_templates_are_corrected),
        T(bad_templates_are_refused),
        T(arguments_are_checked),
        T(sizes_and_short_buffers),
        T(the_daemons_refusals_have_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
