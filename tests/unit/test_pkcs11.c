/* The module's calls against a daemon that is a thread of this test: slots,
 * sessions, login, minting, searching, changing, and who may read what. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/error.h"
#include "module/pkcs11/kinds.h"
#include "tests/unit/p11.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- initialise, slots ---- */

static CK_RV new_mutex(void **m)
{
    *m = NULL;
    return CKR_OK;
}

static CK_RV use_mutex(void *m)
{
    (void)m;
    return CKR_OK;
}

static void initialise_checks_its_arguments(void **state)
{
    (void)state;
    gives(CKR_CRYPTOKI_ALREADY_INITIALIZED, p11->C_Initialize(NULL));
    gives(CKR_ARGUMENTS_BAD, p11->C_Finalize(&yes));
    ok(p11->C_Finalize(NULL));
    gives(CKR_CRYPTOKI_NOT_INITIALIZED, p11->C_Finalize(NULL));
    static const char *const bad[] = {"socket=relative", "path=/x", "socket="};
    for (size_t i = 0; i < COUNT(bad); i++) {
        CK_C_INITIALIZE_ARGS args = {.pReserved = (void *)(uintptr_t)bad[i]};
        gives(CKR_ARGUMENTS_BAD, p11->C_Initialize(&args));
    }
    CK_C_INITIALIZE_ARGS some = {.CreateMutex = new_mutex};
    gives(CKR_ARGUMENTS_BAD, p11->C_Initialize(&some));
    CK_C_INITIALIZE_ARGS theirs = {
        .CreateMutex = new_mutex,
        .DestroyMutex = use_mutex,
        .LockMutex = use_mutex,
        .UnlockMutex = use_mutex,
    };
    gives(CKR_CANT_LOCK, p11->C_Initialize(&theirs));
    theirs.flags = CKF_OS_LOCKING_OK;
    ok(p11->C_Initialize(&theirs));
    ok(p11->C_Finalize(NULL));
    gives(CKR_ARGUMENTS_BAD, C_GetFunctionList(NULL));
}

static void every_function_is_there(void **state)
{
    (void)state;
    void *const *first = (void *const *)(const void *)&p11->C_Initialize;
    void *const *last = (void *const *)(const void *)&p11->C_WaitForSlotEvent;
    assert_int_equal(last - first + 1, 68);
    for (void *const *f = first; f <= last; f++)
        assert_non_null(*f);
    assert_int_equal(p11->version.major, 2);
    assert_int_equal(p11->version.minor, 40);
}

static void initialise_asks_nobody(void **state)
{
    (void)state;
    CK_INFO info;
    ok(p11->C_GetInfo(&info));
    assert_memory_equal(info.manufacturerID, "hsmint    ", 10);
    assert_int_equal(info.manufacturerID[31], ' ');
    assert_int_equal(fake_calls(NULL), 0);
}

/* A slow machine (or valgrind) may miss the 100 ms at first. */
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

static void slots_are_the_organisations(void **state)
{
    (void)state;
    CK_SLOT_ID list[4] = {0};
    CK_ULONG n = 0;
    fake_second_slot(true);
    wait_for_slots(2);
    ok(p11->C_GetSlotList(CK_TRUE, NULL, &n));
    assert_int_equal(n, 2);
    n = 1;
    gives(CKR_BUFFER_TOO_SMALL, p11->C_GetSlotList(CK_TRUE, list, &n));
    assert_int_equal(n, 2);
    n = 4;
    ok(p11->C_GetSlotList(CK_FALSE, list, &n));
    assert_int_equal(n, 2);
    assert_int_equal(list[0], 1);
    assert_int_equal(list[1], 7);
    CK_TOKEN_INFO t;
    ok(p11->C_GetTokenInfo(7, &t));
    assert_memory_equal(t.label, "hsmint lab                      ", 32);
    assert_memory_equal(t.serialNumber, "ba9876543210    ", 16);
    assert_int_equal(t.flags, CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED |
                                  CKF_LOGIN_REQUIRED | CKF_RNG |
                                  CKF_CLOCK_ON_TOKEN);
    CK_SLOT_INFO s;
    ok(p11->C_GetSlotInfo(1, &s));
    assert_int_equal(s.flags, CKF_TOKEN_PRESENT);
    gives(CKR_SLOT_ID_INVALID, p11->C_GetSlotInfo(3, &s));
    gives(CKR_SLOT_ID_INVALID, p11->C_GetTokenInfo(3, &t));
    gives(CKR_ARGUMENTS_BAD, p11->C_GetSlotList(CK_TRUE, NULL, NULL));
    gives(CKR_ARGUMENTS_BAD, p11->C_GetTokenInfo(1, NULL));
    /* Not a question a call: those for slot 3, which is looked for twice. */
    assert_true(fake_calls("Slots") <= 6);
}

static void protected_path_is_shown(void **state)
{
    (void)state;
    CK_TOKEN_INFO t;
    fake_protected(true);
    fake_second_slot(true);
    wait_for_slots(2);
    ok(p11->C_GetTokenInfo(1, &t));
    assert_true(t.flags & CKF_PROTECTED_AUTHENTICATION_PATH);
    CK_SESSION_HANDLE s = open_session(true);
    ok(p11->C_Login(s, CKU_USER, NULL, 0));
}

/* A daemon too busy for the 100 ms of the slot functions is heard when a
 * session opens: programs look at the flag before they log in. */
static void opening_a_session_learns_what_slots_missed(void **state)
{
    (void)state;
    CK_TOKEN_INFO t;
    fake_protected(true);
    fake_hang(true);
    ok(p11->C_GetTokenInfo(1, &t));
    assert_false(t.flags & CKF_PROTECTED_AUTHENTICATION_PATH);
    fake_hang(false);
    CK_SESSION_HANDLE s;
    ok(p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &s));
    ok(p11->C_GetTokenInfo(1, &t));
    assert_true(t.flags & CKF_PROTECTED_AUTHENTICATION_PATH);
    int asked = fake_calls("Slots");
    ok(p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &s));
    assert_int_equal(fake_calls("Slots"), asked);
}

static void a_hung_daemon_slows_slots_little(void **state)
{
    (void)state;
    CK_SLOT_ID list[4];
    CK_ULONG n = 4;
    CK_TOKEN_INFO t;
    fake_hang(true);
    int64_t began = clock_monotonic_ms();
    ok(p11->C_GetSlotList(CK_TRUE, list, &n));
    ok(p11->C_GetTokenInfo(list[0], &t));
    assert_true(clock_monotonic_ms() - began < 250);
    assert_int_equal(n, 1);
    assert_int_equal(list[0], 1);
    fake_hang(false);
}

static void without_a_daemon_there_is_a_slot(void **state)
{
    (void)state;
    char absent[] = "socket=/nonexistent/socket";
    ok(p11->C_Finalize(NULL));
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = absent};
    ok(p11->C_Initialize(&args));
    CK_SLOT_ID list[4];
    CK_ULONG n = 4;
    CK_SLOT_INFO info;
    CK_SESSION_HANDLE s = 5;
    ok(p11->C_GetSlotList(CK_TRUE, list, &n));
    assert_int_equal(n, 1);
    ok(p11->C_GetSlotInfo(list[0], &info));
    assert_true(info.flags & CKF_TOKEN_PRESENT);
    CK_RV rv = p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &s);
    assert_int_not_equal(rv, CKR_OK);
    assert_int_equal(s, CK_INVALID_HANDLE);
}

static void mechanisms(void **state)
{
    (void)state;
    CK_MECHANISM_TYPE list[2];
    CK_ULONG n = 0;
    ok(p11->C_GetMechanismList(1, NULL, &n));
    assert_int_equal(n, 1);
    n = 0;
    gives(CKR_BUFFER_TOO_SMALL, p11->C_GetMechanismList(1, list, &n));
    assert_int_equal(n, 1);
    ok(p11->C_GetMechanismList(1, list, &n));
    assert_int_equal(list[0], CKM_GENERIC_SECRET_KEY_GEN);
    CK_MECHANISM_INFO info;
    ok(p11->C_GetMechanismInfo(1, list[0], &info));
    assert_int_equal(info.flags, CKF_GENERATE);
    assert_int_equal(info.ulMinKeySize, 8); /* bits */
    assert_int_equal(info.ulMaxKeySize, 32768);
    gives(CKR_ARGUMENTS_BAD, p11->C_GetMechanismInfo(1, list[0], NULL));
    gives(CKR_MECHANISM_INVALID,
          p11->C_GetMechanismInfo(1, CKM_AES_GCM, &info));
    gives(CKR_SLOT_ID_INVALID, p11->C_GetMechanismList(9, NULL, &n));
}

static void unsupported_functions_say_so(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(false);
    CK_MECHANISM m = {CKM_AES_GCM, NULL, 0};
    CK_BYTE b[8];
    CK_ULONG n = sizeof(b);
    CK_SLOT_ID slot;
    CK_UTF8CHAR label[32] = "x";
    gives(CKR_FUNCTION_NOT_SUPPORTED, p11->C_EncryptInit(s, &m, 1));
    gives(CKR_SESSION_HANDLE_INVALID, p11->C_EncryptInit(s + 9, &m, 1));
    gives(CKR_FUNCTION_NOT_SUPPORTED, p11->C_Sign(s, b, 1, b, &n));
    gives(CKR_FUNCTION_NOT_SUPPORTED, p11->C_SetPIN(s, b, 1, b, 1));
    gives(CKR_FUNCTION_NOT_SUPPORTED, p11->C_InitPIN(s, b, 1));
    gives(CKR_FUNCTION_NOT_SUPPORTED, p11->C_InitToken(1, b, 1, label));
    gives(CKR_SLOT_ID_INVALID, p11->C_InitToken(9, b, 1, label));
    gives(CKR_RANDOM_SEED_NOT_SUPPORTED, p11->C_SeedRandom(s, b, 8));
    gives(CKR_FUNCTION_NOT_PARALLEL, p11->C_GetFunctionStatus(s));
    gives(CKR_FUNCTION_NOT_PARALLEL, p11->C_CancelFunction(s));
    gives(CKR_NO_EVENT, p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &slot, NULL));
    gives(CKR_ARGUMENTS_BAD,
          p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL));
    ok(p11->C_Finalize(NULL));
    gives(CKR_CRYPTOKI_NOT_INITIALIZED, p11->C_EncryptInit(s, &m, 1));
    gives(CKR_CRYPTOKI_NOT_INITIALIZED, p11->C_InitToken(1, b, 1, label));
}

/* Each with nothing but zeros: none may look at them. */
static void call_unsupported(CK_RV rv, CK_SESSION_HANDLE s)
{
    gives(rv, p11->C_GetOperationState(s, NULL, NULL));
    gives(rv, p11->C_SetOperationState(s, NULL, 0, 0, 0));
    gives(rv, p11->C_EncryptInit(s, NULL, 0));
    gives(rv, p11->C_Encrypt(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_EncryptUpdate(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_EncryptFinal(s, NULL, NULL));
    gives(rv, p11->C_DecryptInit(s, NULL, 0));
    gives(rv, p11->C_Decrypt(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_DecryptUpdate(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_DecryptFinal(s, NULL, NULL));
    gives(rv, p11->C_DigestInit(s, NULL));
    gives(rv, p11->C_Digest(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_DigestUpdate(s, NULL, 0));
    gives(rv, p11->C_DigestKey(s, 0));
    gives(rv, p11->C_DigestFinal(s, NULL, NULL));
    gives(rv, p11->C_SignInit(s, NULL, 0));
    gives(rv, p11->C_Sign(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_SignUpdate(s, NULL, 0));
    gives(rv, p11->C_SignFinal(s, NULL, NULL));
    gives(rv, p11->C_SignRecoverInit(s, NULL, 0));
    gives(rv, p11->C_SignRecover(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_VerifyInit(s, NULL, 0));
    gives(rv, p11->C_Verify(s, NULL, 0, NULL, 0));
    gives(rv, p11->C_VerifyUpdate(s, NULL, 0));
    gives(rv, p11->C_VerifyFinal(s, NULL, 0));
    gives(rv, p11->C_VerifyRecoverInit(s, NULL, 0));
    gives(rv, p11->C_VerifyRecover(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_DigestEncryptUpdate(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_DecryptDigestUpdate(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_SignEncryptUpdate(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_DecryptVerifyUpdate(s, NULL, 0, NULL, NULL));
    gives(rv, p11->C_GenerateKeyPair(s, NULL, NULL, 0, NULL, 0, NULL, NULL));
    gives(rv, p11->C_WrapKey(s, NULL, 0, 0, NULL, NULL));
    gives(rv, p11->C_UnwrapKey(s, NULL, 0, NULL, 0, NULL, 0, NULL));
    gives(rv, p11->C_DeriveKey(s, NULL, 0, NULL, 0, NULL));
    gives(rv, p11->C_InitPIN(s, NULL, 0));
    gives(rv, p11->C_SetPIN(s, NULL, 0, NULL, 0));
}

static void unsupported_functions_read_nothing(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(false);
    call_unsupported(CKR_FUNCTION_NOT_SUPPORTED, s);
    assert_non_null(strstr(why(s), "not supported"));
    call_unsupported(CKR_SESSION_HANDLE_INVALID, s + 1);
    ok(p11->C_Finalize(NULL));
    call_unsupported(CKR_CRYPTOKI_NOT_INITIALIZED, s);
}

/* ---- sessions, login ---- */

static void sessions(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s, ro = open_session(false), rw = open_session(true);
    CK_SESSION_INFO info;
    CK_TOKEN_INFO t;
    gives(CKR_SESSION_PARALLEL_NOT_SUPPORTED,
          p11->C_OpenSession(1, CKF_RW_SESSION, NULL, NULL, &s));
    gives(CKR_ARGUMENTS_BAD,
          p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, NULL));
    gives(CKR_SLOT_ID_INVALID,
          p11->C_OpenSession(9, CKF_SERIAL_SESSION, NULL, NULL, &s));
    ok(p11->C_GetSessionInfo(ro, &info));
    assert_int_equal(info.state, CKS_RO_PUBLIC_SESSION);
    ok(p11->C_GetSessionInfo(rw, &info));
    assert_int_equal(info.state, CKS_RW_PUBLIC_SESSION);
    assert_int_equal(info.flags, CKF_SERIAL_SESSION | CKF_RW_SESSION);
    gives(CKR_ARGUMENTS_BAD, p11->C_GetSessionInfo(rw, NULL));
    ok(p11->C_GetTokenInfo(1, &t));
    assert_int_equal(t.ulSessionCount, 2);
    assert_int_equal(t.ulRwSessionCount, 1);
    ok(p11->C_CloseSession(ro));
    gives(CKR_SESSION_HANDLE_INVALID, p11->C_CloseSession(ro));
    gives(CKR_SESSION_HANDLE_INVALID, p11->C_GetSessionInfo(ro, &info));
    ok(p11->C_CloseAllSessions(1));
    gives(CKR_SESSION_HANDLE_INVALID, p11->C_GetSessionInfo(rw, &info));
    gives(CKR_SLOT_ID_INVALID, p11->C_CloseAllSessions(9));
    assert_true(open_session(true) > rw); /* never used again */
}

static void login(void **state)
{
    (void)state;
    CK_SESSION_HANDLE ro = open_session(false), rw = open_session(true);
    CK_SESSION_INFO info;
    char long_pin[300];
    memset(long_pin, '1', sizeof(long_pin));
    long_pin[299] = '\0';
    gives(CKR_PIN_INCORRECT, try_login(rw, CKU_USER, "9999"));
    assert_non_null(strstr(why(rw), "PIN"));
    gives(CKR_PIN_LEN_RANGE, try_login(rw, CKU_USER, long_pin));
    gives(CKR_ARGUMENTS_BAD, p11->C_Login(rw, CKU_USER, NULL, 4));
    gives(CKR_PIN_INCORRECT, p11->C_Login(rw, CKU_USER, NULL, 0));
    gives(CKR_USER_TYPE_INVALID, try_login(rw, 77, FAKE_PIN));
    gives(CKR_OPERATION_NOT_INITIALIZED,
          try_login(rw, CKU_CONTEXT_SPECIFIC, FAKE_PIN));
    gives(CKR_SESSION_READ_ONLY_EXISTS, try_login(rw, CKU_SO, FAKE_PIN));
    gives(CKR_USER_NOT_LOGGED_IN, p11->C_Logout(rw));
    ok(try_login(ro, CKU_USER, FAKE_PIN));
    gives(CKR_USER_ALREADY_LOGGED_IN, try_login(rw, CKU_USER, FAKE_PIN));
    gives(CKR_USER_ANOTHER_ALREADY_LOGGED_IN, try_login(rw, CKU_SO, FAKE_PIN));
    ok(p11->C_GetSessionInfo(ro, &info));
    assert_int_equal(info.state, CKS_RO_USER_FUNCTIONS);
    ok(p11->C_Logout(rw));
    ok(p11->C_CloseSession(ro));
    ok(try_login(rw, CKU_SO, FAKE_PIN));
    ok(p11->C_GetSessionInfo(rw, &info));
    assert_int_equal(info.state, CKS_RW_SO_FUNCTIONS);
    gives(CKR_SESSION_READ_WRITE_SO_EXISTS,
          p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &ro));
    assert_non_null(strstr(fake_last("Login"), "\"so\":true"));
    /* The last session takes the login along. */
    ok(p11->C_CloseSession(rw));
    assert_int_equal(fake_calls("Logout"), 2);
    rw = open_session(true);
    ok(p11->C_GetSessionInfo(rw, &info));
    assert_int_equal(info.state, CKS_RW_PUBLIC_SESSION);
}

static void a_login_that_the_daemon_forgot_can_be_repeated(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "my-role")};
    fake_fail("Mint", ERR_LOCKED);
    gives(CKR_USER_NOT_LOGGED_IN, generate(s, t, 1, &o));
    ok(try_login(s, CKU_USER, FAKE_PIN));
    ok(generate(s, t, 1, &o));
}

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

/* ---- searching ---- */

static void own_leases_are_found_newest_first(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE made[5], list[8];
    for (int i = 0; i < 5; i++)
        made[i] = minted(s, i == 2 ? "other" : "my-role", true);
    CK_ATTRIBUTE keys[] = {A_CLASS};
    assert_int_equal(found(s, keys, 1, list, 8), 5); /* pages of two */
    for (int i = 0; i < 5; i++)
        assert_int_equal(list[i], made[4 - i]);
    CK_ATTRIBUTE label[] = {A_CLASS, A_TEXT(CKA_LABEL, "other")};
    assert_int_equal(found(s, label, 2, list, 8), 1);
    assert_int_equal(list[0], made[2]);
    char id[64];
    snprintf(id, sizeof(id), "%.60s", text_of(s, made[1], CKA_ID));
    CK_ATTRIBUTE by_id[] = {{CKA_ID, id, strlen(id)}};
    assert_int_equal(found(s, by_id, 1, list, 8), 1);
    assert_int_equal(list[0], made[1]);
    fake_forget_calls();
    CK_ATTRIBUTE unique[] = {{CKA_UNIQUE_ID, id, strlen(id)}};
    assert_int_equal(found(s, unique, 1, list, 8), 1);
    assert_int_equal(list[0], made[1]);
    assert_int_equal(fake_calls("ListLeases"), 0);
    CK_ATTRIBUTE session_objects[] = {A_CLASS, A_BOOL(CKA_TOKEN, no)};
    assert_int_equal(found(s, session_objects, 2, list, 8), 0);
    CK_ATTRIBUTE absent[] = {A_CLASS, A_TEXT(CKA_LABEL, "nobody")};
    assert_int_equal(found(s, absent, 2, list, 8), 0);
}

static void what_cannot_match_is_not_asked_for(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_CLASS cert = CKO_CERTIFICATE;
    CK_ATTRIBUTE t[] = {A_VAR(CKA_CLASS, cert)};
    CK_ATTRIBUTE data[] = {A_DATA, A_TEXT(CKA_APPLICATION, "other")};
    CK_OBJECT_HANDLE o = 0;
    fake_forget_calls();
    assert_int_equal(found(s, t, 1, &o, 1), 0);
    assert_int_equal(found(s, data, 2, &o, 1), 0);
    assert_int_equal(fake_calls(NULL), 0);
}

static void before_init_nothing_is_found(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_CLASS};
    CK_ATTRIBUTE private[] = {A_BOOL(CKA_PRIVATE, yes)};
    CK_ATTRIBUTE role[] = {A_TEXT(CKA_LABEL, "my-role")};
    fake_fail("ListLeases", ERR_NOT_FOUND);
    fake_fail("ListRoles", ERR_NOT_FOUND);
    fake_fail("GetConfig", ERR_NOT_FOUND);
    assert_int_equal(found(s, private, 1, &o, 1), 0);
    assert_int_equal(found(s, t, 1, &o, 1), 0);
    /* No handle was given: none can be the invalid one. */
    fake_fail("Mint", ERR_NOT_FOUND);
    gives(CKR_DEVICE_ERROR, generate(s, role, 1, &o));
}

static void a_value_is_no_search_term(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    char key[128];
    snprintf(key, sizeof(key), "%.120s", text_of(s, o, CKA_VALUE));
    CK_ATTRIBUTE t[] = {{CKA_VALUE, key, strlen(key)}};
    assert_int_equal(found(s, t, 1, &o, 1), 0);
}

static void searches_have_their_order(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE list[2];
    CK_ULONG n;
    CK_ATTRIBUTE t[] = {A_CLASS};
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjects(s, list, 1, &n));
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjectsFinal(s));
    ok(p11->C_FindObjectsInit(s, t, 1));
    gives(CKR_OPERATION_ACTIVE, p11->C_FindObjectsInit(s, t, 1));
    gives(CKR_ARGUMENTS_BAD, p11->C_FindObjects(s, NULL, 1, &n));
    gives(CKR_ARGUMENTS_BAD, p11->C_FindObjects(s, list, 1, NULL));
    ok(p11->C_FindObjects(s, list, 0, &n));
    assert_int_equal(n, 0);
    ok(p11->C_FindObjectsFinal(s));
    /* A failed start leaves no operation behind. */
    fake_fail("ListLeases", ERR_IO);
    gives(CKR_DEVICE_ERROR, p11->C_FindObjectsInit(s, t, 1));
    ok(p11->C_FindObjectsInit(s, t, 1));
    ok(p11->C_FindObjectsFinal(s));
}

static void leases_are_private(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true), p = 0;
    CK_ATTRIBUTE t[] = {A_CLASS};
    CK_BBOOL b;
    CK_ATTRIBUTE a = {CKA_TOKEN, &b, 1};
    ok(p11->C_Logout(s));
    assert_int_equal(found(s, t, 1, &p, 1), 0);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, o, &a, 1));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
    ok(try_login(s, CKU_USER, FAKE_PIN));
    assert_int_equal(found(s, t, 1, &p, 1), 1);
    assert_int_not_equal(p, o); /* handles are not used again */
    /* And its value went with the logout. */
    CK_ATTRIBUTE v = {CKA_VALUE, NULL, 0};
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, p, &v, 1));
}

/* A program that lists for months does not keep what it saw for ever. */
static void dead_leases_are_forgotten(void **state)
{
    (void)state;
    struct object_table *t = object_table_new();
    CK_OBJECT_HANDLE first = 0, live = 0;
    char name[32];
    assert_non_null(t);
    for (int i = 0; i < 3000; i++) {
        int64_t end = i == 7 ? INT64_MAX / 2 : 1000;
        snprintf(name, sizeof(name), "lease-%d", i);
        struct object *o =
            object_put(t, &kind_lease, 1, name,
                       json_pack("{sI}", "expires_ms", (json_int_t)end));
        assert_non_null(o);
        if (i == 0)
            first = o->handle;
        if (i == 7)
            live = o->handle;
    }
    assert_null(object_find(t, first));
    assert_non_null(object_find(t, live));
    object_table_free(t);
}

/* ---- reading what others minted ---- */

#define FOREIGN "01jd0000000000000000000000"

static void others_keys_are_not_read(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    fake_add_lease(FOREIGN, "my-role", false);
    CK_ATTRIBUTE t[] = {A_CLASS, A_TEXT(CKA_LABEL, "my-role")};
    assert_int_equal(found(s, t, 2, &o, 1), 1);
    char buf[64];
    CK_ATTRIBUTE a = {CKA_VALUE, buf, sizeof(buf)};
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, o, &a, 1));
    assert_int_equal(a.ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_non_null(strstr(why(s), "keep_value"));
    assert_true(truth_of(s, o, CKA_SENSITIVE));
    assert_false(truth_of(s, o, CKA_EXTRACTABLE));
    assert_int_equal(fake_calls("ReadKey"), 0);
}

static void kept_keys_are_read_when_named(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0, p = 0;
    fake_add_lease(FOREIGN, "keeping", true);
    CK_ATTRIBUTE all[] = {A_CLASS};
    CK_ATTRIBUTE v = {CKA_VALUE, NULL, 0};
    assert_int_equal(found(s, all, 1, &o, 1), 1);
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, o, &v, 1));
    assert_non_null(strstr(why(s), "label or id"));
    assert_int_equal(fake_calls("ReadKey"), 0);
    CK_ATTRIBUTE named[] = {A_CLASS, A_TEXT(CKA_LABEL, "keeping")};
    assert_int_equal(found(s, named, 2, &p, 1), 1);
    assert_int_equal(p, o);
    assert_false(truth_of(s, o, CKA_SENSITIVE));
    assert_string_equal(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX FOREIGN);
    assert_string_equal(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX FOREIGN);
    assert_int_equal(fake_calls("ReadKey"), 1); /* then it is held */
}

/* ---- changing ---- */

static void renew_and_relabel(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), ro = open_session(false);
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    CK_ULONG ttl = 7200, far = 1000000;
    CK_BYTE id[] = {1, 2};
    CK_ATTRIBUTE t[] = {A_VAR(CKA_HSMINT_TTL, ttl), A_TEXT(CKA_LABEL, "nicer"),
                        A_VAR(CKA_ID, id)};
    gives(CKR_SESSION_READ_ONLY, p11->C_SetAttributeValue(ro, o, t, 1));
    ok(p11->C_SetAttributeValue(s, o, t, COUNT(t)));
    assert_in_range(number_of(s, o, CKA_HSMINT_TTL), 7100, 7200);
    assert_string_equal(text_of(s, o, CKA_LABEL), "nicer");
    assert_string_equal(text_of(s, o, CKA_HSMINT_ROLE), "my-role");
    CK_ATTRIBUTE by_label[] = {A_TEXT(CKA_LABEL, "nicer")};
    CK_OBJECT_HANDLE p = 0;
    assert_int_equal(found(s, by_label, 1, &p, 1), 1);
    assert_int_equal(p, o);
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX));
    CK_ATTRIBUTE beyond[] = {A_VAR(CKA_HSMINT_TTL, far)};
    gives(CKR_ATTRIBUTE_VALUE_INVALID,
          p11->C_SetAttributeValue(s, o, beyond, 1));
    CK_ATTRIBUTE fixed[] = {A_BOOL(CKA_TOKEN, no)};
    gives(CKR_ATTRIBUTE_READ_ONLY, p11->C_SetAttributeValue(s, o, fixed, 1));
    CK_ATTRIBUTE value[] = {A_TEXT(CKA_VALUE, "x")};
    gives(CKR_ATTRIBUTE_READ_ONLY, p11->C_SetAttributeValue(s, o, value, 1));
}

static void destroy_revokes(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), ro = open_session(false);
    CK_OBJECT_HANDLE o = minted(s, "my-role", true), p = minted(s, "x", true);
    gives(CKR_SESSION_READ_ONLY, p11->C_DestroyObject(ro, o));
    assert_int_equal(fake_live(), 2);
    ok(p11->C_DestroyObject(s, o));
    assert_int_equal(fake_live(), 1);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
    /* Not known to have happened: the handle stays, to try again. */
    fake_fail("Revoke", ERR_SERVICE_DOWN);
    gives(CKR_DEVICE_ERROR, p11->C_DestroyObject(s, p));
    ok(p11->C_DestroyObject(s, p));
    fake_add_lease(FOREIGN, "my-role", false);
    CK_ATTRIBUTE t[] = {A_CLASS};
    assert_int_equal(found(s, t, 1, &o, 1), 1);
    fake_fail("Revoke", ERR_NOT_FOUND);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
}

/* ---- bound leases ---- */

static void bound_leases_end_with_their_session(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), t = open_session(false);
    CK_OBJECT_HANDLE in_s = minted(s, "my-role", false);
    CK_OBJECT_HANDLE in_t = minted(t, "my-role", false);
    CK_OBJECT_HANDLE kept = minted(s, "my-role", true);
    CK_BBOOL b;
    CK_ATTRIBUTE a = {CKA_TOKEN, &b, 1};
    assert_false(truth_of(s, in_t, CKA_TOKEN));
    ok(p11->C_CloseSession(t));
    assert_int_equal(fake_live(), 2);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, in_t, &a, 1));
    assert_false(truth_of(s, in_s, CKA_TOKEN));
    ok(p11->C_Logout(s));
    assert_int_equal(fake_live(), 1);
    ok(try_login(s, CKU_USER, FAKE_PIN));
    minted(s, "my-role", false);
    ok(p11->C_CloseAllSessions(1));
    assert_int_equal(fake_live(), 1);
    s = logged_in();
    minted(s, "my-role", false);
    ok(p11->C_Finalize(NULL));
    assert_int_equal(fake_live(), 1);
    (void)kept;
}

static void a_session_without_bound_leases_tells_nothing(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    minted(s, "my-role", true);
    ok(p11->C_CloseSession(s));
    assert_int_equal(fake_calls("EndSession"), 0);
}

static void an_end_that_could_not_be_told_is_told_later(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), t = open_session(true);
    minted(t, "my-role", false);
    fake_fail("EndSession", ERR_IO);
    ok(p11->C_CloseSession(t));
    assert_int_equal(fake_live(), 1);
    t = open_session(true);
    assert_int_equal(fake_live(), 0);
    (void)s;
}

struct minter {
    CK_SESSION_HANDLE s;
    CK_RV rv;
};

static void *mint_in_thread(void *arg)
{
    struct minter *m = arg;
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "my-role"), A_BOOL(CKA_TOKEN, yes)};
    m->rv = generate(m->s, t, COUNT(t), &o);
    return NULL;
}

static void threads_mint_at_once(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    struct minter m[THREADS];
    logged_in();
    for (int i = 0; i < THREADS; i++) {
        m[i].s = open_session(true);
        assert_int_equal(
            pthread_create(&threads[i], NULL, mint_in_thread, &m[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ok(m[i].rv);
    }
    assert_int_equal(fake_live(), THREADS);
}

/* C_Finalize while others are inside: each gets an answer, nothing is left. */
static void finalise_races_calls(void **state)
{
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        struct minter m = {.s = logged_in()};
        assert_int_equal(pthread_create(&thread, NULL, mint_in_thread, &m), 0);
        if (round % 2)
            usleep((useconds_t)(round * 20));
        ok(p11->C_Finalize(NULL));
        pthread_join(thread, NULL);
        if (m.rv != CKR_OK)
            assert_int_equal(fake_live(), 0);
        tear_down(state);
        set_up(state);
    }
}

/* ---- fork ---- */

/* The child tells by a pipe and ends without a word: a leak checker has
 * nothing to say about a copy of our threads' memory. */
static int told;

static void child_tells(unsigned char number)
{
    if (write(told, &number, 1) == 1)
        kill(getpid(), SIGKILL);
    _exit(1);
}

static int in_child(void (*fn)(CK_SESSION_HANDLE, CK_OBJECT_HANDLE),
                    CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
    int fds[2], status;
    unsigned char number = 255;
    assert_int_equal(pipe(fds), 0);
    told = fds[1];
    pid_t pid = fork();
    if (pid == 0) {
        fn(s, o);
        child_tells(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(read(fds[0], &number, 1), 1);
    close(fds[0]);
    close(fds[1]);
    return number;
}

#define CHILD(expr, number)                                                    \
    do {                                                                       \
        if (!(expr))                                                           \
            child_tells(number);                                               \
    } while (0)

static void child_uses_nothing(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
    CK_BBOOL b;
    CK_ATTRIBUTE a = {CKA_TOKEN, &b, 1};
    CK_ULONG n;
    CK_RV none = CKR_CRYPTOKI_NOT_INITIALIZED;
    CHILD(p11->C_GetAttributeValue(s, o, &a, 1) == none, 1);
    CHILD(p11->C_GetSlotList(CK_TRUE, NULL, &n) == none, 2);
    CHILD(p11->C_CloseSession(s) == none, 3);
    CHILD(p11->C_Finalize(NULL) == none, 4);
    CHILD(p11->C_Finalize(NULL) == none, 5);
}

static void child_starts_anew(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
    char reserved[128];
    CK_BBOOL b;
    CK_ATTRIBUTE a = {CKA_TOKEN, &b, 1};
    CK_SESSION_HANDLE mine;
    snprintf(reserved, sizeof(reserved), "socket=%s", fake_socket());
    CK_C_INITIALIZE_ARGS args = {.pReserved = reserved};
    CHILD(p11->C_Initialize(&args) == CKR_OK, 1);
    CHILD(p11->C_GetAttributeValue(s, o, &a, 1) == CKR_SESSION_HANDLE_INVALID,
          2);
    CHILD(p11->C_OpenSession(1, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
                             &mine) == CKR_OK,
          3);
    CHILD(try_login(mine, CKU_USER, FAKE_PIN) == CKR_OK, 4);
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "my-role")};
    CHILD(generate(mine, t, 1, &o) == CKR_OK, 5);
    CHILD(p11->C_Finalize(NULL) == CKR_OK, 6);
}

static void a_child_owns_nothing_of_its_parents(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", false);
    assert_int_equal(in_child(child_uses_nothing, s, o), 0);
    assert_int_equal(in_child(child_starts_anew, s, o), 0);
    assert_int_equal(fake_live(), 1); /* the parent's */
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX));
    ok(p11->C_CloseSession(s));
    assert_int_equal(fake_live(), 0);
}

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

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(initialise_checks_its_arguments),
        T(every_function_is_there),
        T(initialise_asks_nobody),
        T(slots_are_the_organisations),
        T(protected_path_is_shown),
        T(opening_a_session_learns_what_slots_missed),
        T(a_hung_daemon_slows_slots_little),
        T(without_a_daemon_there_is_a_slot),
        T(mechanisms),
        T(unsupported_functions_say_so),
        T(unsupported_functions_read_nothing),
        T(sessions),
        T(login),
        T(a_login_that_the_daemon_forgot_can_be_repeated),
        T(nothing_is_minted_without_login),
        T(mint_and_read),
        T(tools_templates_are_corrected),
        T(bad_templates_are_refused),
        T(arguments_are_checked),
        T(sizes_and_short_buffers),
        T(the_daemons_refusals_have_a_text),
        T(own_leases_are_found_newest_first),
        T(what_cannot_match_is_not_asked_for),
        T(a_value_is_no_search_term),
        T(searches_have_their_order),
        T(leases_are_private),
        T(dead_leases_are_forgotten),
        T(before_init_nothing_is_found),
        T(others_keys_are_not_read),
        T(kept_keys_are_read_when_named),
        T(renew_and_relabel),
        T(destroy_revokes),
        T(bound_leases_end_with_their_session),
        T(a_session_without_bound_leases_tells_nothing),
        T(an_end_that_could_not_be_told_is_told_later),
        T(threads_mint_at_once),
        T(finalise_races_calls),
        T(a_child_owns_nothing_of_its_parents),
        T(roles_are_data),
        T(bad_data_are_refused),
        T(configuration_and_admin_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
