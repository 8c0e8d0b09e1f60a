/* What a host does around the module: forks, loads and unloads it, ends in
 * any way, takes away descriptors, memory, environment; and what the module
 * must leave alone: signals, descriptors, threads. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- fork, in every state ---- */

static void has_nothing(void)
{
    CK_INFO info;
    CK_SESSION_INFO session_info;
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE a = {CKA_VALUE, key, sizeof(key)};
    GIVES(NOT_INIT, p11->C_GetInfo(&info));
    GIVES(NOT_INIT, p11->C_GetSessionInfo(session, &session_info));
    GIVES(NOT_INIT, p11->C_GetAttributeValue(session, lease, &a, 1));
    GIVES(NOT_INIT, try_mint(session, false, &o));
    GIVES(NOT_INIT, p11->C_DestroyObject(session, lease));
    GIVES(NOT_INIT, p11->C_FindObjectsInit(session, NULL, 0));
    GIVES(NOT_INIT, p11->C_Logout(session));
    GIVES(NOT_INIT, p11->C_CloseSession(session));
}

static void starts_anew(void)
{
    OKAY(initialize());
    OKAY(p11->C_Finalize(NULL));
}

static void mints_anew(void)
{
    CK_SESSION_HANDLE parents = session;
    CK_SESSION_INFO info;
    OKAY(initialize());
    GIVES(BAD_SESSION, p11->C_GetSessionInfo(parents, &info));
    session = open_session(CKF_RW_SESSION);
    OKAY(p11->C_GetSessionInfo(session, &info));
    CHECK(info.state == CKS_RW_PUBLIC_SESSION); /* not its parent's login */
    OKAY(login(session, ABUSE_PIN));
    lease = mint(session, false);
    lease_lives();
    OKAY(p11->C_Finalize(NULL));
}

static void finalizes_only(void)
{
    GIVES(NOT_INIT, p11->C_Finalize(NULL));
}

static void exits(void)
{
    exit(0);
}

static void fork_before_initialize(void)
{
    in_child(has_nothing);
    in_child(starts_anew);
    OKAY(initialize());
}

static void fork_after_initialize(void)
{
    CK_INFO info;
    in_child(has_nothing);
    in_child(starts_anew);
    in_child(finalizes_only);
    OKAY(p11->C_GetInfo(&info));
}

static void fork_after_finalize(void)
{
    OKAY(p11->C_Finalize(NULL));
    in_child(has_nothing);
    in_child(mints_anew);
    OKAY(initialize());
}

static void fork_with_a_session(void)
{
    CK_SESSION_INFO info;
    in_child(has_nothing);
    in_child(mints_anew);
    OKAY(p11->C_GetSessionInfo(session, &info));
    OKAY(login(session, ABUSE_PIN));
}

static void fork_with_a_lease(void)
{
    long alive = control("alive");
    in_child(has_nothing);
    in_child(mints_anew);
    lease_lives();
    alive_becomes(alive);
}

static void fork_amid_a_search(void)
{
    CK_OBJECT_HANDLE list[8];
    CK_ULONG n = 0;
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
    in_child(has_nothing);
    in_child(mints_anew);
    OKAY(p11->C_FindObjects(session, list, COUNT(list), &n));
    CHECK(n > 0);
    OKAY(p11->C_FindObjectsFinal(session));
}

static void childs_finalize_revokes_nothing(void)
{
    long alive = control("alive");
    in_child(finalizes_only);
    in_child(mints_anew);
    alive_becomes(alive);
    lease_lives();
}

static void childs_exit_revokes_nothing(void)
{
    long alive = control("alive");
    in_child(exits);
    alive_becomes(alive);
    lease_lives();
}

static void has_a_child_itself(void)
{
    mints_anew();
    OKAY(initialize());
    in_child(mints_anew);
    CK_INFO info;
    OKAY(p11->C_GetInfo(&info));
}

static void grandchildren(void)
{
    in_child(has_a_child_itself);
    lease_lives();
}

static void forks_and_ends(void)
{
    for (int i = 0; i < 5; i++)
        in_child(exits);
}

static void many_children_that_use_nothing(void)
{
    for (int i = 0; i < 20; i++)
        in_child(forks_and_ends);
    lease_lives();
}

static void a_program_is_started(void)
{
    extern char **environ;
    char command[] = "true", *argv[] = {command, NULL};
    pid_t pid;
    int status = 0;
    CHECK(posix_spawnp(&pid, command, NULL, NULL, argv, environ) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(system("exit 0") == 0);
    lease_lives();
}

/* ---- loading, unloading, leaving ---- */

static void unload(void)
{
    dlclose(library);
    p11 = NULL;
}

static void load_and_unload_200_times(void)
{
    unload();
    for (int i = 0; i < 200; i++) {
        load();
        OKAY(p11->C_Initialize(NULL));
        OKAY(p11->C_Finalize(NULL));
        unload();
    }
    load();
    to_stage(AT_LEASE);
}

static void load_and_unload_200_times_without_a_call(void)
{
    unload();
    for (int i = 0; i < 200; i++) {
        load();
        unload();
    }
    load();
    to_stage(AT_LEASE);
}

static void unload_without_finalize(void)
{
    unload();
    load();
    CK_RV rv = p11->C_Initialize(NULL); /* it stayed loaded, or did not */
    CHECK(rv == CKR_OK || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED);
    CK_SESSION_HANDLE s = 0;
    OKAY(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s));
}

static void exit_with_sessions_open(void)
{
    exit(0);
}

static void exit_in_a_thread_with_sessions_open_run(void)
{
    pthread_exit(NULL); /* the main thread ends; the process with it */
}

static void end_of_the_main_thread(void)
{
    in_child(exit_in_a_thread_with_sessions_open_run);
    lease_lives();
}

static void dies_by_sigkill(void)
{
    kill(getpid(), SIGKILL);
}

/* Bound leases go with the process, however it ends. */
static void killed_with_a_lease(void)
{
    long alive = control("alive");
    pid_t pid = fork();
    if (pid == 0) {
        to_stage(AT_LEASE);
        dies_by_sigkill();
    }
    CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    alive_becomes(alive);
}

static void loaded_in_a_namespace_of_its_own(void)
{
    CK_C_GetFunctionList get;
    CK_FUNCTION_LIST *other;
    void *lib = dlmopen(LM_ID_NEWLM, module_path(), RTLD_NOW);
    if (!lib)
        return; /* a sanitizer's library cannot be loaded so */
    *(void **)&get = dlsym(lib, "C_GetFunctionList");
    CHECK(get && get(&other) == CKR_OK);
    OKAY(other->C_Initialize(NULL));
    lease_lives(); /* two modules in a process know nothing of each other */
    OKAY(other->C_Finalize(NULL));
    lease_lives();
}

/* ---- what is left alone ---- */

static void handlers(struct sigaction all[65], sigset_t *mask)
{
    memset(all, 0, 65 * sizeof(all[0]));
    for (int s = 1; s < 65; s++)
        sigaction(s, NULL, &all[s]);
    pthread_sigmask(SIG_SETMASK, NULL, mask);
}

static int threads_of_process(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    CHECK(d != NULL);
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void signals_and_threads_are_left_alone(void)
{
    struct sigaction before[65], after[65];
    sigset_t mask, mask_after;
    handlers(before, &mask);
    int threads = threads_of_process();
    mode_t umask_before = umask(022);
    umask(umask_before);
    load();
    to_stage(AT_LEASE);
    CHECK(threads_of_process() == threads);
    OKAY(p11->C_Finalize(NULL));
    handlers(after, &mask_after);
    for (int s = 1; s < 65; s++)
        CHECK(before[s].sa_handler == after[s].sa_handler &&
              before[s].sa_flags == after[s].sa_flags);
    CHECK(sigismember(&mask, SIGPIPE) == sigismember(&mask_after, SIGPIPE));
    CHECK(memcmp(&mask, &mask_after, sizeof(long)) == 0);
    CHECK(umask(022) == umask_before);
}

static void descriptors_close_on_exec(void)
{
    char name[64];
    struct stat st;
    int seen = 0;
    for (int fd = 3; fd < 256; fd++) {
        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        if (stat(name, &st) != 0 || !S_ISSOCK(st.st_mode))
            continue;
        const char *mine = getenv("ABUSE_CONTROL");
        if (mine && atoi(mine) == fd)
            continue;
        seen++;
        if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
            bad("descriptor %d would go to an executed program", fd);
    }
    CHECK(seen > 0);
}

static void no_descriptor_stays_behind(void)
{
    int before = 0;
    for (int i = 0; i < 1000; i++) {
        if (i == 10)
            before = open_descriptors();
        OKAY(p11->C_Initialize(NULL));
        CK_SESSION_HANDLE s = 0;
        if (i % 50 == 0)
            OKAY(p11->C_OpenSession(slot ? slot : 1, CKF_SERIAL_SESSION, NULL,
                                    NULL, &s));
        OKAY(p11->C_Finalize(NULL));
    }
    CHECK(open_descriptors() == before);
}

static long resident_kb(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    CHECK(f && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void no_memory_stays_behind(void)
{
    long before = 0;
    CK_OBJECT_HANDLE list[8];
    CK_ULONG n;
    for (int i = 0; i < 600; i++) {
        if (i == 200)
            before = resident_kb();
        CK_SESSION_HANDLE s = open_session(0);
        OKAY(p11->C_FindObjectsInit(s, NULL, 0));
        OKAY(p11->C_FindObjects(s, list, COUNT(list), &n));
        REFUSES(p11->C_FindObjectsInit(s, NULL, 0));
        OKAY(p11->C_CloseSession(s));
    }
    CHECK(getenv("ABUSE_SLOW") || resident_kb() - before < 1024);
}

/* ---- what the host takes away ---- */

static void without_standard_descriptors(void)
{
    close(0);
    close(1);
    close(2);
    to_stage(AT_LEASE);
    OKAY(p11->C_Finalize(NULL));
}

static void without_free_descriptors(void)
{
    CK_SESSION_HANDLE s = 0;
    struct rlimit none = {0, 0}, was;
    CK_ULONG n = 0;
    getrlimit(RLIMIT_NOFILE, &was);
    none.rlim_max = was.rlim_max;
    setrlimit(RLIMIT_NOFILE, &none);
    OKAY(p11->C_GetSlotList(CK_TRUE, NULL, &n)); /* the one it knows */
    REFUSES(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s));
    CHECK(s == CK_INVALID_HANDLE);
    setrlimit(RLIMIT_NOFILE, &was);
    to_stage(AT_INIT - 1);
    session = open_session(CKF_RW_SESSION);
    OKAY(login(session, ABUSE_PIN));
    lease = mint(session, false);
    setrlimit(RLIMIT_NOFILE, &none);
    CK_OBJECT_HANDLE o = 0;
    long alive = -1;
    CK_RV rv = try_mint(session, false, &o);
    setrlimit(RLIMIT_NOFILE, &was);
    alive = control("alive");
    if (rv != CKR_OK)
        CHECK(o == CK_INVALID_HANDLE);
    CHECK(alive >= 1);
    lease_lives();
}

static void without_memory(void)
{
    struct rlimit was, none;
    CK_OBJECT_HANDLE o = 0;
    getrlimit(RLIMIT_AS, &was);
    none = was;
    none.rlim_cur = 1; /* no more than it has now */
    setrlimit(RLIMIT_AS, &none);
    setrlimit(RLIMIT_DATA, &none);
    for (int i = 0; i < 50; i++) {
        CK_SESSION_HANDLE s = 0;
        CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s);
        CHECK((rv == CKR_OK) == (s != CK_INVALID_HANDLE));
    }
    CK_RV rv = try_mint(session, false, &o);
    CHECK((rv == CKR_OK) == (o != CK_INVALID_HANDLE));
    setrlimit(RLIMIT_AS, &was);
    setrlimit(RLIMIT_DATA, &was);
    lease_lives();
}

static void without_locked_memory(void)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_MEMLOCK, &none);
    to_stage(AT_LEASE);
}

static void without_a_directory(void)
{
    char name[] = "/tmp/hsmint-abuse-XXXXXX";
    CHECK(mkdtemp(name) && chdir(name) == 0 && rmdir(name) == 0);
    to_stage(AT_LEASE);
}

static void with_a_hostile_environment(void)
{
    setenv("OPENSSL_CONF", "/dev/null/x", 1);
    setenv("SSLKEYLOGFILE", "/tmp/hsmint-abuse-keylog", 1);
    setenv("HTTPS_PROXY", "http://127.0.0.1:1", 1);
    setenv("LC_ALL", "xx_XX.nonsense", 1);
    setenv("TZ", ":/dev/zero", 1);
    umask(0777);
    to_stage(AT_LEASE);
    CHECK(access("/tmp/hsmint-abuse-keylog", F_OK) != 0);
}

/* ---- signals while a call is away ---- */

static volatile sig_atomic_t rang;

static void ring(int s)
{
    (void)s;
    rang++;
}

static void a_storm_of_signals(void)
{
    struct sigaction a = {.sa_handler = ring}; /* no SA_RESTART */
    struct itimerval every = {{0, 500}, {0, 500}}, never = {0};
    CK_OBJECT_HANDLE o = 0;
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (int i = 0; i < 10; i++) {
        OKAY(try_mint(session, false, &o));
        OKAY(p11->C_DestroyObject(session, o));
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(rang > 10);
}

static void with_children_that_nobody_awaits(void)
{
    signal(SIGCHLD, SIG_IGN);
    CK_OBJECT_HANDLE o = 0;
    OKAY(try_mint(session, false, &o));
}

#define CASE(f, at, flags)                                                     \
    {                                                                          \
#f, f, at, flags                                                       \
    }

static const struct abuse_case cases[] = {
    CASE(fork_before_initialize, AT_LOADED, 0),
    CASE(fork_after_initialize, AT_INIT, 0),
    CASE(fork_after_finalize, AT_LEASE, 0),
    CASE(fork_with_a_session, AT_SESSION, 0),
    CASE(fork_with_a_lease, AT_LEASE, 0),
    CASE(fork_amid_a_search, AT_LEASE, 0),
    CASE(childs_finalize_revokes_nothing, AT_LEASE, 0),
    CASE(childs_exit_revokes_nothing, AT_LEASE, 0),
    CASE(grandchildren, AT_LEASE, 0),
    CASE(many_children_that_use_nothing, AT_LEASE, PATIENT),
    CASE(a_program_is_started, AT_LEASE, 0),
    CASE(load_and_unload_200_times, AT_LOADED, PATIENT),
    CASE(load_and_unload_200_times_without_a_call, AT_LOADED, PATIENT),
    CASE(unload_without_finalize, AT_LEASE, 0),
    CASE(exit_with_sessions_open, AT_LEASE, 0),
    CASE(end_of_the_main_thread, AT_LEASE, 0),
    CASE(killed_with_a_lease, AT_LOADED, 0),
    CASE(loaded_in_a_namespace_of_its_own, AT_LEASE, ONLY_DIRECT),
    CASE(signals_and_threads_are_left_alone, AT_LOADED, 0),
    CASE(descriptors_close_on_exec, AT_LEASE, 0),
    CASE(no_descriptor_stays_behind, AT_LOADED, PATIENT | ONLY_DIRECT),
    CASE(no_memory_stays_behind, AT_LOGIN, PATIENT),
    CASE(without_standard_descriptors, AT_LOADED, 0),
    CASE(without_free_descriptors, AT_INIT, ONLY_DIRECT),
    CASE(without_memory, AT_LEASE, ONLY_DIRECT),
    CASE(without_locked_memory, AT_LOADED, 0),
    CASE(without_a_directory, AT_LOADED, 0),
    CASE(with_a_hostile_environment, AT_LOADED, 0),
    CASE(a_storm_of_signals, AT_LEASE, 0),
    CASE(with_children_that_nobody_awaits, AT_LOGIN, 0),
};

const struct abuse_group abuse_process = {cases, COUNT(cases)};
