/* The interfaces of PKCS#11 3.0, and the mandatory cases of its profiles. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/p11.h"

static CK_OBJECT_CLASS class_profile = CKO_PROFILE;
static CK_UTF8CHAR standard[] = "PKCS 11", other[] = "Vendor other";

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(interfaces_are_listed),
        T(interfaces_are_chosen),
        T(every_function_of_3_0_is_there),
        T(message_functions_are_refused),
        T(case_bl_m_1),
        T(case_ext_m_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
