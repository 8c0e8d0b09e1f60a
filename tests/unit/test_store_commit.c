/* The writer: each commit its own result, whoever shares the transaction, and
 * what was answered is there after a SIGKILL. */
#include "config.h"

#include "tests/unit/store_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#define THREADS 16
#define ROUNDS 50

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static enum code count_lease(const struct store_lease *l, void *ctx,
                             struct error *e)
{
    (void)l;
    (void)e;
    ++*(int *)ctx;
    return OK;
}

static int count_leases(struct fixture *f)
{
    int n = 0;
    struct store_lease_query q = {.org = 0};
    SUCCEEDS(store_lease_each(f->s, &q, count_lease, &n, e));
    return n;
}

static enum code count_record(int64_t sequence, const char *line, void *ctx,
                              struct error *e)
{
    (void)line;
    (void)e;
    int64_t *n = ctx;
    assert_int_equal(sequence, ++*n); /* no gaps */
    return OK;
}

static int64_t count_records(struct fixture *f)
{
    int64_t n = 0;
    SUCCEEDS(store_record_each(f->s, 0, 0, count_record, &n, e));
    return n;
}

/* ---- many threads ---- */

struct work {
    struct fixture *f;
    int number;
    struct store_lease lease;
    int64_t sequence;
    bool fail;
    int failures;
    pthread_t ran_on;
};

/* A lease and its record: both or neither. */
static enum code lease_and_record(struct store_tx *tx, void *ctx,
                                  struct error *e)
{
    struct work *w = ctx;
    w->ran_on = pthread_self();
    enum code code = store_lease_insert(tx, &w->lease, e);
    if (code == OK)
        code = store_record_add(tx, w->lease.id, &w->sequence, e);
    if (code == OK && w->fail)
        return error_set(e, ERR_DENIED, "member %d gives up", w->number);
    return code;
}

static void *commit_many(void *arg)
{
    struct work *w = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct error e = {.code = OK};
        w->lease = some_lease(w->f->org);
        w->fail = (w->number + i) % 5 == 0;
        enum code code =
            store_commit(w->f->s, STORE_NORMAL, lease_and_record, w, &e);
        if (code != (w->fail ? ERR_DENIED : OK) || e.code != code)
            w->failures++;
        char expected[64];
        snprintf(expected, sizeof(expected), "member %d gives up", w->number);
        if (w->fail && strcmp(e.text, expected) != 0)
            w->failures++;
    }
    return NULL;
}

static void each_member_has_its_own_result(void **state)
{
    struct fixture *f = *state;
    struct work work[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        work[i] = (struct work){.f = f, .number = i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, commit_many, &work[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(work[i].failures, 0);
    }
    int expected = THREADS * ROUNDS * 4 / 5;
    assert_int_equal(count_leases(f), expected);
    assert_int_equal(count_records(f), expected);
}

static void idle_writer_is_the_caller(void **state)
{
    struct fixture *f = *state;
    struct work w = {.f = f, .lease = some_lease(f->org)};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, lease_and_record, &w, e));
    assert_true(pthread_equal(w.ran_on, pthread_self()));
}

/* Holds the writer until all others wait, so that they share a transaction. */
static atomic_int waiting;

static enum code hold(struct store_tx *tx, void *ctx, struct error *e)
{
    (void)tx;
    (void)ctx;
    (void)e;
    while (atomic_load(&waiting) < THREADS)
        sleep_ms(1);
    sleep_ms(500); /* for the last one to queue up, on a busy machine too */
    return OK;
}

static void *hold_writer(void *arg)
{
    struct fixture *f = arg;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, hold, NULL, e));
    return NULL;
}

static void *commit_one(void *arg)
{
    struct work *w = arg;
    struct error e = {.code = OK};
    atomic_fetch_add(&waiting, 1);
    enum code code =
        store_commit(w->f->s, STORE_NORMAL, lease_and_record, w, &e);
    w->failures = code != (w->fail ? ERR_DENIED : OK);
    return NULL;
}

static void waiting_ones_share_a_transaction(void **state)
{
    struct fixture *f = *state;
    struct work work[THREADS];
    pthread_t threads[THREADS], holder;
    atomic_store(&waiting, 0);
    assert_int_equal(pthread_create(&holder, NULL, hold_writer, f), 0);
    sleep_ms(50);
    for (int i = 0; i < THREADS; i++) {
        work[i] = (struct work){
            .f = f, .number = i, .fail = i == 3, .lease = some_lease(f->org)};
        assert_int_equal(
            pthread_create(&threads[i], NULL, commit_one, &work[i]), 0);
    }
    pthread_join(holder, NULL);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(work[i].failures, 0);
        assert_true(pthread_equal(work[i].ran_on, work[0].ran_on));
        assert_false(pthread_equal(work[i].ran_on, threads[i]));
    }
    assert_int_equal(count_leases(f), THREADS - 1);
    assert_int_equal(count_records(f), THREADS - 1);
}

/* ---- SIGKILL ---- */

#define ANSWER (TEXT_ID_LEN + 1)

struct writer {
    struct fixture *f;
    int answers;
};

static void *write_until_killed(void *arg)
{
    struct writer *w = arg;
    for (;;) {
        struct work one = {.f = w->f, .lease = some_lease(w->f->org)};
        struct error e = {.code = OK};
        if (store_commit(w->f->s, STORE_NORMAL, lease_and_record, &one, &e))
            _exit(1);
        if (write(w->answers, one.lease.id, ANSWER) != ANSWER)
            _exit(1);
    }
}

static void be_killed(struct fixture *f, int answers)
{
    struct writer w = {f, answers};
    open_store(f, 0);
    for (int i = 0; i < 4; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, write_until_killed, &w) != 0)
            _exit(1);
    }
    for (;;)
        pause();
}

/* What was answered is there, and no lease is without its record. */
static int check_after_kill(struct fixture *f, int answers)
{
    int answered = 0;
    char id[ANSWER];
    open_store(f, 0);
    while (read(answers, id, ANSWER) == ANSWER) {
        struct store_lease l;
        SUCCEEDS(store_lease_get(f->s, id, &l, e));
        store_lease_clear(&l);
        answered++;
    }
    assert_int_equal(count_leases(f), count_records(f));
    close_store(f);
    return answered;
}

static void killed_in_the_middle(void **state)
{
    struct fixture *f = *state;
    int answered = 0;
    close_store(f);
    for (int round = 0; round < 10; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(pipes[0]);
            be_killed(f, pipes[1]);
        }
        close(pipes[1]);
        if (round % 2) /* the others may be killed before they have answered */
            assert_int_equal(poll(&(struct pollfd){.fd = pipes[0],
                                                   .events = POLLIN},
                                  1, 60000),
                             1);
        sleep_ms(40 + 13 * round);
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        answered += check_after_kill(f, pipes[0]);
        close(pipes[0]);
    }
    open_store(f, 0);
    assert_true(count_leases(f) >= answered);
    assert_true(answered > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_member_has_its_own_result),
        TEST(idle_writer_is_the_caller),
        TEST(waiting_ones_share_a_transaction),
        TEST(killed_in_the_middle),
    };
    return cmocka_run_group_tests_name("store: commit", tests, NULL, NULL);
}
