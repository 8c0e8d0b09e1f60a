/* The daemon is not there, ends, is hung, or is locked, in any moment. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Without an answer for longer than this a program is thought to hang. */
#define PROMPT_MS 6000

static void is_prompt(int64_t began, const char *what)
{
    if (now_ms() - began > PROMPT_MS)
        bad("%s takes %ld ms", what, (long)(now_ms() - began));
}
#define PROMPTLY(call)                                                         \
    do {                                                                       \
        int64_t began_ = now_ms();                                             \
        (void)(call);                                                          \
        is_prompt(began_, #call);                                              \
    } while (0)

static void initialize_at(const char *reserved)
{
    CK_C_INITIALIZE_ARGS a = {.flags = CKF_OS_LOCKING_OK,
                              .pReserved = (void *)(uintptr_t)reserved};
    OKAY(p11->C_Initialize(&a));
}

static void shows_a_slot_and_no_session(void)
{
    CK_TOKEN_INFO info;
    CK_SLOT_ID id;
    CK_SESSION_HANDLE s = 7;
    CK_ULONG n = 1;
    PROMPTLY(p11->C_GetSlotList(CK_TRUE, &id, &n));
    CHECK(n == 1);
    OKAY(p11->C_GetTokenInfo(id, &info));
    PROMPTLY(p11->C_OpenSession(id, CKF_SERIAL_SESSION, NULL, NULL, &s));
    s = 7;
    REFUSES(p11->C_OpenSession(id, CKF_SERIAL_SESSION, NULL, NULL, &s));
    CHECK(s == CK_INVALID_HANDLE);
    OKAY(p11->C_Finalize(NULL));
}

static void no_daemon(void)
{
    initialize_at("socket=/nonexistent/hsmint/socket");
    shows_a_slot_and_no_session();
}

static void a_socket_that_is_a_file(void)
{
    initialize_at("socket=/etc/passwd");
    shows_a_slot_and_no_session();
}

static void a_socket_that_is_a_directory(void)
{
    initialize_at("socket=/tmp");
    shows_a_slot_and_no_session();
}

static void each_is_an_error(const char *name, CK_RV rv)
{
    refuses(rv, name);
}

static void daemon_killed_under_a_session(void)
{
    control("kill");
    CK_OBJECT_HANDLE o = 0;
    PROMPTLY(try_mint(session, false, &o));
    CHECK(o == CK_INVALID_HANDLE);
    REFUSES(try_mint(session, true, &o));
    each_function(session, false, each_is_an_error);
    PROMPTLY(p11->C_CloseSession(session));
    PROMPTLY(p11->C_Finalize(NULL));
}

static void daemon_killed_no_sigpipe(void)
{
    struct sigaction now;
    control("kill");
    CK_OBJECT_HANDLE o = 0;
    for (int i = 0; i < 5; i++)
        REFUSES(try_mint(session, false, &o));
    sigaction(SIGPIPE, NULL, &now);
    CHECK(now.sa_handler == SIG_DFL); /* and we are still here */
}

static void mint_again(void)
{
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv = try_mint(session, false, &o);
    if (rv == CKR_USER_NOT_LOGGED_IN) { /* the new one wants to see a PIN */
        OKAY(login(session, ABUSE_PIN));
        OKAY(try_mint(session, false, &o));
    } else {
        gives(CKR_OK, rv, "mint after the restart");
    }
}

static void daemon_restarted(void)
{
    CK_SESSION_INFO info;
    control("restart");
    mint_again();
    OKAY(p11->C_GetSessionInfo(session, &info));
}

static void daemon_restarted_again_and_again(void)
{
    for (int i = 0; i < 4; i++) {
        control("restart");
        mint_again();
    }
}

static void daemon_restarted_amid_a_search(void)
{
    CK_OBJECT_HANDLE list[8];
    CK_ULONG n = 0;
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
    control("restart");
    OKAY(p11->C_FindObjects(session, list, COUNT(list), &n));
    OKAY(p11->C_FindObjectsFinal(session));
    mint_again();
}

static void *mints_for_a_while(void *arg)
{
    (void)arg;
    for (int64_t end = now_ms() + 1500; now_ms() < end;) {
        CK_OBJECT_HANDLE o = 0;
        CK_RV rv = try_mint(session, false, &o);
        if ((rv == CKR_OK) != (o != CK_INVALID_HANDLE))
            bad("mint gives 0x%lx and handle %lu", rv, o);
        if (rv != CKR_OK)
            usleep(10000);
    }
    return NULL;
}

static void *restarts_amid_mints(void *arg)
{
    if ((uintptr_t)arg != 0)
        return mints_for_a_while(arg);
    usleep(300000);
    control("restart");
    return NULL;
}

static void daemon_restarted_amid_mints(void)
{
    in_threads(5, restarts_amid_mints);
    mint_again();
}

/* ---- hung ---- */

static void daemon_hung_slots(void)
{
    CK_TOKEN_INFO info;
    CK_ULONG n = 0;
    control("stop");
    PROMPTLY(p11->C_GetSlotList(CK_TRUE, NULL, &n));
    PROMPTLY(p11->C_GetTokenInfo(slot, &info));
    CHECK(n >= 1);
    PROMPTLY(p11->C_Finalize(NULL));
    PROMPTLY(initialize());
}

static void daemon_hung_open_session(void)
{
    CK_SESSION_HANDLE s = 0;
    control("stop");
    PROMPTLY(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s));
}

static void daemon_hung_close_session(void)
{
    control("stop");
    PROMPTLY(p11->C_CloseSession(session));
}

static void daemon_hung_logout(void)
{
    control("stop");
    PROMPTLY(p11->C_Logout(session));
}

static void daemon_hung_finalize(void)
{
    control("stop");
    PROMPTLY(p11->C_Finalize(NULL));
}

static void daemon_hung_exit(void)
{
    control("stop");
    exit(0);
}

static void *wakes_it(void *arg)
{
    (void)arg;
    usleep(1500000);
    control("continue");
    return NULL;
}

/* A mint may take long; when the daemon goes on, so does it. */
static void daemon_hung_and_woken_amid_a_mint(void)
{
    pthread_t thread;
    CK_OBJECT_HANDLE o = 0;
    control("stop");
    CHECK(pthread_create(&thread, NULL, wakes_it, NULL) == 0);
    OKAY(try_mint(session, false, &o));
    pthread_join(thread, NULL);
}

static void *hangs_in_a_mint(void *arg)
{
    CK_OBJECT_HANDLE o = 0;
    (void)arg;
    (void)try_mint(session, false, &o);
    return NULL;
}

/* The other threads of the program are not held up by one that waits. */
static void daemon_hung_holds_up_one_thread_only(void)
{
    pthread_t thread;
    CK_SESSION_INFO info;
    CK_INFO about;
    control("stop");
    CHECK(pthread_create(&thread, NULL, hangs_in_a_mint, NULL) == 0);
    usleep(200000);
    int64_t began = now_ms();
    OKAY(p11->C_GetSessionInfo(session, &info));
    OKAY(p11->C_GetInfo(&about));
    lease_lives(); /* the key is here */
    CHECK(now_ms() - began < 1000);
    control("continue");
    pthread_join(thread, NULL);
}

static void finalize_amid_a_hung_mint(void)
{
    pthread_t thread;
    control("stop");
    CHECK(pthread_create(&thread, NULL, hangs_in_a_mint, NULL) == 0);
    usleep(200000);
    PROMPTLY(p11->C_Finalize(NULL));
    control("continue");
    pthread_join(thread, NULL);
}

/* ---- locked ---- */

static void daemon_locked(void)
{
    CK_OBJECT_HANDLE o = 0;
    control("lock");
    GIVES(CKR_USER_NOT_LOGGED_IN, try_mint(session, false, &o));
    CHECK(o == CK_INVALID_HANDLE);
    OKAY(login(session, ABUSE_PIN));
    OKAY(try_mint(session, false, &o));
}

#define CASE(f, at, flags)                                                     \
    {                                                                          \
#f, f, at, WITH_DAEMON | (flags)                                       \
    }

static const struct abuse_case cases[] = {
    CASE(no_daemon, AT_LOADED, ONLY_DIRECT),
    CASE(a_socket_that_is_a_file, AT_LOADED, ONLY_DIRECT),
    CASE(a_socket_that_is_a_directory, AT_LOADED, ONLY_DIRECT),
    CASE(daemon_killed_under_a_session, AT_LEASE, ONLY_DIRECT),
    CASE(daemon_killed_no_sigpipe, AT_LEASE, ONLY_DIRECT),
    CASE(daemon_restarted, AT_LEASE, PATIENT),
    CASE(daemon_restarted_again_and_again, AT_LEASE, PATIENT),
    CASE(daemon_restarted_amid_a_search, AT_LEASE, PATIENT),
    CASE(daemon_restarted_amid_mints, AT_LEASE, PATIENT),
    CASE(daemon_hung_slots, AT_INIT, ONLY_DIRECT),
    CASE(daemon_hung_open_session, AT_INIT, ONLY_DIRECT),
    CASE(daemon_hung_close_session, AT_LEASE, ONLY_DIRECT),
    CASE(daemon_hung_logout, AT_LEASE, ONLY_DIRECT),
    CASE(daemon_hung_finalize, AT_LEASE, 0),
    CASE(daemon_hung_exit, AT_LEASE, ONLY_DIRECT),
    CASE(daemon_hung_and_woken_amid_a_mint, AT_LOGIN, 0),
    CASE(daemon_hung_holds_up_one_thread_only, AT_LEASE, ONLY_DIRECT),
    CASE(finalize_amid_a_hung_mint, AT_LEASE, ONLY_DIRECT),
    CASE(daemon_locked, AT_LEASE, 0),
};

const struct abuse_group abuse_daemon = {cases, COUNT(cases)};
