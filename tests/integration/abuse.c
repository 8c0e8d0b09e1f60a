/* abuse MODULE direct|proxy|remote [NAME…]: run every case (or those), one
 * TAP line each. ABUSE_CONTROL names a descriptor: lines to the owner of the
 * daemon, who does it and answers with a number. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

CK_FUNCTION_LIST *p11;
void *library;
CK_SLOT_ID slot;
CK_SESSION_HANDLE session;
CK_OBJECT_HANDLE lease;
char key[1024];

static const char *path;
static bool through_p11_kit;
bool remoted;
static int report = -1; /* of the case's process: why it failed */

/* ---- verdicts ---- */

void bad(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n > 0 && write(report, text, strlen(text)) < 0)
        _exit(2);
    _exit(1);
}

void gives(CK_RV want, CK_RV rv, const char *what)
{
    if (rv != want)
        bad("%.300s gives 0x%lx, not 0x%lx", what, rv, want);
}

void refuses(CK_RV rv, const char *what)
{
    if (rv == CKR_OK)
        bad("%.300s succeeds", what);
}

/* ---- the way to a stage ---- */

const char *module_path(void)
{
    return path;
}

void load(void)
{
    CK_C_GetFunctionList get;
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        bad("dlopen: %s", dlerror());
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    if (!get)
        bad("no C_GetFunctionList");
    gives(CKR_OK, get(&p11), "C_GetFunctionList");
}

static bool is_hsmint(CK_SLOT_ID id)
{
    CK_TOKEN_INFO info;
    return p11->C_GetTokenInfo(id, &info) == CKR_OK &&
           memcmp(info.label, "hsmint", 6) == 0;
}

/* Of the slots with a token, which may be others', too. */
static bool choose_slot(CK_ULONG *n)
{
    CK_SLOT_ID list[32];
    *n = COUNT(list);
    gives(CKR_OK, p11->C_GetSlotList(CK_TRUE, list, n), "C_GetSlotList");
    for (CK_ULONG i = 0; i < *n; i++) {
        slot = list[i];
        if (is_hsmint(slot))
            return true;
    }
    return false;
}

/* p11-kit's client says CKR_OK and has no slots at all when its server was not
 * to be reached, which happens on a busy machine. */
CK_RV initialize(void)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    for (int64_t end = now_ms() + 5000;;) {
        CK_ULONG n = 0;
        CK_RV rv = p11->C_Initialize(&args);
        if (rv != CKR_OK || choose_slot(&n))
            return rv;
        if (!remoted || n > 0 || now_ms() > end)
            bad("no slot of hsmint's among %lu", n);
        gives(CKR_OK, p11->C_Finalize(NULL), "C_Finalize");
        usleep(20000);
    }
}

CK_SESSION_HANDLE open_session(CK_FLAGS more)
{
    CK_SESSION_HANDLE s = 0;
    gives(CKR_OK,
          p11->C_OpenSession(slot, CKF_SERIAL_SESSION | more, NULL, NULL, &s),
          "C_OpenSession");
    return s;
}

CK_RV login(CK_SESSION_HANDLE s, const char *pin)
{
    return p11->C_Login(s, CKU_USER, (CK_BYTE *)(uintptr_t)pin, strlen(pin));
}

CK_RV try_mint(CK_SESSION_HANDLE s, bool token, CK_OBJECT_HANDLE *o)
{
    CK_BBOOL keep = token ? CK_TRUE : CK_FALSE;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_GENERIC_SECRET;
    char role[] = ROLE;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)},
                        {CKA_KEY_TYPE, &type, sizeof(type)},
                        {CKA_TOKEN, &keep, sizeof(keep)},
                        {CKA_LABEL, role, strlen(role)}};
    return p11->C_CreateObject(s, t, COUNT(t), o);
}

CK_OBJECT_HANDLE mint(CK_SESSION_HANDLE s, bool token)
{
    CK_OBJECT_HANDLE o = 0;
    gives(CKR_OK, try_mint(s, token, &o), "mint");
    if (o == 0)
        bad("minting gives no handle");
    return o;
}

void to_stage(enum stage stage)
{
    if (stage >= AT_INIT)
        gives(CKR_OK, initialize(), "C_Initialize");
    if (stage >= AT_SESSION)
        session = open_session(CKF_RW_SESSION);
    if (stage >= AT_LOGIN)
        gives(CKR_OK, login(session, ABUSE_PIN), "C_Login");
    if (stage >= AT_LEASE) {
        lease = mint(session, false);
        lease_lives();
    }
}

void lease_lives(void)
{
    CK_ATTRIBUTE a = {CKA_VALUE, key, sizeof(key) - 1};
    gives(CKR_OK, p11->C_GetAttributeValue(session, lease, &a, 1),
          "read the key");
    key[a.ulValueLen] = '\0';
    if (strncmp(key, "sk-", 3) != 0)
        bad("the key is no key");
}

/* ---- helpers ---- */

void *guarded(const void *from, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (len + page - 1) / page * page + page;
    char *map = mmap(NULL, room + page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + room, page, PROT_NONE) != 0)
        bad("no guarded memory");
    char *at = map + room - len;
    if (from)
        memcpy(at, from, len);
    return at;
}

void in_child(void (*run)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        run();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        bad("fork: %s", strerror(errno));
    if (WIFSIGNALED(status))
        bad("the child died by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        _exit(WEXITSTATUS(status)); /* it has told why */
}

void in_threads(size_t n, void *(*run)(void *))
{
    pthread_t threads[64];
    for (size_t i = 0; i < n; i++) {
        if (pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)i) != 0)
            bad("no thread");
    }
    for (size_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

long control(const char *what)
{
    char text[64];
    const char *fd = getenv("ABUSE_CONTROL");
    if (!fd)
        bad("ABUSE_CONTROL is not set");
    int at = atoi(fd);
    int n = snprintf(text, sizeof(text), "%s\n", what);
    if (write(at, text, (size_t)n) != n)
        bad("control: %s", strerror(errno));
    ssize_t got;
    do
        got = read(at, text, sizeof(text) - 1);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        bad("control: no answer to %s", what);
    text[got] = '\0';
    return strtol(text, NULL, 10);
}

void alive_becomes(long n)
{
    long alive = control("alive");
    for (int64_t end = now_ms() + 3000; alive != n && now_ms() < end;) {
        usleep(20000);
        alive = control("alive");
    }
    if (alive != n)
        bad("%ld accounts exist, not %ld", alive, n);
}

int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int open_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        bad("/proc/self/fd: %s", strerror(errno));
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- the runner ---- */

static void run_case(const struct abuse_case *c, int out)
{
    setpgid(0, 0); /* what it forks goes with it */
    report = out;
    load();
    to_stage(c->stage);
    c->run();
    _exit(0);
}

/* Its exit status once it ended; SIGKILL when its time is up. Children that it
 * left behind end as well: one that hangs would keep our output open. */
static bool wait_case(pid_t pid, int limit_ms, int *status)
{
    pid_t ended = 0;
    for (int64_t end = now_ms() + limit_ms; !ended && now_ms() < end;
         usleep(1000))
        ended = waitpid(pid, status, WNOHANG);
    kill(-pid, SIGKILL);
    if (!ended) {
        kill(pid, SIGKILL);
        waitpid(pid, status, 0);
    }
    return ended == pid;
}

static bool verdict(const struct abuse_case *c, unsigned number)
{
    int fds[2], status = 0;
    char text[600] = "";
    if (pipe(fds) != 0)
        return false;
    int64_t began = now_ms();
    pid_t pid = fork();
    if (pid == 0)
        run_case(c, fds[1]);
    close(fds[1]);
    const char *slow = getenv("ABUSE_SLOW"); /* under valgrind */
    int limit = (c->flags & PATIENT ? 30 : 10) * (slow ? atoi(slow) : 1);
    bool ended = wait_case(pid, limit * 1000, &status);
    ssize_t n = ended ? read(fds[0], text, sizeof(text) - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    bool good = ended && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    printf("%sok %u - %s", good ? "" : "not ", number, c->name);
    if (!ended)
        printf(": hangs (over %d s)", limit);
    else if (WIFSIGNALED(status))
        printf(": crashes, signal %d", WTERMSIG(status));
    else if (!good)
        printf(": %s", text);
    printf("\n# %ld ms\n", (long)(now_ms() - began));
    fflush(stdout);
    return good;
}

/* Named, or without any name all; but none that is named with a '-'. */
static bool wanted(const struct abuse_case *c, int argc, char **argv)
{
    bool all = true;
    if (through_p11_kit && c->flags & ONLY_DIRECT)
        return false;
    for (int i = 3; i < argc; i++) {
        bool without = argv[i][0] == '-';
        if (strcmp(argv[i] + without, c->name) == 0)
            return !without;
        all = all && without;
    }
    return all;
}

int main(int argc, char **argv)
{
    static const struct abuse_group *const groups[] = {
        &abuse_calls,   &abuse_objects, &abuse_threads,
        &abuse_process, &abuse_daemon, &abuse_login,
    };
    unsigned number = 0, failed = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: abuse MODULE direct|proxy|remote [[-]NAME...]\n");
        return 2;
    }
    path = argv[1];
    through_p11_kit = strcmp(argv[2], "direct") != 0;
    remoted = strcmp(argv[2], "remote") == 0;
    for (size_t g = 0; g < COUNT(groups); g++) {
        for (size_t i = 0; i < groups[g]->n; i++) {
            const struct abuse_case *c = &groups[g]->cases[i];
            if (!wanted(c, argc, argv))
                continue;
            control("ready"); /* whatever the case before did */
            failed += !verdict(c, ++number);
        }
    }
    printf("1..%u\n", number);
    return failed ? 1 : 0;
}
