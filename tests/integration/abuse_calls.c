/* Initialise and finalise, slots, sessions, login: any argument of them; and
 * every function with no sense at all. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <stdlib.h>
#include <string.h>

static const CK_ULONG guesses[] = {0, 0x7fffffffUL, HUGE_COUNT, ALL_ONES,
                                   ALL_ONES - 1};

/* ---- every function ---- */

/* What a call without sense may point to: more than any fixed structure. */
static _Thread_local CK_BYTE scratch[4096];

#define NOWHERE(type) (type)(uintptr_t)(ones ? scratch : NULL)
#define TRY(f, ...) check(#f, p11->f(__VA_ARGS__))

static void sign_and_verify(CK_SESSION_HANDLE s, bool ones,
                            void (*check)(const char *name, CK_RV rv))
{
    CK_BYTE *b = NOWHERE(CK_BYTE *);
    CK_ULONG n = ones ? ALL_ONES : 0, *p = NOWHERE(CK_ULONG *);
    CK_MECHANISM *m = NOWHERE(CK_MECHANISM *);
    TRY(C_SignInit, s, m, n);
    TRY(C_Sign, s, b, n, b, p);
    TRY(C_SignUpdate, s, b, n);
    TRY(C_SignFinal, s, b, p);
    TRY(C_SignRecoverInit, s, m, n);
    TRY(C_SignRecover, s, b, n, b, p);
    TRY(C_VerifyInit, s, m, n);
    TRY(C_Verify, s, b, n, b, n);
    TRY(C_VerifyUpdate, s, b, n);
    TRY(C_VerifyFinal, s, b, n);
    TRY(C_VerifyRecoverInit, s, m, n);
    TRY(C_VerifyRecover, s, b, n, b, p);
    TRY(C_DigestEncryptUpdate, s, b, n, b, p);
    TRY(C_DecryptDigestUpdate, s, b, n, b, p);
    TRY(C_SignEncryptUpdate, s, b, n, b, p);
    TRY(C_DecryptVerifyUpdate, s, b, n, b, p);
}

static void encrypt_and_digest(CK_SESSION_HANDLE s, bool ones,
                               void (*check)(const char *name, CK_RV rv))
{
    CK_BYTE *b = NOWHERE(CK_BYTE *);
    CK_ULONG n = ones ? ALL_ONES : 0, *p = NOWHERE(CK_ULONG *);
    CK_MECHANISM *m = NOWHERE(CK_MECHANISM *);
    TRY(C_EncryptInit, s, m, n);
    TRY(C_Encrypt, s, b, n, b, p);
    TRY(C_EncryptUpdate, s, b, n, b, p);
    TRY(C_EncryptFinal, s, b, p);
    TRY(C_DecryptInit, s, m, n);
    TRY(C_Decrypt, s, b, n, b, p);
    TRY(C_DecryptUpdate, s, b, n, b, p);
    TRY(C_DecryptFinal, s, b, p);
    TRY(C_DigestInit, s, m);
    TRY(C_Digest, s, b, n, b, p);
    TRY(C_DigestUpdate, s, b, n);
    TRY(C_DigestKey, s, n);
    TRY(C_DigestFinal, s, b, p);
}

static void keys_and_state(CK_SESSION_HANDLE s, bool ones,
                           void (*check)(const char *name, CK_RV rv))
{
    CK_BYTE *b = NOWHERE(CK_BYTE *);
    CK_ULONG n = ones ? ALL_ONES : 0, *p = NOWHERE(CK_ULONG *);
    CK_MECHANISM *m = NOWHERE(CK_MECHANISM *);
    CK_ATTRIBUTE *a = NOWHERE(CK_ATTRIBUTE *);
    CK_OBJECT_HANDLE *o = NOWHERE(CK_OBJECT_HANDLE *);
    TRY(C_GenerateKey, s, m, a, n, o);
    TRY(C_GenerateKeyPair, s, m, a, n, a, n, o, o);
    TRY(C_WrapKey, s, m, n, n, b, p);
    TRY(C_UnwrapKey, s, m, n, b, n, a, n, o);
    TRY(C_DeriveKey, s, m, n, a, n, o);
    TRY(C_SetOperationState, s, b, n, n, n);
    TRY(C_GetOperationState, s, b, p);
    TRY(C_InitPIN, s, b, n);
    TRY(C_SetPIN, s, b, n, b, n);
    TRY(C_GetFunctionStatus, s);
    TRY(C_CancelFunction, s);
}

static void objects(CK_SESSION_HANDLE s, bool ones,
                    void (*check)(const char *name, CK_RV rv))
{
    CK_ULONG n = ones ? ALL_ONES : 0, *p = NOWHERE(CK_ULONG *);
    CK_ATTRIBUTE *a = NOWHERE(CK_ATTRIBUTE *);
    CK_OBJECT_HANDLE *o = NOWHERE(CK_OBJECT_HANDLE *);
    TRY(C_CreateObject, s, a, n, o);
    TRY(C_CopyObject, s, n, a, n, o);
    TRY(C_DestroyObject, s, n);
    TRY(C_GetObjectSize, s, n, p);
    TRY(C_GetAttributeValue, s, n, a, n);
    TRY(C_SetAttributeValue, s, n, a, n);
    TRY(C_FindObjects, s, o, ones ? 1 : 0, p);
    TRY(C_FindObjectsFinal, s);
    /* A NULL PIN of a user is none: it asks the daemon for its own. */
    TRY(C_Login, s, ones ? n : CKU_CONTEXT_SPECIFIC, NOWHERE(CK_BYTE *), n);
}

void each_function(CK_SESSION_HANDLE s, bool ones,
                   void (*check)(const char *name, CK_RV rv))
{
    objects(s, ones, check);
    keys_and_state(s, ones, check);
    encrypt_and_digest(s, ones, check);
    sign_and_verify(s, ones, check);
}

static void is_an_error(const char *name, CK_RV rv)
{
    refuses(rv, name);
}

static void says_not_initialized(const char *name, CK_RV rv)
{
    gives(NOT_INIT, rv, name);
}

static void says_bad_session(const char *name, CK_RV rv)
{
    gives(BAD_SESSION, rv, name);
}

static void without_a_session(void)
{
    CK_INFO info;
    CK_SLOT_INFO slot_info;
    CK_TOKEN_INFO token;
    CK_ULONG n = 0;
    GIVES(NOT_INIT, p11->C_GetInfo(&info));
    GIVES(NOT_INIT, p11->C_GetSlotList(CK_TRUE, NULL, &n));
    GIVES(NOT_INIT, p11->C_GetSlotInfo(1, &slot_info));
    GIVES(NOT_INIT, p11->C_GetTokenInfo(1, &token));
    GIVES(NOT_INIT, p11->C_GetMechanismList(1, NULL, &n));
    GIVES(NOT_INIT, p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &n));
    GIVES(NOT_INIT, p11->C_CloseSession(1));
    GIVES(NOT_INIT, p11->C_CloseAllSessions(1));
    GIVES(NOT_INIT, p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &n, NULL));
    GIVES(NOT_INIT, p11->C_InitToken(1, NULL, 0, NULL));
    GIVES(NOT_INIT, p11->C_FindObjectsInit(1, NULL, 0));
    GIVES(NOT_INIT, p11->C_Logout(1));
    GIVES(NOT_INIT, p11->C_SeedRandom(1, NULL, 0));
    GIVES(NOT_INIT, p11->C_GenerateRandom(1, NULL, 0));
    each_function(1, false, says_not_initialized);
    each_function(ALL_ONES, true, says_not_initialized);
}

static void every_function_before_initialize(void)
{
    without_a_session();
}

static void every_function_after_finalize(void)
{
    OKAY(p11->C_Finalize(NULL));
    without_a_session();
}

static void every_function_with_zeros(void)
{
    each_function(session, false, is_an_error);
}

static void every_function_with_all_ones(void)
{
    memset(scratch, 0xff, sizeof(scratch));
    each_function(session, true, is_an_error);
}

static void every_function_with_zeros_logged_in(void)
{
    each_function(session, false, is_an_error);
    lease_lives();
}

static void every_function_with_all_ones_logged_in(void)
{
    memset(scratch, 0xff, sizeof(scratch));
    each_function(session, true, is_an_error);
    lease_lives();
}

static void every_function_with_guessed_sessions(void)
{
    for (size_t i = 0; i < COUNT(guesses); i++)
        each_function(guesses[i], false, says_bad_session);
    each_function(session + 1, false, says_bad_session);
    each_function(session + HUGE_COUNT, false, says_bad_session);
}

static void every_function_on_a_closed_session(void)
{
    OKAY(p11->C_CloseSession(session));
    each_function(session, false, says_bad_session);
    GIVES(BAD_SESSION, p11->C_Logout(session));
    GIVES(BAD_SESSION, p11->C_FindObjectsInit(session, NULL, 0));
    GIVES(BAD_SESSION, p11->C_GenerateRandom(session, scratch, 8));
}

/* ---- initialise, finalise ---- */

static CK_RV mutex_new(void **m)
{
    *m = scratch;
    return CKR_OK;
}

static CK_RV mutex_use(void *m)
{
    (void)m;
    return CKR_OK;
}

static void initialize_without_arguments(void)
{
    OKAY(p11->C_Initialize(NULL));
    OKAY(p11->C_Finalize(NULL));
}

static void initialize_with_some_mutexes(void)
{
    CK_C_INITIALIZE_ARGS a = {.CreateMutex = mutex_new};
    GIVES(CKR_ARGUMENTS_BAD, p11->C_Initialize(&a));
    a = (CK_C_INITIALIZE_ARGS){.LockMutex = mutex_use,
                               .flags = CKF_OS_LOCKING_OK};
    GIVES(CKR_ARGUMENTS_BAD, p11->C_Initialize(&a));
    OKAY(p11->C_Initialize(NULL)); /* nothing was left behind */
}

static void initialize_with_mutexes_alone(void)
{
    CK_C_INITIALIZE_ARGS a = {mutex_new, mutex_use, mutex_use,
                              mutex_use, 0,         NULL};
    GIVES(CKR_CANT_LOCK, p11->C_Initialize(&a));
    a.flags = CKF_OS_LOCKING_OK;
    OKAY(p11->C_Initialize(&a));
}

static void initialize_with_a_bad_reserved(void)
{
    static const char *const texts[] = {"nonsense",  "socket",
                                        "socket=",   "socket=relative",
                                        "SOCKET=/x", "socket=/a\nsocket=/b"};
    for (size_t i = 0; i + 1 < COUNT(texts); i++) {
        CK_C_INITIALIZE_ARGS a = {.pReserved =
                                      guarded(texts[i], strlen(texts[i]) + 1)};
        GIVES(CKR_ARGUMENTS_BAD, p11->C_Initialize(&a));
    }
    OKAY(p11->C_Initialize(NULL));
}

static void initialize_with_a_long_socket(void)
{
    char text[8192] = "socket=/";
    CK_SESSION_HANDLE s;
    memset(text + 8, 'x', sizeof(text) - 9);
    CK_C_INITIALIZE_ARGS a = {.pReserved = text};
    if (p11->C_Initialize(&a) == CKR_OK)
        REFUSES(p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &s));
}

static void initialize_with_unknown_flags(void)
{
    CK_C_INITIALIZE_ARGS a = {.flags = ALL_ONES};
    CK_RV rv = p11->C_Initialize(&a);
    CHECK(rv == CKR_OK || rv == CKR_ARGUMENTS_BAD ||
          rv == CKR_NEED_TO_CREATE_THREADS);
    if (rv == CKR_OK)
        OKAY(p11->C_Finalize(NULL));
}

static void initialize_twice(void)
{
    GIVES(CKR_CRYPTOKI_ALREADY_INITIALIZED, p11->C_Initialize(NULL));
    lease_lives();
}

static void finalize_with_an_argument(void)
{
    GIVES(CKR_ARGUMENTS_BAD, p11->C_Finalize(scratch));
    lease_lives();
}

static void finalize_without_initialize(void)
{
    GIVES(NOT_INIT, p11->C_Finalize(NULL));
}

static void finalize_twice(void)
{
    OKAY(p11->C_Finalize(NULL));
    GIVES(NOT_INIT, p11->C_Finalize(NULL));
}

static void finalize_ends_the_bound_lease(void)
{
    long alive = control("alive");
    OKAY(p11->C_Finalize(NULL));
    alive_becomes(alive - 1);
}

static void function_list_nowhere(void)
{
    GIVES(CKR_ARGUMENTS_BAD, p11->C_GetFunctionList(NULL));
}

/* ---- slots, token, mechanisms ---- */

static void info_nowhere(void)
{
    REFUSES(p11->C_GetInfo(NULL));
    REFUSES(p11->C_GetSlotInfo(slot, NULL));
    REFUSES(p11->C_GetTokenInfo(slot, NULL));
    REFUSES(p11->C_GetMechanismInfo(slot, CKM_GENERIC_SECRET_KEY_GEN, NULL));
    REFUSES(p11->C_GetSlotList(CK_TRUE, NULL, NULL));
    REFUSES(p11->C_GetMechanismList(slot, NULL, NULL));
}

static void info_at_a_page_edge(void)
{
    CK_ULONG n = 0;
    OKAY(p11->C_GetInfo(guarded(NULL, sizeof(CK_INFO))));
    OKAY(p11->C_GetSlotInfo(slot, guarded(NULL, sizeof(CK_SLOT_INFO))));
    OKAY(p11->C_GetTokenInfo(slot, guarded(NULL, sizeof(CK_TOKEN_INFO))));
    OKAY(p11->C_GetSlotList(CK_TRUE, NULL, &n));
    CK_SLOT_ID *slots = guarded(NULL, n * sizeof(*slots));
    OKAY(p11->C_GetSlotList(CK_TRUE, slots, &n));
    OKAY(p11->C_GetMechanismList(slot, NULL, &n));
    CK_MECHANISM_TYPE *types = guarded(NULL, n * sizeof(*types));
    OKAY(p11->C_GetMechanismList(slot, types, &n));
}

static void slot_list_too_short(void)
{
    CK_ULONG n = 0;
    OKAY(p11->C_GetSlotList(CK_TRUE, NULL, &n));
    CHECK(n > 0);
    CK_ULONG room = n - 1;
    CK_SLOT_ID *list = guarded(NULL, room * sizeof(*list));
    if (room == 0)
        list = guarded(NULL, 0); /* a pointer, yet no room */
    GIVES(CKR_BUFFER_TOO_SMALL, p11->C_GetSlotList(CK_TRUE, list, &room));
    CHECK(room == n);
}

static void slot_list_with_odd_present(void)
{
    CK_ULONG n = 0;
    OKAY(p11->C_GetSlotList(0xff, NULL, &n));
    CHECK(n > 0 && n < 64);
}

static void mechanism_list_too_short(void)
{
    CK_ULONG n = 0;
    GIVES(CKR_BUFFER_TOO_SMALL,
          p11->C_GetMechanismList(slot, guarded(NULL, 0), &n));
    CHECK(n >= 1);
}

static void guessed_slots(void)
{
    CK_ULONG n = 0;
    for (size_t i = 0; i < COUNT(guesses); i++) {
        CK_SLOT_ID id = guesses[i];
        GIVES(CKR_SLOT_ID_INVALID, p11->C_GetSlotInfo(id, (void *)scratch));
        GIVES(CKR_SLOT_ID_INVALID, p11->C_GetTokenInfo(id, (void *)scratch));
        GIVES(CKR_SLOT_ID_INVALID, p11->C_GetMechanismList(id, NULL, &n));
        GIVES(CKR_SLOT_ID_INVALID,
              p11->C_OpenSession(id, CKF_SERIAL_SESSION, NULL, NULL, &n));
        GIVES(CKR_SLOT_ID_INVALID, p11->C_CloseAllSessions(id));
        REFUSES(p11->C_InitToken(id, scratch, 8, scratch));
    }
}

static void guessed_mechanisms(void)
{
    CK_MECHANISM_INFO info;
    for (size_t i = 0; i < COUNT(guesses); i++)
        GIVES(CKR_MECHANISM_INVALID,
              p11->C_GetMechanismInfo(slot, guesses[i], &info));
    GIVES(CKR_MECHANISM_INVALID,
          p11->C_GetMechanismInfo(slot, CKM_RSA_PKCS, &info));
}

static void init_token(void)
{
    CK_UTF8CHAR label[32];
    memset(label, ' ', sizeof(label));
    REFUSES(p11->C_InitToken(slot, (CK_BYTE *)(uintptr_t) "314159", 6, label));
    REFUSES(p11->C_InitToken(slot, NULL, ALL_ONES, NULL));
    lease_lives();
}

static void slot_events(void)
{
    CK_SLOT_ID id;
    GIVES(CKR_NO_EVENT, p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &id, NULL));
    REFUSES(p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL));
    REFUSES(p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &id, scratch));
    REFUSES(p11->C_WaitForSlotEvent(ALL_ONES, NULL, scratch));
}

/* ---- sessions ---- */

static void session_nowhere(void)
{
    REFUSES(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, NULL));
    REFUSES(p11->C_GetSessionInfo(session, NULL));
}

static void session_flags(void)
{
    CK_SESSION_HANDLE s = 0;
    GIVES(CKR_SESSION_PARALLEL_NOT_SUPPORTED,
          p11->C_OpenSession(slot, 0, NULL, NULL, &s));
    GIVES(CKR_SESSION_PARALLEL_NOT_SUPPORTED,
          p11->C_OpenSession(slot, CKF_RW_SESSION, NULL, NULL, &s));
    if (p11->C_OpenSession(slot, ALL_ONES, scratch, NULL, &s) == CKR_OK)
        OKAY(p11->C_CloseSession(s));
}

static void session_closed_twice(void)
{
    OKAY(p11->C_CloseSession(session));
    GIVES(BAD_SESSION, p11->C_CloseSession(session));
    OKAY(p11->C_CloseAllSessions(slot));
    OKAY(p11->C_CloseAllSessions(slot));
}

static void session_handles_are_not_used_again(void)
{
    CK_SESSION_HANDLE first = session;
    OKAY(p11->C_CloseSession(session));
    for (int i = 0; i < 100; i++) {
        CK_SESSION_HANDLE s = open_session(0);
        CHECK(s != first);
        OKAY(p11->C_CloseSession(s));
    }
}

static void session_handles_after_finalize(void)
{
    CK_SESSION_HANDLE old = session;
    CK_SESSION_INFO info;
    OKAY(p11->C_Finalize(NULL));
    OKAY(initialize());
    GIVES(BAD_SESSION, p11->C_GetSessionInfo(old, &info));
    session = open_session(0);
    CHECK(session != old);
}

static void sessions_without_end(void)
{
    static CK_SESSION_HANDLE s[5000];
    size_t n = 0;
    CK_RV rv = CKR_OK;
    while (n < COUNT(s) && rv == CKR_OK)
        rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s[n++]);
    GIVES(CKR_SESSION_COUNT, rv);
    OKAY(p11->C_CloseAllSessions(slot));
    GIVES(BAD_SESSION, p11->C_CloseSession(s[0]));
    session = open_session(CKF_RW_SESSION);
}

static void read_only_sessions_write_nothing(void)
{
    CK_SESSION_HANDLE s = open_session(0);
    CK_OBJECT_HANDLE o = 0;
    GIVES(CKR_SESSION_READ_ONLY, try_mint(s, true, &o));
    CHECK(o == CK_INVALID_HANDLE);
    OKAY(try_mint(s, false, &o)); /* a session object is its own */
    OKAY(p11->C_CloseSession(s));
    lease_lives();
}

static void logout_without_login(void)
{
    GIVES(CKR_USER_NOT_LOGGED_IN, p11->C_Logout(session));
    OKAY(login(session, ABUSE_PIN));
    OKAY(p11->C_Logout(session));
    GIVES(CKR_USER_NOT_LOGGED_IN, p11->C_Logout(session));
}

static void logout_takes_the_lease(void)
{
    CK_ATTRIBUTE a = {CKA_VALUE, key, sizeof(key)};
    long alive = control("alive");
    OKAY(p11->C_Logout(session));
    GIVES(CKR_OBJECT_HANDLE_INVALID,
          p11->C_GetAttributeValue(session, lease, &a, 1));
    alive_becomes(alive - 1);
    OKAY(login(session, ABUSE_PIN));
    GIVES(CKR_OBJECT_HANDLE_INVALID,
          p11->C_GetAttributeValue(session, lease, &a, 1));
}

static void closing_the_last_session_logs_out(void)
{
    CK_OBJECT_HANDLE o = 0;
    OKAY(p11->C_CloseSession(session));
    session = open_session(CKF_RW_SESSION);
    GIVES(CKR_USER_NOT_LOGGED_IN, try_mint(session, false, &o));
}

static void random_bytes(void)
{
    REFUSES(p11->C_GenerateRandom(session, NULL, 8));
    REFUSES(p11->C_GenerateRandom(session, NULL, ALL_ONES));
    REFUSES(p11->C_SeedRandom(session, NULL, 8));
    REFUSES(p11->C_SeedRandom(session, NULL, ALL_ONES));
    CK_RV rv = p11->C_GenerateRandom(session, guarded(NULL, 13), 13);
    CHECK(rv == CKR_OK || rv == CKR_RANDOM_NO_RNG);
}

#define CASE(f, at, ...)                                                       \
    {                                                                          \
#f, f, at, 0 __VA_ARGS__                                               \
    }

static const struct abuse_case cases[] = {
    CASE(every_function_before_initialize, AT_LOADED),
    CASE(every_function_after_finalize, AT_LEASE),
    CASE(every_function_with_zeros, AT_SESSION),
    CASE(every_function_with_all_ones, AT_SESSION),
    CASE(every_function_with_zeros_logged_in, AT_LEASE),
    CASE(every_function_with_all_ones_logged_in, AT_LEASE),
    CASE(every_function_with_guessed_sessions, AT_LEASE),
    CASE(every_function_on_a_closed_session, AT_LEASE),
    CASE(initialize_without_arguments, AT_LOADED),
    CASE(initialize_with_some_mutexes, AT_LOADED),
    CASE(initialize_with_mutexes_alone, AT_LOADED),
    CASE(initialize_with_a_bad_reserved, AT_LOADED, | ONLY_DIRECT),
    CASE(initialize_with_a_long_socket, AT_LOADED, | ONLY_DIRECT),
    CASE(initialize_with_unknown_flags, AT_LOADED),
    CASE(initialize_twice, AT_LEASE, | ONLY_DIRECT),
    CASE(finalize_with_an_argument, AT_LEASE),
    CASE(finalize_without_initialize, AT_LOADED),
    CASE(finalize_twice, AT_LEASE),
    CASE(finalize_ends_the_bound_lease, AT_LEASE),
    CASE(function_list_nowhere, AT_LOADED),
    CASE(info_nowhere, AT_INIT),
    CASE(info_at_a_page_edge, AT_INIT),
    CASE(slot_list_too_short, AT_INIT),
    CASE(slot_list_with_odd_present, AT_INIT),
    CASE(mechanism_list_too_short, AT_INIT),
    CASE(guessed_slots, AT_LEASE),
    CASE(guessed_mechanisms, AT_INIT),
    CASE(init_token, AT_LEASE),
    CASE(slot_events, AT_INIT),
    CASE(session_nowhere, AT_SESSION),
    CASE(session_flags, AT_INIT),
    CASE(session_closed_twice, AT_SESSION),
    CASE(session_handles_are_not_used_again, AT_SESSION),
    CASE(session_handles_after_finalize, AT_SESSION),
    CASE(sessions_without_end, AT_SESSION),
    CASE(read_only_sessions_write_nothing, AT_LEASE),
    CASE(logout_without_login, AT_SESSION),
    CASE(logout_takes_the_lease, AT_LEASE),
    CASE(closing_the_last_session_logs_out, AT_LOGIN),
    CASE(random_bytes, AT_SESSION),
};

const struct abuse_group abuse_calls = {cases, COUNT(cases)};
