/* C_Initialize, slots, tokens, mechanisms, and what is not supported: the module
 * against a daemon that is a thread of this test. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "module/pkcs11/session.h"
#include "tests/unit/p11.h"

#include <pthread.h>
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

/* An answer that is older than the last one, or of a daemon that has lost an
 * organisation: its sessions stay its own. */
static void a_slot_that_was_there_stays(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = 0;
    CK_SESSION_INFO info;
    CK_UTF8CHAR pin[] = FAKE_PIN;
    CK_ULONG n = 0;
    CK_SLOT_ID id = 0;
    fake_second_slot(true);
    wait_for_slots(2);
    ok(p11->C_OpenSession(7, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
                          &s));
    ok(p11->C_Login(s, CKU_USER, pin, sizeof(pin) - 1));
    fake_second_slot(false);
    fake_forget_calls();
    for (int i = 0; i < 6000 && fake_calls("Slots") < 2; i++) {
        ok(p11->C_GetSlotList(CK_TRUE, NULL, &n));
        usleep(10000);
    }
    assert_int_equal(n, 2);
    ok(p11->C_GetSessionInfo(s, &info));
    assert_int_equal(info.state, CKS_RW_USER_FUNCTIONS);
    minted(s, "my-role", true);
    assert_non_null(strstr(fake_last("Mint"), "\"org\":\"lab\""));
    fake_second_slot(true);
    fake_forget_calls();
    for (int i = 0; i < 6000 && fake_calls("Slots") < 2; i++) {
        gives(CKR_NO_EVENT, p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &id, NULL));
        usleep(10000);
    }
}

/* ---- events, token information ---- */

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
    for (int i = 0; i < 6000 && fake_calls("Slots") == 0; i++)
        ok(p11->C_GetTokenInfo(1, &info));
    for (int i = 0; i < 600 && info.firmwareVersion.major != 7; i++) {
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
    for (int i = 0; i < 3000 && (t.flags & PIN_FLAGS) != flag; i++) {
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
        T(a_slot_that_was_there_stays),
        T(a_new_organisation_is_an_event),
        T(finalise_ends_waiting),
        T(a_child_of_a_waiting_process_begins_anew),
        T(token_information_is_true),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
