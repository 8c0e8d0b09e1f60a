/* The whole memory and all vector registers of the keeper, read from outside
 * by root: while a call hangs the admin key is found, between calls nothing of
 * it, of a new admin key, of a minted key or of the PIN is. */
#include "config.h"

#include "tests/unit/keeper_fixture.h"

#include <dirent.h>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define PIECE 20 /* bytes of a needle that count as a find */
#define NEW_KEY "sk-admin-N3wAdm1nKeyFromTheServ1ce-9876543210zyxwvutsrqponmABC"
#define MINTED "sk-svcacct-M1ntedKey0fALease-5555555555kjihgfedcbaKJIHGFEDCBA"
#define LEASE "01kbzexamp1e00000000000000"

/* Three pieces, so that a copy that was cut or half overwritten is seen. */
static size_t count_in(const uint8_t *data, size_t len, const char *needle)
{
    size_t found = 0, n = strlen(needle);
    const size_t at[] = {0, (n - PIECE) / 2, n - PIECE};
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *p = data, *end = data + len;
        while ((p = memmem(p, (size_t)(end - p), needle + at[i], PIECE))) {
            found++;
            p++;
        }
    }
    return found;
}

static size_t count_memory(pid_t pid, const char *needle)
{
    char path[64], line[512];
    size_t found = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    FD mem = open(path, O_RDONLY | O_CLOEXEC);
    assert_non_null(maps);
    assert_true(mem >= 0);
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx", &from, &to) != 2 || strstr(line, "[v"))
            continue;
        uint8_t *copy = malloc(to - from);
        assert_non_null(copy);
        ssize_t n = pread(mem, copy, to - from, (off_t)from);
        size_t here = n > 0 ? count_in(copy, (size_t)n, needle) : 0;
        if (here > 0)
            print_message("# %zu in %s", here, line);
        found += here;
        free(copy);
    }
    fclose(maps);
    return found;
}

/* A register holds at most 64 bytes in one stretch; xsave keeps the halves of
 * one apart, so 16 bytes are looked for. */
static size_t count_thread(pid_t tid, const char *needle)
{
    static uint8_t area[65536];
    struct iovec v = {area, sizeof area};
    size_t found = 0;
    int status;
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) ||
        ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) ||
        waitpid(tid, &status, __WALL) != tid)
        fail_msg("cannot stop thread %d", (int)tid);
    assert_int_equal(ptrace(PTRACE_GETREGSET, tid, (void *)NT_X86_XSTATE, &v),
                     0);
    for (size_t i = 0; i + 16 <= strlen(needle); i++)
        found += memmem(area, v.iov_len, needle + i, 16) != NULL;
    ptrace(PTRACE_DETACH, tid, NULL, NULL);
    return found;
}

static size_t count_registers(pid_t pid, const char *needle)
{
    char path[64];
    size_t found = 0, threads = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *t = readdir(d); t; t = readdir(d)) {
        if (t->d_name[0] == '.')
            continue;
        found += count_thread((pid_t)atoi(t->d_name), needle);
        threads++;
    }
    closedir(d);
    assert_true(threads > CHANNELS);
    return found;
}

static void find_nothing(pid_t pid, const char *needle)
{
    size_t memory = count_memory(pid, needle);
    size_t registers = count_registers(pid, needle);
    if (memory + registers > 0)
        fail_msg("%.12s…: %zu in memory, %zu in registers", needle, memory,
                 registers);
}

static void *hang(void *ctx)
{
    struct fixture mine = *(struct fixture *)ctx;
    FRAME r = FRAME_INIT;
    (void)call_on(&mine, 1, "GET", PROJECTS, NULL, &r);
    return NULL;
}

/* Proves that the search finds what is there. */
static void positive_control(struct fixture *f)
{
    pthread_t thread;
    int before = f->server.requests;
    httpd_next(&f->server, (struct httpd_step){.act = HTTPD_HANG});
    assert_int_equal(pthread_create(&thread, NULL, hang, f), 0);
    for (int i = 0; i < 60000 && f->server.requests == before; i++)
        usleep(1000);
    assert_true(f->server.requests > before);
    assert_true(count_memory(f->pid, ADMIN_KEY) > 0);
    httpd_release(&f->server);
    pthread_join(thread, NULL);
}

static void calls_of_all_kinds(struct fixture *f)
{
    static const enum httpd_act acts[] = {HTTPD_REPLY,    HTTPD_DROP,
                                          HTTPD_CLOSE,    HTTPD_TRUNCATE,
                                          HTTPD_OVERSIZE, HTTPD_REPLY};
    FRAME r = FRAME_INIT;
    for (int i = 0; i < 100; i++) {
        httpd_next(&f->server,
                   (struct httpd_step){
                       .act = acts[i % 6],
                       .status = i % 7 == 0 ? 429 : 200,
                       .body = "{\"id\":\"svc_acct_1\",\"api_key\":{\"value\":"
                               "\"" MINTED "\"}}"});
        (void)call_on(f, i % CHANNELS, "POST", ACCOUNTS, "{\"name\":\"x\"}",
                      &r);
        usleep(1000);
    }
    for (int i = 0; i < 4; i++) {
        httpd_next(&f->server,
                   (struct httpd_step){.body = "{\"id\":\"key_2\",\"value\":"
                                               "\"" NEW_KEY "\"}"});
        expect(OK, call_on(f, i, "POST", ADMIN_KEYS, "{\"name\":\"n\"}", &r));
    }
}

static void values_too(struct fixture *f)
{
    FRAME blob = FRAME_INIT;
    FRAME r = FRAME_INIT;
    json_t *lease = json_pack("{s:s, s:s}", "org", "main", "lease", LEASE);
    expect(OK, ask_on(f, 2, VERB_SEAL_VALUE, json_incref(lease), MINTED,
                      strlen(MINTED), -1, &blob));
    expect(OK, ask_on(f, 2, VERB_UNWRAP_VALUE, lease, blob.body, blob.body_len,
                      -1, &r));
    expect(OK, ask_on(f, 2, VERB_PROBE,
                      json_pack("{s:s, s:s, s:s}", "org", "main", "lease",
                                LEASE, "api_base", f->endpoint),
                      blob.body, blob.body_len, -1, &r));
    expect(OK, ask_on(f, 2, VERB_HMAC, json_pack("{s:s}", "purpose", "value"),
                      MINTED, strlen(MINTED), -1, &r));
}

static void nothing_between_calls(void **state)
{
    struct fixture *f = *state;
    if (getuid() != 0)
        skip(); /* nobody else may look */
    ready_with_key(f);
    positive_control(f);
    calls_of_all_kinds(f);
    values_too(f);
    find_nothing(f->pid, ADMIN_KEY);
    find_nothing(f->pid, NEW_KEY);
    find_nothing(f->pid, MINTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_between_calls, keeper_setup,
                                        keeper_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
