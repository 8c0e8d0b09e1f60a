/* Preloaded into daemon and keeper: stops a thread at a named step of a call to
 * the service, so that a test can end a process right there; and lets one write
 * or fsync of the store, or one allocation, fail.
 *
 * The step is told from what the thread says and writes: the frames between
 * daemon and keeper (their verb, and the method in sign-call's head), and what
 * goes to the store's files. A page that STOPAT names is shared with the test;
 * its layout is that of stopat.py. */
#define _GNU_SOURCE
#include "common/frame.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

/* In the order in which a call passes them: stopat.py has the same. */
enum step {
    STEP_NONE,
    STEP_SIGN,   /* the daemon is about to ask for a signature */
    STEP_SIGNED, /* it has it */
    STEP_INTENT_WRITE, /* the first piece of the intent is written */
    STEP_INTENT_SYNC,  /* all of it, but not synced */
    STEP_INTENT,       /* it is durable */
    STEP_EXECUTE,      /* the daemon is about to have it sent */
    STEP_EXECUTED,     /* it has the answer */
    STEP_OUTCOME_WRITE,
    STEP_OUTCOME_SYNC,
    STEP_OUTCOME,
    STEP_ANSWER, /* the daemon is about to answer its caller */
    STEP_KEEPER_SIGN, /* the keeper got what to sign */
    STEP_KEEPER_SIGNED,
    STEP_KEEPER_EXECUTE,
    STEP_KEEPER_EXECUTED, /* it has the service's answer */
    /* Of the verb that the page names: */
    STEP_ASK,         /* the daemon is about to ask the keeper */
    STEP_KEEPER_ASKED,
    STEP_KEEPER_DONE, /* it is about to answer */
    STEP_ANSWERED,    /* the daemon has the answer */
};

struct page {
    _Atomic int32_t step;    /* where to stop; 0: nowhere */
    _Atomic int32_t method;  /* of which calls: 'P', 'D', 'G'; 0: any */
    _Atomic int32_t skip;    /* so many pass first */
    _Atomic int32_t stopped; /* the process that waits there */
    _Atomic int32_t go;      /* set by the test */
    _Atomic int32_t fail;    /* what fails: 'w', 's', 'm'; 0: nothing */
    _Atomic int32_t nth;     /* from 1: which one */
    _Atomic int32_t seen;    /* how many there were */
    _Atomic int32_t error;   /* errno of it; < 0: the process ends there */
    _Atomic int32_t failed;  /* how many failed */
    _Atomic int32_t verb;    /* of the last four steps */
};

struct frame_header { /* spec/KEEPER.md */
    uint32_t magic;
    uint16_t verb, status;
    uint32_t head_len, body_len;
};

static struct page *page;
static bool is_keeper;
static _Atomic int last_method; /* in the keeper, whose threads differ */
/* Where this thread's call is. */
static __thread enum step at;
static __thread int method;
static __thread int verb; /* of this thread's last frame */
/* The daemon's last call that is about to commit. The store's writer, which
 * commits for others, speaks to no keeper: it is at the step of that one. */
static _Atomic int shared_at, shared_method;

static void *next_of(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("STOPAT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    char name[64] = "";
    int comm;

    if (fd < 0)
        return;
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        page = NULL;
    comm = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    if (comm >= 0 && read(comm, name, sizeof(name) - 1) > 0)
        is_keeper = strncmp(name, "hsmint-keeper", 13) == 0;
    if (comm >= 0)
        close(comm);
}

/* ---- stopping ---- */

static void wait_to_go(void)
{
    atomic_store(&page->stopped, (int32_t)getpid());
    while (!atomic_load(&page->go))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void reach(enum step step)
{
    int32_t want, expected = step;

    if (!page || atomic_load(&page->step) != (int32_t)step)
        return;
    want = atomic_load(&page->method);
    if (want && want != (is_keeper ? atomic_load(&last_method) : method))
        return;
    if (atomic_fetch_sub(&page->skip, 1) > 0)
        return;
    if (atomic_compare_exchange_strong(&page->step, &expected, STEP_NONE))
        wait_to_go();
}

static void reach_verb(enum step step)
{
    if (page && verb && verb == atomic_load(&page->verb))
        reach(step);
}

static void note_method(const char *head, size_t len)
{
    static const char member[] = "\"method\"";
    const char *p = memmem(head, len, member, sizeof(member) - 1);
    const char *end = head + len;

    if (p)
        for (p += sizeof(member) - 1; p < end; p++)
            if (*p >= 'A' && *p <= 'Z')
                break;
    method = p && p < end ? *p : 0;
    atomic_store(&last_method, method);
}

/* A whole frame, or a message for a client. */
static void going_out(const struct msghdr *m)
{
    const struct iovec *v = m->msg_iov;
    const struct frame_header *h = v->iov_base;

    if (!is_keeper && v->iov_len && *(const char *)v->iov_base == '{') {
        reach(STEP_ANSWER);
        return;
    }
    if (v->iov_len != sizeof(*h) || h->magic != FRAME_MAGIC)
        return;
    if (is_keeper) {
        reach_verb(STEP_KEEPER_DONE);
        if (at)
            reach(at == STEP_KEEPER_SIGN ? STEP_KEEPER_SIGNED
                                         : STEP_KEEPER_EXECUTED);
        at = STEP_NONE;
        return;
    }
    verb = h->verb;
    reach_verb(STEP_ASK);
    at = h->verb == VERB_SIGN_CALL ? STEP_SIGN
         : h->verb == VERB_EXECUTE ? STEP_EXECUTE
                                   : STEP_NONE;
    if (at == STEP_SIGN && m->msg_iovlen > 1)
        note_method(v[1].iov_base, v[1].iov_len);
    if (at)
        reach(at);
}

/* The daemon looks at a reply, whose verb does not matter; the keeper at a
 * request. */
static void came_in(const struct msghdr *m, size_t n)
{
    const struct frame_header *h = m->msg_iov->iov_base;

    if (n < sizeof(*h) || h->magic != FRAME_MAGIC)
        return;
    if (!is_keeper) {
        reach_verb(STEP_ANSWERED);
        at = at == STEP_SIGN      ? STEP_SIGNED
             : at == STEP_EXECUTE ? STEP_EXECUTED
                                  : at;
        if (at == STEP_SIGNED || at == STEP_EXECUTED) {
            reach(at);
            atomic_store(&shared_method, method);
            atomic_store(&shared_at, at);
        }
        return;
    }
    verb = h->verb;
    reach_verb(STEP_KEEPER_ASKED);
    at = h->verb == VERB_SIGN_CALL ? STEP_KEEPER_SIGN
         : h->verb == VERB_EXECUTE ? STEP_KEEPER_EXECUTE
                                   : STEP_NONE;
    if (at == STEP_KEEPER_SIGN)
        note_method((const char *)(h + 1), n - sizeof(*h));
    if (at)
        reach(at);
}

VISIBLE ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);

    if (!real)
        *(void **)&real = next_of("sendmsg");
    if (m->msg_iovlen)
        going_out(m);
    return real(fd, m, flags);
}

VISIBLE ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    ssize_t n;

    if (!real)
        *(void **)&real = next_of("recvmsg");
    n = real(fd, m, flags);
    if (n > 0)
        came_in(m, (size_t)n);
    return n;
}

/* ---- failing ---- */

static bool fails(int what)
{
    int32_t expected = what;

    if (!page || atomic_load(&page->fail) != what)
        return false;
    if (atomic_fetch_add(&page->seen, 1) + 1 != atomic_load(&page->nth))
        return false;
    if (!atomic_compare_exchange_strong(&page->fail, &expected, 0))
        return false;
    atomic_fetch_add(&page->failed, 1);
    if (atomic_load(&page->error) < 0)
        _exit(1);
    errno = atomic_load(&page->error);
    return true;
}

/* The C library's own: dlsym() may allocate. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);

VISIBLE void *malloc(size_t n)
{
    return !is_keeper && fails('m') ? NULL : __libc_malloc(n);
}

VISIBLE void *calloc(size_t n, size_t size)
{
    return !is_keeper && fails('m') ? NULL : __libc_calloc(n, size);
}

/* ---- the store's files ---- */

static bool is_store(int fd)
{
    char link[32], path[512];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return strstr(path, "/store.db") != NULL;
}

static bool watches_files(void)
{
    return page && !is_keeper &&
           (atomic_load(&page->step) || atomic_load(&page->fail));
}

static void reach_commit(enum step intent, enum step outcome)
{
    enum step now = at;

    if (!now) {
        now = (enum step)atomic_load(&shared_at);
        method = atomic_load(&shared_method);
    }
    if (now == STEP_SIGNED)
        reach(intent);
    if (now == STEP_EXECUTED)
        reach(outcome);
}

VISIBLE ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at_byte)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    bool ours = watches_files() && is_store(fd);
    ssize_t n;

    if (!real)
        *(void **)&real = next_of("pwrite64");
    if (ours && fails('w'))
        return -1;
    n = real(fd, data, len, at_byte);
    if (ours)
        reach_commit(STEP_INTENT_WRITE, STEP_OUTCOME_WRITE);
    return n;
}

static int sync_with(int fd, int (*real)(int))
{
    bool ours = watches_files() && is_store(fd);
    int r;

    if (!ours)
        return real(fd);
    if (fails('s'))
        return -1;
    reach_commit(STEP_INTENT_SYNC, STEP_OUTCOME_SYNC);
    r = real(fd);
    reach_commit(STEP_INTENT, STEP_OUTCOME);
    return r;
}

VISIBLE int fdatasync(int fd)
{
    static int (*real)(int);

    if (!real)
        *(void **)&real = next_of("fdatasync");
    return sync_with(fd, real);
}

VISIBLE int fsync(int fd)
{
    static int (*real)(int);

    if (!real)
        *(void **)&real = next_of("fsync");
    return sync_with(fd, real);
}
