/* A process that forks, and a daemon that goes away or hangs. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/unit/p11.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_child_owns_nothing_of_its_parents),
        T(a_call_cut_by_a_restart_mints_once),
        T(a_daemon_that_stays_away_is_an_error),
        T(deadlines_are_configured),
        T(bad_settings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
