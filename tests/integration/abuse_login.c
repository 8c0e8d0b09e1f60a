/* Logging in with what is none: PINs, users and names that lie. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <dlfcn.h>
#include <string.h>

#define CASE(f, at, ...)                                                       \
    {                                                                          \
#f, f, at, 0 __VA_ARGS__                                               \
    }

static void login_with_lying_lengths(void)
{
    CK_BYTE *pin = guarded(ABUSE_PIN, strlen(ABUSE_PIN));
    GIVES(CKR_ARGUMENTS_BAD, p11->C_Login(session, CKU_USER, NULL, 6));
    GIVES(CKR_ARGUMENTS_BAD, p11->C_Login(session, CKU_USER, NULL, ALL_ONES));
    REFUSES(p11->C_Login(session, CKU_USER, pin, HUGE_COUNT));
    REFUSES(p11->C_Login(session, CKU_USER, pin, ALL_ONES));
    OKAY(p11->C_Login(session, CKU_USER, pin, strlen(ABUSE_PIN)));
}

static void login_with_odd_users(void)
{
    for (CK_USER_TYPE user = 2; user < 8; user++)
        REFUSES(
            p11->C_Login(session, user, (CK_BYTE *)(uintptr_t)ABUSE_PIN, 6));
    REFUSES(
        p11->C_Login(session, ALL_ONES, (CK_BYTE *)(uintptr_t)ABUSE_PIN, 6));
    REFUSES(
        p11->C_Login(session, HUGE_COUNT, (CK_BYTE *)(uintptr_t)ABUSE_PIN, 6));
    OKAY(login(session, ABUSE_PIN));
}

static void login_with_odd_pins(void)
{
    static const char zeros[6], binary[] = "271828\0\xff\x1b[2J";
    REFUSES(p11->C_Login(session, CKU_USER, (CK_BYTE *)(uintptr_t)zeros, 6));
    REFUSES(p11->C_Login(session, CKU_USER, (CK_BYTE *)(uintptr_t)binary,
                         sizeof(binary)));
    OKAY(login(session, ABUSE_PIN));
}

static void login_twice(void)
{
    GIVES(CKR_USER_ALREADY_LOGGED_IN, login(session, ABUSE_PIN));
    GIVES(CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
          p11->C_Login(session, CKU_SO, (CK_BYTE *)(uintptr_t)ABUSE_PIN, 6));
    lease_lives();
}

static void login_of_so_beside_a_read_only_session(void)
{
    open_session(0);
    GIVES(CKR_SESSION_READ_ONLY_EXISTS,
          p11->C_Login(session, CKU_SO, (CK_BYTE *)(uintptr_t)ABUSE_PIN, 6));
}

static void read_only_session_beside_so(void)
{
    CK_SESSION_HANDLE s;
    OKAY(p11->C_Login(session, CKU_SO, (CK_BYTE *)(uintptr_t)ABUSE_PIN, 6));
    GIVES(CKR_SESSION_READ_WRITE_SO_EXISTS,
          p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s));
}

/* p11-kit 0.24's client has the functions of 2.40 alone. */
static __typeof__(C_LoginUser) *login_user(void)
{
    __typeof__(C_GetInterface) *get;
    CK_INTERFACE *found = NULL;
    *(void **)&get = dlsym(library, "C_GetInterface");
    if (!get || get(NULL, NULL, &found, 0) != CKR_OK)
        bad("no interface of 3.0");
    return ((struct functions_3_0 *)found->pFunctionList)->C_LoginUser;
}

static void login_by_name_with_lying_lengths(void)
{
    __typeof__(C_LoginUser) *by_name = login_user();
    CK_BYTE *pin = guarded(ABUSE_PIN, strlen(ABUSE_PIN));
    CK_BYTE *name = guarded("alice", 5);
    CK_BYTE zeros[64] = "";
    GIVES(CKR_ARGUMENTS_BAD, by_name(session, CKU_USER, pin, 6, NULL, 5));
    GIVES(CKR_ARGUMENTS_BAD,
          by_name(session, CKU_USER, pin, 6, NULL, ALL_ONES));
    GIVES(CKR_ARGUMENTS_BAD, by_name(session, CKU_USER, NULL, 6, name, 5));
    REFUSES(by_name(session, CKU_USER, pin, ALL_ONES, name, 5));
    REFUSES(by_name(session, CKU_USER, pin, HUGE_COUNT, name, 5));
    REFUSES(by_name(session, CKU_USER, pin, 6, name, ALL_ONES));
    REFUSES(by_name(session, CKU_USER, pin, 6, name, HUGE_COUNT));
    REFUSES(by_name(session, CKU_USER, pin, 6, zeros, sizeof(zeros)));
    REFUSES(by_name(session, CKU_USER, pin, 6, zeros, 5));
    REFUSES(by_name(session, CKU_USER, pin, 6, name, 5));
    REFUSES(by_name(session, CKU_USER, NULL, 0, name, 5));
    REFUSES(by_name(session, ALL_ONES, pin, 6, name, 5));
    GIVES(BAD_SESSION, by_name(ALL_ONES, CKU_USER, pin, 6, name, 5));
    OKAY(by_name(session, CKU_USER, pin, 6, name, 0));
}

static const struct abuse_case cases[] = {
    CASE(login_with_lying_lengths, AT_SESSION),
    CASE(login_with_odd_users, AT_SESSION),
    CASE(login_with_odd_pins, AT_SESSION),
    CASE(login_twice, AT_LEASE),
    CASE(login_of_so_beside_a_read_only_session, AT_SESSION),
    CASE(read_only_session_beside_so, AT_SESSION),
    CASE(login_by_name_with_lying_lengths, AT_SESSION, | ONLY_DIRECT),
};

const struct abuse_group abuse_login = {cases, COUNT(cases)};
