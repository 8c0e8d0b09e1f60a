/* What PKCS#11 3.x adds, and what it says of sessions, tokens and retries; the
 * mandatory cases of its profiles. Against the daemon of test_pkcs11.c. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/text.h"
#include "module/pkcs11/random.h"
#include "module/pkcs11/session.h"
#include "tests/unit/p11.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static CK_UTF8CHAR standard[] = "PKCS 11", other[] = "Vendor other";
static CK_OBJECT_CLASS class_profile = CKO_PROFILE;
static CK_OBJECT_CLASS class_public = CKO_PUBLIC_KEY;

static struct functions_3_0 *v3(void)
{
    CK_VERSION version = {3, 0};
    CK_INTERFACE *i = NULL;
    ok(C_GetInterface(standard, &version, &i, 0));
    return i->pFunctionList;
}

/* ---- interfaces ---- */

static void interfaces_are_listed(void **state)
{
    (void)state;
    CK_INTERFACE list[4];
    CK_ULONG n = 0;
    gives(CKR_ARGUMENTS_BAD, C_GetInterfaceList(list, NULL));
    ok(C_GetInterfaceList(NULL, &n));
    assert_int_equal(n, 2);
    n = 1;
    gives(CKR_BUFFER_TOO_SMALL, C_GetInterfaceList(list, &n));
    assert_int_equal(n, 2);
    n = 4;
    ok(C_GetInterfaceList(list, &n));
    assert_int_equal(n, 2);
    for (CK_ULONG i = 0; i < n; i++) {
        assert_string_equal(list[i].pInterfaceName, "PKCS 11");
        assert_int_equal(list[i].flags, 0);
    }
    assert_int_equal(((CK_VERSION *)list[0].pFunctionList)->major, 3);
    assert_ptr_equal(list[1].pFunctionList, p11);
}

static void interfaces_are_chosen(void **state)
{
    (void)state;
    CK_VERSION v2_40 = {2, 40}, v3_0 = {3, 0}, v3_9 = {3, 9};
    CK_INTERFACE *i = NULL;
    gives(CKR_ARGUMENTS_BAD, C_GetInterface(NULL, NULL, NULL, 0));
    ok(C_GetInterface(NULL, NULL, &i, 0));
    assert_ptr_equal(i->pFunctionList, v3());
    ok(C_GetInterface(standard, NULL, &i, 0));
    assert_ptr_equal(i->pFunctionList, v3());
    ok(C_GetInterface(standard, &v2_40, &i, 0));
    assert_ptr_equal(i->pFunctionList, p11);
    ok(C_GetInterface(NULL, &v3_0, &i, 0));
    assert_ptr_equal(i->pFunctionList, v3());
    gives(CKR_FUNCTION_FAILED, C_GetInterface(standard, &v3_9, &i, 0));
    assert_null(i);
    gives(CKR_FUNCTION_FAILED, C_GetInterface(other, NULL, &i, 0));
    gives(CKR_FUNCTION_FAILED,
          C_GetInterface(standard, NULL, &i, CKF_INTERFACE_FORK_SAFE));
}

static void every_function_of_3_0_is_there(void **state)
{
    (void)state;
    struct functions_3_0 *f = v3();
    void *const *first = (void *const *)(const void *)&f->base.C_Initialize;
    void *const *last = (void *const *)(const void *)&f->C_MessageVerifyFinal;
    assert_int_equal(last - first + 1, 92);
    for (void *const *p = first; p <= last; p++)
        assert_non_null(*p);
    /* The same but for what tells the version. */
    void *const *old = (void *const *)(const void *)&p11->C_Initialize;
    for (size_t n = 0; n < 68; n++)
        assert_int_equal(first[n] == old[n], n != 2);
    CK_INFO info;
    ok(f->base.C_GetInfo(&info));
    assert_int_equal(info.cryptokiVersion.major, 3);
    assert_int_equal(info.cryptokiVersion.minor, 0);
    ok(p11->C_GetInfo(&info));
    assert_int_equal(info.cryptokiVersion.major, 2);
    assert_int_equal(info.cryptokiVersion.minor, 40);
    gives(CKR_ARGUMENTS_BAD, f->base.C_GetInfo(NULL));
    ok(p11->C_Finalize(NULL));
    gives(CKR_CRYPTOKI_NOT_INITIALIZED, f->base.C_GetInfo(&info));
}

/* Each with nothing but zeros: none may look at them. */
static void call_messages(CK_RV rv, CK_SESSION_HANDLE s)
{
    struct functions_3_0 *f = v3();
    gives(rv, f->C_MessageEncryptInit(s, NULL, 0));
    gives(rv, f->C_EncryptMessage(s, NULL, 0, NULL, 0, NULL, 0, NULL, NULL));
    gives(rv, f->C_EncryptMessageBegin(s, NULL, 0, NULL, 0));
    gives(rv, f->C_EncryptMessageNext(s, NULL, 0, NULL, 0, NULL, NULL, 0));
    gives(rv, f->C_MessageEncryptFinal(s));
    gives(rv, f->C_MessageDecryptInit(s, NULL, 0));
    gives(rv, f->C_DecryptMessage(s, NULL, 0, NULL, 0, NULL, 0, NULL, NULL));
    gives(rv, f->C_DecryptMessageBegin(s, NULL, 0, NULL, 0));
    gives(rv, f->C_DecryptMessageNext(s, NULL, 0, NULL, 0, NULL, NULL, 0));
    gives(rv, f->C_MessageDecryptFinal(s));
    gives(rv, f->C_MessageSignInit(s, NULL, 0));
    gives(rv, f->C_SignMessage(s, NULL, 0, NULL, 0, NULL, NULL));
    gives(rv, f->C_SignMessageBegin(s, NULL, 0));
    gives(rv, f->C_SignMessageNext(s, NULL, 0, NULL, 0, NULL, NULL));
    gives(rv, f->C_MessageSignFinal(s));
    gives(rv, f->C_MessageVerifyInit(s, NULL, 0));
    gives(rv, f->C_VerifyMessage(s, NULL, 0, NULL, 0, NULL, 0));
    gives(rv, f->C_VerifyMessageBegin(s, NULL, 0));
    gives(rv, f->C_VerifyMessageNext(s, NULL, 0, NULL, 0, NULL, 0));
    gives(rv, f->C_MessageVerifyFinal(s));
}

static void message_functions_are_refused(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(false);
    call_messages(CKR_FUNCTION_NOT_SUPPORTED, s);
    call_messages(CKR_SESSION_HANDLE_INVALID, s + 1);
    ok(p11->C_Finalize(NULL));
    call_messages(CKR_CRYPTOKI_NOT_INITIALIZED, s);
}

static CK_RV login_as(CK_SESSION_HANDLE s, CK_USER_TYPE user, const char *name,
                      CK_ULONG len, const char *pin)
{
    return v3()->C_LoginUser(s, user, (CK_UTF8CHAR *)(uintptr_t)pin,
                             pin ? strlen(pin) : 0,
                             (CK_UTF8CHAR *)(uintptr_t)name, len);
}

static void login_user_without_a_name_is_login(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    gives(CKR_ARGUMENTS_BAD, login_as(s, CKU_USER, NULL, 5, FAKE_PIN));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, NULL, 0, "9999"));
    gives(CKR_SESSION_HANDLE_INVALID,
          login_as(s + 9, CKU_USER, NULL, 0, FAKE_PIN));
    ok(login_as(s, CKU_USER, "alice", 0, FAKE_PIN));
    gives(CKR_USER_ALREADY_LOGGED_IN,
          login_as(s, CKU_USER, NULL, 0, FAKE_PIN));
    assert_string_equal(fake_login(), "");
    minted(s, "my-role", true);
}

static void a_named_login_goes_to_the_daemon(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, "alice", 5, FAKE_SECRET));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, FAKE_LOGIN, 5, FAKE_PIN));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, FAKE_LOGIN, 5, NULL));
    assert_non_null(strstr(why(s), "secret id"));
    ok(login_as(s, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET));
    assert_string_equal(fake_login(), FAKE_LOGIN);
    assert_non_null(strstr(fake_last("Login"), "\"name\":\"batch\""));
    assert_null(strstr(fake_last("Login"), FAKE_SECRET));
    minted(s, "my-role", true);
    ok(p11->C_Logout(s));
    assert_string_equal(fake_login(), "");
    /* As administrator, and by the whole secret id. */
    ok(login_as(s, CKU_SO, FAKE_LOGIN, 5, FAKE_LOGIN "." FAKE_SECRET));
    assert_non_null(strstr(fake_last("Login"), "\"so\":true"));
    ok(p11->C_Logout(s));
    ok(try_login(s, CKU_USER, FAKE_LOGIN "." FAKE_SECRET));
    assert_string_equal(fake_login(), FAKE_LOGIN);
}

/* Lengths that lie, and names that none can have: told apart by nobody. */
static void odd_names_are_nobodys(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    char longest[64];
    memset(longest, 'a', sizeof(longest));
    fake_forget_calls();
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, "x", (CK_ULONG)-1, "y"));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, "x", 1UL << 40, "y"));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, longest, 64, "y"));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, "a\0b", 3, "y"));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, "\xff", 1, "y"));
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, "a/b", 3, "y"));
    gives(CKR_ARGUMENTS_BAD, login_as(s, CKU_USER, NULL, (CK_ULONG)-1, "y"));
    gives(CKR_USER_TYPE_INVALID, login_as(s, 77, FAKE_LOGIN, 5, "y"));
    gives(CKR_ARGUMENTS_BAD,
          v3()->C_LoginUser(s, CKU_USER, NULL, 9,
                            (CK_UTF8CHAR *)(uintptr_t)FAKE_LOGIN, 5));
    assert_int_equal(fake_calls("Login"), 0);
    gives(CKR_PIN_INCORRECT, login_as(s, CKU_USER, longest, 63, "y"));
    assert_int_equal(fake_calls("Login"), 1);
}

/* What was meant by that name is not done as the uid beside it. */
static void a_named_login_that_is_lost_is_told(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(true);
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_BOOL(CKA_TOKEN, yes), A_TEXT(CKA_LABEL, "my-role")};
    ok(login_as(s, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET));
    minted(s, "my-role", true);
    fake_go_away();
    fake_come_back();
    fake_forget_calls();
    gives(CKR_USER_NOT_LOGGED_IN, generate(s, t, COUNT(t), &o));
    assert_int_equal(fake_calls("Mint"), 0);
    assert_non_null(strstr(why(s), FAKE_LOGIN));
    gives(CKR_USER_NOT_LOGGED_IN, generate(s, t, COUNT(t), &o));
    ok(login_as(s, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET));
    minted(s, "my-role", true);
    /* One without a name has lost nothing. */
    ok(p11->C_Logout(s));
    ok(try_login(s, CKU_USER, FAKE_PIN));
    fake_go_away();
    fake_come_back();
    minted(s, "my-role", true);
}

/* The daemon knows one identity of an application. */
static void another_name_logs_other_slots_out(void **state)
{
    (void)state;
    fake_second_slot(true);
    CK_SESSION_HANDLE s = logged_in(), lab = 0;
    CK_SESSION_INFO info;
    ok(p11->C_OpenSession(7, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
                          &lab));
    ok(try_login(lab, CKU_USER, FAKE_PIN));
    ok(p11->C_GetSessionInfo(s, &info));
    assert_int_equal(info.state, CKS_RW_USER_FUNCTIONS);
    ok(p11->C_Logout(lab));
    ok(login_as(lab, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET));
    ok(p11->C_GetSessionInfo(s, &info));
    assert_int_equal(info.state, CKS_RW_PUBLIC_SESSION);
    ok(p11->C_GetSessionInfo(lab, &info));
    assert_int_equal(info.state, CKS_RW_USER_FUNCTIONS);
}

static void session_cancel_ends_searches(void **state)
{
    (void)state;
    struct functions_3_0 *f = v3();
    CK_SESSION_HANDLE s = open_session(false);
    CK_OBJECT_HANDLE o;
    CK_ULONG n;
    ok(f->C_SessionCancel(s, CKF_FIND_OBJECTS)); /* nothing to cancel */
    ok(p11->C_FindObjectsInit(s, NULL, 0));
    ok(f->C_SessionCancel(s, 0));
    ok(f->C_SessionCancel(s, CKF_ENCRYPT | CKF_SIGN));
    ok(p11->C_FindObjects(s, &o, 1, &n));
    ok(f->C_SessionCancel(s, CKF_FIND_OBJECTS));
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjects(s, &o, 1, &n));
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjectsFinal(s));
    ok(p11->C_FindObjectsInit(s, NULL, 0));
    ok(p11->C_FindObjectsFinal(s));
    gives(CKR_SESSION_HANDLE_INVALID, f->C_SessionCancel(s + 1, 0));
}

/* ---- objects ---- */

static void profiles_are_public(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(false);
    CK_OBJECT_HANDLE list[4] = {0};
    CK_ATTRIBUTE t[] = {A_VAR(CKA_CLASS, class_profile)};
    assert_int_equal(found(s, t, 1, list, 4), 2);
    assert_int_equal(number_of(s, list[0], CKA_PROFILE_ID),
                     CKP_BASELINE_PROVIDER);
    assert_int_equal(number_of(s, list[1], CKA_PROFILE_ID),
                     CKP_EXTENDED_PROVIDER);
    CK_ULONG id = CKP_EXTENDED_PROVIDER;
    CK_ATTRIBUTE one[] = {A_VAR(CKA_CLASS, class_profile),
                          A_VAR(CKA_PROFILE_ID, id)};
    CK_OBJECT_HANDLE o = 0;
    assert_int_equal(found(s, one, 2, &o, 1), 1);
    assert_int_equal(o, list[1]);
    id = 3; /* CKP_AUTHENTICATION_TOKEN: not claimed */
    assert_int_equal(found(s, one, 2, &o, 1), 0);
    assert_true(truth_of(s, list[0], CKA_TOKEN));
    assert_false(truth_of(s, list[0], CKA_PRIVATE));
    assert_false(truth_of(s, list[0], CKA_MODIFIABLE));
    assert_string_equal(text_of(s, list[0], CKA_LABEL), "Baseline Provider");
    CK_SESSION_HANDLE rw = logged_in();
    gives(CKR_ACTION_PROHIBITED, p11->C_DestroyObject(rw, list[0]));
    gives(CKR_ACTION_PROHIBITED, p11->C_SetAttributeValue(rw, list[0], one, 1));
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(rw, one, 2, &o));
    fake_forget_calls();
    assert_int_equal(found(s, t, 1, list, 4), 2);
    assert_int_equal(fake_calls(NULL), 0); /* nothing to ask the daemon */
}

static void write_role(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE o;
    CK_ATTRIBUTE role[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:role"),
                           A_TEXT(CKA_LABEL, "web"),
                           A_TEXT(CKA_VALUE, "{\"ttl\": 60}"),
                           A_BOOL(CKA_TOKEN, yes)};
    ok(p11->C_CreateObject(s, role, COUNT(role), &o));
    role[1] = (CK_ATTRIBUTE)A_TEXT(CKA_APPLICATION, "hsmint:config");
    ok(p11->C_CreateObject(s, role, COUNT(role), &o));
}

/* 3.0, 4.4.1: every object has it, it is unique and read only. */
static void every_object_has_a_unique_id(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE list[16], o = 0;
    CK_ATTRIBUTE key[] = {A_CLASS, A_TEXT(CKA_LABEL, "admin-key"),
                          A_TEXT(CKA_VALUE, "sk-admin-x"),
                          A_BOOL(CKA_TOKEN, yes)};
    char ids[16][64];
    write_role(s);
    ok(p11->C_CreateObject(s, key, COUNT(key), &o));
    minted(s, "a", true);
    minted(s, "b", false);
    why(s); /* an error text */
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, 999999));
    CK_ULONG n = found(s, NULL, 0, list, 16);
    /* two leases, role, configuration, admin key, audit key, two profiles and
     * the error */
    assert_int_equal(n, 9);
    for (CK_ULONG i = 0; i < n; i++) {
        snprintf(ids[i], 64, "%.63s", text_of(s, list[i], CKA_UNIQUE_ID));
        assert_true(ids[i][0] != '\0');
        for (CK_ULONG k = 0; k < i; k++)
            assert_string_not_equal(ids[i], ids[k]);
        CK_ATTRIBUTE by_id[] = {{CKA_UNIQUE_ID, ids[i], strlen(ids[i])}};
        assert_int_equal(found(s, by_id, 1, &o, 1), 1);
        assert_int_equal(o, list[i]);
    }
    for (CK_ULONG i = 0; i + 1 < n; i++) { /* the last is replaced by these */
        CK_ATTRIBUTE id[] = {A_TEXT(CKA_UNIQUE_ID, "x")};
        CK_RV rv = p11->C_SetAttributeValue(s, list[i], id, 1);
        assert_true(rv == CKR_ATTRIBUTE_READ_ONLY ||
                    rv == CKR_ACTION_PROHIBITED);
    }
}

static void audit_key_is_public(void **state)
{
    (void)state;
    static const CK_BYTE curve[] = {0x06, 0x08, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x03, 0x01, 0x07};
    CK_SESSION_HANDLE s = open_session(false);
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_VAR(CKA_CLASS, class_public)};
    assert_int_equal(found(s, t, 1, &o, 1), 1);
    assert_string_equal(text_of(s, o, CKA_LABEL), "hsmint-log-1");
    assert_int_equal(number_of(s, o, CKA_KEY_TYPE), CKK_EC);
    CK_BYTE params[16], point[80], spki[100], id[8];
    CK_ATTRIBUTE a[] = {A_VAR(CKA_EC_PARAMS, params),
                        A_VAR(CKA_EC_POINT, point),
                        A_VAR(CKA_PUBLIC_KEY_INFO, spki), A_VAR(CKA_ID, id)};
    ok(p11->C_GetAttributeValue(s, o, a, COUNT(a)));
    assert_int_equal(a[0].ulValueLen, sizeof(curve));
    assert_memory_equal(params, curve, sizeof(curve));
    assert_int_equal(a[1].ulValueLen, 67);
    assert_memory_equal(point, "\x04\x41\x04\xc1\x4a\x41\xc1\x10\xdd", 9);
    assert_memory_equal(point + 63, "\x61\xee\xdd\x72", 4);
    assert_int_equal(a[2].ulValueLen, 91);
    assert_memory_equal(spki + 26, point + 2, 65);
    assert_int_equal(a[3].ulValueLen, 4);
    assert_memory_equal(id, "\x01\x02\xca\xfe", 4);
    assert_true(truth_of(s, o, CKA_TOKEN));
    assert_false(truth_of(s, o, CKA_PRIVATE));
    assert_false(truth_of(s, o, CKA_VERIFY));
    /* A daemon that cannot tell spoils no search. */
    fake_fail("AuditKeys", ERR_INTERNAL);
    assert_int_equal(found(s, t, 1, &o, 1), 0);
    gives(CKR_ACTION_PROHIBITED, p11->C_DestroyObject(logged_in(), o));
}

static void policies_are_data(void **state)
{
    (void)state;
    static const char written[] = "{\"subjects\": [\"user:a\"]}";
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0, all[3];
    CK_ATTRIBUTE t[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:policy"),
                        A_TEXT(CKA_LABEL, "p"), A_TEXT(CKA_VALUE, written),
                        A_BOOL(CKA_TOKEN, yes)};
    ok(p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_null(strstr(fake_last("SetPolicy"), "\"org\""));
    assert_string_equal(text_of(s, o, CKA_UNIQUE_ID), "policy/p");
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), "user:a"));
    assert_null(strstr(text_of(s, o, CKA_VALUE), "name"));
    t[2] = (CK_ATTRIBUTE)A_TEXT(CKA_LABEL, "file");
    ok(p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_int_equal(found(s, t, 2, all, 3), 2);
    assert_int_equal(all[1], o);
    assert_true(truth_of(s, all[0], CKA_MODIFIABLE));
    /* Of files nothing is to be changed, nor are their paths a value. */
    assert_false(truth_of(s, all[1], CKA_MODIFIABLE));
    assert_null(strstr(text_of(s, all[1], CKA_VALUE), "/etc/x.json"));
    t[3].pValue = (void *)(uintptr_t)"{]";
    t[3].ulValueLen = 2;
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_non_null(strstr(why(s), ":1:"));
    fake_fail("SetPolicy", ERR_DENIED);
    t[3].ulValueLen = 0;
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(s, t, COUNT(t), &o));
    ok(p11->C_DestroyObject(s, all[0]));
    assert_int_equal(found(s, t, 2, all, 3), 1);
    fake_fail("ListPolicies", ERR_DENIED);
    assert_int_equal(found(s, t, 2, all, 3), 0);
    CK_ATTRIBUTE key[] = {A_TEXT(CKA_LABEL, "admin-key"),
                          A_BOOL(CKA_TOKEN, yes)};
    ok(generate(s, key, COUNT(key), &o));
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

/* ---- slots ---- */

static void wait_for_slots(CK_ULONG wanted)
{
    CK_ULONG n = 0;
    for (int i = 0; n != wanted && i < 50; i++) {
        if (i > 0)
            usleep(100000);
        ok(p11->C_GetSlotList(CK_TRUE, NULL, &n));
    }
    assert_int_equal(n, wanted);
}

struct waiting {
    CK_RV rv;
    CK_SLOT_ID slot;
    int64_t took;
};

static void *wait_for_event(void *arg)
{
    struct waiting *w = arg;
    int64_t began = clock_monotonic_ms();
    w->rv = p11->C_WaitForSlotEvent(0, &w->slot, NULL);
    w->took = clock_monotonic_ms() - began;
    return NULL;
}

static void a_new_organisation_is_an_event(void **state)
{
    (void)state;
    struct waiting w = {.slot = 99};
    pthread_t t;
    CK_TOKEN_INFO info;
    /* Until the daemon has answered once, nothing is new. */
    for (int i = 0; i < 50 && fake_calls("Slots") == 0; i++)
        ok(p11->C_GetTokenInfo(1, &info));
    for (int i = 0; i < 50 && info.firmwareVersion.major != 7; i++) {
        usleep(100000);
        ok(p11->C_GetTokenInfo(1, &info));
    }
    gives(CKR_NO_EVENT, p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &w.slot, NULL));
    assert_int_equal(w.slot, 99);
    assert_int_equal(pthread_create(&t, NULL, wait_for_event, &w), 0);
    usleep(50000);
    fake_second_slot(true);
    /* Others go on meanwhile. */
    CK_SESSION_HANDLE s = open_session(false);
    ok(p11->C_CloseSession(s));
    pthread_join(t, NULL);
    ok(w.rv);
    assert_int_equal(w.slot, 7);
    gives(CKR_NO_EVENT, p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &w.slot, NULL));
}

static void finalise_ends_waiting(void **state)
{
    (void)state;
    struct waiting w[3];
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, wait_for_event, &w[i]), 0);
    usleep(300000);
    ok(p11->C_Finalize(NULL));
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        gives(CKR_CRYPTOKI_NOT_INITIALIZED, w[i].rv);
        assert_true(w[i].took < 5000);
    }
}

/* The parent's waiters are not in the child, and do not hold it up. */
static void a_child_of_a_waiting_process_begins_anew(void **state)
{
    (void)state;
    struct waiting w;
    pthread_t t;
    CK_INFO info;
    assert_int_equal(pthread_create(&t, NULL, wait_for_event, &w), 0);
    usleep(300000);
    pid_t pid = fork();
    if (pid == 0) {
        bool good = p11->C_GetInfo(&info) == CKR_CRYPTOKI_NOT_INITIALIZED &&
                    p11->C_Initialize(NULL) == CKR_OK &&
                    p11->C_GetInfo(&info) == CKR_OK &&
                    p11->C_Finalize(NULL) == CKR_OK;
        _exit(good ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    ok(p11->C_Finalize(NULL));
    pthread_join(t, NULL);
    gives(CKR_CRYPTOKI_NOT_INITIALIZED, w.rv);
}

#define PIN_FLAGS                                                              \
    (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED)

/* The daemon tells it; the module asks after SLOT_FRESH_MS. */
static void expect_pin(const char *state, CK_FLAGS flag)
{
    CK_TOKEN_INFO t = {.flags = 0};
    fake_pin(state);
    for (int i = 0; i < 200 && (t.flags & PIN_FLAGS) != flag; i++) {
        usleep(20000);
        ok(p11->C_GetTokenInfo(1, &t));
    }
    assert_int_equal(t.flags & PIN_FLAGS, flag);
}

static void token_information_is_true(void **state)
{
    (void)state;
    CK_TOKEN_INFO t;
    char now[32], shown[15] = "";
    fake_second_slot(true);
    wait_for_slots(2);
    time_t before = time(NULL);
    ok(p11->C_GetTokenInfo(1, &t));
    assert_true(t.flags & CKF_CLOCK_ON_TOKEN);
    strftime(now, sizeof(now), "%Y%m%d%H%M%S", gmtime(&before));
    memcpy(shown, t.utcTime, 14);
    assert_true(strcmp(shown, now) >= 0);
    assert_memory_equal(shown, now, 8);
    assert_memory_equal(t.utcTime + 14, "00", 2);
    assert_int_equal(t.ulMaxPinLen, 255);
    assert_int_equal(t.ulMinPinLen, 1);
    assert_int_equal(t.ulMaxSessionCount, SESSION_MAX);
    assert_int_equal(t.ulSessionCount, 0);
    /* What the daemon says of itself. */
    assert_int_equal(t.firmwareVersion.major, 7);
    assert_int_equal(t.firmwareVersion.minor, 3);
    assert_memory_equal(t.model, "hsmint          ", 16);
    CK_SLOT_INFO slot;
    ok(p11->C_GetSlotInfo(7, &slot));
    assert_non_null(memmem(slot.slotDescription, 64, "(lab)", 5));
    assert_int_equal(t.flags & PIN_FLAGS, 0);
    expect_pin("count_low", CKF_USER_PIN_COUNT_LOW);
    expect_pin("final_try", CKF_USER_PIN_FINAL_TRY);
    expect_pin("locked", CKF_USER_PIN_LOCKED);
    assert_int_equal(slot.slotDescription[63], ' ');
}

/* ---- sessions and login ---- */

static CK_STATE state_of(CK_SESSION_HANDLE s)
{
    CK_SESSION_INFO info;
    ok(p11->C_GetSessionInfo(s, &info));
    return info.state;
}

/* 3.0, 5.6: the login is the application's, in all of its sessions. */
static void states_follow_the_login(void **state)
{
    (void)state;
    CK_SESSION_HANDLE ro = open_session(false), rw = open_session(true), s;
    ok(try_login(ro, CKU_USER, FAKE_PIN));
    assert_int_equal(state_of(ro), CKS_RO_USER_FUNCTIONS);
    assert_int_equal(state_of(rw), CKS_RW_USER_FUNCTIONS);
    assert_int_equal(state_of(open_session(false)), CKS_RO_USER_FUNCTIONS);
    gives(CKR_USER_ALREADY_LOGGED_IN, try_login(rw, CKU_USER, FAKE_PIN));
    gives(CKR_USER_ANOTHER_ALREADY_LOGGED_IN, try_login(rw, CKU_SO, FAKE_PIN));
    ok(p11->C_Logout(rw));
    assert_int_equal(state_of(ro), CKS_RO_PUBLIC_SESSION);
    gives(CKR_USER_NOT_LOGGED_IN, p11->C_Logout(ro));
    gives(CKR_SESSION_READ_ONLY_EXISTS, try_login(rw, CKU_SO, FAKE_PIN));
    ok(p11->C_CloseAllSessions(1));
    rw = open_session(true);
    ok(try_login(rw, CKU_SO, FAKE_PIN));
    assert_int_equal(state_of(rw), CKS_RW_SO_FUNCTIONS);
    gives(CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
          try_login(rw, CKU_USER, FAKE_PIN));
    gives(CKR_SESSION_READ_WRITE_SO_EXISTS,
          p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &s));
    assert_int_equal(s, CK_INVALID_HANDLE);
    /* The last session takes the login along. */
    ok(p11->C_CloseSession(rw));
    assert_int_equal(state_of(open_session(true)), CKS_RW_PUBLIC_SESSION);
}

static void read_only_sessions_change_no_token_object(void **state)
{
    (void)state;
    CK_SESSION_HANDLE rw = logged_in(), ro = open_session(false);
    CK_OBJECT_HANDLE kept = minted(rw, "a", true), o = 0;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "a"), A_BOOL(CKA_TOKEN, yes)};
    gives(CKR_SESSION_READ_ONLY, generate(ro, t, COUNT(t), &o));
    gives(CKR_SESSION_READ_ONLY, p11->C_DestroyObject(ro, kept));
    gives(CKR_SESSION_READ_ONLY, p11->C_SetAttributeValue(ro, kept, t, 1));
    assert_int_equal(fake_live(), 1);
    /* Session objects are another matter. */
    CK_OBJECT_HANDLE bound = minted(ro, "a", false);
    ok(p11->C_SetAttributeValue(ro, bound, t, 1));
    ok(p11->C_DestroyObject(ro, bound));
}

static void a_public_session_sees_public_objects(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE lease = minted(s, "a", true), list[16];
    CK_BYTE buf[64];
    CK_ATTRIBUTE value = A_VAR(CKA_VALUE, buf);
    write_role(s);
    CK_ATTRIBUTE private[] = {A_BOOL(CKA_PRIVATE, yes)};
    assert_int_equal(found(s, private, 1, list, 16), 3);
    /* Logging out cancels a search and takes what is private away. */
    ok(p11->C_FindObjectsInit(s, NULL, 0));
    ok(p11->C_Logout(s));
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjectsFinal(s));
    assert_int_equal(found(s, private, 1, list, 16), 0);
    CK_ULONG n = found(s, NULL, 0, list, 16);
    for (CK_ULONG i = 0; i < n; i++)
        assert_false(truth_of(s, list[i], CKA_PRIVATE));
    gives(CKR_OBJECT_HANDLE_INVALID,
          p11->C_GetAttributeValue(s, lease, &value, 1));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, lease));
    /* Nor is the handle good again after the next login. */
    ok(try_login(s, CKU_USER, FAKE_PIN));
    gives(CKR_OBJECT_HANDLE_INVALID,
          p11->C_GetAttributeValue(s, lease, &value, 1));
}

static void handles_are_never_used_again(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE first = minted(s, "a", true), later;
    ok(p11->C_DestroyObject(s, first));
    later = minted(s, "a", true);
    assert_true(later > first);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, first));
    char reserved[128];
    snprintf(reserved, sizeof(reserved), "socket=%s", fake_socket());
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = reserved};
    ok(p11->C_Finalize(NULL));
    ok(p11->C_Initialize(&args));
    CK_SESSION_HANDLE again = logged_in();
    assert_true(again > s);
    assert_true(minted(again, "a", true) > later);
    gives(CKR_SESSION_HANDLE_INVALID, p11->C_CloseSession(s));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(again, later));
}

/* ---- retries, deadlines ---- */

struct minting {
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE object;
    CK_RV rv;
};

static void *mint_one(void *arg)
{
    struct minting *m = arg;
    CK_ATTRIBUTE t[] = {A_CLASS, A_TYPE, A_BOOL(CKA_TOKEN, yes),
                        A_TEXT(CKA_LABEL, "a")};
    m->rv = generate(m->session, t, COUNT(t), &m->object);
    return NULL;
}

static void wait_for_call(const char *method, int times)
{
    for (int i = 0; i < 500 && fake_calls(method) < times; i++)
        usleep(10000);
    assert_int_equal(fake_calls(method), times);
}

static void a_call_cut_by_a_restart_mints_once(void **state)
{
    (void)state;
    struct minting m = {.session = logged_in()};
    CK_OBJECT_HANDLE before = minted(m.session, "a", true);
    pthread_t t;
    char request[512];
    fake_forget_calls();
    fake_lose("Mint");
    assert_int_equal(pthread_create(&t, NULL, mint_one, &m), 0);
    wait_for_call("Mint", 1);
    snprintf(request, sizeof(request), "%s", fake_last("Mint"));
    fake_go_away();
    usleep(500000); /* as long as a daemon takes to start anew */
    fake_come_back();
    pthread_join(t, NULL);
    ok(m.rv);
    assert_int_equal(fake_calls("Mint"), 2);
    assert_string_equal(fake_last("Mint"), request); /* its id, too */
    assert_int_equal(fake_live(), 2);
    assert_non_null(
        strstr(text_of(m.session, m.object, CKA_VALUE), FAKE_KEY_PREFIX));
    /* Handles, values and the login are still there. */
    assert_non_null(
        strstr(text_of(m.session, before, CKA_VALUE), FAKE_KEY_PREFIX));
    ok(p11->C_DestroyObject(m.session, before));
    assert_int_equal(fake_live(), 1);
}

static void a_daemon_that_stays_away_is_an_error(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "a", true);
    fake_go_away();
    int64_t began = clock_monotonic_ms();
    gives(CKR_DEVICE_ERROR, p11->C_DestroyObject(s, o));
    assert_true(clock_monotonic_ms() - began < 30000);
    /* Known to be away: no waiting any more. */
    began = clock_monotonic_ms();
    gives(CKR_DEVICE_ERROR, p11->C_DestroyObject(s, o));
    assert_true(clock_monotonic_ms() - began < 3000);
    fake_come_back();
    ok(p11->C_DestroyObject(s, o));
}

static void initialize_again(const char *more)
{
    char reserved[160];
    snprintf(reserved, sizeof(reserved), "socket=%s%s", fake_socket(), more);
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = reserved};
    p11->C_Finalize(NULL);
    ok(p11->C_Initialize(&args));
}

/* A hung daemon: how long until the call gives up? */
static int64_t hung_for(void)
{
    CK_SESSION_HANDLE s = logged_in();
    struct minting m = {.session = s};
    fake_hang(true);
    int64_t began = clock_monotonic_ms();
    mint_one(&m);
    int64_t took = clock_monotonic_ms() - began;
    assert_int_not_equal(m.rv, CKR_OK);
    fake_hang(false);
    p11->C_Finalize(NULL);
    return took;
}

static void deadlines_are_configured(void **state)
{
    (void)state;
    initialize_again(" timeout=1");
    int64_t took = hung_for();
    assert_true(took >= 900 && took < 10000);
    setenv("HSMINT_TIMEOUT", "2", 1);
    initialize_again("");
    took = hung_for();
    assert_true(took >= 1900 && took < 10000);
    /* x-init-reserved is nearer. */
    setenv("HSMINT_TIMEOUT", "60", 1);
    initialize_again("  timeout=1 ");
    assert_true(hung_for() < 10000);
    unsetenv("HSMINT_TIMEOUT");
}

static void bad_settings_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "timeout=",         "timeout=0",           "timeout=-1",
        "timeout=1s",       "timeout=99999999999", "timeout=3601",
        "socket=/a time=1", "socket=/a socket=/b", "/run/hsmint/socket",
        "timeout=5 bogus",  "timeout=5 timeout=5", "timeout=5 socket=relative",
    };
    ok(p11->C_Finalize(NULL));
    for (size_t i = 0; i < COUNT(bad); i++) {
        CK_C_INITIALIZE_ARGS args = {.pReserved = (void *)(uintptr_t)bad[i]};
        gives(CKR_ARGUMENTS_BAD, p11->C_Initialize(&args));
    }
    /* Nonsense in the environment takes no token away. */
    setenv("HSMINT_TIMEOUT", "soon", 1);
    initialize_again("");
    minted(logged_in(), "a", true);
    unsetenv("HSMINT_TIMEOUT");
}

/* ---- the profiles' mandatory test cases (PKCS #11 Profiles 3.x) ----
 *
 * Call by call as their XML has it; what it leaves to the token (names,
 * versions, counts, mechanisms) is checked to be well-formed. */

/* C_Initialize, C_GetInfo, C_GetSlotList, C_GetSlotInfo, C_GetTokenInfo: the
 * beginning of both. */
static CK_SLOT_ID case_begins(CK_FUNCTION_LIST *f)
{
    char reserved[128];
    CK_INFO info;
    CK_SLOT_ID slots[8];
    CK_ULONG n = 0;
    CK_SLOT_INFO slot;
    CK_TOKEN_INFO token;
    ok(f->C_Finalize(NULL)); /* of set_up() */
    snprintf(reserved, sizeof(reserved), "socket=%s", fake_socket());
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = reserved};
    ok(f->C_Initialize(&args));
    ok(f->C_GetInfo(&info));
    assert_int_equal(info.cryptokiVersion.major, 3);
    assert_int_equal(info.flags, 0);
    assert_null(memchr(info.manufacturerID, 0, 32));
    assert_null(memchr(info.libraryDescription, 0, 32));
    ok(f->C_GetSlotList(CK_TRUE, NULL, &n));
    assert_true(n >= 1 && n <= 8);
    ok(f->C_GetSlotList(CK_TRUE, slots, &n));
    ok(f->C_GetSlotInfo(slots[0], &slot));
    assert_int_equal(slot.flags, CKF_TOKEN_PRESENT);
    assert_null(memchr(slot.slotDescription, 0, 64));
    assert_null(memchr(slot.manufacturerID, 0, 32));
    ok(f->C_GetTokenInfo(slots[0], &token));
    CK_FLAGS asked = CKF_RNG | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED |
                     CKF_TOKEN_INITIALIZED;
    assert_int_equal(token.flags & asked, asked);
    assert_null(memchr(token.label, 0, 32));
    assert_null(memchr(token.serialNumber, 0, 16));
    assert_int_equal(token.ulSessionCount, 0);
    assert_int_equal(token.ulRwSessionCount, 0);
    assert_true(token.ulMinPinLen <= token.ulMaxPinLen);
    return slots[0];
}

/* C_FindObjectsInit with CKA_TOKEN TRUE, one object, C_FindObjectsFinal; then
 * the profiles of clauses 5.1 and 5.3. */
static void case_finds(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE o = 0;
    CK_ULONG n = 0;
    CK_ATTRIBUTE t[] = {A_BOOL(CKA_TOKEN, yes)};
    ok(f->C_FindObjectsInit(s, t, 1));
    ok(f->C_FindObjects(s, &o, 1, &n));
    assert_int_equal(n, 1);
    assert_int_not_equal(o, 0);
    ok(f->C_FindObjectsFinal(s));
    for (CK_ULONG id = CKP_BASELINE_PROVIDER; id <= CKP_EXTENDED_PROVIDER;
         id++) {
        CK_ATTRIBUTE profile[] = {A_VAR(CKA_CLASS, class_profile),
                                  A_VAR(CKA_PROFILE_ID, id)};
        assert_int_equal(found(s, profile, 2, &o, 1), 1);
    }
}

static void case_ends(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_SESSION_HANDLE s)
{
    ok(f->C_CloseSession(s));
    ok(f->C_CloseAllSessions(slot));
    ok(f->C_Finalize(NULL));
}

static void case_bl_m_1(void **state)
{
    (void)state;
    CK_FUNCTION_LIST *f = &v3()->base;
    CK_SLOT_ID slot = case_begins(f);
    CK_SESSION_HANDLE s = 0;
    ok(f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s));
    case_finds(f, s);
    case_ends(f, slot, s);
}

static void case_ext_m_1(void **state)
{
    (void)state;
    CK_FUNCTION_LIST *f = &v3()->base;
    CK_SLOT_ID slot = case_begins(f);
    CK_SESSION_HANDLE s = 0;
    CK_MECHANISM_TYPE types[8];
    CK_MECHANISM_INFO info;
    CK_ULONG n = 0;
    CK_UTF8CHAR pin[] = FAKE_PIN;
    ok(f->C_GetMechanismList(slot, NULL, &n));
    assert_true(n >= 1 && n <= 8);
    ok(f->C_GetMechanismList(slot, types, &n));
    for (CK_ULONG i = 0; i < n; i++) {
        ok(f->C_GetMechanismInfo(slot, types[i], &info));
        assert_true(info.flags != 0);
        assert_true(info.ulMinKeySize <= info.ulMaxKeySize);
    }
    ok(f->C_OpenSession(slot, CKF_RW_SESSION | CKF_SERIAL_SESSION, NULL, NULL,
                        &s));
    ok(f->C_Login(s, CKU_USER, pin, sizeof(pin) - 1));
    case_finds(f, s);
    ok(f->C_Logout(s));
    case_ends(f, slot, s);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(interfaces_are_listed),
        T(interfaces_are_chosen),
        T(every_function_of_3_0_is_there),
        T(message_functions_are_refused),
        T(login_user_without_a_name_is_login),
        T(a_named_login_goes_to_the_daemon),
        T(odd_names_are_nobodys),
        T(a_named_login_that_is_lost_is_told),
        T(another_name_logs_other_slots_out),
        T(session_cancel_ends_searches),
        T(profiles_are_public),
        T(every_object_has_a_unique_id),
        T(audit_key_is_public),
        T(policies_are_data),
        T(random_numbers_come_from_the_daemon),
        T(a_new_organisation_is_an_event),
        T(finalise_ends_waiting),
        T(a_child_of_a_waiting_process_begins_anew),
        T(token_information_is_true),
        T(states_follow_the_login),
        T(read_only_sessions_change_no_token_object),
        T(a_public_session_sees_public_objects),
        T(handles_are_never_used_again),
        T(a_call_cut_by_a_restart_mints_once),
        T(a_daemon_that_stays_away_is_an_error),
        T(deadlines_are_configured),
        T(bad_settings_are_refused),
        T(case_bl_m_1),
        T(case_ext_m_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
