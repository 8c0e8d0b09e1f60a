/* A full disk: what is refused, what goes on, and that it works again. On a
 * small tmpfs of the test's own, in a mount namespace of its own. */
#include "config.h"

#include "common/clock.h"
#include "tests/unit/store_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

#define RESERVE (512 * 1024)

/* Time goes by when the test says so. */
static int64_t now_ms = 1000000;
static int64_t fake_ms(void *ctx)
{
    (void)ctx;
    return now_ms;
}
static const struct clock_source fake = {fake_ms, fake_ms, fake_ms, NULL};

static bool have_mounts;

static void write_text(const char *path, const char *text)
{
    FD fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)!write(fd, text, strlen(text));
}

static int enter_namespace(void **state)
{
    (void)state;
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWNS) != 0) {
        char map[64];
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return 0;
        snprintf(map, sizeof(map), "%u %u 1", uid, uid);
        write_text("/proc/self/setgroups", "deny");
        write_text("/proc/self/uid_map", map);
        snprintf(map, sizeof(map), "%u %u 1", gid, gid);
        write_text("/proc/self/gid_map", map);
    }
    have_mounts = mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0;
    return 0;
}

static int disk_set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    make_dir(f->dir, sizeof(f->dir));
    *state = f;
    return 0;
}

static bool mount_small(struct fixture *f)
{
    return have_mounts && mount("none", f->dir, "tmpfs", MS_NOSUID | MS_NODEV,
                                "size=4m,mode=0700") == 0;
}

#define NEEDS_DISK(f)                                                          \
    do {                                                                       \
        if (!mount_small(f)) {                                                 \
            print_message("no mount namespace here: %s\n", strerror(errno));   \
            skip();                                                            \
        }                                                                      \
    } while (0)

static int disk_tear_down(void **state)
{
    struct fixture *f = *state;
    clock_replace(NULL);
    store_close(f->s);
    if (have_mounts)
        (void)umount2(f->dir, MNT_DETACH);
    remove_dir(f->dir);
    free(f);
    return 0;
}

/* Takes all that is free. */
static void fill_disk(const struct fixture *f)
{
    char path[300], block[4096] = "x";
    snprintf(path, sizeof(path), "%s/filler", f->dir);
    FD fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
}

static void free_disk(const struct fixture *f)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/filler", f->dir);
    assert_int_equal(unlink(path), 0);
}

static bool reserve_file(const struct fixture *f)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/reserve", f->dir);
    return access(path, F_OK) == 0;
}

static char line[30000];

static enum code add_record(struct store_tx *tx, void *ctx, struct error *e)
{
    int64_t sequence;
    (void)ctx;
    return store_record_add(tx, line, &sequence, e);
}

static enum code count_record(int64_t sequence, const char *text, void *ctx,
                              struct error *e)
{
    (void)sequence;
    (void)e;
    assert_string_equal(text, line);
    ++*(int *)ctx;
    return OK;
}

static int count_records(struct fixture *f)
{
    int n = 0;
    SUCCEEDS(store_record_each(f->s, 0, 0, count_record, &n, e));
    return n;
}

static void open_with_records(struct fixture *f, uint64_t reserve)
{
    memset(line, 'x', sizeof(line) - 1);
    open_store(f, reserve);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_default, &f->org, e));
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
}

static void below_the_reserve_mints_are_refused(void **state)
{
    struct fixture *f = *state;
    NEEDS_DISK(f);
    clock_replace(&fake);
    open_with_records(f, RESERVE);
    assert_true(reserve_file(f));
    fill_disk(f);
    now_ms += 1000; /* it looks once a second */
    FAILS(ERR_DISK_FULL, store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
    assert_int_equal(count_records(f), 1);
    assert_true(reserve_file(f)); /* a mint never takes it */

    free_disk(f);
    FAILS(ERR_DISK_FULL, store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
    now_ms += 1000;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
    assert_int_equal(count_records(f), 2);
}

static void revocations_go_on_from_the_reserve(void **state)
{
    struct fixture *f = *state;
    NEEDS_DISK(f);
    clock_replace(&fake);
    open_with_records(f, RESERVE);
    fill_disk(f);
    now_ms += 1000;
    int done = 1;
    while (reserve_file(f) && done < 40) {
        SUCCEEDS(store_commit(f->s, STORE_RESERVE, add_record, NULL, e));
        done++;
    }
    assert_false(reserve_file(f));
    SUCCEEDS(store_commit(f->s, STORE_RESERVE, add_record, NULL, e));
    assert_int_equal(count_records(f), done + 1);
    FAILS(ERR_DISK_FULL, store_commit(f->s, STORE_NORMAL, add_record, NULL, e));

    /* To the very end: what failed left nothing, what is there can be read. */
    int64_t more = 0;
    struct error last = {.code = OK};
    while (store_commit(f->s, STORE_RESERVE, add_record, NULL, &last) == OK)
        more++;
    assert_int_equal(last.code, ERR_DISK_FULL);
    assert_int_equal(count_records(f), done + 1 + more);

    free_disk(f);
    now_ms += 1000;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
    assert_true(reserve_file(f)); /* made again */
    close_store(f);
    open_store(f, RESERVE);
    assert_int_equal(count_records(f), done + 2 + more);
}

static void opens_on_a_full_disk(void **state)
{
    struct fixture *f = *state;
    NEEDS_DISK(f);
    open_with_records(f, RESERVE);
    close_store(f);
    fill_disk(f);
    open_store(f, RESERVE);
    assert_int_equal(count_records(f), 1);
    FAILS(ERR_DISK_FULL, store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
    SUCCEEDS(store_commit(f->s, STORE_RESERVE, add_record, NULL, e));
    close_store(f);
    free_disk(f);
}

static void new_store_on_a_full_disk(void **state)
{
    struct fixture *f = *state;
    NEEDS_DISK(f);
    fill_disk(f);
    struct store_options o = {.dir = f->dir, .disk_reserve = RESERVE};
    FAILS(ERR_DISK_FULL, store_open(&f->s, &o, e));
    free_disk(f);
    open_store(f, RESERVE);
}

static void read_only_file_system_is_named(void **state)
{
    struct fixture *f = *state;
    NEEDS_DISK(f);
    open_with_records(f, 0);
    close_store(f);
    assert_int_equal(
        mount("none", f->dir, "none", MS_REMOUNT | MS_RDONLY, NULL), 0);
    struct store_options o = {.dir = f->dir};
    FAILS(ERR_READ_ONLY, store_open(&f->s, &o, e));
    assert_int_equal(mount("none", f->dir, "none", MS_REMOUNT, NULL), 0);
    open_store(f, 0);
    assert_int_equal(count_records(f), 1);
}

/* ---- a batch on a full disk ---- */

#define MEMBERS 8
static atomic_int waiting;

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static enum code hold(struct store_tx *tx, void *ctx, struct error *e)
{
    (void)tx;
    (void)ctx;
    (void)e;
    while (atomic_load(&waiting) < MEMBERS)
        sleep_ms(1);
    sleep_ms(50);
    return OK;
}

static void *hold_writer(void *arg)
{
    struct fixture *f = arg;
    SUCCEEDS(store_commit(f->s, STORE_RESERVE, hold, NULL, e));
    return NULL;
}

struct member {
    struct fixture *f;
    enum store_urgency urgency;
    enum code result;
};

static void *commit_member(void *arg)
{
    struct member *m = arg;
    struct error e = {.code = OK};
    atomic_fetch_add(&waiting, 1);
    m->result = store_commit(m->f->s, m->urgency, add_record, NULL, &e);
    return NULL;
}

/* Runs MEMBERS commits in one batch; every second one may use the reserve. */
static void run_batch(struct fixture *f, struct member *members)
{
    pthread_t holder, threads[MEMBERS];
    atomic_store(&waiting, 0);
    assert_int_equal(pthread_create(&holder, NULL, hold_writer, f), 0);
    sleep_ms(50);
    for (int i = 0; i < MEMBERS; i++) {
        members[i] = (struct member){
            .f = f, .urgency = i % 2 ? STORE_RESERVE : STORE_NORMAL};
        assert_int_equal(
            pthread_create(&threads[i], NULL, commit_member, &members[i]), 0);
    }
    pthread_join(holder, NULL);
    for (int i = 0; i < MEMBERS; i++)
        pthread_join(threads[i], NULL);
}

/* The low-water mark was looked at before the disk filled up, so all members
 * are let in, and the commit fails. */
static void batch_shares_the_failure_but_not_the_reserve(void **state)
{
    struct fixture *f = *state;
    NEEDS_DISK(f);
    clock_replace(&fake);
    open_with_records(f, RESERVE);
    fill_disk(f);
    struct member members[MEMBERS];
    run_batch(f, members);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(members[i].result, i % 2 ? OK : ERR_DISK_FULL);
    assert_false(reserve_file(f));
    assert_int_equal(count_records(f), 1 + MEMBERS / 2);
    free_disk(f);
    now_ms += 1000;
    run_batch(f, members);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(members[i].result, OK);
}

/* ---- everywhere: a file that may not grow ---- */

static void file_size_limit(void **state)
{
    struct fixture *f = *state;
    signal(SIGXFSZ, SIG_IGN);
    open_with_records(f, 0);
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){.rlim_cur = 200000, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    struct error why = {.code = OK};
    int done = 1;
    while (store_commit(f->s, STORE_RESERVE, add_record, NULL, &why) == OK &&
           done < 100)
        done++;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(why.code, ERR_DISK_FULL);
    assert_int_equal(count_records(f), done);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, NULL, e));
    close_store(f);
    open_store(f, 0);
    assert_int_equal(count_records(f), done + 1);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, disk_set_up, disk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(below_the_reserve_mints_are_refused),
        TEST(revocations_go_on_from_the_reserve),
        TEST(opens_on_a_full_disk),
        TEST(new_store_on_a_full_disk),
        TEST(read_only_file_system_is_named),
        TEST(batch_shares_the_failure_but_not_the_reserve),
        TEST(file_size_limit),
    };
    return cmocka_run_group_tests_name("store: disk", tests, enter_namespace,
                                       NULL);
}
