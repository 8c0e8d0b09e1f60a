/* bench_audit - how long a log takes to verify, and how much memory.
 *
 *     bench_audit RECORDS HSMINT
 *
 * Makes a log of RECORDS (half of them signed calls) in tiles and in lines
 * below $TMPDIR, has HSMINT verify both, and prints a line each:
 *
 *     tiles 1000000 records, 712 MB: 41.2 s, 9.8 MiB
 *
 * Exit status 1 where one takes more than 60 s or 64 MiB a million records, or
 * does not hold. On a loaded machine the time is the processor's. */
#include "config.h"

#include "tests/unit/audit_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_US 60 /* a record */
#define LIMIT_KB (64 * 1024)
#define UNMEASURED 100000 /* below, starting the program counts too much */

static uint64_t bytes;

/* Lines are written, and let go: the log is larger than memory may be. */
static void put(struct fake_log *l, struct export *x, FILE *out, size_t from)
{
    for (size_t i = from; i < l->n; i++) {
        size_t len = strlen(l->lines[i]);
        assert_int_equal(export_add(x, l->lines[i], len, NULL), OK);
        fprintf(out, "%s\n", l->lines[i]);
        bytes += len;
        free(l->lines[i]);
        l->lines[i] = NULL;
    }
}

static void make(const char *tiles, const char *lines, size_t records)
{
    struct fake_log l;
    struct export *x = NULL;
    fake_log_new(&l);
    assert_int_equal(export_open(&x, tiles, NULL), OK);
    FILE *out = fopen(lines, "w");
    assert_non_null(out);
    put(&l, x, out, 0);
    while (l.n < records) {
        size_t from = l.n;
        fake_log_grow(&l, records - l.n < 1000 ? records : l.n + 1000);
        put(&l, x, out, from);
    }
    FREE char *note = fake_log_checkpoint(&l);
    assert_int_equal(export_finish(x, note, strlen(note), NULL), OK);
    fprintf(out, "\n%s", note);
    assert_int_equal(fclose(out), 0);
    export_free(x);
    fake_log_clear(&l);
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* False: it took too much, or does not hold. */
static bool verify(const char *what, const char *path, const char *program,
                   size_t records)
{
    struct rusage u;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(nowhere, STDOUT_FILENO);
        execl(program, program, "audit", "verify", path, "--json", "--progress",
              (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &u) != pid)
        return false;
    double took = seconds(u.ru_utime) + seconds(u.ru_stime);
    printf("%s %zu records, %llu MB: %.1f s, %.1f MiB\n", what, records,
           (unsigned long long)(bytes / 1000000), took,
           (double)u.ru_maxrss / 1024);
    bool slow = records >= UNMEASURED &&
                took > (double)records * LIMIT_US / 1e6;
    return status == 0 && !slow && u.ru_maxrss <= LIMIT_KB;
}

static int remove_one(const char *p, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(p);
}

int main(int argc, char **argv)
{
    char place[200], tiles[256], lines[256];
    const char *tmp = getenv("TMPDIR");
    size_t records = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    if (records < 2) {
        fprintf(stderr, "usage: bench_audit RECORDS HSMINT\n");
        return 2;
    }
    snprintf(place, sizeof place, "%s/hsmint-bench-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(place))
        return 1;
    snprintf(tiles, sizeof tiles, "%s/tiles", place);
    snprintf(lines, sizeof lines, "%s/lines", place);
    make(tiles, lines, records);
    bool good = verify("tiles", tiles, argv[2], records);
    good = verify("lines", lines, argv[2], records) && good;
    nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return good ? 0 : 1;
}
