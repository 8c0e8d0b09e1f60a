/* Sessions, login and named logins, as the module sees them. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "module/pkcs11/session.h"
#include "tests/unit/p11.h"

#include <pthread.h>

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

/* ---- states, handles ---- */

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
    write_role_and_config(s);
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

/* ---- C_LoginUser, C_SessionCancel ---- */

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

/* What the one identity held is not the next one's to read. */
static void another_name_takes_no_handles_over(void **state)
{
    (void)state;
    fake_second_slot(true);
    CK_SESSION_HANDLE s = logged_in(), lab = 0;
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    CK_ATTRIBUTE a = {CKA_VALUE, NULL, 0};
    CK_ULONG n = 0;
    ok(p11->C_OpenSession(7, CKF_SERIAL_SESSION, NULL, NULL, &lab));
    ok(p11->C_FindObjectsInit(s, NULL, 0));
    ok(login_as(lab, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET));
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjects(s, &o, 1, &n));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, o, &a, 1));
    ok(login_as(s, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, o, &a, 1));
}

struct logging_in {
    CK_SESSION_HANDLE session;
    CK_RV rv;
};

static void *log_in_as_batch(void *arg)
{
    struct logging_in *l = arg;
    l->rv = login_as(l->session, CKU_USER, FAKE_LOGIN, 5, FAKE_SECRET);
    return NULL;
}

/* Its session was closed meanwhile: nobody is logged in, there either. */
static void a_login_without_its_session_is_taken_back(void **state)
{
    (void)state;
    struct logging_in l = {.session = open_session(true)};
    pthread_t thread;
    fake_lose("Login");
    assert_int_equal(pthread_create(&thread, NULL, log_in_as_batch, &l), 0);
    wait_for_call("Login", 1);
    ok(p11->C_CloseSession(l.session));
    fake_go_away();
    fake_come_back();
    pthread_join(thread, NULL);
    gives(CKR_SESSION_HANDLE_INVALID, l.rv);
    assert_string_equal(fake_login(), "");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(sessions),
        T(login),
        T(a_login_that_the_daemon_forgot_can_be_repeated),
        T(states_follow_the_login),
        T(read_only_sessions_change_no_token_object),
        T(a_public_session_sees_public_objects),
        T(handles_are_never_used_again),
        T(login_user_without_a_name_is_login),
        T(a_named_login_goes_to_the_daemon),
        T(odd_names_are_nobodys),
        T(a_named_login_that_is_lost_is_told),
        T(another_name_takes_no_handles_over),
        T(a_login_without_its_session_is_taken_back),
        T(another_name_logs_other_slots_out),
        T(session_cancel_ends_searches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
