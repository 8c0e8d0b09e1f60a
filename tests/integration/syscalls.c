/* The filters of common/filter.h, from within: test_seccomp.py runs it.
 *
 *   syscalls --list ROLE   the table's rows of that role, as spec/SECCOMP.md
 *                          shows them
 *   syscalls --try ROLE [NAME]  installs the filter; then makes each system call that
 *                          the table does not have, and each that it has with
 *                          other arguments; prints what did not fail as it
 *                          should. With [hsm] syscalls = NAME that one is said
 *                          not to fail: the test can fail
 *   syscalls --more ROLE NAME  installs it with [hsm] syscalls = NAME, makes
 *                          that call and prints its errno
 */
#include "config.h"

#include "common/filter.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS_MAX 512

static const struct {
    const char *name;
    enum filter_role role;
} roles[] = {{"daemon", FILTER_DAEMON},
             {"parent", FILTER_PARENT},
             {"keeper", FILTER_KEEPER}};

/* ---- --list ---- */

static bool is_first(const struct syscall_rule *rule, enum filter_role role)
{
    for (const struct syscall_rule *r = syscall_rules; r < rule; r++)
        if ((r->roles & role) && strcmp(r->name, rule->name) == 0)
            return false;
    return true;
}

static bool is_free(const struct syscall_rule *rule, enum filter_role role)
{
    for (const struct syscall_rule *r = rule; r->name; r++)
        if ((r->roles & role) && strcmp(r->name, rule->name) == 0 &&
            r->check == CHECK_NONE)
            return true;
    return false;
}

static void list(enum filter_role role)
{
    for (const struct syscall_rule *r = syscall_rules; r->name; r++) {
        if (!(r->roles & role) || !is_first(r, role))
            continue;
        printf("%s", r->name);
        const char *before = " (";
        for (const struct syscall_rule *o = r; o->name && !is_free(r, role);
             o++) {
            if (!(o->roles & role) || strcmp(o->name, r->name) != 0)
                continue;
            printf("%s%s", before, o->says);
            before = "; ";
        }
        puts(is_free(r, role) ? "" : ")");
    }
}

/* ---- --try ---- */

static bool is_listed(const char *name, enum filter_role role)
{
    for (const struct syscall_rule *r = syscall_rules; r->name; r++)
        if ((r->roles & role) && strcmp(r->name, name) == 0)
            return true;
    return false;
}

static int complaints;

static void expect(const char *what, long got, int failed, int wanted)
{
    if (got == -1 && failed == wanted)
        return;
    complaints++;
    printf("%s: %ld, %s\n", what, got, strerror(failed));
}

/* Arguments that the kernel itself would refuse, should the filter not. */
static int refuse_unlisted(enum filter_role role)
{
    int tried = 0;
    for (int n = 0; n < CALLS_MAX; n++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, n);
        if (name && !is_listed(name, role)) {
            errno = 0;
            long got = syscall(n, -1L, -1L, -1L, -1L, -1L, -1L);
            expect(name, got, errno, EPERM);
            tried++;
        }
        free(name);
    }
    return tried;
}

#define TRY(wanted, call, ...)                                                 \
    do {                                                                       \
        errno = 0;                                                             \
        long got = syscall(SYS_##call, __VA_ARGS__);                           \
        expect(#call "(" #__VA_ARGS__ ")", got, errno, wanted);                \
    } while (0)

static void refuse_arguments(enum filter_role role)
{
    bool has_child = role == FILTER_PARENT;
    const int writable = PROT_READ | PROT_WRITE;
    void *page = mmap(NULL, 4096, writable, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(EPERM, mmap, 0L, 4096L, (long)(writable | PROT_EXEC),
        (long)(MAP_PRIVATE | MAP_ANONYMOUS), -1L, 0L);
    TRY(EPERM, mprotect, page, 4096L, (long)(PROT_READ | PROT_EXEC));
    TRY(ENOSYS, clone3, 0L, 0L);
    TRY(EPERM, clone, (long)(CLONE_NEWUSER | SIGCHLD), 0L, 0L, 0L, 0L);
    TRY(EPERM, clone, (long)(CLONE_NEWNET | CLONE_THREAD), 0L, 0L, 0L, 0L);
    TRY(EPERM, prctl, (long)PR_SET_PTRACER, -1L, 0L, 0L, 0L);
    TRY(EPERM, prctl, (long)PR_CAPBSET_DROP, 0L, 0L, 0L, 0L);
    TRY(EPERM, prlimit64, (long)getppid(), 7L, 0L, 0L);
    TRY(EPERM, socket, (long)AF_PACKET, (long)SOCK_RAW, 0L);
    TRY(EPERM, socket, (long)AF_VSOCK, (long)SOCK_STREAM, 0L);
    TRY(EPERM, socket, (long)AF_ALG, (long)SOCK_SEQPACKET, 0L);
    TRY(EPERM, socketpair, (long)AF_INET, (long)SOCK_STREAM, 0L, 0L);
    if (!has_child) {
        TRY(EPERM, clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
        TRY(EPERM, tgkill, (long)getppid(), (long)getppid(), 0L);
        TRY(EPERM, prctl, (long)PR_SET_DUMPABLE, 1L, 0L, 0L, 0L);
    }
    if (role == FILTER_DAEMON) {
        TRY(EPERM, ioctl, 0L, (long)TIOCSTI, "x");
        TRY(EPERM, socket, (long)AF_INET, (long)SOCK_STREAM, 0L);
        TRY(EPERM, socket, (long)AF_INET6, (long)SOCK_DGRAM, 0L);
        TRY(EPERM, socket, (long)AF_NETLINK, (long)SOCK_RAW, 0L);
    }
}

/* What has to work still: a filter that refuses everything is no use. */
static void allow_arguments(enum filter_role role)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
        write(pair[0], "x", 1) != 1 || socket(AF_UNIX, SOCK_STREAM, 0) < 0 ||
        syscall(SYS_tgkill, getpid(), gettid(), 0)) {
        complaints++;
        puts("what the table has does not work");
    }
    if (role != FILTER_DAEMON && socket(AF_INET, SOCK_STREAM, 0) < 0) {
        complaints++;
        puts("no network for a keeper");
    }
}

static pthread_barrier_t together;

/* A thread that was there before the filter has it, too. */
static void *early_thread(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&together);
    pthread_barrier_wait(&together);
    TRY(EPERM, ptrace, -1L, -1L, -1L, -1L);
    return NULL;
}

#if defined(__x86_64__)
/* In a child, for it kills: 0 where it does. */
static int foreign_call(void (*make)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        make();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return !WIFSIGNALED(status);
}

static void x32_call(void)
{
    syscall(0x40000000L + SYS_getpid);
}
#endif

static int try_all(enum filter_role role, const struct settings *s)
{
    struct error e = {.code = OK};
    pthread_t early;
    alarm(60);
#if defined(__x86_64__)
    pid_t child = fork();
    if (child == 0) { /* has a filter of its own, as fork() needs to be had */
        if (filter_install(FILTER_PARENT, s, &e))
            _exit(3);
        _exit(foreign_call(x32_call));
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status)
        complaints += puts("a call of a foreign architecture does not kill") > 0;
#endif
    pthread_barrier_init(&together, NULL, 2);
    if (pthread_create(&early, NULL, early_thread, NULL))
        return 3;
    pthread_barrier_wait(&together);
    if (filter_install(role, s, &e)) {
        puts(e.text);
        return 3;
    }
    pthread_barrier_wait(&together);
    pthread_join(early, NULL);
    int tried = refuse_unlisted(role);
    refuse_arguments(role);
    allow_arguments(role);
    printf("%d unlisted calls were tried\n", tried);
    return complaints ? 1 : 0;
}

static int try_more(enum filter_role role, const struct settings *s)
{
    struct error e = {.code = OK};
    if (filter_install(role, s, &e)) {
        puts(e.text);
        return 3;
    }
    errno = 0;
    syscall(seccomp_syscall_resolve_name(s->hsm_syscalls), -1L, -1L, -1L, -1L, -1L, -1L);
    puts(strerror(errno));
    return 0;
}

int main(int argc, char **argv)
{
    struct settings s = {.seccomp = (char[]){"yes"}};
    enum filter_role role = 0;
    for (size_t i = 0; argc > 2 && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(argv[2], roles[i].name) == 0)
            role = roles[i].role;
    if (role && strcmp(argv[1], "--list") == 0) {
        list(role);
        return 0;
    }
    s.hsm_syscalls = argc > 3 ? argv[3] : NULL;
    if (role && strcmp(argv[1], "--try") == 0)
        return try_all(role, &s);
    if (role && argc == 4 && strcmp(argv[1], "--more") == 0)
        return try_more(role, &s);
    fputs("usage: syscalls --list|--try|--more ROLE [NAME]\n", stderr);
    return 2;
}
