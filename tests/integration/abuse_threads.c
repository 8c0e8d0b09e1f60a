/* Sixteen threads at once: what may be said in a race is checked, nothing
 * crashes, nothing hangs, and at the end the module still works. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 16
#define FOR_MS 250
#define PATIENCE_MS 60000 /* until the first call succeeds */

static int64_t lasts_ms; /* a race, from its first success on */
static int64_t patience;
static _Atomic int64_t until;
static atomic_uint done; /* calls that were answered with CKR_OK */
static atomic_bool stop;

/* On a busy machine all of a race's time may go by before a thread has run. */
static bool going(void)
{
    if (atomic_load(&stop))
        return false;
    return now_ms() < (atomic_load(&done) == 0 ? patience : atomic_load(&until));
}

static void succeeded(void)
{
    if (atomic_load(&done) == 0)
        atomic_store(&until, now_ms() + lasts_ms);
    atomic_fetch_add(&done, 1);
}

/* In a race with the end of the session or of everything. */
static void may_end(CK_RV rv, const char *what)
{
    if (rv == CKR_OK) {
        succeeded();
        return;
    }
    if (rv != NOT_INIT && rv != BAD_SESSION && rv != CKR_USER_NOT_LOGGED_IN &&
        rv != CKR_OBJECT_HANDLE_INVALID && rv != CKR_OPERATION_ACTIVE &&
        rv != CKR_OPERATION_NOT_INITIALIZED &&
        rv != CKR_USER_ALREADY_LOGGED_IN &&
        rv != CKR_CRYPTOKI_ALREADY_INITIALIZED && rv != CKR_SESSION_CLOSED &&
        /* another thread ended the search */
        (rv != CKR_FUNCTION_CANCELED || strcmp(what, "C_FindObjectsInit") != 0))
        bad("%s gives 0x%lx in a race", what, rv);
}
#define MAY_END(call) may_end((call), #call)

static void race_for(int ms, void *(*run)(void *))
{
    lasts_ms = ms;
    patience = now_ms() + PATIENCE_MS;
    in_threads(THREADS, run);
    if (atomic_load(&done) == 0)
        bad("no call succeeded");
}

static void race(void *(*run)(void *))
{
    race_for(FOR_MS, run);
}

static void still_works(void)
{
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv = p11->C_Finalize(NULL);
    if (rv != CKR_OK && rv != NOT_INIT)
        bad("C_Finalize gives 0x%lx after the race", rv);
    OKAY(initialize());
    session = open_session(CKF_RW_SESSION);
    OKAY(login(session, ABUSE_PIN));
    OKAY(try_mint(session, false, &o));
}

/* ---- what the threads do ---- */

static void *infos(void *arg)
{
    CK_INFO info;
    CK_TOKEN_INFO token;
    CK_SLOT_ID list[64];
    (void)arg;
    while (going()) {
        CK_ULONG n = COUNT(list);
        MAY_END(p11->C_GetInfo(&info));
        MAY_END(p11->C_GetSlotList(CK_TRUE, list, &n));
        MAY_END(p11->C_GetTokenInfo(slot, &token));
        MAY_END(p11->C_GetMechanismList(slot, NULL, &n));
    }
    return NULL;
}

static void *open_and_close(void *arg)
{
    CK_SESSION_INFO info;
    (void)arg;
    while (going()) {
        CK_SESSION_HANDLE s = 0;
        CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s);
        may_end(rv, "C_OpenSession");
        if (rv != CKR_OK)
            continue;
        MAY_END(p11->C_GetSessionInfo(s, &info));
        MAY_END(p11->C_CloseSession(s));
    }
    return NULL;
}

static void *close_the_same(void *arg)
{
    (void)arg;
    if (p11->C_CloseSession(session) == CKR_OK)
        succeeded();
    return NULL;
}

static void *log_in_and_out(void *arg)
{
    (void)arg;
    while (going()) {
        MAY_END(login(session, ABUSE_PIN));
        MAY_END(p11->C_Logout(session));
    }
    return NULL;
}

static void search_in(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE list[64];
    CK_ULONG n = 0;
    CK_RV rv = p11->C_FindObjectsInit(s, NULL, 0);
    may_end(rv, "C_FindObjectsInit");
    MAY_END(p11->C_FindObjects(s, list, COUNT(list), &n));
    if (n > COUNT(list))
        bad("%lu objects for %zu places", n, COUNT(list));
    if (rv == CKR_OK)
        MAY_END(p11->C_FindObjectsFinal(s));
}

static void *search_the_same(void *arg)
{
    (void)arg;
    while (going())
        search_in(session);
    return NULL;
}

static void *search_ones_own(void *arg)
{
    (void)arg;
    CK_SESSION_HANDLE s = open_session(0);
    while (going())
        search_in(s);
    return NULL;
}

static void *read_the_key(void *arg)
{
    (void)arg;
    while (going()) {
        char value[1024];
        CK_ATTRIBUTE a = {CKA_VALUE, value, sizeof(value)};
        CK_RV rv = p11->C_GetAttributeValue(session, lease, &a, 1);
        may_end(rv, "read the key");
        if (rv == CKR_OK && (a.ulValueLen != strlen(key) ||
                             memcmp(value, key, a.ulValueLen) != 0))
            bad("another key was read");
    }
    return NULL;
}

static void *mint_and_destroy(void *arg)
{
    (void)arg;
    while (going()) {
        CK_OBJECT_HANDLE o = 0;
        CK_RV rv = try_mint(session, false, &o);
        may_end(rv, "mint");
        if (rv == CKR_OK)
            MAY_END(p11->C_DestroyObject(session, o));
    }
    return NULL;
}

static void *destroy_the_same(void *arg)
{
    (void)arg;
    CK_RV rv = p11->C_DestroyObject(session, lease);
    may_end(rv, "C_DestroyObject");
    return NULL;
}

static void *set_the_same(void *arg)
{
    char label[8] = "label 0";
    label[6] = (char)('0' + (uintptr_t)arg % 10);
    CK_ATTRIBUTE a = {CKA_LABEL, label, sizeof(label) - 1};
    while (going())
        MAY_END(p11->C_SetAttributeValue(session, lease, &a, 1));
    return NULL;
}

static void *initialize_and_finalize(void *arg)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    (void)arg;
    while (going()) {
        MAY_END(p11->C_Initialize(&args));
        MAY_END(p11->C_Finalize(NULL));
    }
    return NULL;
}

static void nothing(const char *name, CK_RV rv)
{
    /* Without sense none can succeed, but amid another thread's search. */
    if (strncmp(name, "C_FindObjects", 13) != 0)
        refuses(rv, name);
    succeeded();
}

static void *call_everything(void *arg)
{
    while (going())
        each_function(session, !remoted && (uintptr_t)arg % 2, nothing);
    return NULL;
}

static void *(*const work[])(void *) = {
    infos,        open_and_close,   search_the_same, log_in_and_out,
    read_the_key, mint_and_destroy, set_the_same,    call_everything,
};

static void *a_bit_of_all(void *arg)
{
    return work[(uintptr_t)arg % COUNT(work)](arg);
}

/* One thread ends what fifteen use. */
static void *all_but_one_finalizes(void *arg)
{
    if ((uintptr_t)arg != 0)
        return a_bit_of_all(arg);
    while (atomic_load(&done) == 0 && going())
        usleep(1000);
    usleep(FOR_MS * 500);
    OKAY(p11->C_Finalize(NULL));
    return NULL;
}

static void *all_but_one_closes_all(void *arg)
{
    if ((uintptr_t)arg != 0)
        return a_bit_of_all(arg);
    while (going()) {
        usleep(20000);
        OKAY(p11->C_CloseAllSessions(slot));
    }
    return NULL;
}

static void *mint_until_finalized(void *arg)
{
    CK_OBJECT_HANDLE o = 0;
    if ((uintptr_t)arg == 0) {
        while (atomic_load(&done) == 0 && going())
            usleep(1000);
        OKAY(p11->C_Finalize(NULL));
        return NULL;
    }
    while (going()) {
        CK_RV rv = try_mint(session, false, &o);
        may_end(rv, "mint");
        if (rv == NOT_INIT)
            break;
    }
    return NULL;
}

/* ---- cases ---- */

static void threads_ask_infos(void)
{
    race(infos);
}

static void threads_open_and_close(void)
{
    race(open_and_close);
    still_works();
}

static void threads_close_the_same_session(void)
{
    in_threads(THREADS, close_the_same);
    CHECK(atomic_load(&done) == 1);
}

static void threads_log_in_and_out(void)
{
    race(log_in_and_out);
    still_works();
}

static void threads_search_the_same_session(void)
{
    race(search_the_same);
    still_works();
}

static void threads_search_their_own_sessions(void)
{
    race(search_ones_own);
    lease_lives();
}

static void threads_read_the_same_key(void)
{
    race(read_the_key);
    lease_lives();
}

static void threads_mint_and_destroy(void)
{
    long alive = control("alive");
    race(mint_and_destroy);
    lease_lives();
    alive_becomes(alive);
}

static void threads_destroy_the_same_lease(void)
{
    in_threads(THREADS, destroy_the_same);
    CHECK(atomic_load(&done) >= 1);
    GIVES(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(session, lease));
}

static void threads_set_the_same_lease(void)
{
    race(set_the_same);
    lease_lives();
}

static void threads_initialize_and_finalize(void)
{
    race(initialize_and_finalize);
    still_works();
}

static void threads_call_everything(void)
{
    race(call_everything);
    lease_lives();
}

static void threads_do_a_bit_of_all(void)
{
    race(a_bit_of_all);
    still_works();
}

static void finalize_races_all_functions(void)
{
    race(all_but_one_finalizes);
    still_works();
}

static void finalize_races_itself(void)
{
    race(initialize_and_finalize);
    CK_RV rv = p11->C_Finalize(NULL);
    CHECK(rv == CKR_OK || rv == NOT_INIT);
    GIVES(NOT_INIT, p11->C_Finalize(NULL));
}

/* What a mint brings that C_Finalize did not wait for is taken back. */
static void finalize_races_mints(void)
{
    long alive = control("alive") - 1;    /* without the lease of the stage */
    race_for(8000, mint_until_finalized); /* it ends sooner */
    alive_becomes(alive);
}

static void close_all_races_all_functions(void)
{
    race(all_but_one_closes_all);
    still_works();
}

/* A child forked amid the calls of others finds a module to begin anew with. */
static void begin_anew(void)
{
    CK_SESSION_INFO info;
    GIVES(NOT_INIT, p11->C_GetSessionInfo(session, &info));
    OKAY(initialize());
    session = open_session(CKF_RW_SESSION);
    OKAY(login(session, ABUSE_PIN));
    CHECK(mint(session, false) != 0);
    OKAY(p11->C_Finalize(NULL));
}

static void *one_forks(void *arg)
{
    if ((uintptr_t)arg != 0)
        return a_bit_of_all(arg);
    for (int i = 0; i < 8; i++) {
        usleep(20000);
        in_child(begin_anew);
    }
    atomic_store(&stop, true);
    return NULL;
}

static void fork_races_all_functions(void)
{
    lasts_ms = 8000;
    patience = now_ms() + PATIENCE_MS;
    in_threads(8, one_forks);
    still_works();
}

static void *tiny(void *arg)
{
    (void)arg;
    CK_OBJECT_HANDLE o = 0;
    OKAY(try_mint(session, false, &o));
    search_in(session);
    OKAY(p11->C_DestroyObject(session, o));
    return NULL;
}

static void a_thread_with_a_small_stack(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 * 1024);
    CHECK(pthread_create(&thread, &attr, tiny, NULL) == 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
}

static void *cancelled(void *arg)
{
    (void)arg;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    search_in(session);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    pause();
    return NULL;
}

static void a_thread_that_is_cancelled_after_a_call(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancelled, NULL) == 0);
    usleep(100000);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    lease_lives();
}

#define CASE(f, at)                                                            \
    {                                                                          \
#f, f, at, PATIENT                                                     \
    }

static const struct abuse_case cases[] = {
    CASE(threads_ask_infos, AT_INIT),
    CASE(threads_open_and_close, AT_INIT),
    CASE(threads_close_the_same_session, AT_LOGIN),
    CASE(threads_log_in_and_out, AT_SESSION),
    CASE(threads_search_the_same_session, AT_LEASE),
    CASE(threads_search_their_own_sessions, AT_LEASE),
    CASE(threads_read_the_same_key, AT_LEASE),
    CASE(threads_mint_and_destroy, AT_LEASE),
    CASE(threads_destroy_the_same_lease, AT_LEASE),
    CASE(threads_set_the_same_lease, AT_LEASE),
    CASE(threads_initialize_and_finalize, AT_LOADED),
    CASE(threads_call_everything, AT_LEASE),
    CASE(threads_do_a_bit_of_all, AT_LEASE),
    CASE(finalize_races_all_functions, AT_LEASE),
    CASE(finalize_races_itself, AT_LEASE),
    CASE(finalize_races_mints, AT_LEASE),
    CASE(close_all_races_all_functions, AT_LEASE),
    CASE(fork_races_all_functions, AT_LEASE),
    CASE(a_thread_with_a_small_stack, AT_LOGIN),
    CASE(a_thread_that_is_cancelled_after_a_call, AT_LEASE),
};

const struct abuse_group abuse_threads = {cases, COUNT(cases)};
