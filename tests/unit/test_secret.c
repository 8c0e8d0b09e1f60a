#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The sanitizers turn mlock into nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MLOCK_IS_IGNORED true
#else
#define MLOCK_IS_IGNORED false
#endif

static void die(int signum)
{
    (void)signum;
    kill(getpid(), SIGKILL);
}

enum ending { FINISHED, FAULTED };

/* How `body` ended in a forked child; what else it returned is a failure. A
 * child never exits by itself when all is well: valgrind would look for leaks
 * then, and find the parent's. */
static bool child_ends(enum ending wanted, void (*body)(void *), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, wanted == FAULTED ? die : SIG_DFL);
        body(arg);
        if (wanted == FINISHED)
            die(0);
        _exit(1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void new_is_empty(void **state)
{
    (void)state;
    SECRET s = NULL;
    assert_int_equal(secret_new(&s, 100, NULL), OK);
    assert_int_equal(secret_len(s), 0);
    assert_int_equal(secret_capacity(s), 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(secret_data(s)[i], 0);
    secret_set_len(s, 1000);
    assert_int_equal(secret_len(s), 100);
    secret_free(NULL);
}

static void sizes_are_bounded(void **state)
{
    (void)state;
    SECRET s = NULL;
    struct error e;
    assert_int_equal(secret_new(&s, SECRET_MAX, NULL), OK);
    memset(secret_bytes(s), 1, SECRET_MAX);
    secret_freep(&s);
    assert_null(s);
    assert_int_equal(secret_new(&s, SECRET_MAX + 1, &e), ERR_INVALID);
    assert_null(s);
    assert_int_equal(secret_new(&s, 0, NULL), OK);
    assert_int_equal(secret_capacity(s), 0);
}

/* VmFlags of the mapping that holds `address`. */
static void mapping_flags(const void *address, char *flags, size_t cap)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    bool inside = false;
    flags[0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2 && strchr(line, '-') &&
            line[0] != 'V')
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, cap, "%s", line + 8);
    }
    if (f)
        fclose(f);
}

static void pages_are_locked_and_not_dumped(void **state)
{
    (void)state;
    SECRET s = NULL;
    char flags[512];
    assert_int_equal(secret_dup(&s, "x", 1, NULL), OK);
    mapping_flags(secret_data(s), flags, sizeof flags);
    assert_true(MLOCK_IS_IGNORED || strstr(flags, " lo")); /* locked */
    assert_non_null(strstr(flags, " dd"));                 /* don't dump */
    assert_non_null(strstr(flags, " wf"));                 /* wipe on fork */
    const uint8_t *page =
        (const uint8_t *)((uintptr_t)secret_data(s) & ~(uintptr_t)4095);
    mapping_flags(page - 1, flags, sizeof flags);
    assert_null(strstr(flags, " rd")); /* guard pages */
    mapping_flags(secret_data(s) + 1, flags, sizeof flags);
    assert_null(strstr(flags, " rd"));
}

static void write_beyond(void *arg)
{
    struct secret *s = arg;
    volatile uint8_t *p = secret_bytes(s);
    p[secret_capacity(s)] = 1;
}

static void write_before(void *arg)
{
    struct secret *s = arg;
    volatile uint8_t *p = secret_bytes(s);
    p[-4096] = 1;
}

static void guards_catch_overruns(void **state)
{
    (void)state;
    SECRET s = NULL;
    assert_int_equal(secret_new(&s, 33, NULL), OK);
    assert_true(child_ends(FAULTED, write_beyond, s));
    assert_true(child_ends(FAULTED, write_before, s));
}

static void expect_zeros(void *arg)
{
    struct secret *s = arg;
    for (size_t i = 0; i < secret_capacity(s); i++)
        if (secret_data(s)[i] != 0)
            _exit(1);
    secret_free(s);
}

static void fork_wipes(void **state)
{
    (void)state;
    SECRET s = NULL;
    assert_int_equal(secret_dup(&s, "parent's secret", 15, NULL), OK);
    assert_true(child_ends(FINISHED, expect_zeros, s));
    assert_memory_equal(secret_data(s), "parent's secret", 15);
}

static void free_unmaps(void **state)
{
    (void)state;
    struct secret *s = NULL;
    unsigned char resident;
    assert_int_equal(secret_dup(&s, "x", 1, NULL), OK);
    void *page = (void *)((uintptr_t)secret_data(s) & ~(uintptr_t)4095);
    assert_int_equal(mincore(page, 4096, &resident), 0);
    secret_free(s);
    assert_int_equal(mincore(page, 4096, &resident), -1);
    assert_int_equal(errno, ENOMEM);
}

static void allocate_without_right_to_lock(void *arg)
{
    (void)arg;
    struct rlimit none = {0, 0};
    struct secret *s;
    struct error e;
    setrlimit(RLIMIT_MEMLOCK, &none);
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        _exit(1);
    if (secret_new(&s, 10, &e) != ERR_NOMEM || s)
        _exit(2);
    if (!strstr(e.text, "RLIMIT_MEMLOCK"))
        _exit(3);
}

static void unlocked_pages_are_never_handed_out(void **state)
{
    (void)state;
    if (MLOCK_IS_IGNORED)
        skip();
    assert_true(child_ends(FINISHED, allocate_without_right_to_lock, NULL));
}

static void chomped(const char *in, const char *wanted)
{
    SECRET s = NULL;
    assert_int_equal(secret_dup(&s, in, strlen(in), NULL), OK);
    secret_chomp(s);
    assert_int_equal(secret_len(s), strlen(wanted));
    assert_memory_equal(secret_data(s), wanted, strlen(wanted));
}

static void one_line_end_is_cut(void **state)
{
    (void)state;
    chomped("pin\n", "pin");
    chomped("pin\r\n", "pin");
    chomped("pin\n\n", "pin\n");
    chomped("pin\r", "pin\r");
    chomped("pin", "pin");
    chomped("\n", "");
    chomped("", "");
}

static void equality(void **state)
{
    (void)state;
    SECRET a = NULL;
    SECRET b = NULL;
    SECRET c = NULL;
    SECRET d = NULL;
    assert_int_equal(secret_dup(&a, "12345", 5, NULL), OK);
    assert_int_equal(secret_dup(&b, "12345", 5, NULL), OK);
    assert_int_equal(secret_dup(&c, "12346", 5, NULL), OK);
    assert_int_equal(secret_dup(&d, "1234", 4, NULL), OK);
    assert_true(secret_equal(a, b));
    assert_false(secret_equal(a, c));
    assert_false(secret_equal(a, d));
}

static void pipes_carry_every_size(void **state)
{
    static const size_t sizes[] = {1, 164, 4096, 4097, SECRET_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        SECRET s = NULL;
        SECRET got = NULL;
        FD fd = -1;
        assert_int_equal(secret_new(&s, sizes[i], NULL), OK);
        for (size_t k = 0; k < sizes[i]; k++)
            secret_bytes(s)[k] = (uint8_t)(k * 7);
        secret_set_len(s, sizes[i]);
        assert_int_equal(secret_to_pipe(s, &fd, NULL), OK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(secret_from_fd(&got, fd, SECRET_MAX, 1000, true, NULL),
                         OK);
        assert_true(secret_equal(s, got));
    }
}

static int pipe_with(const char *text)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], text, strlen(text)), strlen(text));
    close(ends[1]);
    return ends[0];
}

static void empty_and_long_are_refused(void **state)
{
    (void)state;
    SECRET s = NULL;
    struct error e;
    FD empty = pipe_with("");
    assert_int_equal(secret_from_fd(&s, empty, 10, 1000, true, &e),
                     ERR_INVALID);
    assert_non_null(strstr(e.text, "empty"));
    FD longer = pipe_with("12345678901");
    assert_int_equal(secret_from_fd(&s, longer, 10, 1000, true, &e),
                     ERR_INVALID);
    assert_null(strstr(e.text, "1234"));
    FD fits = pipe_with("1234567890");
    assert_int_equal(secret_from_fd(&s, fits, 10, 1000, true, &e), OK);
    assert_int_equal(secret_len(s), 10);
}

static void only_pipes_of_strangers(void **state)
{
    (void)state;
    SECRET s = NULL;
    FD zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(secret_from_fd(&s, zero, 10, 1000, true, NULL),
                     ERR_INVALID);
    FD memory = memfd_create("x", MFD_CLOEXEC);
    assert_int_equal(write(memory, "pin", 3), 3);
    assert_int_equal(secret_from_fd(&s, memory, 10, 1000, true, NULL),
                     ERR_INVALID);
    assert_int_equal(secret_from_fd(&s, -1, 10, 1000, true, NULL), ERR_IO);
    assert_null(s);
}

static void files_are_read_from_where_they_stand(void **state)
{
    (void)state;
    char path[] = "/tmp/hsmint-secret-XXXXXX";
    FD fd = mkostemp(path, O_CLOEXEC);
    SECRET s = NULL;
    unlink(path);
    assert_int_equal(write(fd, "one two", 7), 7);
    lseek(fd, 4, SEEK_SET);
    assert_int_equal(secret_from_fd(&s, fd, 10, 1000, false, NULL), OK);
    assert_memory_equal(secret_data(s), "two", 3);
}

static void a_terminal_gives_one_line(void **state)
{
    (void)state;
    FD master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
        skip();
    FD slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    SECRET s = NULL;
    assert_true(slave >= 0);
    assert_int_equal(write(master, "4321\n", 5), 5);
    assert_int_equal(secret_from_fd(&s, slave, 10, 2000, false, NULL), OK);
    secret_chomp(s);
    assert_int_equal(secret_len(s), 4);
    assert_memory_equal(secret_data(s), "4321", 4);
}

static int64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void an_open_pipe_ends_by_the_deadline(void **state)
{
    (void)state;
    int ends[2];
    SECRET s = NULL;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    FD reader = ends[0];
    FD writer = ends[1];
    assert_int_equal(write(writer, "12", 2), 2);
    int64_t begin = real_ms();
    assert_int_equal(secret_from_fd(&s, reader, 10, 150, true, NULL),
                     ERR_DEADLINE);
    assert_null(s);
    assert_in_range(real_ms() - begin, 140, 5000);
}

struct thief {
    int fd;
    _Atomic bool stop;
};

/* Takes our bytes and makes the shared end blocking again. */
static void *steal(void *arg)
{
    struct thief *t = arg;
    char c;
    while (!t->stop) {
        fcntl(t->fd, F_SETFL, O_NONBLOCK);
        if (read(t->fd, &c, 1) < 0 && errno != EAGAIN)
            break;
        fcntl(t->fd, F_SETFL, 0);
    }
    return NULL;
}

static void a_stranger_cannot_hold_the_reader(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        int ends[2];
        SECRET s = NULL;
        pthread_t thread;
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        FD reader = ends[0];
        FD writer = ends[1];
        FD own = dup(reader); /* the same open pipe, as after SCM_RIGHTS */
        struct thief thief = {.fd = own};
        assert_int_equal(pthread_create(&thread, NULL, steal, &thief), 0);
        for (int i = 0; i < 20; i++)
            assert_int_equal(write(writer, "x", 1), 1);
        int64_t begin = real_ms();
        enum code rc = secret_from_fd(&s, reader, 8, 50, true, NULL);
        assert_true(rc == ERR_DEADLINE || rc == ERR_INVALID);
        assert_true(real_ms() - begin < 5000);
        thief.stop = true;
        fd_closep(&writer);
        pthread_join(thread, NULL);
    }
}

static void wipe_clears(void **state)
{
    (void)state;
    char b[] = "secret";
    wipe(b, 6);
    assert_memory_equal(b, "\0\0\0\0\0\0", 7);
    wipe(NULL, 0);
}

static void registers_are_cleared(void **state)
{
    (void)state;
#if defined(__x86_64__)
    uint64_t pattern = 0x5ec2e75ec2e75ec2, low = 1;
    __asm__ volatile("movq %0, %%xmm13" ::"r"(pattern) : "xmm13");
    secret_clear_registers();
    __asm__ volatile("movq %%xmm13, %0" : "=r"(low));
    assert_int_equal(low, 0);
    if (!__builtin_cpu_supports("avx512f"))
        return;
    uint64_t high[8] = {pattern, pattern, 0, 0, 0, 0, 0, pattern};
    __asm__ volatile(
        "vmovdqu64 %0, %%zmm31\n\tvmovdqu64 %0, %%zmm16" ::"m"(high));
    secret_clear_registers();
    __asm__ volatile("vporq %%zmm16, %%zmm31, %%zmm31\n\t"
                     "vmovdqu64 %%zmm31, %0"
                     : "=m"(high));
    for (int i = 0; i < 8; i++)
        assert_int_equal(high[i], 0);
#else
    secret_clear_registers();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_is_empty),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(pages_are_locked_and_not_dumped),
        cmocka_unit_test(guards_catch_overruns),
        cmocka_unit_test(fork_wipes),
        cmocka_unit_test(free_unmaps),
        cmocka_unit_test(unlocked_pages_are_never_handed_out),
        cmocka_unit_test(one_line_end_is_cut),
        cmocka_unit_test(equality),
        cmocka_unit_test(pipes_carry_every_size),
        cmocka_unit_test(empty_and_long_are_refused),
        cmocka_unit_test(only_pipes_of_strangers),
        cmocka_unit_test(files_are_read_from_where_they_stand),
        cmocka_unit_test(a_terminal_gives_one_line),
        cmocka_unit_test(an_open_pipe_ends_by_the_deadline),
        cmocka_unit_test(a_stranger_cannot_hold_the_reader),
        cmocka_unit_test(wipe_clears),
        cmocka_unit_test(registers_are_cleared),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
