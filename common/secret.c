#include "config.h"

#include "common/deadline.h"
#include "common/file.h"
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bytes end where the second guard page begins, so that the first one
 * written too far faults. */
struct secret {
    uint8_t *bytes;
    size_t len;
    size_t capacity;
    void *map; /* guard page, locked pages, guard page */
    size_t map_len;
};

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static enum code protect(struct secret *s, size_t page, struct error *e)
{
    uint8_t *inner = (uint8_t *)s->map + page;
    size_t len = s->map_len - 2 * page;
    if (mprotect(inner, len, PROT_READ | PROT_WRITE) != 0)
        return error_errno(e, errno, "mprotect");
    if (mlock(inner, len) != 0)
        return error_set(e, ERR_NOMEM,
                         "cannot lock %zu bytes of memory for a secret: raise "
                         "RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=)",
                         len);
    if (madvise(inner, len, MADV_DONTDUMP) != 0 ||
        madvise(inner, len, MADV_WIPEONFORK) != 0)
        return error_errno(e, errno, "madvise");
    return OK;
}

/* Without the bound of SECRET_MAX: readers need one byte more to see that
 * there is more. */
static enum code allocate(struct secret **out, size_t capacity, struct error *e)
{
    size_t page = page_size();
    SECRET s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return error_set(e, ERR_NOMEM, "out of memory");
    size_t pages = capacity ? (capacity + page - 1) / page : 1;
    s->map_len = (pages + 2) * page;
    s->map =
        mmap(NULL, s->map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return error_errno(e, errno, "mmap of a secret");
    }
    enum code rc = protect(s, page, e);
    if (rc)
        return rc;
    s->capacity = capacity;
    s->bytes = (uint8_t *)s->map + s->map_len - page - capacity;
    *out = s;
    s = NULL;
    return OK;
}

enum code secret_new(struct secret **out, size_t capacity, struct error *e)
{
    *out = NULL;
    if (capacity > SECRET_MAX)
        return error_set(e, ERR_INVALID, "a secret of %zu bytes: at most %d",
                         capacity, SECRET_MAX);
    return allocate(out, capacity, e);
}

enum code secret_dup(struct secret **out, const void *data, size_t len,
                     struct error *e)
{
    enum code rc = secret_new(out, len, e);
    if (rc)
        return rc;
    if (len)
        memcpy((*out)->bytes, data, len);
    (*out)->len = len;
    return OK;
}

void secret_free(struct secret *s)
{
    if (!s)
        return;
    if (s->bytes)
        wipe(s->bytes, s->capacity);
    if (s->map)
        munmap(s->map, s->map_len); /* unlocks */
    free(s);
}

void secret_freep(struct secret **s)
{
    secret_free(*s);
    *s = NULL;
}

uint8_t *secret_bytes(struct secret *s)
{
    return s->bytes;
}

const uint8_t *secret_data(const struct secret *s)
{
    return s->bytes;
}

size_t secret_len(const struct secret *s)
{
    return s->len;
}

size_t secret_capacity(const struct secret *s)
{
    return s->capacity;
}

void secret_set_len(struct secret *s, size_t len)
{
    s->len = len < s->capacity ? len : s->capacity;
}

void secret_chomp(struct secret *s)
{
    if (s->len && s->bytes[s->len - 1] == '\n')
        s->bytes[--s->len] = 0;
    else
        return;
    if (s->len && s->bytes[s->len - 1] == '\r')
        s->bytes[--s->len] = 0;
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
    if (a->len != b->len)
        return false;
    volatile uint8_t differ = 0;
    for (size_t i = 0; i < a->len; i++)
        differ |= a->bytes[i] ^ b->bytes[i];
    return differ == 0;
}

enum code secret_to_pipe(const struct secret *s, int *fd, struct error *e)
{
    int ends[2];
    *fd = -1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_errno(e, errno, "pipe");
    FD reader = ends[0];
    FD writer = ends[1];
    /* A user with many pipes gets them one page small. Never block: nobody
     * reads yet. */
    if (s->len > PIPE_BUF && fcntl(writer, F_SETPIPE_SZ, SECRET_MAX) < 0)
        return error_errno(e, errno, "pipe for a secret of %zu bytes", s->len);
    if (fcntl(writer, F_SETFL, O_NONBLOCK) != 0)
        return error_errno(e, errno, "fcntl");
    ssize_t n = s->len ? write(writer, s->bytes, s->len) : 0;
    if (n < 0)
        return error_errno(e, errno, "write of a secret to a pipe");
    if ((size_t)n != s->len)
        return error_set(e, ERR_LIMIT, "no pipe holds a secret of %zu bytes",
                         s->len);
    *fd = reader;
    reader = -1;
    return OK;
}

/* One read from a stranger's pipe. He may drain it after our poll and clear
 * O_NONBLOCK, which the two ends share; a splice into a pipe of our own does
 * not block whatever he does. */
static ssize_t read_pipe(int fd, const int own[2], uint8_t *to, size_t room)
{
    ssize_t n = splice(fd, NULL, own[1], NULL, room, SPLICE_F_NONBLOCK);
    if (n <= 0)
        return n;
    return read(own[0], to, (size_t)n);
}

struct source {
    int fd;
    bool pipe;
    bool line; /* a terminal: its line is the whole */
    int own[2];
};

static ssize_t read_some(const struct source *src, struct secret *s)
{
    uint8_t *to = s->bytes + s->len;
    size_t room = s->capacity - s->len;
    if (src->pipe)
        return read_pipe(src->fd, src->own, to, room);
    return read(src->fd, to, room);
}

static enum code read_all(const struct source *src, struct secret *s,
                          int64_t end, struct error *e)
{
    while (s->len < s->capacity) {
        enum code rc = deadline_wait(src->fd, POLLIN, end, e);
        if (rc)
            return rc == ERR_DEADLINE
                       ? error_set(e, rc, "the secret did not arrive in time")
                       : rc;
        ssize_t n = read_some(src, s);
        if (n == 0)
            return OK;
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return error_errno(e, errno, "read of a secret");
        s->len += (size_t)n;
        if (src->line && s->bytes[s->len - 1] == '\n')
            return OK;
    }
    return OK;
}

static enum code open_source(struct source *src, int fd, bool pipe_only,
                             struct error *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_errno(e, errno, "descriptor of a secret");
    *src = (struct source){.fd = fd, .own = {-1, -1}};
    src->pipe = S_ISFIFO(st.st_mode);
    if (pipe_only && !src->pipe)
        return error_set(e, ERR_INVALID,
                         "the secret's descriptor is no pipe: send the read "
                         "end of one");
    src->line = S_ISCHR(st.st_mode) && isatty(fd);
    if (src->pipe && pipe2(src->own, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(e, errno, "pipe");
    return OK;
}

enum code secret_from_fd(struct secret **out, int fd, size_t max,
                         int deadline_ms, bool pipe_only, struct error *e)
{
    *out = NULL;
    if (max > SECRET_MAX)
        max = SECRET_MAX;
    struct source src;
    enum code rc = open_source(&src, fd, pipe_only, e);
    if (rc)
        return rc;
    FD own_reader = src.own[0];
    FD own_writer = src.own[1];
    (void)own_reader;
    (void)own_writer;
    SECRET s = NULL;
    rc = allocate(&s, max + 1, e);
    if (rc)
        return rc;
    rc = read_all(&src, s, deadline_after(deadline_ms), e);
    if (rc)
        return rc;
    if (s->len == 0)
        return error_set(e, ERR_INVALID, "the secret is empty");
    if (s->len > max)
        return error_set(e, ERR_INVALID, "the secret is longer than %zu bytes",
                         max);
    *out = s;
    s = NULL;
    return OK;
}

void wipe(void *p, size_t len)
{
    if (len)
        explicit_bzero(p, len);
}

#if defined(__x86_64__)
static void clear_zmm(void)
{
    __asm__ volatile("vpxorq %%zmm16, %%zmm16, %%zmm16\n\t"
                     "vpxorq %%zmm17, %%zmm17, %%zmm17\n\t"
                     "vpxorq %%zmm18, %%zmm18, %%zmm18\n\t"
                     "vpxorq %%zmm19, %%zmm19, %%zmm19\n\t"
                     "vpxorq %%zmm20, %%zmm20, %%zmm20\n\t"
                     "vpxorq %%zmm21, %%zmm21, %%zmm21\n\t"
                     "vpxorq %%zmm22, %%zmm22, %%zmm22\n\t"
                     "vpxorq %%zmm23, %%zmm23, %%zmm23\n\t"
                     "vpxorq %%zmm24, %%zmm24, %%zmm24\n\t"
                     "vpxorq %%zmm25, %%zmm25, %%zmm25\n\t"
                     "vpxorq %%zmm26, %%zmm26, %%zmm26\n\t"
                     "vpxorq %%zmm27, %%zmm27, %%zmm27\n\t"
                     "vpxorq %%zmm28, %%zmm28, %%zmm28\n\t"
                     "vpxorq %%zmm29, %%zmm29, %%zmm29\n\t"
                     "vpxorq %%zmm30, %%zmm30, %%zmm30\n\t"
                     "vpxorq %%zmm31, %%zmm31, %%zmm31" ::
                         : "memory");
}

#define LOW_REGISTERS                                                          \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",    \
        "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static void clear_ymm(void)
{
    __asm__ volatile("vzeroall" ::: LOW_REGISTERS, "memory");
}

static void clear_xmm(void)
{
    __asm__ volatile("pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\t"
                     "pxor %%xmm2, %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
                     "pxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
                     "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\t"
                     "pxor %%xmm8, %%xmm8\n\tpxor %%xmm9, %%xmm9\n\t"
                     "pxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
                     "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\t"
                     "pxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15" ::
                         : LOW_REGISTERS, "memory");
}

void secret_clear_registers(void)
{
    /* zmm16-31 exist only with AVX-512; the compiler does not use them here
     * unless it was told to, and then no value lives across a call. */
    if (__builtin_cpu_supports("avx512f"))
        clear_zmm();
    if (__builtin_cpu_supports("avx"))
        clear_ymm();
    else
        clear_xmm();
}
#else
/* Elsewhere no memcpy was measured to leave a whole secret behind. */
void secret_clear_registers(void)
{
}
#endif
